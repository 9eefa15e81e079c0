"""Who goes, who waits, who is refused."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest

from router_svc.core.gate import Choice, Gate, Vacancy
from router_svc.core.promises import Known
from router_svc.core.queue import Ticket
from router_svc.core.types import Places, Priority

PACE_S, CALL_S = np.array([0.5, 0.1]), np.array([2.0, 1.0])


class House:
    """Two models of two replicas; the first request of a class finds what is said to be free."""

    def __init__(self, *, limit: int = 8) -> None:
        self.full = np.array([True, True, True, True])
        self.gate: Gate[str] = Gate(np.array([0, 0, 1, 1]), 2, limit, self.vacancy)

    def vacancy(self, _priority: Priority) -> Vacancy:
        """As the replicas are."""
        free = np.bincount([0, 0, 1, 1], ~self.full, 2) > 0.0
        return Vacancy(full=self.full, room=free, pace_s=PACE_S, call_s=CALL_S)

    def wait(self, ticket: Ticket, *, model: int = 0, service_s: float = 0.0) -> Ticket | None:
        """Have *ticket* wait for *model*, and go once there is a place."""

        def choose(places: Places | None) -> Choice[str]:
            waits = places is not None and bool(places.full[2 * model : 2 * model + 2].all())
            return Choice(value=f"to {model}", model=model if waits else -1, service_s=service_s)

        choice = choose(self.gate.places(ticket, 0.0))
        assert choice.model == model
        return self.gate.push(ticket, choose, choice)

    def goes(self, now_s: float = 0.0) -> tuple[Ticket, Choice[str]] | None:
        """Let one go."""
        return next(self.gate.going(now_s), None)


def ticket(number: int, priority: Priority = Priority.STANDARD, **given: float) -> Ticket:
    """A request."""
    due_s = given.pop("due_s", inf)
    return Ticket(number=number, priority=priority, tenant="", due_s=due_s)


def test_nothing_stands_in_the_way_where_there_are_places() -> None:
    """Deciding costs nothing more then."""
    house = House()
    house.full[:] = False
    assert house.gate.places(ticket(0), 0.0) is None


def test_a_request_waits_behind_those_before_it() -> None:
    """As long as a place takes to come free, times those ahead; at other models not at all."""
    house = House()
    for number in range(3):
        house.wait(ticket(number))
    house.full[3] = False
    places = house.gate.places(ticket(9), 0.0)
    assert places is not None
    assert places.full.tolist() == [True, True, True, False]
    assert places.wait_s[0] == pytest.approx(1.5)
    assert 0.0 < places.wait_s[1] < 0.01


def test_a_free_place_is_no_newcomer_s_while_others_wait_for_it() -> None:
    """Whoever comes last does not overtake, unless its class is higher."""
    house = House()
    house.wait(ticket(0))
    house.full[0] = False
    behind, above = (
        house.gate.places(ticket(1), 0.0),
        house.gate.places(ticket(2, priority=Priority.CRITICAL), 0.0),
    )
    assert behind is not None
    assert behind.full[:2].all()
    assert above is not None
    assert not above.full[0]


def test_one_goes_when_there_is_a_place() -> None:
    """The first in order, to the model that has the place; then nobody, while it is taken."""
    house = House()
    house.wait(ticket(0), model=0)
    house.wait(ticket(1), model=1)
    house.wait(ticket(2, priority=Priority.CRITICAL), model=1)
    assert house.goes() is None
    house.full[2] = False
    out = house.goes()
    assert out is not None
    assert (out[0].number, out[1].value) == (2, "to 1")
    house.full[2] = True
    assert house.goes() is None
    assert len(house.gate) == 2


def test_as_many_are_asked_as_there_are_places() -> None:
    """Of a hundred that wait two are decided about where two can go, and nobody in between."""
    house, asked = House(limit=200), list[int]()
    for number in range(100):

        def choose(places: Places | None, number: int = number) -> Choice[str]:
            asked.append(number)
            waits = places is not None and bool(places.full[:2].all())
            return Choice(value="to 0", model=0 if waits else -1)

        house.gate.push(ticket(number), choose, choose(house.gate.places(ticket(number), 0.0)))
    asked.clear()
    assert list(house.gate.going(0.0)) == []
    house.full[:2] = False
    gone = list[int]()
    for out in house.gate.going(0.0):
        house.full[len(gone)] = True  # it has taken its place
        gone.append(out[0].number)
    assert gone == asked == [0, 1]


def test_only_the_first_of_a_queue_may_go_as_it_comes() -> None:
    """Behind others it would be looked at in vain; a higher class leads at once."""
    house = House()
    first, second, critical = ticket(0), ticket(1), ticket(2, priority=Priority.CRITICAL)
    for each in (first, second):
        house.wait(each)
    assert house.gate.leads(first)
    assert not house.gate.leads(second)
    house.wait(critical)
    assert house.gate.leads(critical)
    assert not house.gate.leads(first)
    assert not house.gate.leads(ticket(9))


def test_a_full_gate_refuses_the_lowest_class_first() -> None:
    """The newcomer, unless somebody below it waits anywhere."""
    house = House(limit=2)
    batch = ticket(0, priority=Priority.BATCH)
    assert house.wait(batch, model=1) is None
    assert house.wait(ticket(1)) is None
    assert house.gate.full(Priority.BATCH)
    assert not house.gate.full(Priority.STANDARD)
    also = ticket(2, priority=Priority.BATCH)
    itself = house.wait(also)
    assert itself is not None
    assert itself.number == 2
    refused = house.wait(ticket(3))
    assert refused is not None
    assert refused.number == 0
    assert len(house.gate) == 2


def test_who_cannot_be_in_time_any_more_is_refused_and_not_kept() -> None:
    """When others came before it, or time has passed."""
    house = House()
    house.wait(ticket(0, due_s=11.0), service_s=0.8)
    assert house.gate.late(10.0) == []
    house.wait(ticket(1, priority=Priority.CRITICAL))
    assert [t.number for t in house.gate.late(10.1)] == [0]
    assert len(house.gate) == 1


def test_the_time_to_retry_is_what_the_queue_takes() -> None:
    """At the pace at which places come free, with a margin; the next one's is a place later."""
    house = House()
    for number in range(5):
        house.wait(ticket(number))
    after_s = house.gate.retry_after_s(ticket(9), 0, 0.0) - 5 * 0.5
    assert 0.5 < after_s < 1.5
    assert house.gate.retry_after_s(ticket(10), 0, 0.0) == pytest.approx(5 * 0.5 + 2 * after_s)
    assert house.gate.retry_after_s(ticket(11), 1, 0.0) == pytest.approx(after_s / 5.0)


