"""Virtual time passes as it should, and only where nobody has anything to do."""

import asyncio

import pytest

from tests.bench.virtual.loop import VirtualLoop


def test_time_passes_in_order_and_at_once() -> None:
    """Hours are slept through, what is due first comes first, and a time-out is one."""
    seen = []

    async def late(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        seen.append((name, asyncio.get_running_loop().time()))

    async def main() -> float:
        begin_s = asyncio.get_running_loop().time()
        await asyncio.gather(late("last", 7200.0), late("first", 0.5), late("second", 3600.0))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 10.0)
        return begin_s

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        begin_s = runner.run(main())
        ended_s = runner.get_loop().time()

    assert seen == [
        ("first", begin_s + 0.5),
        ("second", begin_s + 3600.0),
        ("last", begin_s + 7200.0),
    ]
    assert ended_s == pytest.approx(begin_s + 7210.0)


def test_work_for_a_thread_takes_no_time() -> None:
    """It gives its result or its error, and the clock stands still meanwhile."""

    async def main() -> tuple[float, list[int], float]:
        clock = asyncio.get_running_loop().time
        begin_s = clock()
        found = await asyncio.to_thread(sorted, [2, 1])
        with pytest.raises(ZeroDivisionError):
            await asyncio.to_thread(divmod, 1, 0)
        return begin_s, found, clock()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        begin_s, found, end_s = runner.run(main())

    assert found == [1, 2]
    assert end_s == begin_s


def test_waiting_for_nothing_is_an_error() -> None:
    """Nothing comes from outside: who waits for what nobody will do would wait for ever."""

    async def main() -> None:
        await asyncio.Event().wait()

    with (
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
        pytest.raises(RuntimeError, match="nothing is due"),
    ):
        runner.run(main())
