"""The mean of the nearest known points' targets, the nearer the more: k nearest neighbours.

N = points, F = their dimensions, M = targets, B = points to predict, K = neighbours.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import Floats
from router_svc.core.kernel import Halved, known_mean, squared_distances, squared_lengths

Array: TypeAlias = NDArray[Any]

KEPT: Final = 12_000
"""Points of a larger table that are kept: beyond, a prediction takes over half a millisecond."""
NEIGHBOURS: Final = 100
_PRIOR_OUTCOMES: Final = 0.5
"""How many neighbours at no distance the mean of all weighs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Points and their targets."""

    points: Halved
    """(N, F)."""
    lengths: Halved
    """(N,) Their squared lengths."""
    targets: Halved
    """(N, M), NaN where not known."""
    mean: Floats
    """(M,) Of the targets: the prediction where no neighbour's is known."""
    sharpness: Floats
    """() How fast a neighbour weighs less with squared distance beyond that of the nearest."""

    def predict(self, points: Halved) -> Floats:
        """Return the expected targets at *points* (B, F); (B, M)."""
        if len(self.points) == 0:
            return np.tile(self.mean, (len(points), 1))
        distances = squared_distances(points, self.points, self.lengths)
        last = min(NEIGHBOURS, len(self.points)) - 1
        nearest = np.argpartition(distances, last, axis=1)[:, : last + 1]
        found = np.take_along_axis(distances, nearest, axis=1)
        beyond = found - found.min(axis=1, keepdims=True)
        weight = np.exp(-self.sharpness * beyond)[:, :, None]
        targets = self.targets[nearest]
        known = ~np.isnan(targets)
        excess = np.where(known, targets - self.mean, 0.0)
        seen = (weight * known).sum(axis=1)
        expected: Floats = self.mean + (weight * excess).sum(axis=1) / (seen + _PRIOR_OUTCOMES)
        return expected

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def remember(points: Halved, targets: Floats, *, sharpness: float) -> Neighbours:
    """Keep *points* (N, F) and their *targets* (N, M), NaN where not known."""
    kept = np.random.default_rng(len(points)).permutation(len(points))[:KEPT]
    return Neighbours(
        points=points[kept],
        lengths=squared_lengths(points[kept]),
        targets=targets[kept].astype(np.float32),
        mean=known_mean(targets[kept]),
        sharpness=np.array(sharpness),
    )


def restored(arrays: Mapping[str, Array]) -> Neighbours:
    """Return what `to_arrays` took apart. Raises KeyError where something is missing."""
    return Neighbours(**{field.name: arrays[field.name] for field in fields(Neighbours)})
