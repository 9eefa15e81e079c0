"""Every model's score from outcomes of which each shows one model: one Gaussian process for all.

Scores of two models on two prompts are alike as far as the prompts are, and more so if the models
are the same (intrinsic coregionalisation: Bonilla et al., 2008): what is hard for one model is hard
for others, which bandit feedback, one score per prompt, shows in no other way. Every outcome counts
as much as its weight: noise is divided by it. Learned once, then frozen. N = outcomes,
F = dimensions of a prompt, A = its main axes, M = models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core import stack
from router_svc.core.features import Features, Floats
from router_svc.core.kernel import Halved, similarity, squared_lengths
from router_svc.core.memory import Seen

Array: TypeAlias = NDArray[Any]

_AXES: Final = 64
_COMMON: Final = 0.5
"""Of what prompts have in common, the share that is the same for every model."""
_LEVEL: Final = 0.1
"""Variance of the level of all models, and of each, next to 1 for what prompts change."""
_NOISE: Final = 2.0
_LEAST_WEIGHT: Final = 1e-3
"""An outcome that counts less is left out."""
_SOLVED, _STEPS = 1e-9, 300
"""What is left of the squared residual, and the most steps to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joint:
    """What was learned."""

    centre: Floats
    """What is subtracted from the form of a prompt."""
    scale: Floats
    """What it is then multiplied with."""
    origin: Halved
    """(F,) Mean prompt."""
    axes: Halved
    """(F, A) Directions in which prompts differ most."""
    points: Halved
    """(N, A) Remembered prompts."""
    lengths: Halved
    """(N,) Their squared lengths."""
    models: NDArray[np.intp]
    """(N,) Numbers of the models that answered them."""
    influence: Halved
    """(N,) What each outcome adds where prompts are equal."""
    levels: Floats
    """(M,) Of the models, far from any outcome."""
    pull: Halved = field(init=False, repr=False, compare=False)
    """(M, N) What each outcome adds to each model where prompts are equal."""
    apart: Halved = field(init=False, repr=False, compare=False)
    """(A + 2, N) A point, 1 and its squared length times this are its squared distances."""

    def __post_init__(self) -> None:
        """Make what follows from the rest."""
        apart = np.vstack([-2.0 * self.points.T, self.lengths, np.ones_like(self.lengths)])
        object.__setattr__(self, "apart", apart)
        pull = np.tile(np.float32(_COMMON) * self.influence, (len(self.levels), 1))
        known = np.flatnonzero(self.models < len(self.levels))
        pull[self.models[known], known] += np.float32(1.0 - _COMMON) * self.influence[known]
        object.__setattr__(self, "pull", pull)

    def predict(self, features: Features) -> Floats:
        """Return every model's expected target at *features*; (M,)."""
        wide = stack.placed(features.embedding, stack.form(features), self.centre, self.scale)
        point = stack.along(self.axes, wide - self.origin)
        # As `similarity` of one point, whose operations take longer than their arithmetic.
        near = np.concatenate([point, (1.0, point.dot(point))], dtype=np.float32).dot(self.apart)
        np.sqrt(np.maximum(near, 0.0, out=near), out=near)
        expected: Floats = self.levels + self.pull.dot(
            np.exp(np.negative(near, out=near), out=near)
        )
        return expected

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays."""
        return {name: getattr(self, name) for name in _SAVED}


_SAVED: Final = tuple([each.name for each in fields(Joint) if each.init])


def learn(seen: Seen, count: int) -> Joint | None:
    """Learn of *count* models what was *seen*; None where nothing of it counts."""
    some = seen.weights > _LEAST_WEIGHT
    if not some.any():
        return None
    forms = seen.forms[some].astype(np.float64)
    centre, scale = stack.spread(forms)
    wide = stack.placed(seen.topics[some].astype(np.float64), forms, centre, scale)
    origin, axes = stack.main_axes(wide, _AXES)
    points, models = stack.along(axes, wide - origin), seen.models[some]
    lengths = squared_lengths(points)
    influence = _solved(
        _alike(similarity(points, points, lengths), models), seen.targets[some], seen.weights[some]
    )
    own = np.bincount(models, influence, minlength=count)
    return Joint(
        centre=centre,
        scale=scale,
        origin=origin,
        axes=axes,
        points=points,
        lengths=lengths,
        models=models,
        influence=influence,
        levels=_LEVEL * (influence.sum() + own),
    )


def restored(arrays: Mapping[str, Array], numbers: NDArray[np.intp], count: int) -> Joint:
    """Return what `Joint.to_arrays` took apart; model i is now number *numbers*[i] of *count*.

    A model that is gone (number *count*) still tells of prompts; of a new one, what all have in
    common is expected. Raises KeyError where something is missing.
    """
    parts: dict[str, Any] = {name: arrays[name] for name in _SAVED}
    # What is known of every model at once is what a model has that nobody knows.
    everywhere = _LEVEL * float(parts["influence"].sum())
    levels = np.full(count, everywhere)
    for old, new in enumerate(numbers.tolist()):
        if new < count:
            levels[new] = parts["levels"][old]
    return Joint(**parts | {"models": numbers[parts["models"]], "levels": levels})


def _alike(near: Halved, models: NDArray[np.intp]) -> Halved:
    """Covariance (N, N) of outcomes whose prompts are as *near* (N, N) as that; in place."""
    same = models[:, None] == models
    np.multiply(near, _COMMON, out=near, where=~same)
    near += _LEVEL
    return np.add(near, _LEVEL, out=near, where=same)


def _solved(covariance: Halved, targets: Floats, weights: Floats) -> Halved:
    """Solve (covariance + noise / weights) x = targets; (N,).

    By conjugate gradients, scaled by the diagonal (Hestenes and Stiefel, 1952): the noise makes a
    few dozen steps enough, and `np.linalg.solve` would copy the matrix twice, in double precision.
    """
    covariance[np.diag_indices_from(covariance)] += (_NOISE / weights).astype(np.float32)
    scale = 1.0 / covariance.diagonal().astype(np.float64)
    solved, rest = np.zeros(len(targets)), targets.astype(np.float64)
    enough = _SOLVED * float(rest @ (scale * rest))
    step = scale * rest
    size = float(rest @ step)
    for _ in range(_STEPS):
        if size <= enough:
            break
        moved = (covariance @ step.astype(np.float32)).astype(np.float64)
        far = size / float(step @ moved)
        solved += far * step
        rest -= far * moved
        nearer = scale * rest
        before, size = size, float(rest @ nearer)
        step = nearer + size / before * step
    return solved.astype(np.float32)
