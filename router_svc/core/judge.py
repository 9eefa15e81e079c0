"""What is believed of every model now: the quality learner, corrected by changes, fed by trust.

The learner itself (`quality`) knows what a prompt asks for; `drift` knows which models are not what
they were, and `trust` whose feedback counts how much. M = models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from numpy.typing import NDArray

from router_svc.core.drift import Drift, Scored
from router_svc.core.features import Features, Floats
from router_svc.core.quality import Quality
from router_svc.core.trust import Trust

_PARTS: Final = ("drift", "trust")


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is believed of every model at one prompt; arrays (M,)."""

    quality: Floats
    stddev: Floats
    probes: Floats
    """Share of such requests to spend on each model that fell, to find it when it recovers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One score of one answer."""

    model: str
    score: float
    """In [0, 1]."""
    source: str = ""
    """Who gave it."""
    decided_s: float = 0.0
    """When the answer was decided on."""


class Judge:
    """Quality, drift and trust together. Mutable, one owner."""

    def __init__(self, quality: Quality) -> None:
        self.quality = quality
        self.drift = Drift(quality.models)
        self.trust = Trust(quality.models)
        self._index = {name: i for i, name in enumerate(quality.models)}

    def judge(self, features: Features) -> Judged:
        """Return what is believed now."""
        task = int(features.tasks.argmax())
        mean, stddev = self.drift.corrected(task, *self.quality.predict(features))
        return Judged(quality=mean, stddev=stddev, probes=self.drift.probes(task, mean))

    def learn(self, features: Features, verdict: Verdict) -> float:
        """Take in a verdict and return the weight in [0, 1] that it was given.

        Raises KeyError for an unknown model, ValueError for a score out of range.
        """
        i, task = self._index[verdict.model], int(features.tasks.argmax())
        mean, stddev = self.quality.predict_one(i, features)
        believed = self.drift.believed(i, task, mean)
        weight = self.trust.learn(verdict.source, i, task, verdict.score - believed)
        self.quality.learn(verdict.model, features, verdict.score, weight)
        seen = Scored(
            score=verdict.score,
            expected=mean,
            stddev=stddev,
            decided_s=verdict.decided_s,
            source=verdict.source,
            alone=self.trust.alone(verdict.source, i, task),
        )
        if self.drift.learn(i, task, seen, weight):
            self.trust.changed(i, task)
            self.quality.forget(i, task, self.drift.since(i, task))
        return weight

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what is learned beside the quality learner's own state."""
        return {
            f"{part}.{name}": array
            for part in _PARTS
            for name, array in getattr(self, part).to_arrays().items()
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take in what `to_arrays` returned; of an earlier version, that is nothing.

        Raises ValueError or KeyError where it cannot be.
        """
        for part in _PARTS:
            prefix = f"{part}."
            state = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            if state:
                getattr(self, part).restore(state)
