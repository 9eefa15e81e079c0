"""Bounded admission."""

import asyncio

import pytest

from router_svc.admission import Admission
from router_svc.core.gate import Choice, Choose
from router_svc.core.patience import MOST_S
from router_svc.core.types import Ask, Places, Priority
from router_svc.fleet import Fleet, Lease
from router_svc.run import NobodyError
from services.kit.config import Router
from services.kit.errors import OverloadedError, ZetaError
from tests.unit.router_svc.fixtures import ManualClock, ask, models


class House:
    """One model of four slots, behind a gate; a request goes to it where there is a place."""

    def __init__(self, *, most: int = 100, queued: int = 8) -> None:
        self.clock = ManualClock()
        self.fleet = Fleet(models({"m": 1}), Router(), self.clock)
        self.fleet.health("m-0", serving=True)
        self.admission = Admission(self.fleet, most, queued, self.clock)
        self.comes_back = True
        self.chosen = 0

    def choose(self, places: Places | None) -> Choice[str | ZetaError]:
        """Wait where the model is full, refuse where nobody serves."""
        self.chosen += 1
        if not self.fleet.able("m-0"):
            return Choice(value=NobodyError("m-0 is away", away=self.comes_back))
        waits = places is not None and bool(places.full[0])
        return Choice(value="m-0", model=0 if waits else -1, service_s=0.5, takes=("m-0",))

    async def settled(self) -> None:
        """Let everybody take their place."""
        for _ in range(20):
            await asyncio.sleep(0)


class Guest:
    """A request that holds its place until told to go."""

    def __init__(
        self, house: House, request: Ask, choose: Choose[str | ZetaError] | None = None
    ) -> None:
        self._choose = choose or house.choose
        self.inside = asyncio.Event()
        self.leave = asyncio.Event()
        self.task = asyncio.create_task(self._visit(house, request))

    async def _visit(self, house: House, request: Ask) -> None:
        async with house.admission.place(request, self._choose) as replica:
            lease: Lease = house.fleet.begin(replica, 1.0, 1.0)
            self.inside.set()
            try:
                await self.leave.wait()
            finally:
                house.fleet.end(lease)

    async def go(self) -> None:
        """End it."""
        self.leave.set()
        await self.task


async def test_as_many_run_as_there_are_places_and_one_is_on_its_way() -> None:
    """Four run and one waits there; the sixth goes when a place is free."""
    house = House()
    guests = [Guest(house, ask()) for _ in range(7)]
    await house.settled()
    assert [g.inside.is_set() for g in guests] == [True] * 5 + [False] * 2
    await guests[0].go()
    await guests[5].inside.wait()
    await house.settled()
    assert not guests[6].inside.is_set()
    for guest in guests[1:]:
        await guest.go()


async def test_all_go_at_once_for_whom_there_are_places() -> None:
    """Three leave, and the next three begin in one turn of the loop, each decided about once."""
    house = House(queued=100)
    guests = [Guest(house, ask()) for _ in range(40)]
    await house.settled()
    house.chosen = 0
    begun = []
    for guest in guests[:3]:
        guest.leave.set()
    for _ in range(20):
        await asyncio.sleep(0)
        begun.append(sum(guest.inside.is_set() for guest in guests[5:]))
    assert sorted(set(begun)) == [0, 3]
    assert house.chosen == 3
    for guest in guests:
        guest.leave.set()
    await asyncio.gather(*(guest.task for guest in guests))
    assert house.chosen == 35


