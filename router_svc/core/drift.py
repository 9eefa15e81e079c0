"""When a model is not what it was: change detection, forgetting and probing per block.

A block is one model on one kind of task. Each runs two CUSUM tests (Page, 1954) on the
log-likelihood ratio of a score under the expectation against one that is `_STEP` worse, or better.
When a test sounds, what the learner believed of the block no longer counts alone: the outcomes
since the change correct it, and make it unsure, until the learner itself has caught up. A block
that fell is asked a small share of its requests again, so that it is found when it recovers.

Time is an argument: an outcome of an answer older than the change says nothing about it.
M = models, T = kinds of task.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, log
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import clipped
from router_svc.core.features import TASKS, Floats

Array: TypeAlias = NDArray[Any]

VERSION: Final = 1
PROBE_RATIO: Final = 0.05
"""Share of a task's requests that are spent on a model that fell, while it might be the best."""
_STEP: Final = 0.35
"""The change of expected quality that the tests are tuned to."""
_ALARM: Final = 7.0
"""A test sounds falsely about once in e^7 outcomes or later (Lorden, 1971)."""
_FOUND: Final = 4.0
"""The same for the recovery of what fell, where a mistake is noticed soon and costs little."""
_PRIOR_OUTCOMES: Final = 2.0
"""How many outcomes the learner's own belief weighs after a change."""
_KEPT: Final = 1.0 - 1.0 / 50.0
"""Of a correction, per outcome of its block."""
_SETTLED: Final = 0.1
"""A correction below this, on many outcomes, is noise: the learner has caught up."""
_SETTLED_OUTCOMES: Final = 25.0
_NOISE: Final = 0.2
"""Variance of a score around its expectation."""
_LARGEST_STDDEV: Final = 0.5
_FALL, _RISE = 0, 1
_COUNT, _SUM, _BEFORE = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One outcome and what the learner expected of it."""

    score: float
    """In [0, 1]."""
    expected: float
    """By the learner alone, in [0, 1]."""
    stddev: float
    """How unsure the learner was of that."""
    decided_s: float
    """When the answer was decided on; any clock that does not go back."""
    source: str = ""
    """Who gave the score."""
    alone: bool = True
    """Whether that source may sound an alarm by itself, because it gives most of the scores."""


class Drift:
    """Changes of every model on every kind of task. Mutable, one owner."""

    def __init__(self, models: Sequence[str]) -> None:
        """Start where nothing has changed."""
        self.models = tuple(models)
        shape = (len(self.models), len(TASKS))
        self._tests = np.zeros((2, *shape))
        """The two tests' statistics: fall, rise."""
        self._runs = np.zeros((2, *shape, 3))
        """Since each left zero: outcomes, sum of (score - expected), sum of what was believed."""
        self._shift = np.zeros((*shape, 2))
        """Since the last change: outcomes, sum of (score - expected); zeros where there is none."""
        self._before = np.zeros(shape)
        """What was believed before a fall; 0 where nothing fell."""
        self._changed_s = np.full(shape, -np.inf)
        self._nobody = np.zeros(len(self.models))
        self._nobody.flags.writeable = False
        self._voices: dict[tuple[int, int, int], dict[str, float]] = {}
        """By test and block: what each source said for a change since the test left zero."""
        self._note()

    def corrected(self, task: int, mean: Floats, stddev: Floats) -> tuple[Floats, Floats]:
        """Return the learner's *mean* and *stddev* (M,) on *task*, as changes leave them."""
        if not self._shifted[task]:
            return mean, stddev
        count, total = self._shift[:, task].T
        known = count + _PRIOR_OUTCOMES
        unsure = np.where(count > 0.0, _NOISE / known, 0.0)
        return (
            np.clip(mean + total / known, 0.0, 1.0),
            np.minimum(np.sqrt(stddev**2 + unsure), _LARGEST_STDDEV),
        )

    def believed(self, model: int, task: int, mean: float) -> float:
        """Return what changes leave of the learner's *mean* of one model, by its number."""
        count, total = self._shift[model, task].tolist()
        return clipped(mean + total / (count + _PRIOR_OUTCOMES), 0.0, 1.0)

    def probes(self, task: int, mean: Floats) -> Floats:
        """Return the share of requests of *task* to spend on each model that fell; (M,).

        *mean* (M,) is what is believed now: what would not be the best again is not asked.
        """
        if not self._fallen[task]:
            return self._nobody
        fallen = self._before[:, task]
        worth = (fallen > 0.0) & (fallen >= mean.max())
        share: Floats = PROBE_RATIO * worth / max(worth.sum(), 1)
        return share

    def since(self, model: int, task: int) -> int:
        """Return how many outcomes of *model* (its number) on *task* followed its last change."""
        return ceil(float(self._shift[model, task, _COUNT]))

    def learn(self, model: int, task: int, seen: Scored, weight: float = 1.0) -> bool:
        """Take in an outcome of *model* (its number) on *task*; return whether it shows a change.

        What the learner is itself unsure of counts less: that is learning, not change.
        """
        at = (model, task)
        if seen.decided_s < self._changed_s[at]:
            return False
        excess = seen.score - seen.expected
        believed = clipped(self.believed(model, task, seen.expected), 0.05, 0.95)
        if self._shift[model, task, _COUNT] > 0.0:
            self._carry_on(at, excess, weight)
        sure = weight * _NOISE / (_NOISE + 4.0 * seen.stddev**2)
        for way, step in ((_FALL, -_STEP), (_RISE, _STEP)):
            self._test((way, *at), seen, sure * _evidence(seen.score, believed, step))
            if self._tests[way][at] > 0.0:
                self._runs[way][at] += weight * np.array([1.0, excess, believed])
        for way in (_FALL, _RISE):
            limit = _FOUND if way == _RISE and self._before[at] > 0.0 else _ALARM
            if self._tests[way][at] > limit:
                self._change(way, at, seen.decided_s)
                return True
        return False

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "tests": self._tests.copy(),
            "runs": self._runs.copy(),
            "shift": self._shift.copy(),
            "before": self._before.copy(),
            "changed_s": self._changed_s.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models start anew.

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) != VERSION:
            raise ValueError(f"drift state of version {arrays['version']}, not {VERSION}")
        for j, name in enumerate(arrays["models"].tolist()):
            if name in self.models:
                i = self.models.index(name)
                self._tests[:, i], self._runs[:, i] = arrays["tests"][:, j], arrays["runs"][:, j]
                self._shift[i], self._before[i] = arrays["shift"][j], arrays["before"][j]
                self._changed_s[i] = arrays["changed_s"][j]
        self._note()

    def _note(self) -> None:
        """Note on which tasks any model changed, or fell: mostly none, and every decision asks."""
        self._shifted: list[bool] = np.any(self._shift[..., _COUNT], axis=0).tolist()
        self._fallen: list[bool] = np.any(self._before, axis=0).tolist()

    def _carry_on(self, at: tuple[int, int], excess: float, weight: float) -> None:
        """Follow what is left between the learner and the block since its change."""
        self._shift[at] = _KEPT * self._shift[at] + (weight, weight * excess)
        count, total = self._shift[at]
        settled = abs(total / (count + _PRIOR_OUTCOMES)) < _SETTLED
        if settled and count > _SETTLED_OUTCOMES:
            self._shift[at] = 0.0
            self._note()

    def _test(self, at: tuple[int, int, int], seen: Scored, evidence: float) -> None:
        """Take in *evidence* of a change; one source among others can bring half of an alarm."""
        voices = self._voices.setdefault(at, {})
        said = voices.get(seen.source, 0.0)
        if not seen.alone:
            evidence = min(evidence, max(0.5 * _ALARM - said, 0.0))
        voices[seen.source] = max(said + evidence, 0.0)
        self._tests[at] = max(0.0, self._tests[at] + evidence)
        if self._tests[at] == 0.0:
            self._runs[at] = 0.0
            voices.clear()

    def _change(self, way: int, at: tuple[int, int], decided_s: float) -> None:
        run = self._runs[way][at]
        if way == _RISE:
            self._before[at] = 0.0
        elif self._before[at] == 0.0:
            self._before[at] = run[_BEFORE] / run[_COUNT]
        self._shift[at] = run[[_COUNT, _SUM]]
        self._changed_s[at] = decided_s
        self._tests[:, at[0], at[1]] = 0.0
        self._runs[:, at[0], at[1]] = 0.0
        for each in (_FALL, _RISE):
            self._voices.pop((each, *at), None)
        self._note()


def _evidence(score: float, believed: float, step: float) -> float:
    """Log-likelihood ratio of *score*, as a share of coins, for *believed* + *step*."""
    other = min(max(believed + step, 0.02), 0.98)
    return score * log(other / believed) + (1.0 - score) * log((1.0 - other) / (1.0 - believed))
