"""When those who are refused should come back, and that they are served then.

Under an overload that lasts, whoever comes back meets as many newcomers as before: no time to retry
is honest unless it is kept. Each model's places are promised one after the other, at the pace at
which they come free (a virtual clock: Zhang, 1990). Who comes back when it was told to is known by
what it asks, goes before newcomers of its class, and finds that newcomers have left it its place.
What is kept free is as much as is usually claimed: nothing, where nobody comes back.

M = models; time is an argument.
"""

from bisect import bisect_left, insort
from collections import deque
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
        self._times_s: dict[int, list[float]] = {}
        """When each key is to come back, ascending; several may ask the same."""
        self._made: deque[tuple[int, float]] = deque()
        """All of them, in the order in which they were made."""
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
        self._until_s[model] = at_s
        insort(self._times_s.setdefault(key, []), at_s)
        self._made.append((key, at_s))
        self._open[model].append((at_s, key))
        if len(self._made) > _KEPT:
            self._forget(*self._made.popleft())
        return at_s - now_s

    def due(self, key: int, now_s: float) -> bool:
        """Whether a place was promised to *key* for now."""
        at_s = self._next_s(key, now_s)
        return at_s is not None and at_s - _EARLY_S <= now_s

    def open(self, key: int, now_s: float) -> bool:
        """Whether *key* was refused and has not come back when it was told to, nor let it pass."""
        return self._next_s(key, now_s) is not None

    def keep(self, key: int, now_s: float) -> float | None:
        """Return since when a place is *key*'s, None where none was promised for now."""
        at_s = self._next_s(key, now_s)
        if at_s is None or now_s < at_s - _EARLY_S:
            return None
        self._forget(key, at_s)
        return at_s

    def _next_s(self, key: int, now_s: float) -> float | None:
        """Return the first time of *key*'s that has not passed."""
        times_s = self._times_s.get(key, ())
        first = bisect_left(times_s, now_s - _GRACE_S)
        return times_s[first] if first < len(times_s) else None

    def _forget(self, key: int, at_s: float) -> None:
        """Drop a promise, if it still stands."""
        times_s = self._times_s.get(key, [])
        if at_s in times_s:
            times_s.remove(at_s)
            if not times_s:
                del self._times_s[key]

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
            count += at_s in self._times_s.get(key, ())
        return count

    def _expire(self, now_s: float) -> None:
        """Learn which promises were claimed by now."""
        for model, promised in enumerate(self._open):
            while promised and promised[0][0] + _HELD_S < now_s:
                at_s, key = promised.popleft()
                claimed = at_s not in self._times_s.get(key, ())
                self._claimed_ratio[model] += _LEARNED * (claimed - self._claimed_ratio[model])
