"""Latency sketches: counts of durations in logarithmic buckets.

Bucket i holds durations in (1.1^(i-1), 1.1^i] microseconds, as
`zeta.model.v1.LatencySketch` says; the idea is DDSketch's (Masson et al., VLDB 2019).
Laws: adding and subtracting are bucket by bucket, so (a + b) - b = a, and a quantile of the
sum is that of all durations together; any quantile is within 5 % of the true one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

GAMMA = 1.1
"""Each bucket's upper bound over the one before."""
BUCKETS = 384
"""1.1^383 microseconds are hundreds of years: no duration is above."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sketch:
    """A sketch. Letters: K buckets that are not empty."""

    buckets: npt.NDArray[np.uint16]
    """(K,) bucket numbers, ascending."""
    counts: npt.NDArray[np.uint64]
    """(K,) durations in each, positive."""
    sum_s: float

    def __add__(self, other: "Sketch") -> "Sketch":
        return _sparse(_dense(self) + _dense(other), self.sum_s + other.sum_s)

    def __sub__(self, other: "Sketch") -> "Sketch":
        """Take *other*, an earlier moment of the same process, away; never below nothing."""
        mine, theirs = _dense(self), _dense(other)
        left = np.where(mine > theirs, mine - theirs, np.uint64(0))
        return _sparse(left, max(0.0, self.sum_s - other.sum_s))

    @property
    def count(self) -> int:
        """Durations in all."""
        return int(self.counts.sum())

    def quantile_s(self, q: float) -> float | None:
        """Return the smallest duration that a share *q* in [0, 1] does not exceed.

        None for an empty sketch. The bucket's harmonic middle 2·1.1^i/(1 + 1.1) is off by at
        most 0.1/2.1 of the true value.
        """
        total = self.count
        if total == 0:
            return None
        rank = max(1, ceil(q * total))
        place = int(np.searchsorted(np.cumsum(self.counts), rank))
        return float(2 * GAMMA ** int(self.buckets[place]) / (1 + GAMMA) * 1e-6)


def sketch(buckets: npt.ArrayLike, counts: npt.ArrayLike, sum_s: float) -> Sketch:
    """Build a sketch of (K,) *buckets* and *counts*.

    Raises ValueError where they are not what the class says.
    """
    places, numbers = np.asarray(buckets, np.int64), np.asarray(counts, np.uint64)
    if places.shape != numbers.shape or places.ndim != 1:
        raise ValueError(f"{places.size} buckets but {numbers.size} counts")
    if places.size and not (places[0] >= 0 and places[-1] < BUCKETS):
        raise ValueError(f"buckets must be in [0, {BUCKETS}), got {places[0]} to {places[-1]}")
    if (places[1:] <= places[:-1]).any():
        raise ValueError("buckets must ascend")
    if not 0 <= sum_s < float("inf"):
        raise ValueError(f"the sum of durations must not be negative, got {sum_s}")
    kept = numbers > 0
    return Sketch(buckets=places[kept].astype(np.uint16), counts=numbers[kept], sum_s=sum_s)


EMPTY = sketch((), (), 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTotals:
    """What a replica did for one kind of task, from some moment on."""

    requests: int = 0
    completion_tokens: int = 0
    ttft: Sketch = EMPTY
    """Time to first token."""
    tpot: Sketch = EMPTY
    """Time per output token after the first."""

    def __add__(self, other: "TaskTotals") -> "TaskTotals":
        return TaskTotals(
            requests=self.requests + other.requests,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            ttft=self.ttft + other.ttft,
            tpot=self.tpot + other.tpot,
        )

    def __sub__(self, other: "TaskTotals") -> "TaskTotals":
        return TaskTotals(
            requests=max(0, self.requests - other.requests),
            completion_tokens=max(0, self.completion_tokens - other.completion_tokens),
            ttft=self.ttft - other.ttft,
            tpot=self.tpot - other.tpot,
        )


Tasks = Mapping[int, TaskTotals]
"""Kind of task, by its number on the wire → totals."""


def since(later: Tasks, earlier: Tasks) -> dict[int, TaskTotals]:
    """Return what was done between two moments; kinds without anything are left out."""
    nothing = TaskTotals()
    done = {kind: totals - earlier.get(kind, nothing) for kind, totals in later.items()}
    return {kind: t for kind, t in done.items() if t.requests or t.ttft.count}


def joined(a: Tasks, b: Tasks) -> dict[int, TaskTotals]:
    """Add two tables, kind by kind."""
    nothing = TaskTotals()
    return {kind: a.get(kind, nothing) + b.get(kind, nothing) for kind in (*a, *(b.keys() - a))}


def _dense(sparse: Sketch) -> npt.NDArray[np.uint64]:
    """Spread over (BUCKETS,)."""
    wide = np.zeros(BUCKETS, np.uint64)
    wide[sparse.buckets] = sparse.counts
    return wide


def _sparse(wide: npt.NDArray[np.uint64], sum_s: float) -> Sketch:
    kept = np.flatnonzero(wide)
    return Sketch(buckets=kept.astype(np.uint16), counts=wide[kept], sum_s=sum_s)