async def test_who_leaves_as_it_is_let_go_leaves_its_place_to_the_next() -> None:
    """What was held for it is taken back, to the last place."""
    house = House()
    guests = [Guest(house, ask()) for _ in range(6)]
    await house.settled()

    def second(places: Places | None) -> Choice[str | ZetaError]:
        if house.chosen == 9:  # eight as they came, and the sixth, which was let go just now
            guests[5].task.cancel()
        return house.choose(places)

    guests += [Guest(house, ask(), second) for _ in range(2)]
    await house.settled()
    for guest in guests[:2]:
        guest.leave.set()
    await house.settled()
    assert [g.inside.is_set() for g in guests[5:]] == [False, True, True]
    for guest in (*guests[2:5], *guests[6:]):
        await guest.go()
    assert not house.fleet.crowded(Priority.STANDARD)
    assert house.fleet.replicas().loads.own.tolist() == [0.0]


async def test_who_cannot_choose_hears_of_it_and_holds_nobody_up() -> None:
    """A mistake of ours fails the request that it meets, and the next ones go."""
    house = House()
    guests = [Guest(house, ask()) for _ in range(5)]
    await house.settled()
    first = house.chosen

    def broken(places: Places | None) -> Choice[str | ZetaError]:
        if house.chosen > first:
            raise ValueError("broken")
        return house.choose(places)

    guests += [Guest(house, ask(), broken), Guest(house, ask())]
    await house.settled()
    guests[0].leave.set()
    await house.settled()
    assert [g.inside.is_set() for g in guests[5:]] == [False, True]
    with pytest.raises(ValueError, match="broken"):
        await guests[5].task
    for guest in (*guests[1:5], guests[6]):
        await guest.go()


async def test_critical_requests_overtake() -> None:
    """Those of a higher class go first when a place is free."""
    house = House()
    first = [Guest(house, ask()) for _ in range(5)]
    await house.settled()
    batch = Guest(house, ask(priority=Priority.BATCH))
    await house.settled()
    standard = Guest(house, ask())
    await house.settled()
    await first[0].go()
    await standard.inside.wait()
    assert not batch.inside.is_set()
    for guest in (*first[1:], standard):
        await guest.go()
    await batch.inside.wait()
    await batch.go()


async def test_critical_requests_wait_for_critical_ones_only() -> None:
    """The model's engine stops others for them."""
    house = House()
    first = [Guest(house, ask()) for _ in range(5)]
    await house.settled()
    critical = Guest(house, ask(priority=Priority.CRITICAL))
    await asyncio.wait_for(critical.inside.wait(), 5.0)
    for guest in (*first, critical):
        await guest.go()


async def test_who_cannot_be_in_time_any_more_is_refused() -> None:
    """Waiting until there is not even time for the work helps nobody."""
    house = House()
    first = [Guest(house, ask()) for _ in range(5)]
    await house.settled()
    waiting = Guest(house, ask(deadline_s=1.0))
    await house.settled()
    assert not waiting.task.done()
    house.clock.now_s += 0.6
    house.admission.look()
    with pytest.raises(OverloadedError):
        await waiting.task
    for guest in first:
        await guest.go()


async def test_a_full_house_refuses_with_an_honest_time() -> None:
    """The time to retry is how long the queue takes at the pace that was measured."""
    house = House(queued=1)
    for _ in range(200):
        lease = house.fleet.begin("m-0", 1.0, 1.0)
        house.clock.now_s += 2.0
        house.fleet.first_token(lease)
        house.fleet.end(lease)
    guests = [Guest(house, ask()) for _ in range(6)]
    await house.settled()
    with pytest.raises(OverloadedError) as refused:
        house.admission.check(ask())
    # Of five places, one of them for who waits at the replica, one comes free every 0.4 s.
    # One waits already, and the next one or two are left to newcomers.
    assert refused.value.retry_after_s is not None
    assert 2 * 2.0 / 5 <= refused.value.retry_after_s <= 4 * 2.0 / 5
    house.clock.now_s += refused.value.retry_after_s
    house.admission.check(ask())  # it came back when it was told to
    house.admission.check(ask(priority=Priority.CRITICAL))  # standard ones would make room
    for guest in guests:
        await guest.go()


