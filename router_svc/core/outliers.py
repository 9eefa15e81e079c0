"""Which replicas are left out for a while because they do so much worse than their peers.

A circuit breaker sees failures in a row; this sees a replica that fails every other call, or
answers several times slower than was predicted where its peers, under the same load and model, do
not: a throttled card, a noisy neighbour, a bad disk. Only peers of one model are compared.

Envoy's outlier detection, from which the growing time and the bound on how many may be out are
taken; here with exponentially faded means in place of intervals. Time is an argument; R = replicas.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, log
from statistics import median
from typing import Final

import numpy as np

from router_svc.core.types import Bools, Ints

_KEPT: Final = 0.9
"""What is left of a mean with each call: about ten calls matter."""
_CALLS: Final = 10
"""Nobody is judged by fewer."""
_FAILS: Final = 0.4
"""Share of failed calls beyond its peers' that is too much."""
_MOST_LOG: Final = log(20.0)
"""One call says no more than this, however slow: its caller may have been slow to read."""
_OUT_S, _MOST_OUT_S = 5.0, 300.0
_FORGIVEN_S: Final = 60.0
"""A replica that was well for so long since it was out starts from `_OUT_S` again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A replica is left out from now on."""

    out_s: float
    why: str


class Outliers:
    """The latest of R replicas. Mutable, one owner. A *ratio* of 0 never leaves anybody out."""

    def __init__(self, model: Ints, ratio: float) -> None:
        count = len(model)
        self._ratio = ratio
        self._most_log = log(ratio) if ratio > 0.0 else inf
        # Plain numbers: every call moves one replica's.
        self._peers = [
            [j for j in np.flatnonzero(model == model[i]).tolist() if j != i] for i in range(count)
        ]
        self._calls = [0.0] * count
        self._failing = [0.0] * count
        self._slow = [0.0] * count
        """Mean logarithm of actual over predicted time."""
        self._times_out = [0] * count
        self._until_s = [-inf] * count
        self.until_s = -inf
        """From then on nobody is left out, as far as is known."""

    def answered(self, i: int, slowness: float, now_s: float) -> Verdict | None:
        """Take in a call that took *slowness* times what was predicted; 0: not to be judged by."""
        if slowness > 0.0:
            self._learn(self._slow, i, min(max(log(slowness), -_MOST_LOG), _MOST_LOG))
        self._learn(self._failing, i, 0.0)
        self._calls[i] += 1
        return self._judged(i, now_s)

    def failed(self, i: int, now_s: float) -> Verdict | None:
        """Take in a call that failed through the replica's fault."""
        self._learn(self._failing, i, 1.0)
        self._calls[i] += 1
        return self._judged(i, now_s)

    def restarted(self, i: int) -> None:
        """Forget replica *i*'s past: it is another process now."""
        self._calls[i] = self._failing[i] = self._slow[i] = 0.0
        self._times_out[i], self._until_s[i] = 0, -inf

    def out(self, now_s: float) -> Bools:
        """Which replicas are left out; (R,)."""
        return np.array(self._until_s) > now_s

    def _learn(self, means: list[float], i: int, value: float) -> None:
        # The first calls weigh as in a plain mean.
        share = max(1.0 - _KEPT, 1.0 / (self._calls[i] + 1.0))
        means[i] += share * (value - means[i])

    def _judged(self, i: int, now_s: float) -> Verdict | None:
        if self._ratio <= 0.0 or self._calls[i] < _CALLS or self._until_s[i] > now_s:
            return None
        there = [j for j in self._peers[i] if self._until_s[j] <= now_s]
        peers = [j for j in there if self._calls[j] >= _CALLS]
        of_model = len(self._peers[i]) + 1
        if not peers or 2 * (of_model - len(there)) > of_model:
            return None
        why = self._worse(i, peers)
        if not why:
            if now_s - self._until_s[i] > _FORGIVEN_S:
                self._times_out[i] = 0
            return None
        out_s = min(_OUT_S * 2.0 ** min(self._times_out[i], 16), _MOST_OUT_S)
        self._times_out[i] += 1
        self._until_s[i] = now_s + out_s
        self.until_s = max(self.until_s, now_s + out_s)
        # It comes back with a clean slate, and is judged by what it does then.
        self._calls[i] = self._failing[i] = self._slow[i] = 0.0
        return Verdict(out_s=out_s, why=why)

    def _worse(self, i: int, peers: Sequence[int]) -> str:
        """Say how replica *i* is worse than its *peers*, "" where it is not."""
        # Every answer asks this, and a median takes longer than all else there is to do about it.
        failing, slow = self._failing[i], self._slow[i]
        if failing > _FAILS:
            usual = median([self._failing[j] for j in peers])
            if failing > usual + _FAILS:
                return f"{failing:.0%} of its calls fail, {usual:.0%} of its peers'"
        if slow - min([self._slow[j] for j in peers]) > self._most_log:
            behind = slow - median([self._slow[j] for j in peers])
            if behind > self._most_log:
                return f"{exp(behind):.1f} times slower than its peers"
        return ""
