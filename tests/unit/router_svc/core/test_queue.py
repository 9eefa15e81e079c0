"""Who is next."""

from dataclasses import replace
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from router_svc.core.queue import Ticket, WaitQueue
from router_svc.core.types import Priority


def ticket(
    number: int,
    *,
    tenant: str = "",
    priority: Priority = Priority.STANDARD,
    due_s: float = inf,
    tokens: float = 64.0,
    latest_s: float = inf,
    difficulty: float = 0.0,
) -> Ticket:
    """A waiting request."""
    return Ticket(
        number=number,
        tenant=tenant,
        priority=priority,
        due_s=due_s,
        tokens=tokens,
        latest_s=latest_s,
        difficulty=difficulty,
    )


def filled(*tickets: Ticket) -> WaitQueue:
    """A queue of these."""
    queue = WaitQueue()
    for each in tickets:
        queue.push(each)
    return queue


def drained(queue: WaitQueue) -> list[int]:
    """Numbers in the order in which they come out."""
    found = []
    while (out := queue.pop()) is not None:
        found.append(out.number)
    return found


def test_classes_come_in_order() -> None:
    """Critical first, batch last."""
    classes = (Priority.BATCH, Priority.CRITICAL, Priority.STANDARD)
    queue = filled(*(ticket(i, priority=p) for i, p in enumerate(classes)))
    assert queue.first_class() is Priority.CRITICAL
    assert drained(queue) == [1, 2, 0]
    assert queue.first_class() is None


def test_the_earliest_deadline_comes_first_then_the_easier_then_the_earlier() -> None:
    """Within one tenant."""
    queue = filled(
        ticket(0, due_s=9.0),
        ticket(1),
        ticket(2, due_s=3.0, difficulty=0.5),
        ticket(3),
        ticket(4, due_s=3.0, difficulty=0.2),
    )
    assert drained(queue) == [4, 2, 0, 1, 3]


def test_tenants_take_turns() -> None:
    """A tenant with many requests does not starve one with few."""
    many = [ticket(i, tenant="many", due_s=1.0) for i in range(4)]
    queue = filled(*many, ticket(4, tenant="few"), ticket(5, tenant="few"))
    assert drained(queue) == [0, 4, 1, 5, 2, 3]


def test_a_tenant_of_long_requests_gets_no_more_work_done() -> None:
    """Four times as long, a quarter as often: what is taken out is as much work of each."""
    long = [ticket(i, tenant="long", tokens=256.0) for i in range(40)]
    short = [ticket(100 + i, tenant="short", tokens=64.0) for i in range(40)]
    queue = filled(*long, *short)
    first = [queue.pop() for _ in range(40)]
    work = dict.fromkeys(("long", "short"), 0.0)
    for each in first:
        assert each is not None
        work[each.tenant] += each.tokens
    assert abs(work["long"] - work["short"]) <= 256.0


def test_who_leaves_is_gone() -> None:
    """And can leave once only, even if what is asked about it has changed since."""
    tickets = [ticket(i) for i in range(3)]
    queue = filled(*tickets)
    assert queue.remove(replace(tickets[1], latest_s=4.0))
    assert not queue.remove(tickets[1])
    assert len(queue) == 2
    assert drained(queue) == [0, 2]


def test_who_is_ahead_is_counted_by_turns() -> None:
    """All of higher classes, one's own that are due earlier, and as many turns of each other."""
    queue = filled(
        ticket(0, priority=Priority.CRITICAL),
        ticket(1, tenant="a", due_s=1.0),
        ticket(2, tenant="a", due_s=5.0),
        *(ticket(3 + i, tenant="b", due_s=0.0) for i in range(5)),
        ticket(9, priority=Priority.BATCH),
    )
    assert queue.ahead(ticket(20, tenant="a", due_s=2.0)) == 1 + 1 + 2
    assert queue.ahead(ticket(20, tenant="new", due_s=9.0)) == 1 + 1 + 1
    assert queue.ahead(ticket(20, priority=Priority.CRITICAL)) == 1
    assert queue.ahead(ticket(20, priority=Priority.BATCH)) == 9


def test_who_cannot_make_it_is_found_and_those_behind_move_up() -> None:
    """At one a second the second of three would begin too late; without it the third does not."""
    queue = filled(
        ticket(0, due_s=1.0, latest_s=10.0),
        ticket(1, due_s=2.0, latest_s=10.5),
        ticket(2, due_s=3.0, latest_s=11.5),
    )
    assert [t.number for t in queue.late(10.0, 1.0)] == [1]
    assert [t.number for t in queue.late(10.0, 0.1)] == []
    assert [t.number for t in queue.late(11.0, 0.1)] == [0, 1]


def test_the_lowest_class_is_the_first_to_go() -> None:
    """In it whoever would have been last; nobody of one's own class or above."""
    queue = filled(
        ticket(0), ticket(1, priority=Priority.BATCH), ticket(2, priority=Priority.BATCH)
    )
    last = queue.last_below(Priority.CRITICAL)
    assert last is not None
    assert last.number == 2
    assert queue.last_below(Priority.BATCH) is None


@given(
    st.lists(
        st.tuples(
            st.sampled_from(Priority),
            st.sampled_from("xyz"),
            st.integers(0, 5),
            st.floats(1.0, 5000.0),
        ),
        max_size=30,
    )
)
def test_nobody_is_lost_or_doubled(rows: list[tuple[Priority, str, int, float]]) -> None:
    """What goes in comes out once, by class."""
    tickets = [
        ticket(i, tenant=tenant, priority=priority, due_s=float(due), tokens=tokens)
        for i, (priority, tenant, due, tokens) in enumerate(rows)
    ]
    queue = filled(*tickets)
    assert len(queue) == len(tickets)
    out = drained(queue)
    assert sorted(out) == list(range(len(tickets)))
    classes = [tickets[number].priority for number in out]
    assert classes == sorted(classes, reverse=True)
