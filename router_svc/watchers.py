"""Show decisions to whoever watches; a slow watcher misses some and is told how many."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_BUFFER: Final = 256


class _Watcher(Generic[T]):
    def __init__(self) -> None:
        self.items: deque[T] = deque()
        self.skipped = 0
        self.news = asyncio.Event()


class Watchers(Generic[T]):
    """Everyone who watches. Owned by the event loop."""

    def __init__(self) -> None:
        self._watchers: set[_Watcher[T]] = set()

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def show(self, make: Callable[[], T]) -> None:
        """Show what *make* returns; it is called only where somebody watches."""
        if not self._watchers:
            return
        item = make()
        for watcher in self._watchers:
            if len(watcher.items) >= _BUFFER:
                watcher.items.popleft()
                watcher.skipped += 1
            watcher.items.append(item)
            watcher.news.set()

    @contextmanager
    def watching(self) -> Iterator[AsyncGenerator[tuple[T, int], None]]:
        """Watch from now on: what is shown, each with the number of items left out before it."""
        watcher: _Watcher[T] = _Watcher()
        self._watchers.add(watcher)
        try:
            yield _seen(watcher)
        finally:
            self._watchers.discard(watcher)


async def _seen(watcher: _Watcher[T]) -> AsyncGenerator[tuple[T, int], None]:
    while True:
        await watcher.news.wait()
        while watcher.items:
            skipped, watcher.skipped = watcher.skipped, 0
            yield watcher.items.popleft(), skipped
        watcher.news.clear()
