"""Circuit breaker and retry budget."""

from router_svc.core.breaker import Breaker, RetryBudget


def test_it_opens_after_failures_in_a_row() -> None:
    """A success in between starts the count anew."""
    breaker = Breaker(failures=2, open_s=5.0)
    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(1.0)
    assert breaker.allows(1.0)
    breaker.failed(2.0)
    assert not breaker.allows(6.9)


def test_half_open_lets_one_probe_through() -> None:
    """A failed probe opens again, a good one closes."""
    breaker = Breaker(failures=1, open_s=5.0)
    breaker.failed(0.0)
    assert breaker.allows(5.0)
    breaker.began(5.0)
    assert not breaker.allows(5.1)
    breaker.failed(6.0)
    assert not breaker.allows(10.9)
    assert breaker.allows(11.0)
    breaker.began(11.0)
    breaker.succeeded()
    assert breaker.allows(11.1)


def test_a_probe_that_never_reports_does_not_close_the_door_for_ever() -> None:
    """A cancelled probe makes room after a while."""
    breaker = Breaker(failures=1, open_s=5.0)
    breaker.failed(0.0)
    breaker.began(5.0)
    assert not breaker.allows(9.9)
    assert breaker.allows(10.0)


def test_retries_stay_within_their_share() -> None:
    """A burst first, then the ratio of what comes in."""
    budget = RetryBudget(ratio=0.1, burst=3.0)
    assert [budget.take() for _ in range(4)] == [True, True, True, False]
    taken = 0
    for _ in range(100):
        budget.earned()
        taken += budget.take()
    assert taken in (9, 10)
