"""Whether models succeed and fail together: learned from requests that several of them answered.

Per pair of models and kind of task, the correlation of their scores about what was predicted for
each: sum of products of residuals over sum of products of standard deviations. A pair's task is
shrunk to the pair, and the pair to a prior; old outcomes fade. A model paired with itself is two
answers of one model. M = models, T = kinds of task. Bounded: 2·M²·T numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import Floats, within
from router_svc.core.features import TASKS

Array: TypeAlias = NDArray[Any]

VERSION: Final = 1
_PRIOR: Final = 0.5
"""Models fail together: what is hard for one is hard for the next."""
_PRIOR_SELF: Final = 0.7
_PAIR_SPREAD: Final = 8.0
"""How much the prior weighs, in units of variance: about forty outcomes."""
_TASK_SPREAD: Final = 6.0
_LEAST, _MOST = -0.5, 0.98
_KEPT: Final = 0.5 ** (1.0 / 2000.0)
_ALTERNATIVES: Final = 5
"""Wrong answers scatter over about so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One model's answer among several to the same request."""

    model: str
    quality: float
    """Predicted, in [0, 1]."""
    score: float | None
    """In [0, 1]; None where all that is known is that it differs from an answer that is wrong."""


class Agreement:
    """Correlation of success, per pair of models and task. Mutable, one owner."""

    def __init__(self, models: Sequence[str]) -> None:
        """Start every pair at the prior."""
        self.models = tuple(models)
        self._index = {name: i for i, name in enumerate(self.models)}
        count = len(self.models)
        self._sums = np.zeros((2, count, count, len(TASKS)))
        """Products of residuals, and products of standard deviations."""
        self._prior = np.where(np.eye(count, dtype=np.bool_), _PRIOR_SELF, _PRIOR)
        self._each: Floats | None = None
        """(M, M, T) What `_by_task` found since the last outcome."""

    def correlation(self, tasks: Floats) -> Floats:
        """Return the correlation of success (M, M) on a request that is *tasks* (T,)."""
        if self._each is None:
            self._each = self._by_task()
        found: Floats = self._each.dot(tasks)
        return found

    def expected(self, tasks: Floats, one: Member, seen: Member) -> float:
        """Return what *one* is expected to score where *seen* scored what it did: linearly.

        Raises KeyError for unknown models.
        """
        assert seen.score is not None
        together = float(self.correlation(tasks)[self._index[one.model], self._index[seen.model]])
        slope = together * sqrt(_variance(one.quality) / _variance(seen.quality))
        return min(max(one.quality + slope * (seen.score - seen.quality), 0.0), 1.0)

    def learn(self, tasks: Floats, members: Sequence[Member]) -> None:
        """Take in one request that all *members* answered. Raises KeyError for unknown models."""
        self._each = None
        for n, one in enumerate(members):
            for other in members[:n]:
                self._pair(tasks, one, other)

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "sums": self._sums.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models keep the prior.

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) != VERSION or arrays["sums"].shape[3] != len(TASKS):
            raise ValueError(f"agreement state of version {arrays['version']}, not {VERSION}")
        self._each = None
        found = {name: j for j, name in enumerate(arrays["models"].tolist())}
        kept = [(i, found[name]) for name, i in self._index.items() if name in found]
        for i, j in kept:
            for k, m in kept:
                self._sums[:, i, k] = arrays["sums"][:, j, m]

    def _by_task(self) -> Floats:
        together, spread = self._sums
        pair = (together.sum(axis=2) + _PAIR_SPREAD * self._prior) / (
            spread.sum(axis=2) + _PAIR_SPREAD
        )
        each = (together + _TASK_SPREAD * pair[:, :, None]) / (spread + _TASK_SPREAD)
        return within(each, _LEAST, _MOST)

    def _pair(self, tasks: Floats, one: Member, other: Member) -> None:
        i, j = self._index[one.model], self._index[other.model]
        first, second = _residual(one), _residual(other)
        spread = np.sqrt(_variance(one.quality) * _variance(other.quality))
        news = np.array([first * second, spread])[:, None] * tasks
        for a, b in {(i, j), (j, i)}:
            self._sums[:, a, b] = _KEPT * self._sums[:, a, b] + news


def differing(quality: float) -> float:
    """Probability that an answer is right which differs from a wrong one; *quality* beforehand."""
    wrong = (1.0 - quality) * (1.0 - 1.0 / _ALTERNATIVES)
    return quality / max(quality + wrong, 1e-9)


def _residual(member: Member) -> float:
    score = differing(member.quality) if member.score is None else member.score
    return score - member.quality


def _variance(quality: float) -> float:
    q = min(max(quality, 0.05), 0.95)
    return q * (1.0 - q)
