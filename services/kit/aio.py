"""Small asyncio pieces."""

import asyncio
import contextlib
import importlib
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()


def fast_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop for many small messages: uvloop's where it is installed.

    It is not where there is none for the platform; asyncio's own does the same.
    """
    try:
        loop: asyncio.AbstractEventLoop = importlib.import_module("uvloop").new_event_loop()
    except ImportError:
        return asyncio.new_event_loop()
    return loop


class Bell:
    """Wakes the one who waits, if anybody does. Owned by the event loop."""

    __slots__ = ("_heard",)

    def __init__(self) -> None:
        self._heard: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake who waits; nobody who comes later hears of it."""
        if self._heard is not None and not self._heard.done():
            self._heard.set_result(None)

    def heard(self) -> asyncio.Future[None]:
        """Return what is done once it rings from now on."""
        self._heard = asyncio.get_running_loop().create_future()
        return self._heard


class Later:
    """Does what no caller waits for a moment later, all of it at once. Owned by the event loop.

    What callers wait for goes first, and pieces of one kind in a row take less time than each
    between other work. One piece's failure is logged.
    """

    def __init__(self, after_s: float = 0.02) -> None:
        self._after_s = after_s
        self._works: list[Callable[[], object]] = []

    def do(self, work: Callable[[], object]) -> None:
        """Have *work* done soon, in its turn."""
        if not self._works:
            asyncio.get_running_loop().call_later(self._after_s, self.now)
        self._works.append(work)

    def now(self) -> None:
        """Do what there is to do."""
        works, self._works = self._works, []
        for work in works:
            try:
                work()
            except Exception:
                log.exception("left undone")


async def all_of(*calls: Coroutine[None, None, T]) -> list[T]:
    """Await all of *calls*; the first failure cancels the rest and is raised bare.

    Not a TaskGroup, for two reasons: `kit.rpc` maps ZetaError to a status and would not see
    one inside an ExceptionGroup; and a group forgets that it was cancelled where a call fails
    in the same moment, so that its task would go on.
    """
    me = asyncio.current_task()
    assert me is not None
    cancellations = me.cancelling()
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    except Exception as failed:
        if me.cancelling() > cancellations:
            raise asyncio.CancelledError from failed
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def cancelled(task: asyncio.Task[T]) -> None:
    """Cancel *task* and wait until it has ended; its own failure is its owner's to see."""
    task.cancel()
    # Not `await task`: whoever is cancelled while waiting must go on being cancelled.
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()


async def within(limit_s: float, wait: Awaitable[object]) -> None:
    """Await *wait*, for so long at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            await wait


def stop_event() -> asyncio.Event:
    """Return an event that SIGTERM or SIGINT sets, and so does the supervisor's death.

    The supervisor is watched by its process id (ZETA_SUPERVISOR), because a process that was
    killed outright cannot stop its children.
    """
    event, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, event.set)
    if os.environ.get("ZETA_SUPERVISOR"):
        _watch_parent(int(os.environ["ZETA_SUPERVISOR"]), event, loop)
    return event


def _watch_parent(pid: int, event: asyncio.Event, loop: asyncio.AbstractEventLoop) -> None:
    if os.getppid() != pid:
        event.set()
    elif not event.is_set():
        loop.call_later(1.0, _watch_parent, pid, event, loop)
