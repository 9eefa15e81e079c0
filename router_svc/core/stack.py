"""What a table of outcomes teaches: every model's score, learned in two stages.

The first stage, kernel ridge regression, nearest neighbours and randomised trees, says how every
model would do. The second stage, the same three again, finds prompts alike in *that* as well as in
text: prompts on which the same models do well belong together (stacked generalisation: Wolpert,
1992). It learns from what the first says of prompts that it has not seen. All six are then mixed,
by how well each of them does on prompts not seen. N = prompts, M = models, F = dimensions of a
prompt, A = its main axes, E = estimates mixed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import compress, product
from math import sqrt
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core import kernel, neighbours, trees, wording
from router_svc.core.clip import within
from router_svc.core.features import FORM, Features, Floats
from router_svc.core.kernel import Halved, Kernel, known_mean
from router_svc.core.neighbours import Neighbours
from router_svc.core.trees import Trees
from router_svc.core.wording import Wording

Array: TypeAlias = NDArray[Any]

_FORM: Final = 0.5
"""Weight of form (profile and lexical features) against topic (embedding)."""
_CLIP: Final = 4.0
"""Standard deviations beyond which a feature says no more."""
_CONSTANT: Final = 1e-6
_AXES: Final = 48
_FOLDS: Final = 5
_FIRST_NOISE, _SECOND_NOISE = 1.5, 4.0
_FIRST_SHARPNESS, _SECOND_SHARPNESS = 5.0, 4.0
_EVEN: Final = 0.02
"""How strongly the estimates' shares are held to be equal."""
_PARTS: Final = ("centre", "scale", "origin", "axes", "said_centre", "said_scale", "shares", "mean")
_WORDING: Final = "wording."


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """How the estimates of a stage see N prompts."""

    wide: Halved
    """(N, F) For the kernel."""
    narrow: Halved
    """(N, ·) For neighbours."""
    plain: Halved
    """(N, ·) For trees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trio:
    """Three estimates of the same targets: a smooth one, a local one and one by thresholds."""

    smooth: Kernel
    local: Neighbours
    rough: Trees

    def predict(self, sight: Sight) -> tuple[Floats, Floats, Floats]:
        """Return what each says of B prompts; (B, M) each."""
        return (
            self.smooth.predict(sight.wide),
            self.local.predict(sight.narrow),
            self.rough.predict(sight.plain),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """A learned table."""

    centre: Floats
    """What is subtracted from the form of a prompt."""
    scale: Floats
    """What it is then multiplied with."""
    origin: Halved
    """(F,) Mean prompt."""
    axes: Halved
    """(F, A) Directions in which prompts differ most."""
    wording: Wording
    first: Trio
    said_centre: Floats
    """(3M,) Mean of what the first stage says."""
    said_scale: Floats
    """(3M,) What it is multiplied with."""
    second: Trio
    shares: Floats
    """(6,) Of the estimates in the mixture, each in excess of the mean."""
    mean: Floats
    """(M,) Of the targets."""

    def predict(self, features: Features) -> Floats:
        """Return every model's expected target at *features*; (M,)."""
        wide = _points([features], self.centre, self.scale)
        narrow = along(self.axes, wide - self.origin)
        worded = self.wording.place([features.pieces])
        sight = _first_sight(wide, narrow, len(self.centre), worded)
        said = self.first.predict(sight)
        deep = _second_sight(said, self.said_centre, self.said_scale, sight)
        excess = np.stack([*said, *self.second.predict(deep)])[:, 0] - self.mean
        expected: Floats = self.mean + self.shares @ excess
        return expected

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays."""
        arrays: dict[str, Array] = {name: getattr(self, name) for name in _PARTS}
        arrays |= {f"{_WORDING}{k}": v for k, v in self.wording.to_arrays().items()}
        for stage, trio in (("first", self.first), ("second", self.second)):
            for kind, part in (
                ("smooth", trio.smooth),
                ("local", trio.local),
                ("rough", trio.rough),
            ):
                arrays |= {f"{stage}.{kind}.{k}": v for k, v in part.to_arrays().items()}
        return arrays


def learn(features: Sequence[Features], targets: Floats) -> Stack:
    """Learn *targets* (N, M), NaN where not known; of a model without any, 0 is expected."""
    centre, scale = spread(np.stack([form(each) for each in features]))
    wide = _points(features, centre, scale)
    origin, axes = main_axes(wide, _AXES)
    found = [each.pieces for each in features]
    worded = wording.learn(found)
    sight = _first_sight(wide, along(axes, wide - origin), len(centre), worded.place(found))
    group = _groups(wide)
    first, said = _staged(sight, targets, group, noise=_FIRST_NOISE, sharpness=_FIRST_SHARPNESS)
    together = np.hstack(said)
    said_centre, said_scale = together.mean(axis=0), _inverse(together.std(axis=0))
    deep = _second_sight(said, said_centre, said_scale, sight)
    second, then = _staged(deep, targets, group, noise=_SECOND_NOISE, sharpness=_SECOND_SHARPNESS)
    mean = known_mean(targets)
    return Stack(
        centre=centre,
        scale=scale,
        origin=origin,
        axes=axes,
        wording=worded,
        first=first,
        said_centre=said_centre,
        said_scale=said_scale,
        second=second,
        shares=_shares([each - mean for each in (*said, *then)], targets - mean),
        mean=mean,
    )


def restored(arrays: Mapping[str, Array]) -> Stack:
    """Return what `Stack.to_arrays` took apart. Raises KeyError where something is missing."""
    first, second = (
        Trio(
            smooth=kernel.restored(_under(f"{stage}.smooth.", arrays)),
            local=neighbours.restored(_under(f"{stage}.local.", arrays)),
            rough=trees.restored(_under(f"{stage}.rough.", arrays)),
        )
        for stage in ("first", "second")
    )
    parts: dict[str, Any] = {name: arrays[name] for name in _PARTS}
    worded = wording.restored(_under(_WORDING, arrays))
    return Stack(wording=worded, first=first, second=second, **parts)


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def form(features: Features) -> Floats:
    """Return the profile and lexical features of a prompt, as one array."""
    return features.regressors[FORM]


def placed(topics: Array, forms: Array, centre: Floats, scale: Floats) -> Halved:
    """Place prompts (N, F), or one (F,), so that squared distance is that of topic and of form."""
    scaled = within((forms - centre) * scale, -_CLIP, _CLIP) * sqrt(_FORM / len(centre))
    return np.concatenate([topics, scaled], axis=-1).astype(np.float32)


def spread(forms: Array) -> tuple[Floats, Floats]:
    """Return what to subtract from *forms* and what then to multiply with, for `placed`."""
    return forms.mean(axis=0), _inverse(forms.std(axis=0))


def _points(features: Sequence[Features], centre: Floats, scale: Floats) -> Halved:
    forms = np.stack([form(each) for each in features])
    return placed(np.stack([each.embedding for each in features]), forms, centre, scale)


def _first_sight(wide: Halved, narrow: Halved, forms: int, worded: Halved) -> Sight:
    """See prompts by their text: trees by its main axes, its *forms* last numbers and its words."""
    return Sight(wide=wide, narrow=narrow, plain=np.hstack([narrow, wide[:, -forms:], worded]))


def _second_sight(
    said: Iterable[Floats], said_centre: Floats, said_scale: Floats, first: Sight
) -> Sight:
    """See prompts by what the first stage *said* (N, M) of them, three times, and by their text."""
    together = (np.hstack(tuple(said)) - said_centre) * said_scale
    scaled = np.clip(together, -_CLIP, _CLIP) / np.sqrt(len(said_centre))
    deep = np.hstack([scaled, first.narrow]).astype(np.float32)
    plain = np.hstack([scaled, first.plain]).astype(np.float32)
    return Sight(wide=deep, narrow=deep, plain=plain)


def main_axes(points: Halved, count: int) -> tuple[Halved, Halved]:
    """Return the mean (F,) of *points* (N, F) and their first *count* principal axes (F, A)."""
    origin: Halved = points.mean(axis=0)
    around = (points - origin).astype(np.float64)
    _, axes = np.linalg.eigh(around.T @ around)
    return origin, axes[:, ::-1][:, :count].astype(np.float32)


def along(axes: Halved, points: Halved) -> Halved:
    """Project *points* (N, F) on *axes* (F, A); (N, A)."""
    projected: Halved = points @ axes
    return projected


def _inverse(spread: Floats) -> Floats:
    """Return 1 / *spread*, and 0 where nothing spreads."""
    inverse: Floats = np.where(spread > _CONSTANT, 1.0 / np.maximum(spread, _CONSTANT), 0.0)
    return inverse


def _groups(points: Halved) -> NDArray[np.intp]:
    """Number *points* (N, F), equal ones alike; (N,)."""
    _, group = np.unique(points, axis=0, return_inverse=True)
    return group


def _dealt(group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Deal *group* (N,) to folds (N,)."""
    order = np.random.default_rng(len(group)).permutation(int(group.max()) + 1)
    fold: NDArray[np.intp] = order[group] % _FOLDS
    return fold


