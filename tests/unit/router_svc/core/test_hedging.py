"""When backups are asked, and how often."""

import pytest

from router_svc.core.hedging import HedgeBudget, Stalls


def test_the_budget_bounds_the_extra_load() -> None:
    """Of a thousand requests that all want a backup, a twentieth and the bucket get one."""
    budget = HedgeBudget(0.05)
    granted = 0
    for _ in range(1000):
        budget.earned()
        granted += budget.take()
    assert 50 <= granted <= 51


def test_savings_are_bounded_by_the_bucket() -> None:
    """After a long quiet time a few come at once, not all that were never used."""
    budget = HedgeBudget(0.05)
    for _ in range(10_000):
        budget.earned()
    assert sum(budget.take() for _ in range(100)) == 5


def test_no_share_is_no_hedge() -> None:
    """Not even the first."""
    budget = HedgeBudget(0.0)
    budget.earned()
    assert not budget.take()


def test_stalls_are_learned_from_a_prior() -> None:
    """One in a thousand at first; what is merely late is no stall."""
    stalls = Stalls()
    assert stalls.ratio == pytest.approx(0.001)
    for _ in range(500):
        stalls.learn(2.0, 1.0)
    assert stalls.ratio < 0.001
    for _ in range(100):
        stalls.learn(11.0, 1.0)
    assert stalls.ratio > 0.08
