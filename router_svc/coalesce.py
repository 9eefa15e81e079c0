"""Coalescing: to a reader who falls behind, several deltas go as one.

A reader that keeps up gets every event as it comes, at no cost. Once it has been late several
times, a task of its own takes in what the model sends and joins deltas while they wait, so that the
reader has fewer and longer ones to take. What waits is bounded; then the model waits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from time import monotonic
from typing import Final

from router_svc.wire import Event
from services.kit.aio import cancelled

_BEHIND_S: Final = 0.001
"""A reader that takes so long over one event could do with fewer."""
_OFTEN: Final = 4
"""Late events until that is worth a task: a short answer is through before."""
_MOST_TOKENS: Final = 256
"""A delta does not grow beyond that."""
_MOST_WAITING: Final = 4
"""Events that wait before the model does."""


async def coalesced(
    events: AsyncIterable[Event], clock: Callable[[], float] = monotonic
) -> AsyncGenerator[Event, None]:
    """Pass *events* on; *clock* is seconds. Raises what they raise."""
    late = 0
    async for event in events:
        given_s = clock()
        yield event
        late += clock() - given_s > _BEHIND_S
        if late >= _OFTEN:
            break
    else:
        return
    waiting = _Waiting()
    task = asyncio.create_task(waiting.fill(events))
    try:
        while (following := await waiting.next()) is not None:
            yield following
        await task
    finally:
        await cancelled(task)


class _Waiting:
    """Events on their way from a task that reads to a reader. Owned by the event loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._ended = False
        self._news, self._room = asyncio.Event(), asyncio.Event()

    async def fill(self, events: AsyncIterable[Event]) -> None:
        """Take in all of *events*."""
        try:
            async for event in events:
                self._take(event)
                while len(self._events) >= _MOST_WAITING:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._ended = True
            self._news.set()

    async def next(self) -> Event | None:
        """Return the next event as soon as there is one, None behind the last."""
        while not self._events:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        self._room.set()
        return self._events.popleft()

    def _take(self, event: Event) -> None:
        if not (self._events and _join(self._events[-1], event)):
            self._events.append(event)
        self._news.set()


def _join(held: Event, event: Event) -> bool:
    """Add *event* to *held* where both are deltas of one answer, and say whether they were."""
    if not (held.HasField("delta") and event.HasField("delta")):
        return False
    into, more = held.delta, event.delta
    if into.sample != more.sample or len(into.token_ids) + len(more.token_ids) > _MOST_TOKENS:
        return False
    into.text += more.text
    into.token_ids.extend(more.token_ids)
    into.logprobs.extend(more.logprobs)
    into.seq = more.seq
    return True
