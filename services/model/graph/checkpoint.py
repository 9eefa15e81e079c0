"""Read a Hugging Face directory: shape, weights, defaults. Any fault is one clear ConfigError."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.kit.errors import ConfigError
from services.model.graph import encoder, rope
from services.model.graph.encoder import Encoder
from services.model.graph.shards import READABLE, Weights, weights_of

_MOST = {"num_hidden_layers": 1024, "max_position_embeddings": 1 << 21}
_MOST_OTHERWISE = 1 << 24
"""Larger numbers are damage, and would fill the memory."""


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
    rope_scaling: rope.Scaling = rope.PLAIN
    headless: bool = False
    """There is no output projection: this encodes and cannot generate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A decoder at rest."""

    shape: Shape
    weights: Weights
    """By their name in the checkpoint; read, as float32, when asked for."""
    stop_ids: frozenset[int]
    temperature: float
    """What the model's makers sample at; 0: greedy."""
    encoder: Encoder | None = None
    """How to make one vector of a text, where the makers say so."""

    @property
    def parameters(self) -> int:
        """Number of parameters; what is tied counts once."""
        return parameters(self.shape)


def load(folder: Path) -> Checkpoint:
    """Read *folder*. Raises ConfigError that says which file is at fault and what to do."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such model directory; correct `dir` of the model")
    config = read_json(folder / "config.json")
    shape, found = shape_of(config, folder / "config.json"), encoder.find(folder)
    weights = _named(weights_of(folder))
    if found is not None and not shape.tied and "lm_head.weight" not in weights:
        shape = replace(shape, headless=True)
    if shape.tied:
        weights = weights.without("lm_head.weight")
    _check(weights, shape, folder)
    stop_ids, temperature = habits(folder, config)
    return Checkpoint(
        shape=shape, weights=weights, stop_ids=stop_ids, temperature=temperature, encoder=found
    )


def _named(weights: Weights) -> Weights:
    """Give weights their names in a whole model; those of a bare decoder lack the first part."""
    if "embed_tokens.weight" not in weights:
        return weights
    return weights.renamed(lambda name: f"model.{name}")


def habits(folder: Path, config: Mapping[str, Any]) -> tuple[frozenset[int], float]:
    """Return the tokens that end an answer, and the temperature. Raises ConfigError."""
    path = folder / "generation_config.json"
    defaults = read_json(path) if path.exists() else {}
    try:
        return _stop_ids(defaults, config), _temperature(defaults)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: missing or wrong: {error}; fetch the file again") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read one JSON object. Raises ConfigError that names *path*."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; a model directory is what Hugging Face tools write"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}; fetch the file again") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a JSON object is expected; fetch the file again")
    return content


def shape_of(config: Mapping[str, Any], path: Path) -> Shape:
    """Return the shape that *config*, read from *path*, describes. Raises ConfigError."""
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        known = ", ".join(FAMILIES)
        raise ConfigError(
            f"{path}: model_type {config.get('model_type')!r} is not supported; supported: {known}"
        )
    try:
        for wrong in _unsupported(config):
            raise ConfigError(f"{path}: {wrong} is not supported; choose another model")
        return _checked(_shape(config, family))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ConfigError(f"{path}: missing or wrong: {error}; fetch the file again") from error


def _shape(config: Mapping[str, Any], family: Family) -> Shape:
    turning = (config.get("rope_scaling") or {}) | (config.get("rope_parameters") or {})
    heads, hidden = _count(config, "num_attention_heads"), _count(config, "hidden_size")
    tokens = _count(config, "max_position_embeddings")
    scaled = rope.scaling(turning, tokens)
    if scaled.kind == "yarn":
        # Makers leave the first context in config.json and ask users to add the factor.
        tokens = max(tokens, int(scaled.factor * scaled.original_tokens))
    return Shape(
        family=family,
        layers=_count(config, "num_hidden_layers"),
        hidden=hidden,
        intermediate=_count(config, "intermediate_size"),
        heads=heads,
        kv_heads=_count(config, "num_key_value_heads", heads),
        head_dim=_count(config, "head_dim", hidden // heads),
        vocabulary=_count(config, "vocab_size"),
        context_tokens=min(tokens, _window(config, tokens)),
        rope_theta=float(turning.get("rope_theta") or config["rope_theta"]),
        norm_epsilon=float(config["rms_norm_eps"]),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope_scaling=scaled,
    )


def _window(config: Mapping[str, Any], tokens: int) -> int:
    """Return how far a token sees: within that, a sliding window changes nothing."""
    # Qwen says whether its window is used; Mistral's is, where there is one.
    used = config.get("use_sliding_window", True) and config.get("sliding_window") is not None
    return _count(config, "sliding_window") if used else tokens


def _count(config: Mapping[str, Any], key: str, otherwise: int = 0) -> int:
    value = config.get(key) or otherwise
    if type(value) is not int or not 0 < value <= _MOST.get(key, _MOST_OTHERWISE):
        raise ValueError(f"{key} = {config.get(key)!r}")
    return value


def _checked(shape: Shape) -> Shape:
    """Refuse what no decoder can be. Raises ValueError."""
    if shape.heads % shape.kv_heads:
        raise ValueError(f"{shape.heads} heads cannot share {shape.kv_heads} key heads")
    if shape.head_dim % 2:
        raise ValueError(f"head_dim = {shape.head_dim} is odd")
    if not 1 < shape.rope_theta < math.inf or not 0 < shape.norm_epsilon < 1:
        raise ValueError(f"rope_theta = {shape.rope_theta}, rms_norm_eps = {shape.norm_epsilon}")
    if shape.layers * shape.context_tokens * shape.head_dim * shape.kv_heads >= 1 << 48:
        raise ValueError("the cache of one sequence would take petabytes")
    return shape


def _unsupported(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what the graph would compute wrongly."""
    if config.get("quantization_config"):
        yield "a checkpoint that is quantised already"
    yield from (f"{key} = true" for key in ("attention_bias", "mlp_bias") if config.get(key))
    if config.get("hidden_act", "silu") != "silu":
        yield f"hidden_act {config['hidden_act']!r}"
    partial = (config.get("rope_parameters") or {}).get("partial_rotary_factor")
    if (partial or config.get("partial_rotary_factor") or 1) != 1:
        yield "partial_rotary_factor"


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
    if not (shape.tied or shape.headless):
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


