"""A random encoder that takes no time to make, in the format of Qwen3-Embedding."""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from tests.unit.services.model import tiny

PROMPTS = {"query": "Find what answers this: ", "document": ""}
MODES = {"last": "lasttoken", "mean": "mean_tokens", "first": "cls_token"}


def write(
    folder: Path, *, pool: str = "last", normalise: bool = True, bare: bool = True,
    default_prompt: str | None = None, max_tokens: int | None = None,
) -> Path:  # fmt: skip
    """Write a checkpoint that pools by *pool* and return its directory.

    *bare*: a decoder without an output projection, its weights named as such.
    """
    tiny.write(folder, family="qwen3", tied=not bare)
    _end_texts(folder)
    if bare:
        _strip(folder)
    kinds = ["Transformer", "Pooling", *["Normalize"] * normalise]
    modules = [
        {"type": f"sentence_transformers.models.{kind}", "path": f"{i}_{kind}" * bool(i)}
        for i, kind in enumerate(kinds)
    ]
    put(folder / "modules.json", modules)
    chosen = {f"pooling_mode_{mode}": name == pool for name, mode in MODES.items()}
    put(folder / "1_Pooling" / "config.json", {"include_prompt": True, **chosen})
    settings = {"prompts": PROMPTS, "default_prompt_name": default_prompt}
    put(folder / "config_sentence_transformers.json", settings)
    if max_tokens:
        put(folder / "sentence_bert_config.json", {"max_seq_length": max_tokens})
    return folder


def put(path: Path, content: object) -> None:
    """Write JSON."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def _end_texts(folder: Path) -> None:
    """Have the tokenizer end every text with a token whose hidden state is the text's."""
    path, (_, end) = folder / "tokenizer.json", tiny.SPECIAL
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    tokenizer.save(str(path))


def _strip(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = {
        name.removeprefix("model."): np.asarray(value)
        for name, value in load_file(path).items()
        if name != "lm_head.weight"
    }
    save_file(weights, str(path))
    # As such checkpoints are: the flag says nothing of what is there.
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    put(folder / "config.json", {**config, "architectures": ["Qwen3Model"]})
