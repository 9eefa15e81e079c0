"""What each replica's latest requests were like: whose turn is past, how slow it was at its worst.

R = replicas. Time is an argument.
"""

from dataclasses import dataclass
from math import exp
from typing import Final

import numpy as np

from router_svc.core.clip import Floats

_DECAY_S: Final = 10.0
"""A peak fades to a third of itself in so long, as in Finagle."""


@dataclass(frozen=True, slots=True)
class Peaks:
    """The longest that each of R replicas lately took to answer."""

    as_of_s: float
    """Then they were so high: all fade alike, by one factor."""
    then_s: Floats
    """(R,) 0 where none was seen."""

    def at(self, now_s: float) -> Floats:
        """Return the peaks as they have faded by *now_s*; (R,)."""
        peaks: Floats = self.then_s * _kept(now_s - self.as_of_s)
        return peaks


class Recent:
    """The latest of R replicas. Mutable, one owner.

    Whoever decides holds the arrays for a while, hence what changes one makes another.
    """

    def __init__(self, replicas: int) -> None:
        self.last_turn = np.zeros(replicas)
        """When each was last chosen, counted in requests; 0 where it never was (R,)."""
        self._turns = 0.0
        self.peaks = Peaks(0.0, np.zeros(replicas))
        self._took_at_s = [0.0] * replicas

    def began(self, i: int) -> None:
        """Note that a request went to replica *i*."""
        self._turns += 1.0
        self.last_turn = self.last_turn.copy()
        self.last_turn[i] = self._turns

    def took(self, i: int, latency_s: float, now_s: float) -> None:
        """Take in how long replica *i* took: at once where that is worse, else little by little.

        Peak EWMA as in Finagle's load balancer of that name.
        """
        peaks = self.peaks.at(now_s)
        faded, kept = peaks.item(i), _kept(now_s - self._took_at_s[i])
        self._took_at_s[i] = now_s
        peaks[i] = latency_s if latency_s > faded else faded + (1.0 - kept) * latency_s
        self.peaks = Peaks(now_s, peaks)


def _kept(passed_s: float) -> float:
    """Return what is left of a peak after so long."""
    return exp(-max(passed_s, 0.0) / _DECAY_S)