def test_a_place_for_a_long_request_is_promised_later() -> None:
    """By as much as it takes longer than usual, within limits."""
    usual, long, longest, unknown = (
        House().gate.retry_after_s(ticket(0), 0, 0.0, service_s=service_s)
        for service_s in (2.0, 4.0, 100.0, 0.0)
    )
    assert usual == unknown
    assert long == pytest.approx(2 * usual)
    assert longest == pytest.approx(3 * usual)


def test_who_comes_back_when_told_to_goes_before_newcomers() -> None:
    """They leave it its place, and it is let in where there is no room for others; only once."""
    house = House(limit=1)
    house.wait(ticket(0))
    first = replace(ticket(1), known=Known(key=7))
    after_s = house.gate.retry_after_s(first, 0, 0.0)
    early = house.gate.promised(replace(ticket(2), known=Known(key=7)), after_s - 0.1)
    assert early.promised_s == inf
    newcomer = house.gate.places(ticket(3), after_s)
    assert newcomer is not None
    again = house.gate.promised(replace(ticket(4), known=Known(key=7)), after_s + 0.1)
    assert again.promised_s == pytest.approx(after_s)
    mine = house.gate.places(again, after_s)
    assert mine is not None
    assert mine.promised
    assert mine.wait_s[0] < newcomer.wait_s[0]
    assert house.wait(again) is None
    house.full[0] = False
    out = house.goes(after_s)
    assert out is not None
    assert out[0].number == 4
    later = house.gate.promised(replace(ticket(5), known=Known(key=7)), after_s + 0.2)
    assert later.promised_s == inf


def test_whose_turn_it_is_does_not_wait_for_other_tenants() -> None:
    """Each tenant's first would wait behind the other's, were they newcomers."""
    house = House()
    house.wait(replace(ticket(0), tenant="a"))
    house.wait(replace(ticket(1), tenant="b"))
    house.full[0] = False
    assert {out[0].number for out in house.gate.going(0.0)} == {0, 1}
