"""Coalescing: deltas that come within a few milliseconds go as one.

The first delta of an answer goes at once, and so does its end. In between a reader is given one
delta every `EVERY_S` at most, with all that came meanwhile. A model that is slower passes through
as it is, at the cost of two looks at the clock. What waits, for its time or for a reader who falls
behind, is bounded; then the model waits.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from time import monotonic
from typing import Final

from router_svc.wire import Event
from services.kit.aio import cancelled

EVERY_S: Final = 0.004
"""From the moment that a delta was taken: with a millisecond for that, a token every 5 ms goes by
itself. That is faster than anybody reads, and than most models write."""
_MOST_TOKENS: Final = 256
"""A delta does not grow beyond that."""
_OTHER: Final = -1
"""The place of an event that is no delta, behind those of the samples."""


async def coalesced(
    events: AsyncIterable[Event],
    every_s: float = EVERY_S,
    clock: Callable[[], float] = monotonic,
) -> AsyncGenerator[Event, None]:
    """Pass *events* on; *clock* is seconds. Raises what they raise, behind what came before."""
    due_s = clock()
    async for event in events:
        is_delta = event.HasField("delta")
        if is_delta and clock() < due_s:
            break
        yield event
        if is_delta:
            due_s = clock() + every_s
    else:
        return
    # While it waits somebody has to read on. With a slow model it never comes to this.
    batch = _Batch(event)
    task = asyncio.create_task(batch.fill(events))
    try:
        due = await batch.taken(due_s - clock())
        while due:
            for event in due:
                yield event
            due = await batch.taken(every_s)
        await task
    finally:
        await cancelled(task)


class _Batch:
    """What goes next: a delta of each sample, and at most one other event behind them.

    A task puts in, a reader takes out. Owned by the event loop.
    """

    def __init__(self, first: Event) -> None:
        self._events: dict[int, Event] = {first.delta.sample: first}
        self._ended = False
        self._some, self._hurry, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._some.set()

    async def fill(self, events: AsyncIterable[Event]) -> None:
        """Take in all of *events*."""
        try:
            async for event in events:
                while not self._takes(event):
                    self._hurry.set()
                    self._room.clear()
                    await self._room.wait()
                self._some.set()
        finally:
            self._ended = True
            self._some.set()
            self._hurry.set()

    async def taken(self, wait_s: float) -> list[Event]:
        """Take out what goes next, in *wait_s* or when there is something; nothing at the end.

        It is not waited for more where no more can come, or none would find room.
        """
        timer = asyncio.get_running_loop().call_later(wait_s, self._hurry.set)
        try:
            await self._hurry.wait()
            await self._some.wait()
        finally:
            timer.cancel()
        events, self._events = [*self._events.values()], {}
        if not self._ended:
            self._hurry.clear()
            self._some.clear()
        self._room.set()
        return events

    def _takes(self, event: Event) -> bool:
        """Put *event* in, if there is room."""
        if _OTHER in self._events:
            return False
        if not event.HasField("delta"):
            self._events[_OTHER] = event
            self._hurry.set()
            return True
        held = self._events.setdefault(event.delta.sample, event)
        return held is event or _join(held, event)


def _join(held: Event, event: Event) -> bool:
    """Add a delta to one of the same sample, unless that became too long."""
    into, more = held.delta, event.delta
    if len(into.token_ids) + len(more.token_ids) > _MOST_TOKENS:
        return False
    into.text += more.text
    into.token_ids.extend(more.token_ids)
    into.logprobs.extend(more.logprobs)
    into.seq = more.seq
    return True
