"""Checkpoints: the directory others load, and the state a training run resumes from."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from tools.pocket.network import INIT_STD, RMS_EPS, ROPE_THETA, Decoder
from tools.pocket.recipes import MAX_POSITIONS, VOCABULARY, Shape
from tools.pocket.text import ADDED, CHAT_TEMPLATE, END, PAD, token_id


def publish(model: Decoder, shape: Shape, tokenizer: Tokenizer, target: Path) -> None:
    """Write a Hugging Face directory beside `target`, then put it in place in one move."""
    staged = target.with_name(f".{target.name}.new")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, staged / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(staged / "tokenizer.json"))
    eos, pad = token_id(tokenizer, END), token_id(tokenizer, PAD)
    (staged / "model.safetensors").chmod(0o644)
    _write_json(staged / "config.json", _config(shape, eos=eos, pad=pad))
    _write_json(staged / "tokenizer_config.json", _tokenizer_config(tokenizer))
    _write_json(staged / "generation_config.json", _generation_config(eos=eos, pad=pad))
    retired = target.with_name(f".{target.name}.old")
    shutil.rmtree(retired, ignore_errors=True)
    if target.exists():
        target.rename(retired)
    staged.rename(target)
    shutil.rmtree(retired, ignore_errors=True)


def load(directory: Path, shape: Shape) -> Decoder:
    """Return the published model in float32, ready to be asked."""
    model = Decoder(shape)
    weights = load_file(directory / "model.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    return model.eval()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Keep what a run needs to go on; a crash while writing leaves the previous state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".new")
    torch.save(state, staged)
    os.replace(staged, path)  # noqa: PTH105 - the one call that replaces atomically everywhere


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _config(shape: Shape, *, eos: int, pad: int) -> dict[str, Any]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": pad,
        "eos_token_id": eos,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden_size,
        "initializer_range": INIT_STD,
        "intermediate_size": shape.intermediate_size,
        "max_position_embeddings": MAX_POSITIONS,
        "max_window_layers": shape.num_hidden_layers,
        "model_type": "qwen3",
        "num_attention_heads": shape.num_attention_heads,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_key_value_heads": shape.num_key_value_heads,
        "pad_token_id": pad,
        "rms_norm_eps": RMS_EPS,
        "rope_scaling": None,
        "rope_theta": ROPE_THETA,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "float16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": VOCABULARY,
    }


def _generation_config(*, eos: int, pad: int) -> dict[str, Any]:
    return {
        "bos_token_id": pad,
        "do_sample": False,
        "eos_token_id": [eos, pad],
        "pad_token_id": pad,
    }


def _tokenizer_config(tokenizer: Tokenizer) -> dict[str, Any]:
    added = {
        str(token_id(tokenizer, token.content)): {
            "content": token.content,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": token.special,
        }
        for token in ADDED
    }
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "errors": "replace",
        "model_max_length": MAX_POSITIONS,
        "pad_token": PAD,
        "split_special_tokens": False,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
