"""Small asyncio pieces."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def all_of(*calls: Coroutine[None, None, T]) -> list[T]:
    """Await all of *calls*; the first failure cancels the rest and is raised bare.

    Bare, because `kit.rpc` maps ZetaError to a status and would not see one inside
    the ExceptionGroup that a TaskGroup raises.
    """
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(call) for call in calls]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def cancelled(task: asyncio.Task[T]) -> None:
    """Cancel *task* and wait until it has ended; its own failure is its owner's to see."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await task


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
