"""Kernel ridge regression of several targets at once, at a subset of the points as support.

A Gaussian process with an exponential kernel, smooth far away and free near by (Rasmussen and
Williams, 2006, sections 4.2.1 and 8.3.1). Learned once, then frozen. N = points, F = their
dimensions, P = support, M = targets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import Floats

Array: TypeAlias = NDArray[Any]
Halved: TypeAlias = NDArray[np.float32]
"""Memory is what a prediction waits for."""

SUPPORT: Final = 1024
_JITTER: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What was learned."""

    support: Halved
    """(P, F)."""
    lengths: Halved
    """(P,) Their squared lengths."""
    weights: Halved
    """(P, M)."""
    mean: Floats
    """(M,) Of the targets: the prediction far from any support."""

    def predict(self, points: Halved) -> Floats:
        """Return the expected targets at *points* (N, F); (N, M)."""
        expected: Floats = self.mean + similarity(points, self.support, self.lengths) @ self.weights
        return expected

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def learn(points: Halved, targets: Floats, *, noise: float) -> Kernel:
    """Learn *targets* (N, M) at *points* (N, F), NaN where not known.

    *noise* is a target's variance around its expectation, in units of that of the expectation.
    Where none of a target is known, 0 is expected.
    """
    # The same support for the same table: what was learned can be learned again.
    support = points[np.random.default_rng(len(points)).permutation(len(points))[:SUPPORT]]
    lengths = squared_lengths(support)
    mean = known_mean(targets)
    within = similarity(support, support, lengths).astype(np.float64)
    prior = noise * (within + _JITTER * np.eye(len(support)))
    return Kernel(
        support=support,
        lengths=lengths,
        weights=_solved(similarity(points, support, lengths), prior, targets - mean),
        mean=mean,
    )


def restored(arrays: Mapping[str, Array]) -> Kernel:
    """Return what `Kernel.to_arrays` took apart. Raises KeyError where something is missing."""
    return Kernel(**{field.name: arrays[field.name] for field in fields(Kernel)})


def known_mean(targets: Floats) -> Floats:
    """Mean (M,) of what is known of *targets* (N, M); 0 where nothing is."""
    known = ~np.isnan(targets)
    mean: Floats = np.where(known, targets, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return mean


def squared_lengths(points: Halved) -> Halved:
    """Squared length of each of *points* (N, F); (N,)."""
    lengths: Halved = np.einsum("ij,ij->i", points, points)
    return lengths


def squared_distances(x: Halved, y: Halved, y_lengths: Halved) -> Halved:
    """Squared distance of all *x* (N, F) from all *y* (P, F); (N, P), never below 0."""
    # In place: of thousands of points each copy is tens of megabytes.
    distances: Halved = x @ y.T
    distances *= -2.0
    distances += squared_lengths(x)[:, None]
    distances += y_lengths
    return np.maximum(distances, 0.0, out=distances)


def similarity(x: Halved, y: Halved, y_lengths: Halved) -> Halved:
    """Similarity exp(-|x - y|) of all *x* (N, F) to all *y* (P, F); (N, P)."""
    near = squared_distances(x, y, y_lengths)
    np.negative(np.sqrt(near, out=near), out=near)
    return np.exp(near, out=near)


def _solved(near: Halved, prior: Floats, targets: Floats) -> Halved:
    """Return weights w (P, M) that minimise Σ (target - near·w)² + wᵀ prior w."""
    known = ~np.isnan(targets)
    weights = np.zeros((near.shape[1], targets.shape[1]))
    patterns, pattern = np.unique(known, axis=1, return_inverse=True)
    for i, rows in enumerate(patterns.T):
        models = np.flatnonzero(pattern == i)
        x = near[rows].astype(np.float64)
        weights[:, models] = np.linalg.solve(x.T @ x + prior, x.T @ targets[np.ix_(rows, models)])
    return weights.astype(np.float32)
