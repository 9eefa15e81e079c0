"""Per-model linear adapters: closer together then means similar success on that model.

A model's adapter is A = I + bbᵀ, where b is the direction in which its scores rise fastest: prompts
that differ in what the model finds hard move apart, and each vector has length 1 again. b is found
by ridge regression (Hoerl and Kennard, 1970). B = vectors, N = prompts, M = models, D = dimensions.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_PRECISION: Final = 10.0
"""Of the prior of what is regressed, in outcomes along one direction."""
_TINY: Final = 1e-12


def adapt(vectors: Floats, model: str, adapters: Mapping[str, Floats]) -> tuple[Floats, bool]:
    """Pass *vectors* (B, D) through the adapter of *model*, and say whether there was one.

    *adapters* are directions b (D,) by model. A model without one gets the vectors as they are.
    """
    direction = adapters.get(model)
    return (vectors, False) if direction is None else (stretched(vectors, direction), True)


def stretched(vectors: Floats, direction: Floats) -> Floats:
    """Stretch *vectors* (B, D) to twice their length along *direction* (D,), then to length 1."""
    wide = vectors + np.outer(vectors @ direction, direction)
    unit: Floats = wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), _TINY)
    return unit


def learn(vectors: Floats, scores: NDArray[np.float64]) -> Floats:
    """Return each model's direction (M, D) of length 1, from *scores* (N, M), NaN where not known.

    All zeros, which is the identity, for a model whose scores tell nothing.
    """
    directions = np.zeros((scores.shape[1], vectors.shape[1]), np.float32)
    for direction, score in zip(directions, scores.T, strict=True):
        known = ~np.isnan(score)
        if known.any():
            direction[:] = _rising(vectors[known].astype(np.float64), score[known])
    return directions


def _rising(vectors: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = vectors - vectors.mean(axis=0), score - score.mean()
    prior = _PRECISION * np.eye(x.shape[1])
    slope: NDArray[np.float64] = np.linalg.solve(x.T @ x + prior, x.T @ y)
    length = np.linalg.norm(slope)
    return slope / length if length > _TINY else np.zeros_like(slope)