async def test_who_was_refused_is_known_when_it_comes_back() -> None:
    """From the refusal on, until it has its place; nobody else is."""
    house = House(queued=1)
    guests = [Guest(house, ask()) for _ in range(6)]
    await house.settled()
    mine, other = ask(text="mine"), ask(text="other")
    assert not house.admission.returns(mine)
    with pytest.raises(OverloadedError) as refused:
        house.admission.check(mine)
    assert refused.value.retry_after_s is not None
    assert house.admission.returns(mine)
    assert not house.admission.returns(other)
    for guest in guests:
        await guest.go()
    house.clock.now_s += refused.value.retry_after_s
    back = Guest(house, mine)
    await asyncio.wait_for(back.inside.wait(), 5.0)
    assert not house.admission.returns(mine)
    await back.go()


async def test_the_router_itself_runs_so_many_at_once() -> None:
    """Whatever they are for; those who need no model wait for a place of the router's own."""
    house = House(most=1)
    running = Guest(house, ask())
    await house.settled()
    inside = asyncio.Event()

    async def embeds() -> None:
        async with house.admission.slot(ask()):
            inside.set()

    embedding = asyncio.create_task(embeds())
    other = Guest(house, ask())
    await house.settled()
    assert not inside.is_set()
    await running.go()
    await asyncio.wait_for(other.inside.wait(), 5.0)
    await other.go()
    await embedding


async def test_who_waits_for_a_place_waits_for_a_replica_that_restarts() -> None:
    """Nobody new is let in meanwhile: those can go elsewhere, and lose nothing."""
    house = House()
    guests = [Guest(house, ask()) for _ in range(6)]
    await house.settled()
    house.fleet.health("m-0", serving=False)
    await house.settled()
    with pytest.raises(NobodyError):
        await Guest(house, ask()).task
    assert not guests[5].task.done()
    house.fleet.health("m-0", serving=True)
    for guest in guests[:5]:
        await guest.go()
    await guests[5].inside.wait()
    await guests[5].go()


async def test_who_stands_far_back_waits_for_a_replica_that_restarts_too() -> None:
    """A replica that is away is no slow one: nobody is sent away whose deadline it can make."""
    house = House()
    guests = [Guest(house, ask(deadline_s=3.0)) for _ in range(13)]  # 4 places, half a second each
    await house.settled()
    house.clock.now_s += 0.1
    house.fleet.health("m-0", serving=False)
    await house.settled()
    assert not any(guest.task.done() for guest in guests)
    house.fleet.health("m-0", serving=True)
    for guest in guests:
        await asyncio.wait_for(guest.inside.wait(), 5.0)
        await guest.go()
    await asyncio.gather(*(guest.task for guest in guests))


async def test_who_waits_for_a_place_is_refused_where_nobody_comes_back() -> None:
    """Or where that takes too long."""
    for comes_back, passes_s in ((False, 0.0), (True, 2 * MOST_S)):
        house = House()
        guests = [Guest(house, ask()) for _ in range(6)]
        await house.settled()
        house.comes_back = comes_back
        house.fleet.health("m-0", serving=False)
        await house.settled()
        house.clock.now_s += passes_s
        house.fleet.reports_lost()  # news
        with pytest.raises(NobodyError):
            await guests[5].task
        for guest in guests[:5]:
            await guest.go()


async def test_whoever_leaves_the_queue_leaves_no_trace() -> None:
    """A cancelled wait frees its place, and no place is lost even when both meet."""
    house = House(queued=2)
    first = [Guest(house, ask()) for _ in range(5)]
    await house.settled()
    waiting = Guest(house, ask())
    await house.settled()
    waiting.task.cancel()
    await house.settled()
    other = Guest(house, ask())
    await house.settled()
    first[0].leave.set()
    await first[0].task  # its place is `other`'s, which is cancelled before it wakes
    other.task.cancel()
    await house.settled()
    last = Guest(house, ask())
    await asyncio.wait_for(last.inside.wait(), 5.0)
    for guest in (*first[1:], last):
        await guest.go()
