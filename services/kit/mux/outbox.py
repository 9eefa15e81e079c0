"""What goes out on a stream: all that a turn of the event loop leaves goes in one message."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_MESSAGE_BYTES: Final = 256 * 1024
"""A message does not grow beyond that, unless it is one part alone."""


class Outbox(Generic[T]):
    """Parts on their way to *write*, in their order. Owned by the event loop.

    How many wait is for their senders to bound.
    """

    def __init__(self, write: Callable[[list[T]], Awaitable[None]]) -> None:
        self._write = write
        self._messages: deque[list[T]] = deque()
        self._bytes = 0
        """Of the last of them."""
        self._news: asyncio.Future[None] | None = None
        self._closed = False

    def put(self, part: T, size_bytes: int = 0) -> None:
        """Have *part* sent with what else comes in this turn of the loop."""
        if not self._messages or self._bytes + size_bytes > _MESSAGE_BYTES:
            self._messages.append([])
            self._bytes = 0
        self._messages[-1].append(part)
        self._bytes += size_bytes
        self._wake()

    def close(self) -> None:
        """Have `run` return once everything is sent."""
        self._closed = True
        self._wake()

    async def run(self) -> None:
        """Send until closed. Raises what *write* does."""
        while True:
            while self._messages:
                await self._write(self._messages.popleft())
            if self._closed:
                return
            self._news = asyncio.get_running_loop().create_future()
            await self._news

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)
