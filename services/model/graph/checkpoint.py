"""Read a Hugging Face directory: shape, weights, defaults. Any fault is one clear ConfigError."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401 - teaches NumPy bfloat16; onnx brings it
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from services.kit.errors import ConfigError

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """What tells one architecture's layers from another's."""

    qk_norm: bool
    """Queries and keys are normalised per head."""
    qkv_bias: bool


FAMILIES: Mapping[str, Family] = {
    "llama": Family(qk_norm=False, qkv_bias=False),
    "mistral": Family(qk_norm=False, qkv_bias=False),
    "qwen2": Family(qk_norm=False, qkv_bias=True),
    "qwen3": Family(qk_norm=True, qkv_bias=False),
}
"""By `model_type`. Add one with a test of its logits against a reference."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions of a decoder."""

    family: Family
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context_tokens: int
    rope_theta: float
    norm_epsilon: float
    tied: bool
    """The output projection is the embedding."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A decoder at rest."""

    shape: Shape
    weights: Mapping[str, Floats]
    """By their name in the checkpoint, float32."""
    stop_ids: frozenset[int]
    temperature: float
    """What the model's makers sample at; 0: greedy."""

    @property
    def parameters(self) -> int:
        """Number of parameters; what is tied counts once."""
        return sum(w.size for w in self.weights.values())


def load(folder: Path) -> Checkpoint:
    """Read *folder*. Raises ConfigError that says which file is at fault and what to do."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such model directory; correct `dir` of the model")
    config = read_json(folder / "config.json")
    shape = _shape(config, folder / "config.json")
    weights = _weights(folder)
    if shape.tied:
        weights.pop("lm_head.weight", None)
    _check(weights, shape, folder)
    path = folder / "generation_config.json"
    defaults = read_json(path) if path.exists() else {}
    return Checkpoint(
        shape=shape,
        weights=weights,
        stop_ids=_stop_ids(defaults, config),
        temperature=float(defaults.get("temperature", 1.0)) if defaults.get("do_sample") else 0.0,
    )


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises ConfigError that names *path*."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; a model directory is what Hugging Face tools write"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: not JSON: {error}; fetch the file again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a JSON object is expected; fetch the file again")
    return content


def _shape(config: Mapping[str, Any], path: Path) -> Shape:
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        known = ", ".join(FAMILIES)
        raise ConfigError(
            f"{path}: model_type {config.get('model_type')!r} is not supported; supported: {known}"
        )
    for wrong in _unsupported(config):
        raise ConfigError(f"{path}: {wrong} is not supported; choose another model")
    rope = config.get("rope_parameters") or {}
    try:
        return Shape(
            family=family,
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            intermediate=int(config["intermediate_size"]),
            heads=int(config["num_attention_heads"]),
            kv_heads=int(config.get("num_key_value_heads") or config["num_attention_heads"]),
            head_dim=int(
                config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            ),
            vocabulary=int(config["vocab_size"]),
            context_tokens=int(config["max_position_embeddings"]),
            rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
            norm_epsilon=float(config["rms_norm_eps"]),
            tied=bool(config.get("tie_word_embeddings", False)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: missing or wrong: {error}; fetch the file again") from error


def _unsupported(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the graph would compute wrongly."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        yield f"rope scaling {rope!r}"
    # Qwen says whether its window is used; Mistral's is, where there is one.
    window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
    if window and window < config.get("max_position_embeddings", 0):
        yield f"a sliding window of {window} tokens"
    yield from (f"{key} = true" for key in ("attention_bias", "mlp_bias") if config.get(key))
    if config.get("hidden_act", "silu") != "silu":
        yield f"hidden_act {config['hidden_act']!r}"


def _weights(folder: Path) -> dict[str, Floats]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ConfigError(f"{folder}: no *.safetensors; convert the weights to safetensors")
    weights: dict[str, Floats] = {}
    for file in files:
        try:
            with safe_open(file, framework="np") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a mapping
                    weights[name] = tensors.get_tensor(name).astype(np.float32)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{file}: cannot be read: {error}; fetch the file again") from error
    return weights


def expected(shape: Shape) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of every weight of a decoder."""
    hidden, queries, keys = (
        shape.hidden,
        shape.heads * shape.head_dim,
        shape.kv_heads * shape.head_dim,
    )
    out: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (shape.vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not shape.tied:
        out["lm_head.weight"] = (shape.vocabulary, hidden)
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        out |= {
            f"{layer}.input_layernorm.weight": (hidden,),
            f"{layer}.post_attention_layernorm.weight": (hidden,),
            f"{layer}.self_attn.q_proj.weight": (queries, hidden),
            f"{layer}.self_attn.k_proj.weight": (keys, hidden),
            f"{layer}.self_attn.v_proj.weight": (keys, hidden),
            f"{layer}.self_attn.o_proj.weight": (hidden, queries),
            f"{layer}.mlp.gate_proj.weight": (shape.intermediate, hidden),
            f"{layer}.mlp.up_proj.weight": (shape.intermediate, hidden),
            f"{layer}.mlp.down_proj.weight": (hidden, shape.intermediate),
        }
        if shape.family.qk_norm:
            out[f"{layer}.self_attn.q_norm.weight"] = (shape.head_dim,)
            out[f"{layer}.self_attn.k_norm.weight"] = (shape.head_dim,)
        if shape.family.qkv_bias:
            out[f"{layer}.self_attn.q_proj.bias"] = (queries,)
            out[f"{layer}.self_attn.k_proj.bias"] = (keys,)
            out[f"{layer}.self_attn.v_proj.bias"] = (keys,)
    return out


def _check(weights: Mapping[str, Floats], shape: Shape, folder: Path) -> None:
    wanted = expected(shape)
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        raise ConfigError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} first; fetch it again"
        )
    for name, size in wanted.items():
        if weights[name].shape != size:
            raise ConfigError(
                f"{folder}: {name} is {weights[name].shape}, config.json says {size}; "
                "fetch it again"
            )


def _stop_ids(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> frozenset[int]:
    ids = defaults.get("eos_token_id", config.get("eos_token_id"))
    if ids is None:
        return frozenset()
    return frozenset(ids if isinstance(ids, list) else [ids])
