"""What every replica has to do: the last report, carried on by our own requests since.

Closed loop: a report replaces what was believed. Open loop: own requests that began or ended since
it was read, which is a while before it arrives, are added and taken off. R = replicas. Time is an
argument.
"""

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from router_svc.core.clip import HALF, ONE, ZERO, constant
from router_svc.core.latency import ReplicaLoads
from router_svc.core.types import Bools, Floats, Ints, Priority

_STALE_S: Final = 5.0
"""A report older than this says nothing about load any more; own requests still do."""
_STALE: Final = constant(_STALE_S)
_UNKNOWN_AGE: Final = constant(60.0)
"""What is given as the age of a report that never came, in seconds."""
_SLOTS_PER_SPARE: Final = 4
"""One request waits at a replica for so many that run there."""
_SAME_S: Final = 0.001
_LINE_S: Final = 1.5
"""Telemetry that has said nothing for so long, three of its signs of life, holds nothing."""
_CHANGES: Final = 512
"""Own requests' beginnings and ends that are kept per replica until a report covers them."""


class Load:
    """Load of R replicas. Mutable, one owner."""

    def __init__(self, model: Ints, max_running: Sequence[int]) -> None:
        count = len(model)
        self._model = model
        self._numbers = np.arange(count, dtype=np.intp)
        self._max_running = np.array(max_running, dtype=np.float64)
        self._reported = np.zeros(count)
        self._reported_prompt = np.zeros(count)
        self._since = np.zeros(count)
        self._since_prompt = np.zeros(count)
        self._changes: list[deque[tuple[float, float, float]]] = [
            deque(maxlen=_CHANGES) for _ in range(count)
        ]
        """When own requests began, were fed or ended: seconds, requests, prompt tokens."""
        self._at_s = np.full(count, -np.inf)
        self._held_s = np.full(count, np.inf)
        """How old a report can be that holds until told otherwise; infinite for others."""
        self._told_s = -np.inf
        self._latest: tuple[float, ReplicaLoads] | None = None
        """The latest estimate and its time, where nothing has happened since."""
        self.requests = np.zeros(count)
        """Own requests in flight (R,)."""
        self._critical = np.zeros(count)
        self._prompt = np.zeros(count)
        self._output = np.zeros(count)

    def began(
        self,
        i: int,
        prompt_tokens: float,
        output_tokens: float,
        requests: int = 1,
        *,
        now_s: float,
        critical: bool = False,
    ) -> None:
        """Note that a request went to replica *i*, or several with one prompt."""
        self.requests[i] += requests
        self._critical[i] += requests * critical
        self._prompt[i] += prompt_tokens
        self._output[i] += output_tokens
        self._changed(i, requests, prompt_tokens, now_s)

    def fed(self, i: int, prompt_tokens: float, *, now_s: float) -> None:
        """Note that a request's prompt is through: its first token came, or it ended before."""
        self._prompt[i] -= prompt_tokens
        self._changed(i, 0, -prompt_tokens, now_s)

    def ended(
        self,
        i: int,
        output_tokens: float,
        requests: int = 1,
        *,
        now_s: float,
        critical: bool = False,
    ) -> None:
        """Note that what began has ended, in whatever way; `fed` has been called for it."""
        self.requests[i] -= requests
        self._critical[i] -= requests * critical
        self._output[i] -= output_tokens
        self._changed(i, -requests, 0.0, now_s)

    def reported(
        self,
        i: int,
        *,
        requests: float,
        prompt_tokens: float,
        max_running: float,
        read_at_s: float,
        held_s: float = np.inf,
    ) -> None:
        """Take in what replica *i* said about itself at *read_at_s*.

        Where *held_s* is given, the report holds until told otherwise: then it is never older.
        """
        changes, self._latest = self._changes[i], None
        while changes and changes[0][0] <= read_at_s:
            changes.popleft()
        self._reported[i], self._since[i] = requests, sum(n for _, n, _ in changes)
        self._reported_prompt[i] = prompt_tokens
        self._since_prompt[i] = sum(tokens for _, _, tokens in changes)
        self._at_s[i], self._held_s[i] = read_at_s, held_s
        if max_running > 0:
            self.allocated(i, max_running)

    def allocated(self, i: int, max_running: float) -> None:
        """Note how many requests replica *i* runs at once from now on."""
        if self._max_running[i] != max_running:
            # Others hold what was: it changes seldom, and is asked for often.
            self._max_running, self._latest = self._max_running.copy(), None
            self._max_running[i] = max_running

    def forget(self, i: int) -> None:
        """Drop the report of a replica that restarted or is gone."""
        self._at_s[i], self._held_s[i], self._latest = -np.inf, np.inf, None

    def told(self, now_s: float) -> None:
        """Note a sign of life of telemetry: what holds, still holds."""
        self._told_s, self._latest = now_s, None

    def untold(self) -> None:
        """Note that telemetry is gone: what held begins to age."""
        self._at_s = np.maximum(self._at_s, self._told_s - self._held_s)
        self._held_s[:] = np.inf
        self._latest = None

    def ages_s(self, now_s: float) -> Floats:
        """How long ago the figures were last known to be true; infinite where there are none."""
        known_s = now_s if now_s - self._told_s < _LINE_S else self._told_s
        now, known = np.array(now_s), np.array(known_s)
        ages: Floats = np.maximum(now - np.maximum(self._at_s, known - self._held_s), ZERO)
        return ages

    def loads(self, now_s: float, ages_s: Floats | None = None) -> ReplicaLoads:
        """Estimate the load now; *ages_s* are `ages_s` of now, where somebody has them.

        Where nothing has happened since the latest estimate, and hardly any time has passed, that
        is it: whoever decides asks, and so does whoever then begins.
        """
        if self._latest is not None and 0.0 <= now_s - self._latest[0] < _SAME_S:
            return self._latest[1]
        age = self.ages_s(now_s) if ages_s is None else ages_s
        fresh = age < _STALE
        requests = self._known(fresh)
        prompt = np.maximum(self._prompt, (self._reported_prompt + self._since_prompt) * fresh)
        # Requests in flight are on average half way through.
        remaining = HALF * self._output / np.maximum(self.requests, ONE)
        running = np.minimum(requests, self._max_running)
        found = ReplicaLoads(
            replica=self._numbers,
            model=self._model,
            running=running,
            waiting=requests - running,
            # A model does not know yet what its cache will spare a prompt that waits: it says more
            # than we take off when that is fed. Where nobody is left, nothing is.
            waiting_prompt_tokens=np.maximum(prompt, ZERO) * (requests > ZERO),
            remaining_tokens=np.maximum(remaining, ZERO),
            max_running=self._max_running,
            age_s=np.minimum(age, _UNKNOWN_AGE),
        )
        self._latest = now_s, found
        return found

    def full(self, priority: Priority, now_s: float) -> Bools:
        """Which replicas have no place for a request of class *priority*; (R,).

        For critical ones the engine stops others.
        """
        if priority is Priority.CRITICAL:
            return np.asarray(self._critical >= self._max_running)
        return np.asarray(self._known(self.ages_s(now_s) < _STALE_S) >= self.places())

    def places(self) -> Floats:
        """Requests that each replica takes: those that run at once, and a few that wait; (R,)."""
        spare: Floats = np.maximum(self._max_running // _SLOTS_PER_SPARE, 1.0)
        return self._max_running + spare

    def _known(self, fresh: Bools) -> Floats:
        """Return the requests in flight, as far as is known; (R,)."""
        requests: Floats = np.maximum(self.requests, (self._reported + self._since) * fresh)
        return requests

    def _changed(self, i: int, requests: int, prompt_tokens: float, now_s: float) -> None:
        self._latest = None
        self._since[i] += requests
        self._since_prompt[i] += prompt_tokens
        self._changes[i].append((now_s, requests, prompt_tokens))