def _staged(
    sight: Sight, targets: Floats, group: NDArray[np.intp], *, noise: float, sharpness: float
) -> tuple[Trio, tuple[Floats, Floats, Floats]]:
    """Learn a stage, and return what its estimates say of each prompt unseen; (N, M) each."""

    def pair(rows: NDArray[np.intp]) -> tuple[Kernel, Neighbours]:
        return (
            kernel.learn(sight.wide[rows], targets[rows], noise=noise),
            neighbours.remember(sight.narrow[rows], targets[rows], sharpness=sharpness),
        )

    said, near, fold = np.zeros(targets.shape), np.zeros(targets.shape), _dealt(group)
    for number in np.unique(fold).tolist():
        held = fold == number
        smooth, local = pair(np.flatnonzero(~held))
        said[held] = smooth.predict(sight.wide[held])
        near[held] = local.predict(sight.narrow[held])
    rough, split = trees.learn(sight.plain, targets, group)
    smooth, local = pair(np.arange(len(targets)))
    return Trio(smooth=smooth, local=local, rough=rough), (said, near, split)


def _shares(estimates: Sequence[Floats], targets: Floats) -> Floats:
    """Return the shares (E,) of *estimates* (N, M) that miss *targets* (N, M) least, none negative.

    Least squares, drawn to equal shares. With so few, every set of those above 0 is tried.
    """
    known, count = ~np.isnan(targets), len(estimates)
    said = np.stack([each[known] for each in estimates], axis=1)
    gram, moment = said.T @ said, said.T @ targets[known]
    even = _EVEN * np.trace(gram) / count + _CONSTANT
    gram += even * np.eye(count)
    moment += even / count
    best, least = np.full(count, 1.0 / count), float("inf")
    for chosen in product((False, True), repeat=count):
        some = list(compress(range(count), chosen))
        shares = np.zeros(count)
        shares[some] = np.linalg.solve(gram[np.ix_(some, some)], moment[some])
        missed = float(shares @ gram @ shares - 2.0 * shares @ moment)
        if shares.min() >= 0.0 and missed < least:
            best, least = shares, missed
    return best
