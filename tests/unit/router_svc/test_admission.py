"""Bounded admission."""

import asyncio

import pytest

from router_svc.admission import Admission
from router_svc.core.types import Ask, Priority
from services.kit.errors import OverloadedError
from tests.unit.router_svc.fixtures import ManualClock, ask


class Guest:
    """A request that holds its slot until told to go."""

    def __init__(self, admission: Admission, request: Ask) -> None:
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(admission, request))

    async def _visit(self, admission: Admission, request: Ask) -> None:
        async with admission.slot(request):
            self.inside.set()
            await self.leave.wait()

    async def go(self) -> None:
        """End it."""
        self.leave.set()
        await self.task


async def settled() -> None:
    """Let everybody take their place."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_as_many_run_as_there_are_slots() -> None:
    """The next one runs when a slot is free."""
    admission = Admission(2, 8, ManualClock())
    guests = [Guest(admission, ask()) for _ in range(3)]
    await settled()
    assert [g.inside.is_set() for g in guests] == [True, True, False]
    await guests[0].go()
    await guests[2].inside.wait()
    for guest in guests[1:]:
        await guest.go()


async def test_critical_requests_overtake() -> None:
    """Those of a higher class go first when a slot is free."""
    admission = Admission(1, 8, ManualClock())
    first = Guest(admission, ask())
    await first.inside.wait()
    batch = Guest(admission, ask(priority=Priority.BATCH))
    await settled()
    critical = Guest(admission, ask(priority=Priority.CRITICAL))
    await settled()
    await first.go()
    await critical.inside.wait()
    assert not batch.inside.is_set()
    await critical.go()
    await batch.inside.wait()
    await batch.go()


async def test_a_full_house_refuses_with_an_honest_time() -> None:
    """The time to retry is how long the queue takes at the pace that was measured."""
    clock = ManualClock()
    admission = Admission(1, 1, clock)
    for _ in range(200):
        async with admission.slot(ask()):
            clock.now_s += 2.0
    running, waiting = Guest(admission, ask()), Guest(admission, ask())
    await settled()
    with pytest.raises(OverloadedError) as refused:
        async with admission.slot(ask()):
            pass
    assert refused.value.retry_after_s == pytest.approx(4.0, rel=0.05)
    await running.go()
    await waiting.go()


async def test_whoever_leaves_the_queue_leaves_no_trace() -> None:
    """A cancelled wait frees its place, and no slot is lost even when both meet."""
    admission = Admission(1, 1, ManualClock())
    running, waiting = Guest(admission, ask()), Guest(admission, ask())
    await settled()
    waiting.task.cancel()
    await settled()
    other = Guest(admission, ask())
    await settled()
    running.leave.set()
    await running.task  # hands its slot to `other`, which is cancelled before it wakes
    other.task.cancel()
    await settled()
    last = Guest(admission, ask())
    await asyncio.wait_for(last.inside.wait(), 5.0)
    await last.go()
