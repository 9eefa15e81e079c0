"""What every replica has to do: the last report, carried on by our own requests since.

Closed loop: a report replaces what was believed. Open loop: own requests that began or ended since
it was read, which is a while before it arrives, are added and taken off. R = replicas. Time is an
argument.

Between two decisions a few replicas' load changes. So it is kept as plain numbers, and only what
changed is worked out again.
"""

from array import array
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from router_svc.core.loads import (
    BATCH,
    BUSY,
    HELD_S,
    MOST,
    OWN,
    PROMPT,
    QUEUE,
    READ_S,
    REMAINING,
    REQUESTS,
    ROWS,
    RUNNING,
    ReplicaLoads,
    ages_s,
)
from router_svc.core.types import Bools, Floats, Ints, Priority

_STALE_S: Final = 5.0
"""A report older than this says nothing about load any more; own requests still do."""
_SOON_S: Final = 0.001
"""Before a report may be too old it is looked at each time: rounding is not to matter."""
_SLOTS_PER_SPARE: Final = 4
"""One request waits at a replica for so many that run there."""
_SAME_S: Final = 0.001
_LINE_S: Final = 1.5
"""Telemetry that has said nothing for so long, three of its signs of life, holds nothing."""
_CHANGES: Final = 512
"""Own requests' beginnings and ends that are kept per replica until a report covers them."""
_CRITICAL: Final = ROWS
"""Own requests of the highest class."""
_PLACES: Final = ROWS + 1
"""Requests that a replica takes: those that run at once, and a few that wait."""
_ROWS: Final = ROWS + 2


