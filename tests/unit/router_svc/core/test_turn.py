"""Whose turn it is."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.decide import Decision, decide
from router_svc.core.plan import Cascade
from router_svc.core.predict import WAIT_P90, sums
from router_svc.core.turn import as_decided, without_wait
from router_svc.core.types import Policy
from tests.unit.router_svc.fixtures import ask, candidates

WAITS_S = [0.0, 2.0]
LONGER_S = [WAIT_P90 * wait_s for wait_s in WAITS_S]


def waiting(plans: str = "single") -> Decision:
    """Decide on the second model, for whose place there is a wait, by itself or after the first."""
    found = candidates([0.5, 0.9], total_s=[0.5, 1.0], sharpness=4.0)
    found = replace(
        found,
        ttft_p50_s=sums(found.ttft_p50_s, WAITS_S),
        ttft_p90_s=sums(found.ttft_p90_s, LONGER_S),
        total_p50_s=sums(found.total_p50_s, WAITS_S),
        total_p90_s=sums(found.total_p90_s, LONGER_S),
        wait_s=WAITS_S,
    )
    policy = Policy(explore_ratio=0.0, plans=frozenset({plans}))
    return decide(ask(), found, policy, np.random.default_rng(0), gains={})


def full(*replicas: bool) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which replicas have no place."""
    return np.array(replicas)


def test_what_was_decided_goes_with_the_times_that_are_left() -> None:
    """The plan, its chances and its draw stay; what was waited for is over."""
    decision = waiting()
    begun = as_decided(decision, 1.0, full(True, False), 1)
    assert begun is not None
    assert (begun.plan, begun.draw, begun.menu) == (decision.plan, decision.draw, decision.menu)
    assert begun.candidates.total_p50_s == pytest.approx([0.5, 1.0])
    assert begun.candidates.wait_s == [0.0, 0.0]
    assert decision.candidates.wait_s == WAITS_S
    assert as_decided(decision, 1.0, None, 1) is not None


def test_what_cannot_be_had_is_decided_anew() -> None:
    """Another replica has the place, or the wait was longer than was thought."""
    decision = waiting()
    assert as_decided(decision, 1.0, full(False, True), 1) is None
    assert as_decided(decision, 2.5, full(True, False), 1) is not None
    assert as_decided(decision, 2.7, full(True, False), 1) is None


def test_a_plan_of_several_calls_is_decided_anew() -> None:
    """Its first model may have had a place all the time, and the others may have one by now."""
    decision = waiting("cascade")
    assert isinstance(decision.plan, Cascade)
    assert as_decided(decision, 0.1, full(False, False), 1) is None


def test_times_without_the_wait_are_those_from_before_it_was_added() -> None:
    """In every quantile."""
    plain = candidates([0.5, 0.9], total_s=[0.5, 1.0])
    found = without_wait(waiting().candidates)
    for name in ("ttft_p50_s", "ttft_p90_s", "total_p50_s", "total_p90_s"):
        assert getattr(found, name) == pytest.approx(getattr(plain, name))
