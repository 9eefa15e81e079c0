"""Who is next."""

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
    deadline_at_s: float = inf,
) -> Ticket:
    """A waiting request."""
    return Ticket(number=number, tenant=tenant, priority=priority, deadline_at_s=deadline_at_s)


def drained(queue: WaitQueue) -> list[int]:
    """Numbers in the order in which they come out."""
    found = []
    while (out := queue.pop()) is not None:
        found.append(out.number)
    return found


def test_classes_come_in_order() -> None:
    """Critical first, batch last."""
    queue = WaitQueue(10)
    for number, priority in enumerate((Priority.BATCH, Priority.CRITICAL, Priority.STANDARD)):
        assert queue.push(ticket(number, priority=priority)) is None
    assert drained(queue) == [1, 2, 0]


def test_the_earliest_deadline_comes_first_and_equals_by_arrival() -> None:
    """Within one tenant."""
    queue = WaitQueue(10)
    for number, deadline_at_s in enumerate((9.0, inf, 3.0, inf)):
        queue.push(ticket(number, deadline_at_s=deadline_at_s))
    assert drained(queue) == [2, 0, 1, 3]


def test_tenants_take_turns() -> None:
    """A tenant with many requests does not starve one with few."""
    queue = WaitQueue(10)
    for number in range(4):
        queue.push(ticket(number, tenant="many", deadline_at_s=1.0))
    queue.push(ticket(4, tenant="few"))
    queue.push(ticket(5, tenant="few"))
    assert drained(queue) == [0, 4, 1, 5, 2, 3]


def test_a_full_queue_refuses_the_lowest_class_first() -> None:
    """The newcomer, unless somebody below it waits."""
    queue = WaitQueue(2)
    batch, standard = ticket(0, priority=Priority.BATCH), ticket(1)
    queue.push(batch)
    queue.push(standard)
    also_batch = ticket(2, priority=Priority.BATCH)
    assert queue.push(also_batch) is also_batch
    assert queue.push(ticket(3)) is batch
    critical = ticket(4, priority=Priority.CRITICAL)
    refused = queue.push(critical)
    assert refused is not None
    assert refused.number == 3
    assert drained(queue) == [4, 1]


def test_who_leaves_is_gone() -> None:
    """And can leave once only."""
    queue = WaitQueue(4)
    tickets = [ticket(i) for i in range(3)]
    for each in tickets:
        queue.push(each)
    assert queue.remove(tickets[1])
    assert not queue.remove(tickets[1])
    assert len(queue) == 2
    assert drained(queue) == [0, 2]


@given(
    st.lists(
        st.tuples(st.sampled_from(Priority), st.sampled_from("xyz"), st.integers(0, 5)), max_size=30
    )
)
def test_nobody_is_lost_or_doubled(rows: list[tuple[Priority, str, int]]) -> None:
    """What goes in and is not refused comes out once, by class."""
    queue, inside = WaitQueue(12), set()
    by_number = {}
    for number, (priority, tenant, deadline) in enumerate(rows):
        new = ticket(number, tenant=tenant, priority=priority, deadline_at_s=float(deadline))
        by_number[number] = new
        inside.add(number)
        if (refused := queue.push(new)) is not None:
            inside.discard(refused.number)
    assert len(queue) == len(inside) <= 12
    out = drained(queue)
    assert sorted(out) == sorted(inside)
    classes = [by_number[number].priority for number in out]
    assert classes == sorted(classes, reverse=True)