class Load:
    """Load of R replicas. Mutable, one owner."""

    def __init__(self, model: Ints, max_running: Sequence[float]) -> None:
        count = len(model)
        self._count = count
        self._model = model
        self._numbers = np.arange(count, dtype=np.intp)
        self._cells = array("d", bytes(8 * _ROWS * count))
        """The rows of `loads` and our own, one after the other: what plain numbers go into."""
        self._figures: Floats = np.frombuffer(self._cells).reshape(_ROWS, count)
        """(`_ROWS`, R) The same as an array; of replicas in `_changed` it is not true any more."""
        self._figures[READ_S], self._figures[HELD_S] = -np.inf, np.inf
        self._changed = set(range(count))
        self._reported = [0.0] * count
        self._reported_prompt = [0.0] * count
        self._since = [0.0] * count
        self._since_prompt = [0.0] * count
        self._prompt = [0.0] * count
        self._output = [0.0] * count
        self._changes: list[deque[tuple[float, float, float]]] = [
            deque(maxlen=_CHANGES) for _ in range(count)
        ]
        """When own requests began, were fed or ended: seconds, requests, prompt tokens."""
        self._fresh = [False] * count
        """Whose report still counts, from the time to the time below."""
        self._fresh_from_s, self._fresh_to_s = np.inf, -np.inf
        self._told_s = -np.inf
        self._latest: ReplicaLoads | None = None
        """The latest estimate, where nothing has happened since."""
        for i, most in enumerate(max_running):
            self.allocated(i, most)

    @property
    def requests(self) -> Floats:
        """Own requests in flight (R,), as they change."""
        own: Floats = self._figures[OWN]
        return own

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
        self._output[i] += output_tokens
        self._note(i, requests, prompt_tokens, now_s, critical=critical)

    def fed(self, i: int, prompt_tokens: float, *, now_s: float) -> None:
        """Note that a request's prompt is through: its first token came, or it ended before."""
        self._note(i, 0, -prompt_tokens, now_s, critical=False)

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
        self._output[i] -= output_tokens
        self._note(i, -requests, 0.0, now_s, critical=critical)

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
        changes = self._changes[i]
        while changes and changes[0][0] <= read_at_s:
            changes.popleft()
        self._reported[i], self._reported_prompt[i] = requests, prompt_tokens
        self._since[i] = sum([n for _, n, _ in changes])
        self._since_prompt[i] = sum([tokens for _, _, tokens in changes])
        self._dated(i, read_at_s, held_s)
        if max_running > 0:
            self.allocated(i, max_running)

    def allocated(self, i: int, max_running: float) -> None:
        """Note how many requests replica *i* runs at once from now on."""
        if self._figures[MOST, i] != max_running:
            self._figures[MOST, i] = max_running
            self._figures[_PLACES, i] = max_running + max(max_running // _SLOTS_PER_SPARE, 1.0)
            self._changes_at(i)

    def forget(self, i: int) -> None:
        """Drop the report of a replica that restarted or is gone."""
        self._dated(i, -np.inf, np.inf)

    def told(self, now_s: float) -> None:
        """Note a sign of life of telemetry: what holds, still holds."""
        self._told_s = now_s
        self._reconsider()

    def untold(self) -> None:
        """Note that telemetry is gone: what held begins to age."""
        read_s, held_s = self._figures[READ_S], self._figures[HELD_S]
        read_s[:] = np.maximum(read_s, self._told_s - held_s)
        held_s[:] = np.inf
        self._reconsider()

    def ages_s(self, now_s: float) -> Floats:
        """How long ago the figures were last known to be true; infinite where there are none."""
        return ages_s(self._figures[READ_S], self._figures[HELD_S], now_s, self._known_until(now_s))

    def loads(self, now_s: float) -> ReplicaLoads:
        """Estimate the load now.

        Where nothing has happened since the latest estimate, and hardly any time has passed, that
        is it: whoever decides asks, and so does whoever then begins.
        """
        latest = self._latest
        if latest is not None and 0.0 <= now_s - latest.now_s < _SAME_S:
            return latest
        self._settle(now_s)
        found = ReplicaLoads(
            self._numbers,
            self._model,
            self._figures[:ROWS].copy(),
            now_s,
            self._known_until(now_s),
        )
        self._latest = found
        return found

    def row(self, i: int, now_s: float) -> ReplicaLoads:
        """Return `loads` of replica *i* alone."""
        self._settle(now_s)
        figures, known_s = self._figures[:ROWS], self._known_until(now_s)
        return ReplicaLoads(self._numbers, self._model, figures, now_s, known_s).row(i)

    def full(self, priority: Priority, now_s: float) -> Bools:
        """Which replicas have no place for a request of class *priority*; (R,).

        For critical ones the engine stops others.
        """
        if priority is Priority.CRITICAL:
            return np.asarray(self._figures[_CRITICAL] >= self._figures[MOST])
        self._settle(now_s)
        return np.asarray(self._figures[REQUESTS] >= self._figures[_PLACES])

    def places(self) -> Floats:
        """Requests that each replica takes: those that run at once, and a few that wait; (R,)."""
        places: Floats = self._figures[_PLACES].copy()
        return places

    def _known_until(self, now_s: float) -> float:
        """Return when reports that hold were last known to be true."""
        return now_s if now_s - self._told_s < _LINE_S else self._told_s

    def _note(
        self, i: int, requests: int, prompt_tokens: float, now_s: float, *, critical: bool
    ) -> None:
        self._cells[OWN * self._count + i] += requests
        if critical:
            self._cells[_CRITICAL * self._count + i] += requests
        self._prompt[i] += prompt_tokens
        self._since[i] += requests
        self._since_prompt[i] += prompt_tokens
        self._changes[i].append((now_s, requests, prompt_tokens))
        self._changes_at(i)

    def _changes_at(self, i: int) -> None:
        self._changed.add(i)
        self._latest = None

    def _dated(self, i: int, read_at_s: float, held_s: float) -> None:
        self._figures[READ_S, i], self._figures[HELD_S, i] = read_at_s, held_s
        self._changes_at(i)
        self._reconsider()

    def _reconsider(self) -> None:
        """Have all reports' ages looked at again."""
        self._fresh_to_s, self._latest = -np.inf, None

    def _settle(self, now_s: float) -> None:
        """Make the figures true now."""
        if not self._fresh_from_s <= now_s < self._fresh_to_s:
            self._look(now_s)
        if self._changed:
            for i in self._changed:
                self._work_out(i)
            self._changed.clear()

    def _look(self, now_s: float) -> None:
        """Find out whose report counts now, and until when that stays so."""
        read_s, held_s = self._figures[READ_S], self._figures[HELD_S]
        fresh = self.ages_s(now_s) < _STALE_S
        for i, counts in enumerate(fresh.tolist()):
            if counts != self._fresh[i]:
                self._fresh[i] = counts
                self._changed.add(i)
        # What holds is as old as it can be while telemetry is there, and ages once it is not.
        young_s, told = read_s + _STALE_S, np.array(self._told_s)
        holds_s = np.maximum(told + _LINE_S, told + _STALE_S - held_s)
        until_s = np.where(held_s < _STALE_S, np.maximum(young_s, holds_s), young_s)
        self._fresh_from_s = now_s
        self._fresh_to_s = float(until_s.min(where=fresh, initial=np.inf)) - _SOON_S

    def _work_out(self, i: int) -> None:
        """Write anew what is known of replica *i*, as `loads_of` puts it together."""
        cells, count = self._cells, self._count
        own, most = cells[OWN * count + i], cells[MOST * count + i]
        requests, prompt = own, self._prompt[i]
        if self._fresh[i]:
            requests = max(own, self._reported[i] + self._since[i])
            prompt = max(prompt, self._reported_prompt[i] + self._since_prompt[i])
        running, slots = min(requests, most), max(most, 1.0)
        # Requests in flight are on average half way through.
        remaining = max(0.5 * self._output[i] / max(own, 1.0), 0.0)
        # A model does not know yet what its cache will spare a prompt that waits: it says more
        # than we take off when that is fed. Where nobody is left, nothing is.
        cells[PROMPT * count + i] = max(prompt, 0.0) if requests > 0.0 else 0.0
        cells[RUNNING * count + i] = running
        cells[REQUESTS * count + i] = requests
        cells[REMAINING * count + i] = remaining
        cells[BUSY * count + i] = 1.0 if running > 0.0 else 0.0
        cells[BATCH * count + i] = min(running + 1.0, slots)
        cells[QUEUE * count + i] = max(requests + 1.0 - slots, 0.0) / slots * remaining
