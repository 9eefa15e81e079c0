"""Bounded admission: so many requests run, so many wait, the rest is refused at once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import count
from math import inf

from router_svc import metrics
from router_svc.core.queue import Ticket, WaitQueue
from router_svc.core.types import Ask
from services.kit.errors import OverloadedError
from services.kit.orca import Use

_FIRST_GUESS_S = 0.5
"""Assumed length of a request before any has ended."""


class Admission:
    """Who runs and who waits. Owned by the event loop; *clock* is monotonic seconds."""

    def __init__(self, max_in_flight: int, max_queued: int, clock: Callable[[], float]) -> None:
        self._free = max_in_flight
        self._slots = max_in_flight
        self._queue = WaitQueue(max_queued)
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._numbers = count()
        self._clock = clock
        self._mean_s = _FIRST_GUESS_S

    @asynccontextmanager
    async def slot(self, ask: Ask) -> AsyncIterator[None]:
        """Hold a slot. Raises OverloadedError for whoever there is no room for."""
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait(ask)
        began_s = self._clock()
        try:
            yield
        finally:
            self._mean_s += 0.05 * (self._clock() - began_s - self._mean_s)
            self._pass_on()

    def use(self) -> Use:
        """Say how much of it is taken."""
        running, waiting = float(self._slots - self._free), float(len(self._queue))
        return Use(slots=self._slots, figures={"running": running, "queue_depth": waiting})

    def retry_after_s(self) -> float:
        """When a slot should be free for one more: the queue's length at the present pace."""
        pace_s = max(self._mean_s, 1e-3) / self._slots
        return min(max(pace_s * (len(self._queue) + 1), 0.05), 60.0)

    async def _wait(self, ask: Ask) -> None:
        deadline_at_s = inf if ask.deadline_s is None else self._clock() + ask.deadline_s
        ticket = Ticket(
            deadline_at_s=deadline_at_s,
            number=next(self._numbers),
            priority=ask.priority,
            tenant=ask.tenant,
        )
        refused = self._queue.push(ticket)
        if refused is ticket:
            raise self._refusal(ticket)
        if refused is not None:
            self._waiting.pop(refused.number).set_exception(self._refusal(refused))
        mine = self._waiting[ticket.number] = asyncio.get_running_loop().create_future()
        metrics.QUEUED.set(len(self._queue))
        try:
            await mine
        except asyncio.CancelledError:
            # The caller is gone. Where the slot came at the same moment, it goes on to the next.
            if not self._queue.remove(ticket) and mine.done() and not mine.cancelled():
                self._pass_on()
            raise
        finally:
            self._waiting.pop(ticket.number, None)
            metrics.QUEUED.set(len(self._queue))

    def _pass_on(self) -> None:
        while (ticket := self._queue.pop()) is not None:
            waiting = self._waiting[ticket.number]
            if not waiting.done():
                waiting.set_result(None)
                return
        self._free += 1

    def _refusal(self, ticket: Ticket) -> OverloadedError:
        metrics.REFUSED.labels(ticket.priority.name.lower()).inc()
        return OverloadedError(
            f"{self._slots} requests run and {len(self._queue)} wait; "
            f"no room for one more of class {ticket.priority.name}",
            retry_after_s=self.retry_after_s(),
        )
