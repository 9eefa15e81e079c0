"""The newest outcomes, as they were seen: what a learner can learn again from.

Of each only the chosen model's score is known. Bounded: a new outcome takes the place of the
oldest. N = outcomes, E = dimensions of an embedding, L = of a prompt's form.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core import stack
from router_svc.core.features import EMBEDDING_SIZE, Features, Floats, lexical_profile

Array: TypeAlias = NDArray[Any]

VERSION: Final = 1
SIZE: Final = 3000
"""As many as a second suffices to learn again from."""
_FORM: Final = len(stack.form(lexical_profile("")))
_PARTS: Final = ("topics", "forms", "models", "tasks", "targets", "weights")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Outcomes, oldest first."""

    topics: Array
    """(N, E), halved."""
    forms: Array
    """(N, L), halved."""
    models: NDArray[np.intp]
    """(N,) Numbers of the models that answered."""
    tasks: NDArray[np.intp]
    """(N,) The kind of task that each prompt was taken for."""
    targets: Floats
    """(N,) What each scored, in excess of what was expected before any outcome."""
    weights: Floats
    """(N,) How much each counts."""


class Memory:
    """Up to *size* outcomes. Mutable, one owner."""

    def __init__(self, size: int = SIZE) -> None:
        self._held = Seen(
            topics=np.zeros((size, EMBEDDING_SIZE), dtype=np.float16),
            forms=np.zeros((size, _FORM), dtype=np.float16),
            models=np.zeros(size, dtype=np.intp),
            tasks=np.zeros(size, dtype=np.intp),
            targets=np.zeros(size),
            weights=np.zeros(size),
        )
        self.total = 0
        """Outcomes taken in, forgotten ones included."""

    def add(self, features: Features, model: int, target: float, weight: float) -> None:
        """Take in one outcome of *model* (its number)."""
        held, at = self._held, self.total % len(self._held.models)
        held.topics[at], held.forms[at] = features.embedding, stack.form(features)
        held.models[at], held.tasks[at] = model, features.tasks.argmax()
        held.targets[at], held.weights[at] = target, weight
        self.total += 1

    def forget(self, model: int, task: int, newest: int) -> None:
        """Count none of what *model* did on *task* but its *newest* outcomes."""
        order = self._order()
        mine = order[(self._held.models[order] == model) & (self._held.tasks[order] == task)]
        self._held.weights[mine[: max(len(mine) - newest, 0)]] = 0.0

    def seen(self) -> Seen:
        """Return a copy of all that is held."""
        order = self._order()
        return Seen(**{name: getattr(self._held, name)[order] for name in _PARTS})

    def to_arrays(self) -> dict[str, Array]:
        """Return all of it as arrays, for `numpy.savez`."""
        seen = self.seen()
        return {
            "version": np.array(VERSION),
            **{name: getattr(seen, name) for name in _PARTS},
        }

    def restore(self, arrays: Mapping[str, Array], numbers: NDArray[np.intp]) -> None:
        """Take in what `to_arrays` returned, where model i is now number *numbers*[i], -1: gone.

        Raises ValueError if it was written by another version, KeyError where a part is missing.
        """
        if int(arrays["version"]) != VERSION or arrays["forms"].shape[1] != _FORM:
            raise ValueError(f"memory of version {arrays['version']}, expected {VERSION}")
        models = numbers[arrays["models"]]
        kept = np.flatnonzero(models >= 0)[-len(self._held.models) :]
        self.total = len(kept)
        for name in _PARTS:
            part = models if name == "models" else arrays[name]
            getattr(self._held, name)[: len(kept)] = part[kept]

    def _order(self) -> NDArray[np.intp]:
        """Return where outcomes stand, oldest first."""
        size = len(self._held.models)
        if self.total <= size:
            return np.arange(self.total)
        return np.arange(self.total, self.total + size) % size
