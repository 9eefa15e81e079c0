"""BERT's forward pass in plain NumPy, written from its paper: what the graph is held against.

Devlin et al., 2018. One text at a time, no padding, no batch.
"""

from collections.abc import Mapping, Sequence
from math import erf, sqrt

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_erf = np.vectorize(erf, otypes=[np.float64])


def hidden_states(
    weights: Mapping[str, NDArray[np.float32]], ids: Sequence[int], *, layers: int, heads: int
) -> Array:
    """Return the last layer's vectors of *ids*, (T, H)."""
    w = {name: value.astype(np.float64) for name, value in weights.items() if "ids" not in name}
    x = (
        w["embeddings.word_embeddings.weight"][list(ids)]
        + w["embeddings.position_embeddings.weight"][: len(ids)]
        + w["embeddings.token_type_embeddings.weight"][0]
    )
    x = _norm(w, "embeddings.LayerNorm", x)
    for i in range(layers):
        name = f"encoder.layer.{i}"
        attended = _linear(w, f"{name}.attention.output.dense", _attention(w, name, x, heads))
        x = _norm(w, f"{name}.attention.output.LayerNorm", x + attended)
        wide = _linear(w, f"{name}.intermediate.dense", x)
        wide = wide * 0.5 * (1 + _erf(wide / sqrt(2)))
        x = _norm(w, f"{name}.output.LayerNorm", x + _linear(w, f"{name}.output.dense", wide))
    return x


def _attention(w: Mapping[str, Array], name: str, x: Array, heads: int) -> Array:
    q, k, v = (
        np.stack(np.split(_linear(w, f"{name}.attention.self.{part}", x), heads, axis=1))
        for part in ("query", "key", "value")
    )
    scores = q @ k.transpose(0, 2, 1) / sqrt(q.shape[-1])
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    return np.concatenate(list(shares @ v), axis=1)


def _linear(w: Mapping[str, Array], name: str, x: Array) -> Array:
    return np.asarray(x @ w[f"{name}.weight"].T + w[f"{name}.bias"])


def _norm(w: Mapping[str, Array], name: str, x: Array) -> Array:
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
    return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])