def parameters(shape: Shape) -> int:
    """Return the number of parameters of a decoder; what is tied counts once."""
    return sum(math.prod(size) for size in expected(shape).values())


def _check(weights: Weights, shape: Shape, folder: Path) -> None:
    wanted = expected(shape)
    missing = sorted(wanted.keys() - weights.keys())
    if missing:
        raise ConfigError(
            f"{folder}: {len(missing)} weights are missing, {missing[0]} first; fetch it again"
        )
    for name, size in wanted.items():
        if weights.shape(name) != size:
            raise ConfigError(
                f"{folder}: {name} is {weights.shape(name)}, config.json says {size}; "
                "fetch it again"
            )
        if weights.place(name).dtype not in READABLE:
            raise ConfigError(
                f"{folder}: {name} is {weights.place(name).dtype}; readable: "
                f"{', '.join(READABLE)}: choose a checkpoint that nobody quantised"
            )


def _temperature(defaults: Mapping[str, Any]) -> float:
    found = float(defaults.get("temperature") or 1.0) if defaults.get("do_sample") else 0.0
    if not 0 <= found < math.inf:
        raise ValueError(f"temperature = {found}")
    return found


def _stop_ids(defaults: Mapping[str, Any], config: Mapping[str, Any]) -> frozenset[int]:
    ids = defaults.get("eos_token_id", config.get("eos_token_id"))
    if ids is None:
        return frozenset()
    found = ids if isinstance(ids, list) else [ids]
    if not all(type(i) is int and i >= 0 for i in found):
        raise ValueError(f"eos_token_id = {ids!r}")
    return frozenset(found)
