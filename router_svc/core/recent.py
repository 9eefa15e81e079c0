"""What each replica's latest requests were like: whose turn is past, how slow it was at its worst.

R = replicas. Time is an argument.
"""

from math import exp
from typing import Final

import numpy as np

from router_svc.core.types import Floats

_DECAY_S: Final = 10.0
"""A peak fades to a third of itself in so long, as in Finagle."""


class Recent:
    """The latest of R replicas. Mutable, one owner."""

    def __init__(self, replicas: int) -> None:
        self.last_turn = np.zeros(replicas)
        """When each was last chosen, counted in requests; 0 where it never was (R,)."""
        self._turns = 0.0
        self._peak_s = np.zeros(replicas)
        self._as_of_s = 0.0
        """The peaks are as they were then: all fade alike, by one factor."""
        self._took_at_s = [0.0] * replicas

    def began(self, i: int) -> None:
        """Note that a request went to replica *i*."""
        self._turns += 1.0
        self.last_turn[i] = self._turns

    def took(self, i: int, latency_s: float, now_s: float) -> None:
        """Take in how long replica *i* took: at once where that is worse, else little by little.

        Peak EWMA as in Finagle's load balancer of that name.
        """
        self._peak_s, self._as_of_s = self.peaks_s(now_s), now_s
        faded, kept = float(self._peak_s[i]), _kept(now_s - self._took_at_s[i])
        self._took_at_s[i] = now_s
        slower = latency_s > faded
        self._peak_s[i] = latency_s if slower else faded + (1.0 - kept) * latency_s

    def peaks_s(self, now_s: float) -> Floats:
        """Return each replica's peak as it has faded by now, 0 where none was seen; (R,)."""
        peaks: Floats = self._peak_s * _kept(now_s - self._as_of_s)
        return peaks


def _kept(passed_s: float) -> float:
    """Return what is left of a peak after so long."""
    return exp(-max(passed_s, 0.0) / _DECAY_S)
