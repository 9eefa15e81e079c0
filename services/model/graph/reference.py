"""A decoder in NumPy, weights read layer by layer: slow, plain, and what an import is checked with.

Letters: T tokens, V vocabulary, H heads, D head dimension.
"""

import numpy as np

from services.model.backends.base import Ids
from services.model.graph import rope
from services.model.graph.checkpoint import Checkpoint, Shape
from services.model.graph.shards import Floats, Weights


def logits(checkpoint: Checkpoint, tokens: Ids) -> Floats:
    """Return the logits (T, V) after each of *tokens* (T,); holds one matrix at a time."""
    name = "model.embed_tokens" if checkpoint.shape.tied else "lm_head"
    return _product(checkpoint.weights, name, hidden_states(checkpoint, tokens))


def hidden_states(checkpoint: Checkpoint, tokens: Ids) -> Floats:
    """Return the last hidden states (T, H · D) of *tokens* (T,); holds one matrix at a time."""
    w, shape = checkpoint.weights, checkpoint.shape
    hidden = _rows(w, "model.embed_tokens.weight", tokens)
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        normed = _norm(hidden, w[f"{layer}.input_layernorm.weight"], shape)
        hidden = hidden + _attention(w, f"{layer}.self_attn", normed, shape)
        normed = _norm(hidden, w[f"{layer}.post_attention_layernorm.weight"], shape)
        hidden = hidden + _feed_forward(w, f"{layer}.mlp", normed)
    return _norm(hidden, w["model.norm.weight"], shape)


def _rows(w: Weights, name: str, wanted: Ids) -> Floats:
    """Return some rows of a table that need not fit in memory."""
    out = np.empty((len(wanted), w.shape(name)[1]), np.float32)
    for start, rows in w.blocks(name):
        here = (wanted >= start) & (wanted < start + len(rows))
        out[here] = rows[wanted[here] - start]
    return out


def _product(w: Weights, name: str, hidden: Floats) -> Floats:
    pieces = [hidden @ rows.T for _, rows in w.blocks(f"{name}.weight")]
    out: Floats = np.concatenate(pieces, axis=1)
    return out + w[f"{name}.bias"] if f"{name}.bias" in w else out


def _norm(x: Floats, weight: Floats, shape: Shape) -> Floats:
    mean_square = np.square(x).mean(axis=-1, keepdims=True)
    out: Floats = x / np.sqrt(mean_square + np.float32(shape.norm_epsilon)) * weight
    return out


def _feed_forward(w: Weights, name: str, hidden: Floats) -> Floats:
    gate = _product(w, f"{name}.gate_proj", hidden)
    with np.errstate(over="ignore"):
        silu = gate / (1 + np.exp(-gate))
    return _product(w, f"{name}.down_proj", silu * _product(w, f"{name}.up_proj", hidden))


def _attention(w: Weights, name: str, hidden: Floats, shape: Shape) -> Floats:
    count, width = len(hidden), shape.head_dim
    q, k, v = (
        _product(w, f"{name}.{n}_proj", hidden).reshape(count, -1, width) for n in ("q", "k", "v")
    )
    if shape.family.qk_norm:
        q = _norm(q, w[f"{name}.q_norm.weight"], shape)
        k = _norm(k, w[f"{name}.k_norm.weight"], shape)
    cos, sin = rope.tables(
        theta=shape.rope_theta, head_dim=width, tokens=count, scaled=shape.rope_scaling
    )
    q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
    group = shape.heads // shape.kv_heads
    k, v = np.repeat(k, group, axis=1), np.repeat(v, group, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.float32(np.sqrt(width))
    scores[:, np.triu(np.ones((count, count), bool), 1)] = -np.inf
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(axis=-1, keepdims=True), v)
    return _product(w, f"{name}.o_proj", mixed.reshape(count, -1))


def _rotated(x: Floats, cos: Floats, sin: Floats) -> Floats:
    """Turn each pair (j, j + D/2) of (T, H, D)."""
    first, second = np.split(x, 2, axis=-1)
    cos, sin = cos[:, None], sin[:, None]
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
