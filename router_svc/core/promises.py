"""When those who are refused should come back, and that they are served then.

Under an overload that lasts, whoever comes back meets as many newcomers as before: no time to retry
is honest unless it is kept. Each model's places are promised one after the other, at the pace at
which they come free (a virtual clock: Zhang, 1990), as far as they are expected to be claimed: how
many of those who were told to come back do so is learned. What nobody claims is free again for
others once its time is over. Who comes back when it was told to goes before newcomers of its class,
and finds that newcomers have left it its place.

It is known by what it asks, and by its caller's name for the request where both times have one.
Where these differ (some proxies name every try anew), by coming at its time.

M = models; time is an argument.
"""

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
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
_MOST, _LEAST = 2.5, 1.5
"""So many places come free for each promise that is expected to be claimed, where few come back and
where all do. The others are newcomers': who is refused for a promise's sake is lost if it is not
one who comes back, and whoever comes back seldom waits behind others who do."""
_LEARNED: Final = 0.05
"""How far one promise moves what is expected of the next, after"""
_FIRST: Final = 4.0
"""as many as the first guess counts for; before, each of them counts the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a request is known by when it comes back."""

    key: int
    """Of what it asks."""
    caller: str = ""
    """What its caller calls it; empty: nothing."""


@dataclass(slots=True, eq=False)
class _Promise:
    known: Known
    model: int
    at_s: float
    span_s: float
    """How long the model takes to have a place for it, were everybody to come."""
    open: bool = True
    """Whether a place is kept free for it."""
    missed: float = 0.0
    """What it counted for as one that nobody claims."""


class Promises:
    """Times that were promised. Mutable, one owner."""

    def __init__(self, models: int) -> None:
        self._of: dict[int, list[_Promise]] = {}
        """By what is asked, in order of time; several may ask the same."""
        self._made: deque[_Promise] = deque()
        """In the order in which they were made; some have been forgotten."""
        self._open: list[list[_Promise]] = [[] for _ in range(models)]
        """By model, whose places are kept free or will be, in order of time."""
        self._over: deque[_Promise] = deque()
        """Whose time is over, in the order in which that was noticed."""
        self._claimed_ratio = np.full(models, _FIRST_GUESS)
        """(M,) Share of promises that are claimed,"""
        self._learned_from = np.full(models, _FIRST)
        """(M,) as so many say."""

    def make(
        self, known: Known, model: int, *, wait_s: float, span_s: float, now_s: float
    ) -> float:
        """Promise a place at *model*; return in how many seconds.

        The model is busy for *wait_s* yet with what waits, and then for *span_s* until it has a
        place.
        """
        self._expire(now_s)
        most_s = now_s + _LONGEST_S
        at_s = self._free_s(model, now_s + wait_s, most_s, span_s)
        at_s = min(max(at_s, now_s + _SHORTEST_S), most_s)
        promise = _Promise(known, model, at_s, span_s)
        insort(self._of.setdefault(known.key, []), promise, key=_at_s)
        insort(self._open[model], promise, key=_at_s)
        self._made.append(promise)
        if len(self._made) > _KEPT:
            self._forget(self._made.popleft())
        return at_s - now_s

    def due(self, known: Known, now_s: float) -> bool:
        """Whether a place was promised for now."""
        return self._due(known, now_s) is not None

    def seen(self, known: Known, now_s: float) -> bool:
        """Whether this was refused before, and has not come back when told to, nor let it pass."""
        self._expire(now_s)
        return any(_alike(p.known, known) for p in self._of.get(known.key, ())) or self.due(
            known, now_s
        )

    def keep(self, known: Known, now_s: float) -> float | None:
        """Return since when a place is kept for it, None where none was promised for now."""
        promise = self._due(known, now_s)
        if promise is None:
            return None
        if promise.open:
            self._learn(promise.model, claimed=True)
        else:  # it was taken not to come at all
            self._claimed_ratio[promise.model] += promise.missed
        self._forget(promise)
        return promise.at_s

    def owed(self, now_s: float, until_s: Floats) -> Floats:
        """Return how many of each model's places up to *until_s* are to be kept free; (M,)."""
        self._expire(now_s)
        pairs = zip(self._open, until_s.tolist(), strict=True)
        count = [bisect_left(open_, until, key=_at_s) for open_, until in pairs]
        owed: Floats = np.array(count) * self._claimed_ratio
        return owed

    def _free_s(self, model: int, from_s: float, most_s: float, span_s: float) -> float:
        """Return when *model* is first expected to have had *span_s* for nobody, after *from_s*.

        From *most_s* on it is all the same.
        """
        open_, times = self._open[model], _places(float(self._claimed_ratio[model]))
        free_s, span_s = from_s, times * span_s
        for each in open_[bisect_left(open_, from_s, key=_at_s) :]:
            if free_s >= most_s or each.at_s - times * each.span_s >= free_s + span_s:
                break
            free_s = max(free_s, each.at_s)
        return free_s + span_s

    def _due(self, known: Known, now_s: float) -> _Promise | None:
        """Return what was promised for now: to the very caller, where it is known."""
        self._expire(now_s)
        due = [p for p in self._of.get(known.key, ()) if p.at_s - _EARLY_S <= now_s]
        mine = (p for p in due if _alike(p.known, known))
        return next(mine, next((p for p in due if p.open), None))

    def _expire(self, now_s: float) -> None:
        """Learn which promises were not claimed by now, and let go of them."""
        for model, open_ in enumerate(self._open):
            while open_ and open_[0].at_s + _HELD_S < now_s:
                promise = open_.pop(0)
                promise.open, promise.missed = False, self._learn(model, claimed=False)
                self._over.append(promise)
        while self._over and self._over[0].at_s + _GRACE_S < now_s:
            self._forget(self._over.popleft())

    def _learn(self, model: int, *, claimed: bool) -> float:
        """Take in whether a promise was claimed; return what it counted for."""
        self._learned_from[model] += 1.0
        share = max(1.0 / self._learned_from[model], _LEARNED)
        self._claimed_ratio[model] += share * (claimed - self._claimed_ratio[model])
        return float(share)

    def _forget(self, promise: _Promise) -> None:
        """Drop a promise, if it still stands."""
        alike = self._of.get(promise.known.key, [])
        if promise in alike:
            alike.remove(promise)
            if not alike:
                del self._of[promise.known.key]
        if promise.open and promise in self._open[promise.model]:
            self._open[promise.model].remove(promise)


def _places(claimed_ratio: float) -> float:
    """Return how many places are to come free for a promise, of which so many are claimed."""
    return min(_MOST * claimed_ratio, 1.0 + (_LEAST - 1.0) * claimed_ratio)


def _at_s(promise: _Promise) -> float:
    return promise.at_s


def _alike(one: Known, other: Known) -> bool:
    return one.caller == other.caller
