"""Which model is how good at a request: learned online from the chosen model's score alone.

One Bayesian ridge regression per model over `Features.regressors`, of what scores exceed the
expectation by (LinUCB's estimator: Li et al., 2010). The expectation is the configured prior, and
what a table of outcomes taught, where there was one. Beside it stands what is learned now and then
from all remembered outcomes at once (`joint`): `lesson` says when, and can be learned from in
another thread. M = models, D = regressors, T = kinds of task.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite, sqrt
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core import joint, stack
from router_svc.core.clip import HALF, ONE, ZERO, clipped, within
from router_svc.core.features import TASKS, Features, Floats, lexical_profile
from router_svc.core.joint import Joint
from router_svc.core.memory import SIZE, Memory, Seen
from router_svc.core.ridge import Ridges

Array: TypeAlias = NDArray[Any]

VERSION: Final = 4
_READABLE: Final = (3, VERSION)
"""In version 3 no table knew how prompts are worded."""
_DIMENSIONS: Final = len(lexical_profile("").regressors)
_PRECISION: Final = 4.0
"""Of the prior, per regressor: a model has to fail more than once before it loses its place."""
_AGES_APART: Final = 16.0
"""Outcomes of a model after which its past is aged: weights are off by a 180th at most."""
_PRIOR_OUTCOMES: Final = 4.0
"""How many outcomes the configured prior weighs in a belief."""
_NOISE: Final = 0.2
"""Variance of a score around its expectation, before any is seen: a coin's is 0.25."""
_NOISE_OUTCOMES: Final = 20.0
_TABLE_OUTCOMES: Final = 50.0
"""How many outcomes of a model a table weighs against those to come: models change."""
_TABLE: Final = "table."
"""What the names of a table's saved arrays begin with."""
_MEMORY: Final = "memory."
_JOINT: Final = "joint."
_JOINT_SHARE: Final = 0.5
"""Of what was learned from the memory, next to the regressions that follow every outcome."""
_FIRST_LESSON, _LESSONS_APART = 100, 500
"""Outcomes until the memory is learned from, and at most until it is again."""
_PROMPTS: Final = 256
"""Whose predictions but for the regressions are kept: an answer's score comes soon, or late."""
_LARGEST_STDDEV: Final = HALF
"""No quantity in [0, 1] has a larger one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What is believed of one model on one kind of task."""

    model: str
    task: str
    mean: float
    stddev: float
    outcomes: float
    """Outcomes behind it, weighted by how well they are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What is remembered, to be learned from; a copy that another thread may read."""

    seen: Seen
    models: int

    def learn(self) -> Joint | None:
        """Learn all of it at once: about a second for a full memory."""
        return joint.learn(self.seen, self.models)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """What is known of a prompt but for the regressions, which alone follow every outcome."""

    features: Features
    expected: Floats
    """(M,) Before any outcome."""
    learned: Floats | None
    """(M,) What memory adds to that; None where nothing was learned from it."""


