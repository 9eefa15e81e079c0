"""What goes out on a stream: all that a turn of the event loop leaves goes in one message."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from services.kit.aio import Bell

T = TypeVar("T")

_MESSAGE_BYTES: Final = 256 * 1024
"""A message does not grow beyond that, unless it is one part alone."""
ROOM_BYTES: Final = 4 * 1024 * 1024
"""As much may wait before senders have to."""


class Outbox(Generic[T]):
    """Parts on their way to *write*, in their order. Owned by the event loop.

    How much waits is for the senders to bound: they await `room` while it is `full`.
    """

    def __init__(self, write: Callable[[list[T]], Awaitable[None]]) -> None:
        self._write = write
        self._messages: deque[list[T]] = deque()
        self._sizes: deque[int] = deque()
        """In bytes, of each of them."""
        self._waiting_bytes = 0
        self._news, self._room = Bell(), asyncio.Event()
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether so much waits that nothing should be added."""
        return self._waiting_bytes >= ROOM_BYTES

    def put(self, part: T, size_bytes: int = 0) -> None:
        """Have *part* sent with what else comes in this turn of the loop."""
        if not self._messages or self._sizes[-1] + size_bytes > _MESSAGE_BYTES:
            self._messages.append([])
            self._sizes.append(0)
        self._messages[-1].append(part)
        self._sizes[-1] += size_bytes
        self._waiting_bytes += size_bytes
        self._news.ring()

    async def room(self) -> None:
        """Wait while it is full."""
        while self.full:
            self._room.clear()
            await self._room.wait()

    def close(self) -> None:
        """Have `run` return once everything is sent."""
        self._closed = True
        self._news.ring()

    async def run(self) -> None:
        """Send until closed. Raises what *write* does."""
        while True:
            while self._messages:
                size_bytes = self._sizes.popleft()
                await self._write(self._messages.popleft())
                self._waiting_bytes -= size_bytes
                self._room.set()
            if self._closed:
                return
            await self._news.heard()
