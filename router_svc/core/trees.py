"""Extremely randomised trees (Geurts et al., 2006): the mean of what many rough partitions say.

Each tree asks of one number at a time whether it is above a threshold, both drawn at random and
the best of a few draws taken, so what says nothing does no harm: that sets trees apart from
distances. A tree sees a bootstrap sample; the trees that missed a point say what is expected of it
unseen (out of bag: Breiman, 1996), so that a forest is grown once. All trees grow together, level
by level. N = points, F = their dimensions, M = targets, T = trees, K = nodes, L = leaves,
A = nodes of a level, G = dimensions of a guide, B = points to predict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import Floats
from router_svc.core.kernel import Halved, known_mean

Array: TypeAlias = NDArray[Any]
Ints: TypeAlias = NDArray[np.int32]

TREES: Final = 100
_LEAST: Final = 5
"""Points in a leaf, at least."""
_DRAWS: Final = 30
"""Thresholds that the best is taken of, per node."""
_DEEPEST: Final = 16
"""Steps to a leaf, at most: those that peel off a few points at a time are waited for by all."""
_GUIDES: Final = 4
"""Main axes of the targets that splits are judged by: more cost time and tell no more."""
_PRIOR_OUTCOMES: Final = 0.5
"""How many outcomes the mean of all weighs in a leaf."""
_BLOCK: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trees:
    """A grown forest. The first T nodes are the roots."""

    feature: Ints
    """(K,) Which of a point's numbers a node asks for."""
    threshold: Halved
    """(K,) Where that is above, the second child is next."""
    child: Ints
    """(K,) First child, the second stands beside it; of a leaf, the leaf itself."""
    leaf: Ints
    """(K,) Number of a leaf."""
    depth: Ints
    """() Steps from the roots to the last leaf."""
    value: Halved
    """(L, M) Expected in excess of the mean."""
    mean: Floats
    """(M,) Of the targets."""

    def predict(self, points: Halved) -> Floats:
        """Return the expected targets at *points* (B, F); (B, M)."""
        expected: Floats = self.mean + self.value[self._leaves(points)].mean(axis=1)
        return expected

    def _leaves(self, points: Halved) -> Ints:
        """Return the leaf of every tree that each of *points* (B, F) falls in; (B, T)."""
        flat, start = points.ravel(), np.arange(len(points))[:, None] * points.shape[1]
        node = np.tile(np.arange(TREES, dtype=np.int32), (len(points), 1))
        # A leaf leads to itself, so that nobody need look who has arrived.
        for _ in range(int(self.depth)):
            above = flat.take(start + self.feature.take(node)) > self.threshold.take(node)
            node = self.child.take(node) + above
        leaves: Ints = self.leaf.take(node)
        return leaves

    def unseen(self, points: Halved, missed: NDArray[np.bool_]) -> Floats:
        """Return what the trees that *missed* (N, T) each of *points* (N, F) expect; (N, M)."""
        said = np.zeros((len(points), len(self.mean)))
        for at in range(0, len(points), _BLOCK):
            some = slice(at, at + _BLOCK)
            value, out = self.value[self._leaves(points[some])], missed[some, :, None]
            said[some] = (value * out).sum(axis=1) / np.maximum(out.sum(axis=1), 1)
        return self.mean + said

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Level:
    """Points in the nodes of one level, those of a node side by side."""

    row: NDArray[np.intp]
    """Number of the point."""
    node: NDArray[np.intp]
    """In the level."""
    weight: Floats
    """How often its tree drew it."""
    width: int
    """A: nodes of the level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Split:
    """What the nodes of a level ask, (A,) each."""

    worth: Floats
    """How much it tells; minus infinity where a node cannot be split."""
    feature: Ints
    threshold: Halved
    """Infinite where a node cannot be split, so that nothing is above."""

    @property
    def inner(self) -> NDArray[np.bool_]:
        """Which nodes are split; (A,)."""
        return np.isfinite(self.worth)

    @property
    def first(self) -> NDArray[np.intp]:
        """Where in the next level the first child of each that is split stands; (A,)."""
        return 2 * (np.cumsum(self.inner) - 1)


def learn(points: Halved, targets: Floats, group: NDArray[np.intp]) -> tuple[Trees, Floats]:
    """Learn *targets* (N, M) at *points* (N, F), NaN where not known.

    A tree sees all points of a *group* (N,) or none. Return the forest, and of each point what is
    expected of it unseen (N, M).
    """
    # The same trees for the same table: what was learned can be learned again.
    rng = np.random.default_rng(len(points))
    mean, known = known_mean(targets), ~np.isnan(targets)
    excess = np.where(known, targets - mean, 0.0)
    drawn = _drawn(int(group.max()) + 1, rng)[:, group]
    tree, row = np.nonzero(drawn)
    level = _Level(row=row, node=tree, weight=drawn[tree, row].astype(np.float64), width=TREES)
    nodes, leaf = _grown(np.ascontiguousarray(points), _guide(excess), level, rng)
    trees = Trees(**nodes, value=_values(leaf, excess, known), mean=mean)
    return trees, trees.unseen(points, (drawn == 0).T)


def restored(arrays: Mapping[str, Array]) -> Trees:
    """Return what `Trees.to_arrays` took apart. Raises KeyError where something is missing."""
    return Trees(**{field.name: arrays[field.name] for field in fields(Trees)})


def _drawn(count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Draw for each tree as many of *count* as there are; (T, count) how often each was."""
    draws = rng.integers(count, size=(TREES, count))
    flat = draws + np.arange(TREES)[:, None] * count
    return np.bincount(flat.ravel(), minlength=TREES * count).reshape(TREES, count)


