"""Whose feedback counts how much: sources that contradict all others lose their say.

A source is a tenant, or where there are none, whatever gives feedback. Of each, the mean residual
(score less expectation) per block, one model on one kind of task, is compared with that of all
others on the same block, as a chi-squared statistic with a tolerance for honest differences. While
sources agree, all count fully; what a source counts falls with its contradiction, and one that
contradicts may besides not give more than its share of a model's evidence. A lone source has
nobody to contradict. A name earns nothing: a liar may call itself a verifier. M = models, T = kinds
of task.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.features import TASKS, Floats

Array: TypeAlias = NDArray[Any]

VERSION: Final = 1
_SOURCES: Final = 256
"""Those heard last are remembered."""
_KEPT: Final = 1.0 - 1.0 / 400.0
"""Of a block's statistics, per outcome of the block, whoever gave it."""
_TOLERANCE: Final = 0.15
"""Difference of mean residuals that honest sources may have: their prompts differ."""
_NOISE: Final = 0.2
"""Variance of one residual."""
_SLACK: Final = 2.0
"""What chi-squared may exceed its expectation by before it counts."""
_SHARE: Final = 0.25
"""Most of a model's evidence that comes from one source which contradicts others."""
_COUNT, _SUM = 0, 1


class Trust:
    """What each source is worth. Mutable, one owner."""

    def __init__(self, models: Sequence[str]) -> None:
        """Start by trusting everybody."""
        self.models = tuple(models)
        self._rows: OrderedDict[str, int] = OrderedDict()
        """By source, longest silent first: its row."""
        self._heard = np.zeros((_SOURCES, 2, len(self.models), len(TASKS), 2))
        """Per source, as given and as counted: outcomes and sum of residuals of each block."""

    def learn(self, source: str, model: int, task: int, residual: float) -> float:
        """Take in a *residual* and return the weight in [0, 1] that its score is to be given."""
        mine = self._heard[self._row(source)]
        self._heard[: len(self._rows), :, model, task] *= _KEPT
        mine[0, model, task] += (1.0, residual)
        weight = self._weight(mine, model)
        mine[1, model, task] += (weight, weight * residual)
        return weight

    def alone(self, source: str, model: int, task: int) -> bool:
        """Whether *source* gives most of what is heard of a block."""
        given = self._heard[:, 0, model, task, _COUNT]
        return bool(given[self._row(source)] > 0.5 * given.sum())

    def changed(self, model: int, task: int) -> None:
        """Start a block anew: its model changed, and whoever said so first was right."""
        self._heard[:, :, model, task] = 0.0

    def to_arrays(self) -> dict[str, Array]:
        """Return the learned state as arrays, for `numpy.savez`."""
        return {
            "version": np.array(VERSION),
            "models": np.array(self.models, dtype=np.str_),
            "sources": np.array(list(self._rows), dtype=np.str_),
            "heard": self._heard[list(self._rows.values())],
        }

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Take in what `to_arrays` returned; new models start anew.

        Raises ValueError if it was written by another version.
        """
        if int(arrays["version"]) != VERSION:
            raise ValueError(f"trust state of version {arrays['version']}, not {VERSION}")
        known = [j for j, m in enumerate(arrays["models"].tolist()) if m in self.models]
        place = [self.models.index(arrays["models"].tolist()[j]) for j in known]
        self._rows.clear()
        self._heard[:] = 0.0
        for source, heard in zip(arrays["sources"].tolist(), arrays["heard"], strict=True):
            self._heard[self._row(source)][:, place] = heard[:, known]

    def _row(self, source: str) -> int:
        """Return a source's row, made if need be; the longest silent make room."""
        row = self._rows.get(source)
        if row is None:
            full = len(self._rows) == _SOURCES
            row = self._rows.popitem(last=False)[1] if full else len(self._rows)
            self._rows[source] = row
            self._heard[row] = 0.0
        self._rows.move_to_end(source)
        return row

    def _weight(self, mine: Floats, model: int) -> float:
        """Return what a source counts for by its agreement, and its share of *model*."""
        others: Floats = self._heard[: len(self._rows), 1].sum(axis=0) - mine[1]
        n, m = mine[0][..., _COUNT], others[..., _COUNT]
        both = (n > 0.5) & (m > 0.5)  # noqa: PLR2004 - less than one outcome is none
        if not both.any():
            return 1.0
        apart = np.abs(mine[0][..., _SUM][both] / n[both] - others[..., _SUM][both] / m[both])
        variance = _NOISE / n[both] + _NOISE / m[both]
        contradiction = float((np.maximum(apart - _TOLERANCE, 0.0) ** 2 / variance).sum())
        agreement = (both.sum() + _SLACK) / max(contradiction, 1e-9)
        if agreement >= 1.0:
            return 1.0
        agreement **= 2
        given = mine[1, model, :, _COUNT].sum()
        room = _SHARE / (1.0 - _SHARE) * others[model, :, _COUNT].sum()
        return float(agreement * min(1.0, room / max(given, 1e-9)))
