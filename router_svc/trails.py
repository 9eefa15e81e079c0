"""Answers that a caller may come back for: what was shown of them, and their end if they had one.

Bounded in time and bytes; the oldest go first. Owned by the event loop. Of an answer that is whole
its events are kept as bytes and nothing else: thousands are, and Python's search for reference
cycles goes through every object that lives.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import inf
from typing import Final

from router_svc.core.types import Priority
from router_svc.run import Run
from router_svc.wire import Event
from services.kit.errors import UnavailableError, UnknownDecisionError, invalid

_MAX_BYTES: Final = 64 * 1024 * 1024
_ENTRY_BYTES: Final = 8192
"""About what a run weighs besides the answer: its features, its request."""
_TOLD_BYTES: Final = 512
"""About what a whole answer weighs besides its events."""
_STOPS_S: Final = 5.0
"""A stream that was told to stop has stopped long before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An answer that is whole."""

    tenant: str
    priority: Priority
    last_seq: int
    events: tuple[bytes, ...]
    """All of them, encoded, in their order."""

    def behind(self, after_seq: int) -> list[Event]:
        """Return the first event, and those that followed delta *after_seq*."""
        first, *rest = map(Event.FromString, self.events)
        return [first, *(event for event in rest if _place(event) > (after_seq, 0))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """One answer, no longer being made."""

    id: str
    answer: Run | Told
    """What there is of it: a run that broke off can go on."""
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
        answer: Run | Told = run
        if finished is None:
            size = _ENTRY_BYTES + sum(event.ByteSize() for event in run.shown)
        else:
            answer = _told(run, finished)
            size = _TOLD_BYTES + sum(map(len, answer.events))
        trail = Trail(id=run.id, answer=answer, ended_s=self._clock(), size_bytes=size)
        self._ended[run.id] = trail
        self._bytes += size
        self._forget()

    def taken(self, run: Run) -> bool:
        """Whether the answer was stopped because its caller came back for it."""
        return run.id in self._taken

    async def take(self, decision_id: str, tenant: str, after_seq: int) -> Run | Told:
        """Return an answer; one that is still being made is stopped for it, and then forgotten.

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
        if trail is None or _tenant(trail.answer) != tenant:
            raise UnknownDecisionError(
                f"no answer {decision_id[:80]!r} to go on with: unknown, or ended more than "
                f"{self._keep_s:g} s ago"
            )
        answer = trail.answer
        if after_seq > answer.last_seq:
            raise invalid(
                "resume.after_seq", f"the answer got to {answer.last_seq}, got {after_seq}"
            )
        if isinstance(answer, Run):
            self._drop(decision_id)
        return answer

    def _forget(self) -> None:
        before_s = self._clock() - self._keep_s
        while self._ended:
            oldest = next(iter(self._ended.values()))
            if self._bytes <= _MAX_BYTES and oldest.ended_s > before_s:
                return
            self._drop(oldest.id)

    def _drop(self, decision_id: str) -> None:
        self._bytes -= self._ended.pop(decision_id).size_bytes


def _told(run: Run, finished: Event) -> Told:
    assert run.first is not None, "an answer has a beginning"
    events = (run.first, *run.behind(0), finished)
    return Told(
        tenant=run.ask.tenant,
        priority=run.ask.priority,
        last_seq=run.last_seq,
        events=tuple([event.SerializeToString() for event in events]),
    )


def _tenant(answer: Run | Told) -> str:
    return answer.tenant if isinstance(answer, Told) else answer.ask.tenant


def _place(event: Event) -> tuple[float, int]:
    """Return where *event* stands: the number of its delta, or of the one that it follows."""
    match event.WhichOneof("event"):
        case "delta":
            return event.delta.seq, 0
        case "handover":
            return event.handover.after_seq, 1
        case _:
            return inf, 0
