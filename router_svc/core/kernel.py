"""What a table of outcomes teaches: kernel ridge regression of every model's score.

A Gaussian process over topic (embedding) and form (profile and lexical features) of a prompt, with
a subset of the prompts as support (subset of regressors: Rasmussen and Williams, 2006, section
8.3.1). Learned once, then frozen. N = prompts, M = models, P = support, E = embedding, L = form.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from math import log1p
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import Features, Floats

Array: TypeAlias = NDArray[Any]
Halved: TypeAlias = NDArray[np.float32]
"""Memory is what a prediction waits for."""

SUPPORT: Final = 1024
_NOISE: Final = 6.0
"""Variance of a score around its expectation, in units of that of the expectation itself."""
_FORM: Final = 0.5
"""Weight of form against topic."""
_CLIP: Final = 4.0
"""Standard deviations beyond which a feature says no more."""
_CONSTANT: Final = 1e-6
_JITTER: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """A learned table."""

    centre: Floats
    """(L,) What is subtracted from the form."""
    scale: Floats
    """(L,) What it is then multiplied with."""
    support: Halved
    """(P, E + L)."""
    lengths: Halved
    """(P,) Their squared lengths."""
    weights: Halved
    """(P, M)."""
    mean: Floats
    """(M,) Of the targets: the prediction far from any support."""

    def predict(self, features: Features) -> Floats:
        """Return every model's expected target at *features*; (M,)."""
        point = _points([features], self.centre, self.scale)[0]
        exponent = 2.0 * (self.support @ point) - self.lengths - point @ point
        expected: Floats = self.mean + np.exp(np.minimum(exponent, 0.0)) @ self.weights
        return expected

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def learn(features: Sequence[Features], targets: Floats) -> Kernel:
    """Learn *targets* (N, M), NaN where not known; of a model without any, 0 is expected."""
    form = np.stack([_form(each) for each in features])
    centre, spread = form.mean(axis=0), form.std(axis=0)
    scale = np.where(spread > _CONSTANT, 1.0 / np.maximum(spread, _CONSTANT), 0.0)
    points = _points(features, centre, scale)
    # The same support for the same table: what was learned can be learned again.
    support = points[np.random.default_rng(len(points)).permutation(len(points))[:SUPPORT]]
    known = ~np.isnan(targets)
    mean = np.where(known, targets, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    return Kernel(
        centre=centre,
        scale=scale,
        support=support,
        lengths=np.einsum("ij,ij->i", support, support),
        weights=_solved(_near(points, support), _near(support, support), targets - mean),
        mean=mean,
    )


def restored(arrays: Mapping[str, Array]) -> Kernel:
    """Return what `Kernel.to_arrays` took apart. Raises KeyError where something is missing."""
    return Kernel(**{field.name: arrays[field.name] for field in fields(Kernel)})


def _form(features: Features) -> Floats:
    profile = (features.difficulty, log1p(max(features.expected_output_tokens, 0.0)) / 6.0)
    return np.concatenate([profile, features.tasks, features.lexical])


def _points(features: Sequence[Features], centre: Floats, scale: Floats) -> Halved:
    """Place prompts (N, E + L) so that squared distance is that of topic and that of form."""
    form = np.stack([_form(each) for each in features])
    scaled = np.clip((form - centre) * scale, -_CLIP, _CLIP) * np.sqrt(_FORM / len(centre))
    topic = np.stack([each.embedding for each in features])
    return np.hstack([topic, scaled]).astype(np.float32)


def _near(x: Halved, y: Halved) -> Halved:
    """Similarity exp(-|x - y|²) of all (N, F) to all (P, F); (N, P)."""
    lengths = np.einsum("ij,ij->i", x, x)[:, None] + np.einsum("ij,ij->i", y, y)
    near: Halved = np.exp(np.minimum(2.0 * (x @ y.T) - lengths, 0.0))
    return near


def _solved(near: Halved, within: Halved, targets: Floats) -> Halved:
    """Return weights (P, M) that minimise Σ (target - near·w)² + noise · wᵀ within w."""
    prior = _NOISE * (within.astype(np.float64) + _JITTER * np.eye(len(within)))
    known = ~np.isnan(targets)
    weights = np.zeros((near.shape[1], targets.shape[1]))
    patterns, pattern = np.unique(known, axis=1, return_inverse=True)
    for i, rows in enumerate(patterns.T):
        models = np.flatnonzero(pattern == i)
        x = near[rows].astype(np.float64)
        weights[:, models] = np.linalg.solve(x.T @ x + prior, x.T @ targets[np.ix_(rows, models)])
    return weights.astype(np.float32)
