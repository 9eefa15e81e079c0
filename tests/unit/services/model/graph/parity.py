"""What `transformers` computes for small random checkpoints of each architecture.

`parity.npz` holds it, so that tests need no PyTorch. To make it again, with the `train` extra:

    python -m tests.unit.services.model.graph.parity

`make parity` installs the extra, and with --check compares what comes out with the file.
"""

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.unit.services.model import tiny

FILE = Path(__file__).with_suffix(".npz")
PROMPT_TOKENS, LOGITS, GREEDY_TOKENS = 80, 16, 64
"""The logits kept are those of the last positions: stretched angles show there most."""
_TOLERANCE = 1e-5
"""Of logits up to 7: processors add numbers up in different orders."""
_LONG = {"max_position_embeddings": 160, "intermediate_size": 64}
_LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A checkpoint."""

    family: str
    tied: bool
    changes: Mapping[str, object]

    def write(self, folder: Path) -> Path:
        """Write it; the same numbers every time."""
        return tiny.write(
            folder, family=self.family, tied=self.tied, changes={**_LONG, **self.changes}
        )


CASES = {
    "llama": Case(family="llama", tied=False, changes={}),
    "llama-linear": Case(
        family="llama",
        tied=True,
        changes={"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    ),
    "llama-3": Case(family="llama", tied=True, changes={"rope_scaling": _LLAMA3}),
    "mistral": Case(family="mistral", tied=False, changes={"sliding_window": None}),
    "qwen2": Case(family="qwen2", tied=True, changes={}),
    "qwen2-untied": Case(family="qwen2", tied=False, changes={}),
    "qwen3": Case(family="qwen3", tied=True, changes={}),
    "qwen3-yarn": Case(family="qwen3", tied=False, changes={"rope_scaling": _YARN}),
}


def digest(folder: Path) -> str:
    """Return the hash of the weights in *folder*."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def prompt() -> NDArray[np.int64]:
    """Return the tokens (T,) that every case is given."""
    return np.random.default_rng(11).integers(0, 256, PROMPT_TOKENS)


def _reference(folder: Path) -> dict[str, NDArray[Any]]:
    import torch  # noqa: PLC0415 - tests do without
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    tokens = torch.from_numpy(prompt())[None]
    with torch.inference_mode():
        logits = model(tokens).logits[0, -LOGITS:].numpy()
        for _ in range(GREEDY_TOKENS):
            following = model(tokens).logits[0, -1].argmax()
            tokens = torch.cat([tokens, following[None, None]], dim=1)
    return {
        "logits": logits,
        "greedy": tokens[0, PROMPT_TOKENS:].numpy(),
        "digest": np.array(digest(folder)),
    }


def made() -> dict[str, NDArray[Any]]:
    """Ask `transformers`."""
    found: dict[str, NDArray[Any]] = {}
    for name, case in CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            for what, value in _reference(case.write(Path(folder))).items():
                found[f"{name}/{what}"] = value
    return found


def differences(
    found: Mapping[str, NDArray[Any]], kept: Mapping[str, NDArray[Any]]
) -> Iterator[str]:
    """Yield what is not as it was kept."""
    for name in sorted(found.keys() ^ kept.keys()):
        yield f"{name} is in one only"
    for name in sorted(found.keys() & kept.keys()):
        one, other = found[name], kept[name]
        if one.shape != other.shape:
            yield f"{name} has shape {one.shape}, {other.shape} was kept"
        elif name.endswith("/logits"):
            apart = np.abs(one - other).max()
            if not apart <= _TOLERANCE:
                yield f"{name} are {apart:.1e} apart, {_TOLERANCE} is allowed"
        elif not np.array_equal(one, other):
            yield f"{name} differs"


def main() -> None:
    """Make the file again, or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare with the file")
    check, found = parser.parse_args().check, made()
    if not check:
        np.savez_compressed(FILE, **found)  # type: ignore[arg-type]
        return
    with np.load(FILE) as kept:
        wrong = list(differences(found, dict(kept)))
    for line in wrong:
        sys.stderr.write(f"{line}\n")
    sys.stdout.write(f"{len(CASES)} checkpoints: {len(wrong)} differences from {FILE.name}\n")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
