"""Decisions come out the same from what was kept of them."""

import msgspec
import numpy as np
import pytest

from router_svc.core import redo
from router_svc.core.decide import Decision, decide
from router_svc.core.plan import KINDS
from router_svc.core.types import Ask, Candidates, Policy, Priority
from tests.unit.router_svc.fixtures import ask

COLUMNS = (
    *("quality", "latency_s", "cost_usd", "capacity", "in_time", "places", "settings", "utility"),
    *("kinds", "models", "verifier"),
)


def drawn(rng: np.random.Generator) -> tuple[Decision, Ask]:
    """Decide about whatever chance brings."""
    count = int(rng.integers(1, 6))
    total = rng.lognormal(0.0, 0.5, count)
    found = Candidates(
        models=tuple("abcdef"[:count]),
        replicas=tuple(f"{m}-0" for m in "abcdef"[:count]),
        quality=rng.random(count).tolist(),
        quality_stddev=(0.5 * rng.random(count)).tolist(),
        ttft_p50_s=(total / 3.0).tolist(),
        ttft_p90_s=(total / 2.0).tolist(),
        total_p50_s=total.tolist(),
        total_p90_s=(total * rng.uniform(1.0, 3.0, count)).tolist(),
        cost_usd=(1e-4 * rng.random(count)).tolist(),
        output_tokens=rng.uniform(1.0, 500.0, count).tolist(),
        report_age_s=np.where(rng.random(count) < 0.3, np.inf, 0.1).tolist(),
        capacity_price=(0.1 * rng.random(count)).tolist(),
        spares=tuple(f"{m}-1" if rng.random() < 0.5 else "" for m in "abcdef"[:count]),
        stall_ratio=0.01 * rng.random(),
        confidence=np.sort(rng.random((count, 8)), axis=1).tolist(),
        agreement=np.full((count, count), rng.random()).tolist(),
    )
    policy = Policy(
        name="drawn",
        latency_weight_per_s=0.1 * rng.random(),
        cost_weight_per_usd=100.0 * rng.random(),
        explore_ratio=0.5 * rng.random(),
        max_calls=int(rng.integers(1, 4)),
        plans=frozenset(rng.choice(KINDS, 2).tolist()),
    )
    asked = ask(
        deadline_s=float(rng.uniform(10.0, 50.0)) if rng.random() < 0.5 else None,
        priority=Priority(int(rng.integers(1, 4))),
    )
    gains = {"vote": float(rng.normal(0.0, 0.1)), "cascade": float(rng.normal(0.0, 0.1))}
    return decide(asked, found, policy, rng, gains=gains), asked


def through_json(state: object) -> dict[str, object]:
    """What the journal makes of it."""
    decoded: dict[str, object] = msgspec.json.decode(msgspec.json.encode(state))
    return decoded


def test_the_same_comes_out_bit_for_bit() -> None:
    """Plan, propensity, every probability and utility, of three hundred decisions of all kinds."""
    rng, kinds = np.random.default_rng(1), set()
    for _ in range(300):
        made, asked = drawn(rng)
        same = redo.again(through_json(redo.kept(made, asked)))
        assert (same.plan, same.propensity, same.explored, same.quality, same.draw) == (
            made.plan,
            made.propensity,
            made.explored,
            made.quality,
            made.draw,
        )
        assert same.probabilities == made.probabilities
        for name in COLUMNS:
            assert getattr(same.menu, name) == getattr(made.menu, name)
        kinds.add((type(made.plan).__name__, made.explored))
    assert {kind for kind, _ in kinds} >= {"Single", "Cascade", "Vote", "Hedge", "Refine"}
    assert ("Single", True) in kinds


def test_another_policy_decides_anew() -> None:
    """On the same figures and the same chance."""
    made, asked = drawn(np.random.default_rng(3))
    state = through_json(redo.kept(made, asked))
    plain = Policy(max_calls=1, explore_ratio=0.0)
    other = redo.again(state, plain)
    assert other.policy == plain
    assert other.propensity == 1.0


def test_what_another_version_decided_is_not_made_again() -> None:
    """It may come out otherwise for good reasons."""
    made, asked = drawn(np.random.default_rng(3))
    with pytest.raises(ValueError, match="version 0"):
        redo.again({**redo.kept(made, asked), "version": 0})
