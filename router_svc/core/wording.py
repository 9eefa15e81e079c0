"""How a table's prompts are worded, along the directions in which their wording differs most.

Which pieces stand in a prompt (`pieces`), weighed by how few prompts have them (inverse document
frequency: Spärck Jones, 1972), then the main axes of that (latent semantic analysis: Deerwester et
al., 1990). Learned once, then frozen. N = prompts, H = numbers of pieces, P = pieces of one prompt,
W = axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import Floats
from router_svc.core.kernel import Halved
from router_svc.core.pieces import NUMBERS, RUNS, Pieces

Array: TypeAlias = NDArray[Any]

_AXES: Final = 64
_SPARE: Final = 16
_ROUNDS: Final = 3
_LEAST: Final = 0.3
"""Weight of a piece that every prompt has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """What was learned."""

    rarity: Halved
    """(H,) How much a piece says."""
    origin: Halved
    """(W,) The mean prompt."""
    axes: Halved
    """(H, W)."""

    def place(self, prompts: Sequence[Pieces]) -> Halved:
        """Return where N *prompts* lie; (N, W)."""
        placed = [_weighed(found, self.rarity) @ self.axes[found] for found in prompts]
        return np.stack(placed) - self.origin

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def learn(prompts: Sequence[Pieces]) -> Wording:
    """Learn of N *prompts*."""
    having = np.bincount(np.concatenate(prompts), minlength=NUMBERS)
    rarity = (np.log((1.0 + len(prompts)) / (1.0 + having)) + _LEAST).astype(np.float32)
    points = np.zeros((len(prompts), NUMBERS), dtype=np.float32)
    for point, found in zip(points, prompts, strict=True):
        point[found] = _weighed(found, rarity)
    mean: Halved = points.mean(axis=0)
    points -= mean
    axes = _main_axes(points)
    return Wording(rarity=rarity, origin=mean @ axes, axes=axes)


def restored(arrays: Mapping[str, Array]) -> Wording:
    """Return what `Wording.to_arrays` took apart; of nothing at all, no axes.

    Raises KeyError where something is missing.
    """
    if not arrays:
        blank = np.zeros((NUMBERS, 0), dtype=np.float32)
        return Wording(rarity=np.ones(NUMBERS, dtype=np.float32), origin=blank[0], axes=blank)
    return Wording(**{field.name: arrays[field.name] for field in fields(Wording)})


def _weighed(found: Pieces, rarity: Halved) -> Halved:
    """Weigh the pieces *found* (P,): runs and words have length 1 each, together; (P,)."""
    weight, word = rarity[found], found >= RUNS
    length = np.sqrt(np.bincount(word, weight**2, 2))
    weighed: Halved = (weight / length[word.astype(np.intp)]).astype(np.float32)
    return weighed


def _main_axes(around: Halved) -> Halved:
    """Return the first main axes (H, W) of points *around* (N, H) their mean.

    By random projection (Halko et al., 2011): of a few dozen out of thousands nearly exact, in a
    small part of the time.
    """
    count = min(_AXES + _SPARE, *around.shape)
    # The same axes for the same table: what was learned can be learned again.
    basis: Floats = np.random.default_rng(len(around)).standard_normal((NUMBERS, count))
    for _ in range(_ROUNDS):
        basis, _ = np.linalg.qr((around.T @ (around @ basis.astype(np.float32))).astype(np.float64))
    _, _, axes = np.linalg.svd(around @ basis.astype(np.float32), full_matrices=False)
    found: Floats = basis @ axes[:_AXES].T
    return found.astype(np.float32)
