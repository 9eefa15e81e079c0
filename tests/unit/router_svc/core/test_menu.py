"""What is on the menu."""

import numpy as np
import pytest

from router_svc.core.menu import menu
from router_svc.core.plan import Single, kind_of
from router_svc.core.types import Policy
from tests.unit.router_svc.fixtures import candidates


def test_calls_are_limited_by_the_policy() -> None:
    """One call: singles; two: most ensembles; three: best-of, which has a scorer, as well."""
    found = candidates([0.7, 0.6, 0.5])
    kinds = [
        {kind for kind, count in menu(found, Policy(max_calls=calls), None, {}).kinds if count}
        for calls in (1, 2, 3)
    ]
    two = {"single", "cascade", "vote", "refine", "hedge"}
    assert kinds == [{"single"}, two, two | {"best_of"}]


def test_many_models_do_not_explode() -> None:
    """Twelve candidates are priced alone, and only the best are combined."""
    found = candidates(np.linspace(0.3, 0.9, 12).tolist())
    priced = menu(found, Policy(max_calls=5), None, {})
    assert priced.singles == 12
    assert len(priced.utility) < 250
    best = max(range(len(priced.utility)), key=priced.utility.__getitem__)
    assert "l" in repr(priced.plan(best))


def test_every_number_is_a_plan_of_its_kind() -> None:
    """Single models first, in the candidates' order; behind the last there is nothing."""
    priced = menu(candidates([0.7, 0.9, 0.8], spares=["a-1", "", ""]), Policy(), None, {})
    plans = [priced.plan(k) for k in range(len(priced.utility))]
    assert plans[:3] == [Single("a"), Single("b"), Single("c")]
    assert [kind_of(plan) for plan in plans] == [priced.kind(k) for k in range(len(plans))]
    assert len(set(map(repr, plans))) == len(plans)
    with pytest.raises(IndexError):
        priced.kind(len(plans))


def test_utility_is_quality_less_what_the_policy_prices() -> None:
    """Of every plan on it, ensembles like single ones."""
    policy = Policy(latency_weight_per_s=0.03, cost_weight_per_usd=10.0)
    priced = menu(candidates([0.7, 0.9, 0.8], cost_usd=[0.001, 0.01, 0.002]), policy, 5.0, {})
    quality, latency_s, cost_usd, capacity = map(
        np.array, (priced.quality, priced.latency_s, priced.cost_usd, priced.capacity)
    )
    in_time = np.array(priced.in_time)
    expected = quality * in_time - 0.03 * latency_s - 10.0 * cost_usd - capacity
    assert priced.utility == pytest.approx(expected)
    assert len(set(priced.kinds)) == 6


def test_what_a_kind_proved_to_be_worth_is_added_to_it_alone() -> None:
    """Within what quality can be."""
    found, policy = candidates([0.7, 0.6, 0.5]), Policy()
    plain, gained = (menu(found, policy, None, gains) for gains in ({}, {"vote": 0.9}))
    for k in range(len(plain.utility)):
        more = gained.quality[k] - plain.quality[k]
        assert more == (pytest.approx(1.0 - plain.quality[k]) if plain.kind(k) == "vote" else 0.0)