class Quality:
    """Predicted quality of every model. Mutable, one owner."""

    def __init__(
        self,
        models: Sequence[str],
        priors: Mapping[str, Mapping[str, float]],
        *,
        half_life_outcomes: float = 2000.0,
        remembered_outcomes: int = SIZE,
    ) -> None:
        """Start at *priors*: model to task to expected quality, 0.5 where not given.

        After *half_life_outcomes* more of its outcomes, a model's old one weighs half. The newest
        *remembered_outcomes* of all models are kept to be learned from again.
        """
        self.models = tuple(models)
        """Order of every (M,) array."""
        count = len(self.models)
        self._index = {name: i for i, name in enumerate(self.models)}
        self._prior = np.array([[priors.get(m, {}).get(t, 0.5) for t in TASKS] for m in models])
        self._forgetting = 0.5 ** (1.0 / half_life_outcomes)
        self._table: stack.Stack | None = None
        self._table_models: tuple[str, ...] = ()
        self._column = np.zeros(count, dtype=np.intp)
        """Of each model in what the table predicts."""
        precision = np.full(_DIMENSIONS, _PRECISION)
        mean = np.zeros((count, _DIMENSIONS))
        self._excess = Ridges(mean, precision, forgetting=self._forgetting, apart=_AGES_APART)
        self._residuals = np.zeros((count, 2))
        """Per model: outcomes, and the sum of their squared standardised errors."""
        self._variance = np.full(count, _NOISE)
        """(M,) Of a score around its expectation."""
        self._tallies = np.zeros((2, count, len(TASKS)))
        """Per model and task: outcomes, and the sum of their scores."""
        self._memory = Memory(remembered_outcomes)
        self._joint: Joint | None = None
        self._untaught = 0
        """Outcomes since the memory was learned from."""
        self._known: OrderedDict[int, _Known] = OrderedDict()
        """Of the prompts asked about last, by the identity of their features: who learns of one has
        asked before. None where only the prior is expected before any outcome: to work that out
        takes no longer."""

    def predict(self, features: Features) -> tuple[Floats, Floats]:
        """Return expected quality (M,) in [0, 1] and its standard deviation (M,)."""
        expected, learned = self._before(features)
        excess, leverage = self._excess.predict(features.regressors)
        if learned is not None:
            excess += _JOINT_SHARE * (learned - excess)
        mean = within(expected + excess, ZERO, ONE)
        stddev = np.sqrt(self._variance * np.maximum(leverage, ZERO))
        return mean, np.minimum(stddev, _LARGEST_STDDEV)

    def predict_one(self, model: int, features: Features) -> tuple[float, float]:
        """Return the same of one *model* alone, by its number."""
        expected, learned = self._before(features)
        excess, leverage = self._excess.predict_one(model, features.regressors)
        if learned is not None:
            excess += _JOINT_SHARE * (float(learned[model]) - excess)
        mean = clipped(float(expected[model]) + excess, 0.0, 1.0)
        stddev = sqrt(float(self._variance[model]) * max(leverage, 0.0))
        return mean, min(stddev, float(_LARGEST_STDDEV))

    def learn(self, model: str, features: Features, score: float, weight: float = 1.0) -> None:
        """Take in a *score* in [0, 1] of *model*, *weight* times.

        Raises KeyError for an unknown model, ValueError for a score or weight out of range.
        """
        if not 0.0 <= score <= 1.0:
            raise ValueError(f"score: {score} is not in [0, 1]")
        if not (weight >= 0.0 and isfinite(weight)):
            raise ValueError(f"weight: {weight} is not a finite number of at least 0")
        i, x = self._index[model], features.regressors
        target = score - float(self._before(features)[0][i])
        mean, leverage = self._excess.predict_one(i, x)
        error = (target - mean) ** 2 / (1.0 + leverage)
        self._residuals[i] = self._forgetting * self._residuals[i] + (weight, weight * error)
        self._variance = self._noise()
        self._excess.learn(i, x, target, weight)
        self._tallies[:, i] *= self._forgetting
        self._tallies[:, i] += weight * np.outer((1.0, score), features.tasks)
        self._memory.add(features, i, target, weight)
        self._untaught += 1

    def lesson(self) -> Lesson | None:
        """Return what is remembered, if it is time to learn from it; `adopt` what comes of it."""
        before = self._memory.total - self._untaught
        if self._untaught < min(max(before, _FIRST_LESSON), _LESSONS_APART):
            return None
        self._untaught = 0
        seen = self._memory.seen()
        fade = self._forgetting ** _later(seen.models)
        return Lesson(seen=replace(seen, weights=seen.weights * fade), models=len(self.models))

    def adopt(self, learned: Joint | None) -> None:
        """Predict with what came of a lesson from now on; None: with none."""
        self._joint = learned
        self._known.clear()

    def forget(self, model: int, task: int, newest: int) -> None:
        """Count no remembered outcome of a block that changed, but its *newest*; learn anew soon.

        *model* and *task* are numbers, in the order of `models` and TASKS.
        """
        self._memory.forget(model, task, newest)
        if self._memory.total >= _FIRST_LESSON:
            self._untaught = max(self._untaught, _LESSONS_APART)

    def learn_table(self, features: Sequence[Features], scores: Floats) -> None:
        """Start from a table of *scores* (N, M) in [0, 1], NaN where a model was not run.

        It becomes the expectation that later outcomes are learned as excess over. Raises
        ValueError for a score out of range, and once anything was learned.
        """
        if not np.all(np.isnan(scores) | ((scores >= 0.0) & (scores <= 1.0))):
            raise ValueError("scores: not all are in [0, 1]")
        if self._tallies.any():
            raise ValueError("scores: a table comes before every other outcome")
        tasks = np.stack([each.tasks for each in features])
        self._table = stack.learn(features, scores - tasks @ self._prior.T)
        self._known.clear()
        self._take_table(self.models)
        x = np.stack([each.regressors for each in features])
        for i, run in enumerate(~np.isnan(scores).T):
            weight = min(1.0, _TABLE_OUTCOMES / max(run.sum(), 1))
            self._excess.learn_expected(i, x[run], weight)
            self._tallies[0, i] += weight * tasks[run].sum(axis=0)
            self._tallies[1, i] += weight * scores[run, i] @ tasks[run]

    def beliefs(self) -> list[Belief]:
        """Return what is believed of each model on each kind of task: its past there, and prior."""
        count, total = self._tallies
        mean = (total + _PRIOR_OUTCOMES * self._prior) / (count + _PRIOR_OUTCOMES)
        stddev = np.sqrt(mean * (1.0 - mean) / (count + _PRIOR_OUTCOMES + 1.0))
        return [
            Belief(
                model=name,
                task=task,
                mean=float(mean[i, t]),
                stddev=float(stddev[i, t]),
                outcomes=float(count[i, t]),
            )
            for i, name in enumerate(self.models)
            for t, task in enumerate(TASKS)
        ]

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        gram, moment = self._excess.statistics()
        return {
            **self._table_arrays(),
            **self._memory_arrays(),
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "gram": gram,
            "moment": moment,
            "residuals": self._residuals.copy(),
            "tallies": self._tallies.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned: known models get their state, new ones keep the prior.

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) not in _READABLE or arrays["moment"].shape[1] != _DIMENSIONS:
            raise ValueError(f"quality state of version {arrays['version']}, expected {VERSION}")
        self._known.clear()
        self._restore_table(arrays)
        self._restore_memory(arrays)
        for j, name in enumerate(arrays["models"].tolist()):
            if (i := self._index.get(name)) is not None:
                self._excess.restore(i, arrays["gram"][j], arrays["moment"][j])
                self._residuals[i] = arrays["residuals"][j]
                self._tallies[:, i] = arrays["tallies"][:, j]
        self._variance = self._noise()

    def _before(self, features: Features) -> tuple[Floats, Floats | None]:
        """Return what is expected of every model before any outcome, and what memory adds; (M,).

        None where nothing was learned from it.
        """
        if self._table is None and self._joint is None:
            return self._prior.dot(features.tasks), None
        known = self._known.get(id(features))
        if known is None:
            learned = None if self._joint is None else self._joint.predict(features)
            known = _Known(features=features, expected=self._expected(features), learned=learned)
            # What is kept keeps its features, so that no others have their identity.
            self._known[id(features)] = known
            if len(self._known) > _PROMPTS:
                self._known.popitem(last=False)
        return known.expected, known.learned

    def _expected(self, features: Features) -> Floats:
        """Return what is expected of every model before any outcome (M,)."""
        prior: Floats = self._prior.dot(features.tasks)
        if self._table is None:
            return prior
        # A model that the table does not know takes the 0 behind those it knows.
        excess: Floats = np.append(self._table.predict(features), 0.0)[self._column]
        return prior + excess

    def _take_table(self, models: Sequence[str]) -> None:
        """Note which of the table's *models* each of these is."""
        self._table_models = tuple(models)
        known = {name: j for j, name in enumerate(models)}
        self._column = np.array([known.get(m, len(models)) for m in self.models], dtype=np.intp)

    def _table_arrays(self) -> dict[str, Array]:
        if self._table is None:
            return {}
        parts = {f"{_TABLE}{name}": array for name, array in self._table.to_arrays().items()}
        return parts | {f"{_TABLE}models": np.array(self._table_models, dtype=np.str_)}

    def _restore_table(self, arrays: Mapping[str, Array]) -> None:
        """Put back the table, whole: it says nothing to models that it does not know."""
        parts = _under(_TABLE, arrays)
        if parts:
            self._take_table(parts["models"].tolist())
            self._table = stack.restored(parts)

    def _memory_arrays(self) -> dict[str, Array]:
        arrays = {f"{_MEMORY}{k}": v for k, v in self._memory.to_arrays().items()}
        arrays["untaught"] = np.array(self._untaught)
        if self._joint is not None:
            arrays |= {f"{_JOINT}{k}": v for k, v in self._joint.to_arrays().items()}
        return arrays

    def _restore_memory(self, arrays: Mapping[str, Array]) -> None:
        """Put back what is remembered, and what was learned of it; earlier states have neither."""
        held, learned = _under(_MEMORY, arrays), _under(_JOINT, arrays)
        numbers = np.array([self._index.get(name, -1) for name in arrays["models"].tolist()])
        if held:
            self._memory.restore(held, numbers)
            self._untaught = int(arrays["untaught"])
        if learned:
            count = len(self.models)
            known = np.where(numbers < 0, count, numbers)
            self._joint = joint.restored(learned, known, count)

    def _noise(self) -> Floats:
        """Return the variance of a score around its expectation (M,)."""
        count, squares = self._residuals.T
        variance: Floats = (_NOISE_OUTCOMES * _NOISE + squares) / (_NOISE_OUTCOMES + count)
        return variance


def _later(models: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return how many outcomes of its model came after each (N,)."""
    later = np.zeros(len(models), dtype=np.intp)
    for model in np.unique(models):
        mine = np.flatnonzero(models == model)
        later[mine] = np.arange(len(mine))[::-1]
    return later


def _under(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
