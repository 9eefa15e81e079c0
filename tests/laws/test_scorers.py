"""The laws of scorers, for every entry of SCORERS."""

from dataclasses import replace
from math import isfinite

import pytest

from router_svc.core.scorers import SCORERS
from router_svc.core.types import Policy

POLICY = Policy(latency_weight_per_s=0.1, cost_weight_per_usd=20.0)
DIRECTION = {"quality": 1, "latency": -1, "cost": -1, "capacity": -1}
DEARER = {
    "latency": replace(POLICY, latency_weight_per_s=0.2),
    "cost": replace(POLICY, cost_weight_per_usd=40.0),
}


@pytest.mark.parametrize("name", SCORERS)
def test_utility_moves_one_way(name: str) -> None:
    """More quality raises it; more latency, cost or capacity lowers it."""
    rate = SCORERS[name](POLICY)
    assert isfinite(rate)
    assert rate * DIRECTION[name] > 0.0


@pytest.mark.parametrize(("name", "dearer"), DEARER.items())
def test_a_weight_prices_its_own_figure(name: str, dearer: Policy) -> None:
    """Twice the weight is twice the price, none is none, and no other figure's changes."""
    assert SCORERS[name](dearer) == 2.0 * SCORERS[name](POLICY)
    assert SCORERS[name](Policy()) == 0.0
    for other in set(SCORERS) - {name}:
        assert SCORERS[other](dearer) == SCORERS[other](POLICY)
