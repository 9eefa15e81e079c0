"""What `transformers` computes for small random encoders, pooled and scaled.

`encoders.npz` holds it, so that tests need no PyTorch. To make it again, with the `train` extra:

    python -m tests.unit.services.model.graph.encoders
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tests.unit.services.model import tiny_encoder
from tests.unit.services.model.graph.parity import digest

FILE = Path(__file__).with_suffix(".npz")
TEXTS = ("Hi", "What is the capital of France?", "eine längere Zeile, " * 3, "x")
POOLS = ("last", "mean", "first")


def _reference(folder: Path, pool: str) -> NDArray[np.float32]:
    """Return the vectors (N, D) of the texts."""
    import torch  # noqa: PLC0415 - tests do without
    from transformers import AutoModel  # noqa: PLC0415

    model = AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    rows = []
    for text in TEXTS:
        tokens = torch.tensor([tokenizer.encode(text).ids])
        with torch.inference_mode():
            hidden = model(tokens).last_hidden_state[0].numpy()
        row = {"last": hidden[-1], "mean": hidden.mean(axis=0), "first": hidden[0]}[pool]
        rows.append(row / np.linalg.norm(row))
    return np.stack(rows)


def main() -> None:
    """Make the file again."""
    found: dict[str, NDArray[Any]] = {}
    for pool in POOLS:
        with tempfile.TemporaryDirectory() as made:
            folder = tiny_encoder.write(Path(made), pool=pool)
            found[pool] = _reference(folder, pool)
            found["digest"] = np.array(digest(folder))
    np.savez_compressed(FILE, **found)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
