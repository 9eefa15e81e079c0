"""Candidates carry what a lost prefix cache costs."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.agreement import Agreement
from router_svc.core.confidence import Confidence
from router_svc.core.decide import decide
from router_svc.core.hedging import Stalls
from router_svc.core.judge import Judge
from router_svc.core.latency import Latency, LatencyPrior
from router_svc.core.length import Length
from router_svc.core.plan import Single
from router_svc.core.predict import Gains, Predictors, Prices, candidates
from router_svc.core.quality import Quality
from router_svc.core.types import Ask, Candidates, Floats, Places, Policy
from tests.unit.router_svc.fixtures import ask, features, replicas

LONG = ask("x" * 8000)
POLICY = Policy(explore_ratio=0.0, max_calls=1, latency_weight_per_s=0.1)


def found(
    layout: dict[str, int],
    cached: Floats | None,
    priors: dict[str, float],
    places: Places | None = None,
    asked: Ask = LONG,
) -> Candidates:
    """Candidates for a prompt of five tokens, each of which takes a millisecond to feed."""
    names = list(layout)
    confidence = Confidence(names)
    slow = LatencyPrior(prefill_s_per_token=0.001)
    return candidates(
        asked,
        features("x" * 8000),
        replicas(layout),
        predictors=Predictors(
            judge=Judge(Quality(names, {m: {"general": q} for m, q in priors.items()})),
            confidence=confidence,
            latency=Latency(names, dict.fromkeys(names, slow), replicas=replicas(layout).names),
            length=Length(names),
            gains=Gains(),
            stalls=Stalls(),
            agreement=Agreement(names),
        ),
        prices=Prices(
            usd_per_prompt_token=np.zeros(len(names)),
            usd_per_completion_token=np.zeros(len(names)),
            default_max_tokens=np.full(len(names), 64.0),
        ),
        policy=POLICY,
        cached_tokens=cached,
        places=places,
    )


def test_the_replica_that_holds_the_beginning_is_taken() -> None:
    """Of three idle replicas of one model the one that need not feed it again."""
    assert found({"a": 3}, np.array([0.0, 0.0, 4.0]), {}).replicas == ("a-2",)
    assert found({"a": 3}, np.array([0.0, 4.0, 0.0]), {}).replicas == ("a-1",)


def test_a_switch_pays_for_the_prefill_that_it_repeats() -> None:
    """In the caller's time and in the device's, by predicted time to first token."""
    held = found({"a": 1, "b": 1}, np.array([4.0, 0.0]), {})
    none = found({"a": 1, "b": 1}, None, {})
    saved_s = none.ttft_p50_s[0] - held.ttft_p50_s[0]
    assert saved_s == pytest.approx(0.004, rel=0.01)
    assert held.ttft_p50_s[1] == none.ttft_p50_s[1]
    assert held.capacity_price == pytest.approx([0.0, 0.05 * saved_s])
    assert none.capacity_price == [0.0, 0.0]


def test_a_session_does_not_bounce_for_little_and_moves_for_much() -> None:
    """A slightly better model is not worth feeding everything again; a much better one is."""
    rng, cached = np.random.default_rng(0), np.array([4.0, 0.0])
    for better, taken, at_home in ((0.5003, "a", "b"), (0.6, "b", "b")):
        priors = {"a": 0.5, "b": better}
        for held, model in ((cached, taken), (None, at_home)):
            plan = decide(LONG, found({"a": 1, "b": 1}, held, priors), POLICY, rng, gains={}).plan
            assert plan == Single(model)


def test_a_full_replica_gives_way_to_one_with_a_place() -> None:
    """Though it has the beginning of the prompt; where all are full, the wait is part of all."""
    cached = np.array([4.0, 0.0, 0.0])
    full, wait_s = np.array([True, False, True]), np.array([2.0, 3.0])
    some = found({"a": 2, "b": 1}, cached, {}, Places(full=full, wait_s=wait_s))
    idle = found({"a": 2, "b": 1}, None, {})
    assert some.replicas == ("a-1", "b-0")
    assert some.wait_s == [0.0, 3.0]
    assert some.total_p50_s == pytest.approx(
        [t + w for t, w in zip(idle.total_p50_s, (0.0, 3.0), strict=True)]
    )
    assert some.ttft_p90_s[1] - some.ttft_p50_s[1] > idle.ttft_p90_s[1] - idle.ttft_p50_s[1]


def test_a_place_at_a_replica_that_cannot_serve_is_none() -> None:
    """Then the others of its model are waited for."""
    places = Places(full=np.array([True, False]), wait_s=np.array([2.0]))
    failed = found({"a": 2}, None, {}, places, replace(LONG, failed=frozenset({"a-1"})))
    assert failed.replicas == ("a-0",)
    assert failed.wait_s == [2.0]
