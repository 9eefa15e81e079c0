"""When those who are refused should come back, and that they are served then.

Under an overload that lasts, whoever comes back meets as many newcomers as before: no time to retry
is honest unless it is kept. Each model's places are promised one after the other, at the pace at
which they come free (a virtual clock: Zhang, 1990). Who comes back when it was told to is known by
what it asks, goes before newcomers of its class, and finds that newcomers have left it its place.
What is kept free is as much as is usually claimed: nothing, where nobody comes back.

M = models; time is an argument.
"""

from collections import OrderedDict, deque
from typing import Final

import numpy as np

from router_svc.core.types import Floats

_KEPT: Final = 10_000
"""Promises that are remembered: the latest."""
_HELD_S: Final = 0.3
"""A place is kept free so long after its time,"""
_GRACE_S: Final = 10.0
"""and whoever comes later still goes before others for so long."""
_EARLY_S: Final = 0.02
"""Clocks differ by so much."""
_SHORTEST_S, _LONGEST_S = 0.05, 300.0
_FIRST_GUESS: Final = 1.0
_MARGIN: Final = 2.5
"""Promises follow each other so much more slowly than places come free: more than every second one
stays newcomers', and whoever comes back seldom waits behind others who do."""
_LEARNED: Final = 0.05


class Promises:
    """Times that were promised. Mutable, one owner."""

    def __init__(self, models: int) -> None:
        self._until_s = np.full(models, -np.inf)
        """(M,) Until when each model's places are promised."""
        self._times_s: OrderedDict[int, float] = OrderedDict()
        """When each key is to come back."""
        self._open = [deque[tuple[float, int]]() for _ in range(models)]
        """By model, the promises whose places are kept free or will be, in order."""
        self._claimed_ratio = np.full(models, _FIRST_GUESS)
        """(M,) Share of promises that were claimed in time."""

    def make(self, key: int, model: int, *, wait_s: float, pace_s: float, now_s: float) -> float:
        """Promise a place at *model* to *key*; return in how many seconds.

        The model is busy for *wait_s* yet with what waits, and has a place every *pace_s*.
        """
        free_s = max(now_s + wait_s, float(self._until_s[model]))
        at_s = free_s + _MARGIN * pace_s * float(self._claimed_ratio[model])
        at_s = min(max(at_s, now_s + _SHORTEST_S), now_s + _LONGEST_S)
        self._until_s[model] = self._times_s[key] = at_s
        self._times_s.move_to_end(key)
        self._open[model].append((at_s, key))
        if len(self._times_s) > _KEPT:
            self._times_s.popitem(last=False)
        return at_s - now_s

    def due(self, key: int, now_s: float) -> bool:
        """Whether a place was promised to *key* for now."""
        at_s = self._times_s.get(key)
        return at_s is not None and at_s - _EARLY_S <= now_s <= at_s + _GRACE_S

    def open(self, key: int, now_s: float) -> bool:
        """Whether *key* was refused and has not come back when it was told to, nor let it pass."""
        at_s = self._times_s.get(key)
        return at_s is not None and now_s <= at_s + _GRACE_S

    def keep(self, key: int, now_s: float) -> float | None:
        """Return since when a place is *key*'s, None where none was promised for now."""
        if not self.due(key, now_s):
            return None
        return self._times_s.pop(key)

    def owed(self, now_s: float, until_s: Floats) -> Floats:
        """Return how many of each model's places up to *until_s* are to be kept free; (M,)."""
        self._expire(now_s)
        open_ = [self._count(m, until) for m, until in enumerate(until_s.tolist())]
        owed: Floats = np.array(open_) * self._claimed_ratio
        return owed

    def _count(self, model: int, until_s: float) -> int:
        """Count a model's promises up to *until_s* that nobody has claimed yet."""
        count = 0
        for at_s, key in self._open[model]:
            if at_s > until_s:
                break
            count += self._times_s.get(key) == at_s
        return count

    def _expire(self, now_s: float) -> None:
        """Learn which promises were claimed by now."""
        for model, promised in enumerate(self._open):
            while promised and promised[0][0] + _HELD_S < now_s:
                at_s, key = promised.popleft()
                claimed = self._times_s.get(key) != at_s
                self._claimed_ratio[model] += _LEARNED * (claimed - self._claimed_ratio[model])
