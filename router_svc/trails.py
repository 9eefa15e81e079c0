"""Answers that a caller may come back for: what was shown of them, and their end if they had one.

Bounded in time and bytes; the oldest go first. Owned by the event loop.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from router_svc.run import Run
from router_svc.wire import Event
from services.kit.errors import UnavailableError, UnknownDecisionError, invalid

_MAX_BYTES: Final = 64 * 1024 * 1024
_ENTRY_BYTES: Final = 8192
"""About what a run weighs besides the answer: its features, its request."""
_STOPS_S: Final = 5.0
"""A stream that was told to stop has stopped long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """One answer, no longer being made."""

    run: Run
    finished: Event | None
    """Its last event; None where it broke off."""
    ended_s: float
    size_bytes: int


class Trails:
    """The latest answers by decision id. *clock* is monotonic seconds."""

    def __init__(self, keep_s: float, clock: Callable[[], float]) -> None:
        self._keep_s, self._clock = keep_s, clock
        self._running: dict[str, tuple[Run, asyncio.Task[object]]] = {}
        self._taken: set[str] = set()
        self._ended: OrderedDict[str, Trail] = OrderedDict()
        self._bytes = 0

    def begin(self, run: Run) -> None:
        """Note that the present task makes the answer."""
        task = asyncio.current_task()
        assert task is not None, "answers are made in tasks"
        self._running[run.id] = run, task

    def end(self, run: Run, finished: Event | None) -> None:
        """Keep an answer that is no longer being made, for as long as there is room.

        Also one that was taken, and that its caller could not be given after all.
        """
        self._running.pop(run.id, None)
        self._taken.discard(run.id)
        size = _ENTRY_BYTES + sum(event.ByteSize() for event in run.shown)
        trail = Trail(run=run, finished=finished, ended_s=self._clock(), size_bytes=size)
        self._ended[run.id] = trail
        self._bytes += size
        self._forget()

    def taken(self, run: Run) -> bool:
        """Whether the answer was stopped because its caller came back for it."""
        return run.id in self._taken

    async def take(self, decision_id: str, tenant: str, after_seq: int) -> Trail:
        """Return an answer and forget it; one that is still being made is stopped for it.

        Raises UnknownDecisionError, also for another tenant's, InvalidRequestError for an
        *after_seq* that was never reached, UnavailableError where the answer cannot be stopped.
        """
        run, task = self._running.get(decision_id, (None, None))
        if run is not None and task is not None and run.ask.tenant == tenant:
            # Its caller is gone, and the connection has not noticed.
            self._taken.add(decision_id)
            task.cancel()
            await asyncio.wait([task], timeout=_STOPS_S)
            if decision_id in self._running:
                self._taken.discard(decision_id)
                raise UnavailableError(f"{decision_id} is still being answered", retry_after_s=1.0)
        self._forget()
        trail = self._ended.get(decision_id)
        if trail is None or trail.run.ask.tenant != tenant:
            raise UnknownDecisionError(
                f"no answer {decision_id[:80]!r} to go on with: unknown, or ended more than "
                f"{self._keep_s:g} s ago"
            )
        if after_seq > trail.run.last_seq:
            raise invalid(
                "resume.after_seq", f"the answer got to {trail.run.last_seq}, got {after_seq}"
            )
        self._drop(decision_id)
        return trail

    def _forget(self) -> None:
        before_s = self._clock() - self._keep_s
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if self._bytes <= _MAX_BYTES and oldest.ended_s > before_s:
                return
            self._drop(oldest.run.id)

    def _drop(self, decision_id: str) -> None:
        self._bytes -= self._ended.pop(decision_id).size_bytes
