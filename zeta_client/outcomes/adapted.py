"""What adapters of embeddings are worth: nearest neighbours on prompts not seen, with and without.

N = prompts, M = models, D = dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from router_svc.core import neighbours
from router_svc.core.evaluate import Floats, Ints
from router_svc.core.features import Features
from services.embedding.core import adapter

_SHARPNESS: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapted:
    """Predictions of scores by each prompt's nearest neighbours in the other folds; (N, M)."""

    plain: Floats
    """By embeddings as they are."""
    adapted: Floats
    """By embeddings adapted to each model, learned in the other folds."""


def topics(features: Sequence[Features]) -> NDArray[np.float32]:
    """Return the prompts' embeddings (N, D)."""
    return np.stack([each.embedding for each in features]).astype(np.float32)


def compared(vectors: NDArray[np.float32], scores: Floats, fold: Ints) -> Adapted:
    """Predict each fold (N,) from the others, both ways."""
    plain, adapted = np.zeros_like(scores), np.zeros_like(scores)
    for number in np.unique(fold).tolist():
        held = fold == number
        learned, asked = vectors[~held], vectors[held]
        directions = adapter.learn(learned, scores[~held])
        for i, direction in enumerate(directions):
            score = scores[~held, i]
            plain[held, i] = _near(learned, score, asked)
            adapted[held, i] = _near(
                adapter.stretched(learned, direction), score, adapter.stretched(asked, direction)
            )
    return Adapted(plain=plain, adapted=adapted)


def error(predicted: Floats, scores: Floats) -> float:
    """Mean squared error where there is a score."""
    return float(np.nanmean((predicted - scores) ** 2))


def _near(learned: NDArray[np.float32], score: Floats, asked: NDArray[np.float32]) -> Floats:
    known = ~np.isnan(score)
    found = neighbours.remember(learned[known], score[known, None], sharpness=_SHARPNESS)
    # In parts: all distances at once may be gigabytes.
    parts = np.array_split(asked, len(asked) // 1024 + 1)
    predicted: Floats = np.concatenate([found.predict(part)[:, 0] for part in parts])
    return predicted
