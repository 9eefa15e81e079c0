"""Small asyncio pieces."""

import asyncio
import sys

import pytest

from services.kit.aio import Bell, Later, all_of, cancelled, fast_loop, within
from services.kit.errors import OverloadedError


async def value(number: int) -> int:
    return number


async def test_a_bell_wakes_who_waits_and_nobody_later() -> None:
    """A ring that nobody waits for is lost; two are as good as one."""
    bell = Bell()
    bell.ring()
    heard = bell.heard()
    before = heard.done()
    bell.ring()
    bell.ring()
    await heard

    assert not before
    assert not bell.heard().done()


async def test_all_of_keeps_the_order() -> None:
    """Results come back in the order of the calls."""
    assert await all_of(value(1), value(2)) == [1, 2]


async def test_the_first_failure_is_raised_bare_and_cancels_the_rest() -> None:
    """`kit.rpc` would not see a ZetaError inside an ExceptionGroup."""
    stopped = asyncio.Event()

    async def waits() -> int:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()
        return 0

    async def fails() -> int:
        raise OverloadedError("full")

    with pytest.raises(OverloadedError, match="full"):
        await all_of(waits(), fails())

    assert stopped.is_set()


async def test_whoever_is_cancelled_while_cancelling_is_cancelled() -> None:
    """A task that swallowed that would go on for ever, and so would whoever waits for its end."""
    go_on, asked = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            asked.set()
            await go_on.wait()

    inner = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    outer = asyncio.create_task(cancelled(inner))
    await asked.wait()
    outer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await outer
    go_on.set()
    await cancelled(inner)


async def test_within_waits_no_longer() -> None:
    """What comes in time is waited for, and nothing for ever."""
    event = asyncio.Event()
    await within(0.0, event.wait())
    asyncio.get_running_loop().call_soon(event.set)
    await within(60.0, event.wait())
    assert event.is_set()


async def test_cancelled_waits_for_the_end() -> None:
    """After it returns the task runs no more."""
    task = asyncio.create_task(asyncio.Event().wait())

    await cancelled(task)

    assert task.done()


async def test_a_cancellation_is_not_lost_to_a_failure() -> None:
    """Who cancels a group of calls ends it, even where one fails because of that."""

    async def breaks_when_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise OverloadedError("in the same moment") from None

    task = asyncio.create_task(all_of(breaks_when_cancelled()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_fast_loop_is_uvloops_where_there_is_one() -> None:
    """And what a loop is for works on it."""
    pytest.importorskip("uvloop", reason="not installed: there is none for every platform")
    with asyncio.Runner(loop_factory=fast_loop) as runner:
        assert type(runner.get_loop()).__module__ == "uvloop"
        assert runner.run(value(3)) == 3


def test_without_uvloop_the_fast_loop_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a matter of speed alone."""
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with asyncio.Runner(loop_factory=fast_loop) as runner:
        assert type(runner.get_loop()).__module__.startswith("asyncio.")
        assert runner.run(value(3)) == 3


async def test_what_nobody_waits_for_is_done_later_all_at_once() -> None:
    """In its order; one piece's failure keeps nothing else from being done."""
    later, seen, done = Later(0.001), list[str](), asyncio.Event()

    def fail() -> None:
        raise ValueError("broken")

    for work in (lambda: seen.append("one"), fail, lambda: seen.append("two"), done.set):
        later.do(work)
    at_once = list(seen)
    await done.wait()
    assert at_once == []
    assert seen == ["one", "two"]


async def test_what_is_left_can_be_done_at_once() -> None:
    """And is not done again; what comes behind it is done in its turn."""
    later, seen, done = Later(0.001), list[str](), asyncio.Event()
    later.do(lambda: seen.append("one"))
    later.now()
    at_once = list(seen)
    later.do(lambda: seen.append("two"))
    later.do(done.set)
    await done.wait()
    assert at_once == ["one"]
    assert seen == ["one", "two"]
