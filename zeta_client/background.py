"""Run an `AsyncClient` in a thread of its own, for callers that block.

The thread begins with the first call. It ends with `Background.close`, when nobody holds the
client any more, or with the interpreter, whichever comes first. It does not outlive a fork, and
neither does gRPC: the child of a process whose client is open is told so by every call.
"""

import asyncio
import atexit
import os
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError, Future
from contextlib import aclosing, suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, TypeVar

from services.kit.aio import fast_loop, within
from services.kit.errors import UnavailableError
from zeta_client.async_client import AsyncClient

T = TypeVar("T")

_AHEAD: Final = 128
"""Events of a stream that may wait for their reader; then their model waits."""
_LAST_WORDS_S: Final = 5.0
"""So long an end waits for what gRPC has to say, and the interpreter for an end."""

_lock = threading.RLock()
"""Held where a call begins, and while the process forks."""
_threads: "set[_Thread]" = set()
_lost_by_fork = False
"""Whether a client of its parent's was open when this process was forked."""


class Background:
    """A client that *make* makes where it runs; *name* is the thread's."""

    def __init__(self, make: Callable[[], AsyncClient], name: str) -> None:
        self._make, self._name = make, name
        self._thread: _Thread | None = None
        self._closed = False

    def result(self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        """Return what *work* does, and raise what it raises.

        Raises UnavailableError where the client is closed, or is while it waits.
        """
        # Made before the work begins: an interrupt at any moment then finds what to cancel.
        done: Future[T] = Future()
        try:
            self._begin(work, done)
            return done.result()
        except CancelledError:
            raise UnavailableError("the client was closed") from None
        finally:
            done.cancel()

    def each(
        self, stream: Callable[[AsyncClient], AsyncGenerator[T, None]]
    ) -> Generator[T, None, None]:
        """Yield what *stream* does, and raise what it raises; leaving closes it. As `result`."""
        arrived: SimpleQueue[T | Future[None]] = SimpleQueue()
        room, reading = asyncio.Semaphore(_AHEAD), Future[None]()

        async def read(client: AsyncClient) -> None:
            async with aclosing(stream(client)) as events:
                async for event in events:
                    await room.acquire()
                    arrived.put(event)

        reading.add_done_callback(arrived.put)  # behind the last event
        try:
            self._begin(read, reading)
            thread, taken = self._thread, 0
            while not isinstance(event := arrived.get(), Future):
                yield event
                taken += 1
                if taken == _AHEAD // 2 and thread is not None:
                    thread.soon(_release, room, taken)
                    taken = 0
            event.result()
        except CancelledError:
            raise UnavailableError("the client was closed") from None
        finally:
            reading.cancel()

    def close(self) -> None:
        """Cancel what runs, and end the thread."""
        with _lock:
            thread, self._thread, self._closed = self._thread, None, True
        if thread is not None:
            thread.end()
            thread.join()

    def _begin(
        self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]], done: "Future[T]"
    ) -> None:
        with _lock:
            if _lost_by_fork:
                raise UnavailableError(
                    "this process was forked from one whose client was open, which gRPC does not "
                    "outlive: make the first call behind the fork, or start processes by spawn"
                )
            if self._closed:
                raise UnavailableError("this client is closed; make another")
            if self._thread is None:
                self._thread = self._started()
            self._thread.begin(work, done)

    def _started(self) -> "_Thread":
        thread = _Thread(self._make, self._name)
        # Who drops the client without closing it does not wait for its end.
        weakref.finalize(self, thread.end).atexit = False
        return thread


class _Thread:
    """An event loop in a thread, and a client on it. Raises what *make* does."""

    def __init__(self, make: Callable[[], AsyncClient], name: str) -> None:
        self._loop = fast_loop()
        self._over = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        ready: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, args=(make, ready), name=name)
        # One that is no daemon would keep the interpreter from ending.
        self._thread.daemon = True
        self._thread.start()
        ready.result()

    def begin(
        self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]], done: "Future[T]"
    ) -> None:
        """Have *work* done, and its end told to *done*; who cancels that, cancels the work."""
        self._loop.call_soon_threadsafe(self._start, work, done)

    def soon(self, callback: Callable[..., object], *arguments: object) -> None:
        """Call back on the loop, unless it has ended."""
        with suppress(RuntimeError):  # it is closed
            self._loop.call_soon_threadsafe(callback, *arguments)

    def end(self) -> None:
        """Have it cancel what runs, close the client, and end."""
        self.soon(self._over.set)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout_s)

    def _run(self, make: Callable[[], AsyncClient], ready: "Future[None]") -> None:
        _threads.add(self)
        try:
            self._loop.run_until_complete(self._live(make, ready))
        finally:
            self._loop.close()
            _threads.discard(self)

    async def _live(self, make: Callable[[], AsyncClient], ready: "Future[None]") -> None:
        try:
            client = make()
        except Exception as error:  # noqa: BLE001 - the caller's to see
            ready.set_exception(error)
            return
        self._client = client
        async with client:
            ready.set_result(None)
            await self._over.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        del self._client  # gRPC's own thread ends with the last of its objects
        await self._loop.shutdown_asyncgens()
        # gRPC still has to tell this loop how the calls ended that were cancelled.
        await within(_LAST_WORDS_S, self._quiet())

    async def _quiet(self) -> None:
        while rest := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(rest)

    def _start(
        self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]], done: "Future[T]"
    ) -> None:
        if self._over.is_set():
            done.cancel()
            return
        task = self._loop.create_task(self._done(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(partial(_tell, done))
        done.add_done_callback(lambda _: self.soon(task.cancel))

    async def _done(self, work: Callable[[AsyncClient], Coroutine[Any, Any, T]]) -> T:
        return await work(self._client)


def _tell(done: "Future[T]", task: "asyncio.Task[T]") -> None:
    """Tell *done* how *task* ended, unless nobody waits any more."""
    if task.cancelled():
        done.cancel()
    error = None if task.cancelled() else task.exception()
    if not done.set_running_or_notify_cancel():
        return
    if error is None:
        done.set_result(task.result())
    else:
        done.set_exception(error)


def _release(room: asyncio.Semaphore, count: int) -> None:
    for _ in range(count):
        room.release()


def _end_all() -> None:
    threads = list(_threads)
    for thread in threads:
        thread.end()
    for thread in threads:
        thread.join(_LAST_WORDS_S)


def _after_fork_in_child() -> None:
    global _lost_by_fork  # noqa: PLW0603 - a fact about the process
    _lost_by_fork |= bool(_threads)
    _threads.clear()
    _lock.release()


atexit.register(_end_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_after_fork_in_child,
    )