def _guide(excess: Floats) -> Floats:
    """Return what splits are judged by: *excess* (N, M) along its main axes; (N, G)."""
    if excess.shape[1] <= _GUIDES:
        return excess
    _, axes = np.linalg.eigh(excess.T @ excess)
    along: Floats = excess @ axes[:, -_GUIDES:]
    return along


def _grown(
    points: Halved, guide: Floats, level: _Level, rng: np.random.Generator
) -> tuple[dict[str, Array], _Level]:
    """Split until nothing can be; return all nodes, and the points by their leaf."""
    nodes: list[tuple[Ints, Halved, Ints, Ints]] = []
    ended: list[_Level] = []
    total = leaves = 0
    while level.width:
        split = _best(points, guide, level, _DRAWS if len(nodes) < _DEEPEST else 0, rng)
        itself = total + np.arange(level.width)
        number = leaves + np.cumsum(~split.inner) - 1
        total += level.width
        leaves += int((~split.inner).sum())
        nodes.append(
            (
                split.feature,
                split.threshold,
                np.where(split.inner, total + split.first, itself).astype(np.int32),
                np.where(split.inner, 0, number).astype(np.int32),
            )
        )
        ended.append(_some(level, ~split.inner[level.node], number))
        level = _below(points, level, split)
    names = ("feature", "threshold", "child", "leaf")
    parts = {n: np.concatenate(p) for n, p in zip(names, zip(*nodes, strict=True), strict=True)}
    return parts | {"depth": np.array(len(nodes) - 1)}, _joined(ended, leaves)


def _best(
    points: Halved, guide: Floats, level: _Level, draws: int, rng: np.random.Generator
) -> _Split:
    """Draw splits of every node and return the best of each."""
    count, width = level.width, points.shape[1]
    size = np.bincount(level.node, minlength=count)
    start, at = np.cumsum(size) - size, level.row * width
    # One row per sum that a split is judged by: of weights, and of each guide.
    pull = np.vstack([level.weight, level.weight * guide.T[:, level.row]]).astype(np.float32)
    whole = np.add.reduceat(pull, start, axis=1)
    best = _Split(
        worth=np.full(count, -np.inf),
        feature=np.zeros(count, dtype=np.int32),
        threshold=np.full(count, np.inf, dtype=np.float32),
    )
    for _ in range(draws):
        feature = rng.integers(width, size=count, dtype=np.int32)
        x = points.ravel()[at + np.repeat(feature, size)]
        low, high = np.minimum.reduceat(x, start), np.maximum.reduceat(x, start)
        threshold = low + rng.random(count, dtype=np.float32) * (high - low)
        under = np.add.reduceat(pull * (x <= np.repeat(threshold, size)), start, axis=1)
        above = whole - under
        fits = np.minimum(under[0], above[0]) >= _LEAST
        worth = sum(
            (side[1:] ** 2).sum(axis=0) / np.maximum(side[0], 1.0) for side in (under, above)
        )
        better = fits & (worth > best.worth)
        best = _Split(
            worth=np.where(better, worth, best.worth),
            feature=np.where(better, feature, best.feature),
            threshold=np.where(better, threshold, best.threshold),
        )
    return best


def _below(points: Halved, level: _Level, split: _Split) -> _Level:
    """Return the next level: the points that go on, in the children of their nodes."""
    goes = split.inner[level.node]
    row, node = level.row[goes], level.node[goes]
    below = split.first[node] + (points[row, split.feature[node]] > split.threshold[node])
    order = np.argsort(below, kind="stable")
    return _Level(
        row=row[order],
        node=below[order],
        weight=level.weight[goes][order],
        width=2 * int(split.inner.sum()),
    )


def _some(level: _Level, chosen: NDArray[np.bool_], number: NDArray[np.intp]) -> _Level:
    """Return the *chosen* points of *level*, their nodes by *number*."""
    return _Level(
        row=level.row[chosen],
        node=number[level.node[chosen]],
        weight=level.weight[chosen],
        width=level.width,
    )


def _joined(levels: Sequence[_Level], width: int) -> _Level:
    return _Level(
        row=np.concatenate([each.row for each in levels]),
        node=np.concatenate([each.node for each in levels]),
        weight=np.concatenate([each.weight for each in levels]),
        width=width,
    )


def _values(leaf: _Level, excess: Floats, known: NDArray[np.bool_]) -> Halved:
    """Return the mean excess (L, M) in each leaf of what is *known* (N, M)."""
    columns = []
    for target, seen in zip(excess.T, known.T, strict=True):
        total = np.bincount(leaf.node, leaf.weight * target[leaf.row], leaf.width)
        count = np.bincount(leaf.node, leaf.weight * seen[leaf.row], leaf.width)
        columns.append(total / (count + _PRIOR_OUTCOMES))
    return np.stack(columns, axis=1).astype(np.float32)
