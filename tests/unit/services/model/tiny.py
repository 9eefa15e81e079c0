"""A random decoder that takes no time to make, in the format of real ones."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from services.model.graph.checkpoint import FAMILIES, Shape, expected

TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\n' "
    "+ message['content'] + '<|im_end|>\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
SPECIAL = ("<|im_start|>", "<|im_end|>")
CONTEXT_TOKENS = 96


def write(
    folder: Path,
    *,
    family: str = "qwen3",
    tied: bool = True,
    changes: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """Write a random checkpoint of a family, its tokens single bytes, and return its directory.

    *changes* are to config.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab_size()
    config = {
        "model_type": family,
        "num_hidden_layers": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "vocab_size": vocabulary,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": tied,
        "eos_token_id": vocabulary - 1,
        **changes,
    }
    _write_json(folder / "config.json", config)
    _write_json(folder / "tokenizer_config.json", {"chat_template": TEMPLATE})
    save_file(_weights(shape(config)), str(folder / "model.safetensors"))
    return folder


def shape(config: dict[str, object]) -> Shape:
    """Return the shape that *config* describes, without the loader's help."""
    number = {k: v for k, v in config.items() if isinstance(v, int | float)}
    return Shape(
        family=FAMILIES[str(config["model_type"])],
        layers=int(number["num_hidden_layers"]),
        hidden=int(number["hidden_size"]),
        intermediate=int(number["intermediate_size"]),
        heads=int(number["num_attention_heads"]),
        kv_heads=int(number["num_key_value_heads"]),
        head_dim=int(number["head_dim"]),
        vocabulary=int(number["vocab_size"]),
        context_tokens=int(number["max_position_embeddings"]),
        rope_theta=float(number["rope_theta"]),
        norm_epsilon=float(number["rms_norm_eps"]),
        tied=bool(number["tie_word_embeddings"]),
    )


def byte_tokenizer() -> Tokenizer:
    """Return a tokenizer whose tokens are the 256 bytes, two special ones and <think>."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    tokenizer.add_special_tokens([AddedToken(s, special=True, normalized=False) for s in SPECIAL])
    return tokenizer


def _weights(of: Shape) -> dict[str, np.ndarray]:
    """Weights large enough for attention and logits to matter."""
    rng = np.random.default_rng(7)
    return {
        name: (rng.normal(0, 0.25, size) if len(size) > 1 else rng.uniform(0.5, 1.5, size)).astype(
            np.float16
        )
        for name, size in expected(of).items()
    }


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")
