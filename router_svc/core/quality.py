"""Which model is how good at a request: learned online from the chosen model's score alone.

M = models, D = length of `features.vector`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import TASKS, Features, Floats

Array: TypeAlias = NDArray[Any]
VERSION: Final = 1
_PRIOR_OUTCOMES: Final = 4.0
"""How many outcomes the configured prior weighs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Belief:
    """What is believed of one model on one kind of task."""

    model: str
    task: str
    mean: float
    stddev: float
    outcomes: float
    """Outcomes behind it, weighted by how well they are remembered."""


class Quality:
    """Predicted quality of every model. Mutable, one owner."""

    def __init__(
        self,
        models: Sequence[str],
        priors: Mapping[str, Mapping[str, float]],
        *,
        half_life_outcomes: float = 2000.0,
    ) -> None:
        """Start at *priors*: model to task to expected quality, 0.5 where not given."""
        self.models = tuple(models)
        """Order of every (M,) array."""
        self._index = {name: i for i, name in enumerate(self.models)}
        self._prior = np.array([[priors.get(m, {}).get(t, 0.5) for t in TASKS] for m in models])
        self._forgetting = 0.5 ** (1.0 / half_life_outcomes)
        self._count = np.zeros((len(models), len(TASKS)))
        self._sum = np.zeros((len(models), len(TASKS)))

    def predict(self, features: Features) -> tuple[Floats, Floats]:
        """Return expected quality (M,) in [0, 1] and its standard deviation (M,)."""
        count = self._count + _PRIOR_OUTCOMES
        mean = (self._sum + _PRIOR_OUTCOMES * self._prior) / count
        expected = mean @ features.tasks
        variance = (mean * (1.0 - mean) / (count + 1.0)) @ features.tasks**2
        return expected, np.sqrt(variance)

    def learn(self, model: str, features: Features, score: float, weight: float = 1.0) -> None:
        """Take in a *score* in [0, 1]. Raises KeyError for an unknown model, ValueError for NaN."""
        i = self._index[model]
        self._count[i] = self._count[i] * self._forgetting + weight * features.tasks
        self._sum[i] = self._sum[i] * self._forgetting + weight * score * features.tasks

    def beliefs(self) -> list[Belief]:
        """Return what is believed of each model on each kind of task."""
        count = self._count + _PRIOR_OUTCOMES
        mean = (self._sum + _PRIOR_OUTCOMES * self._prior) / count
        stddev = np.sqrt(mean * (1.0 - mean) / (count + 1.0))
        return [
            Belief(
                model=name,
                task=task,
                mean=float(mean[i, t]),
                stddev=float(stddev[i, t]),
                outcomes=float(self._count[i, t]),
            )
            for i, name in enumerate(self.models)
            for t, task in enumerate(TASKS)
        ]

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models),
            "count": self._count.copy(),
            "sum": self._sum.copy(),
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned: known models get their state, new ones keep the prior.

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) != VERSION:
            raise ValueError(f"quality state of version {arrays['version']}, expected {VERSION}")
        for j, name in enumerate(arrays["models"].tolist()):
            if name in self._index:
                self._count[self._index[name]] = arrays["count"][j]
                self._sum[self._index[name]] = arrays["sum"][j]
