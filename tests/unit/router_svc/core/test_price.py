"""Prices of plans against closed forms and simulations."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import comb, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from router_svc.core.menu import Menu, menu
from router_svc.core.plan import BestOf, Hedge, Plan
from router_svc.core.types import Candidates, Policy
from router_svc.core.voting import vote_quality
from tests.unit.router_svc.fixtures import candidates

POLICY = Policy(max_calls=3)
NOTHING: Mapping[str, float] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """All plans of one kind; arrays (K,)."""

    plans: list[Plan]
    quality: NDArray[np.float64]
    latency_s: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    in_time: NDArray[np.float64]
    setting: NDArray[np.float64]
    first: NDArray[np.intp]


def block(priced: Menu, kind: str) -> Block:
    """What is on the menu of *kind*."""
    mine = [k for k in range(len(priced.utility)) if priced.kind(k) == kind]
    return Block(
        plans=[priced.plan(k) for k in mine],
        quality=np.array([priced.quality[k] for k in mine]),
        latency_s=np.array([priced.latency_s[k] for k in mine]),
        cost_usd=np.array([priced.cost_usd[k] for k in mine]),
        in_time=np.array([priced.in_time[k] for k in mine]),
        setting=np.array([priced.settings[k] for k in mine]),
        first=np.array([priced.places[k][0] for k in mine]),
    )


def priced_as(
    kind: str, found: Candidates, policy: Policy = POLICY, deadline_s: float | None = None
) -> Block:
    """Price *found*, and return the plans of *kind*."""
    return block(menu(found, policy, deadline_s, NOTHING), kind)


def test_a_cascade_that_can_tell_nothing_is_worth_one_of_its_models() -> None:
    """Without sharpness it is its better half, and where that is the first there is none."""
    priced = menu(candidates([0.5, 0.8], sharpness=0.0), POLICY, None, {})
    singles, cascades = block(priced, "single"), block(priced, "cascade")
    assert singles.quality.tolist() == [0.5, 0.8]
    assert cascades.first.tolist() == [0]
    assert cascades.quality == pytest.approx([0.8], abs=1e-3)


def test_a_sharp_cascade_beats_both_its_models() -> None:
    """And takes less time than both together."""
    priced = menu(candidates([0.7, 0.7], sharpness=2.0), POLICY, None, {})
    cascades = block(priced, "cascade")
    assert (cascades.quality > 0.75).all()
    single_s = priced.latency_s[0]
    assert (cascades.latency_s < 1.9 * single_s).all()
    assert (cascades.latency_s > single_s).all()


def test_load_makes_no_first_answer_better() -> None:
    """A cascade accepts it from where it would without a price of capacity or want of time."""
    found = candidates([0.6, 0.8], total_s=[0.5, 3.0], sharpness=2.0)
    dear = replace(found, capacity_price=[0.0, 0.3])
    idle, busy = (
        {int(first): setting for first, setting in zip(each.first, each.setting, strict=True)}
        for each in (priced_as("cascade", found), priced_as("cascade", dear, deadline_s=4.0))
    )
    assert busy == pytest.approx(idle)


def test_a_cascade_of_which_both_calls_may_be_needed_is_later() -> None:
    """Its probability of being in time is below its first model's."""
    priced = menu(candidates([0.8, 0.9], sharpness=2.0), POLICY, 1.5, {})
    alone, together = (block(priced, kind).in_time for kind in ("single", "cascade"))
    assert (together < alone.max()).all()


@pytest.mark.parametrize("together", [-0.2, 0.0, 0.5, 1.0])
def test_a_vote_of_equals_gains_what_their_agreement_leaves(together: float) -> None:
    """Three independent models at 0.7 are right with 0.784; models that fail together gain none."""
    found = replace(candidates([0.7, 0.7, 0.7]), agreement=np.full((3, 3), together).tolist())
    *pairs, three = priced_as("vote", found).quality.tolist()
    assert pairs == pytest.approx([0.7, 0.7, 0.7])
    assert three == pytest.approx(0.7 + (1.0 - max(together, 0.0)) * 0.084)


def test_a_vote_of_models_that_know_what_they_know_gains_more() -> None:
    """Two that are each sure of being right or wrong: right unless both are wrong."""
    sure = np.array([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0]])
    found = replace(candidates([0.5, 0.25]), confidence=sure.tolist())
    apart, alike = (
        priced_as("vote", replace(found, agreement=np.full((2, 2), rho).tolist())).quality.tolist()
        for rho in (0.0, 1.0)
    )
    assert apart == pytest.approx([1.0 - 0.5 * 0.75])
    assert alike == pytest.approx([0.5])


@given(st.data())
def test_every_vote_is_worth_the_better_of_two_ways_to_count_it(data: st.DataObject) -> None:
    """Each group by itself, by hand; the members are named best first."""
    count = data.draw(st.integers(2, 8))
    sure = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4).map(sorted)
    levels = np.array(data.draw(st.lists(sure, min_size=count, max_size=count)))
    found = candidates(levels.mean(axis=1).tolist(), cost_usd=[0.1] * count)
    rho = data.draw(st.floats(0.0, 0.98))
    found = replace(
        found, confidence=levels.tolist(), agreement=np.full((count, count), rho).tolist()
    )
    priced = menu(found, POLICY, 2.0, NOTHING)
    votes = [k for k in range(len(priced.utility)) if priced.kind(k) == "vote"]
    assert len(votes) == sum(comb(min(count, 6), size) for size in (2, 3))
    for k in votes:
        asked = priced.places[k]
        quality = [float(found.quality[i]) for i in asked]
        assert quality == sorted(quality, reverse=True)
        some = [levels[i].tolist() for i in asked]
        apart = float(np.mean([max(each) for each in product(*some)]))
        alike = float(np.mean([max(each) for each in zip(*some, strict=True)]))
        surest = alike * rho + apart * (1.0 - rho)
        assert priced.quality[k] == pytest.approx(max(surest, vote_quality(quality, rho)))
        assert priced.latency_s[k] == pytest.approx(max(priced.latency_s[i] for i in asked))
        assert priced.cost_usd[k] == pytest.approx(0.1 * len(asked))
        assert priced.in_time[k] == pytest.approx(prod(priced.in_time[i] for i in asked))


@given(st.data())
def test_a_cascade_is_worth_the_mean_over_its_confidences(data: st.DataObject) -> None:
    """Counted out over each of them: the first stands where it is sure enough.

    One whose first answer always stands is not on the menu.
    """
    probability = st.floats(0.05, 0.95)
    sure = np.sort(data.draw(st.lists(probability, min_size=4, max_size=4)))
    q, rho = float(sure.mean()), data.draw(st.floats(0.0, 0.98))
    other = data.draw(probability)
    found = replace(
        candidates([q, other]),
        confidence=[sure.tolist(), [other] * 4],
        agreement=np.full((2, 2), rho).tolist(),
    )
    cascades = priced_as("cascade", found)
    slope = rho * np.sqrt(other * (1.0 - other) / (q * (1.0 - q)))
    led = np.flatnonzero(cascades.first == 0)
    assert led.size == (sure[0] < other)
    if led.size == 0:
        return
    (k,) = led
    accept_from = cascades.setting[k]
    each = np.where(sure >= accept_from, sure, other + slope * (sure - q))
    assert cascades.quality[k] == pytest.approx(float(np.clip(each.mean(), 0.0, 1.0)))
    asked = float((sure < accept_from).mean())
    singles_s = menu(found, POLICY, None, NOTHING).latency_s[:2]
    assert cascades.latency_s[k] == pytest.approx(singles_s[0] + asked * singles_s[1])


def test_a_cascade_of_models_that_fail_together_gains_less() -> None:
    """A second model that fails wherever the first is unsure is asked in vain."""
    found = candidates([0.7, 0.7], sharpness=2.0)
    apart, alike = (
        block(
            menu(replace(found, agreement=np.full((2, 2), rho).tolist()), POLICY, None, {}),
            "cascade",
        )
        for rho in (0.0, 0.98)
    )
    assert (apart.quality > alike.quality + 0.05).all()
    assert alike.quality == pytest.approx([0.7, 0.7], abs=0.01)


def test_a_vote_cannot_outdo_a_dictator() -> None:
    """Where one weight outweighs the rest, the vote is that model, at three times the price."""
    found = candidates([0.99, 0.3, 0.3], cost_usd=[0.1, 0.1, 0.1])
    vote = priced_as("vote", found)
    assert vote.quality[-1] == pytest.approx(0.99)
    assert vote.cost_usd[-1] == pytest.approx(0.3)


def test_a_hedge_is_worth_a_little_time_and_costs_a_little_load() -> None:
    """Between equals: no quality, less time, about a twentieth of the backup's price."""
    found = candidates([0.7, 0.7], cost_usd=[0.2, 0.2])
    priced = menu(found, POLICY, None, {})
    alone, hedged = block(priced, "single"), block(priced, "hedge")
    assert hedged.quality == pytest.approx([0.7, 0.7])
    assert hedged.cost_usd == pytest.approx([0.2 * 1.051] * 2)
    assert (hedged.latency_s < alone.latency_s).all()
    assert (hedged.latency_s > 0.8 * alone.latency_s).all()


def test_a_hedge_waits_for_the_95th_percentile() -> None:
    """Of the primary's time to first token, as sampled."""
    found = candidates([0.7, 0.7], total_s=[2.0, 1.0], spread=1.5)
    (first, second) = priced_as("hedge", found).setting
    draws = np.random.default_rng(1).lognormal(np.log(1.0), np.log(1.5) / 1.2816, 400_000)
    assert first == pytest.approx(np.quantile(draws, 0.95), rel=0.01)
    assert second == pytest.approx(first / 2.0)


def test_a_worse_backup_costs_quality() -> None:
    """In proportion to how often it answers."""
    found = candidates([0.9, 0.1])
    hedged = priced_as("hedge", found)
    strong = hedged.first == 0
    assert (hedged.quality[strong] < 0.9).all()
    assert (hedged.quality[strong] > 0.85).all()


def test_a_spare_replica_is_a_backup_of_the_same_model() -> None:
    """It costs no quality, and is there with a single model too."""
    found = candidates([0.7], spares=["a-1"])
    hedged = priced_as("hedge", found)
    assert hedged.plans == [Hedge("a", "a", float(hedged.setting[0]))]
    assert hedged.quality == pytest.approx([0.7])


def test_a_second_opinion_is_worth_what_the_models_do_not_share() -> None:
    """Best-of and refine gain their skill's share of what only the other would have right."""
    found = replace(candidates([0.7, 0.7, 0.7]), agreement=np.full((3, 3), 0.0).tolist())
    alike = replace(found, agreement=np.full((3, 3), 1.0).tolist())
    for kind in ("best_of", "refine"):
        apart, same = (priced_as(kind, c).quality for c in (found, alike))
        assert apart == pytest.approx(np.full(len(apart), 0.7 + 0.1 * 0.21))
        assert same == pytest.approx(np.full(len(same), 0.7))


def test_a_caller_who_wants_the_likeliest_answer_has_no_model_drawn_from() -> None:
    """Then best-of asks different models only, and a verifier takes the scorer's place."""
    found = candidates([0.7, 0.6, 0.5])
    plans = [
        plan
        for policy in (Policy(max_calls=3, may_draw=False), Policy(max_calls=3, verifier="json"))
        for plan in priced_as("best_of", found, policy).plans
    ]
    assert BestOf(("a", "b"), 2, "c") in plans
    assert not any(isinstance(p, BestOf) and p.scorer == "c" and len(p.models) == 1 for p in plans)
    assert BestOf(("a",), 3, "verifier:json") in plans
    assert BestOf(("a", "b", "c"), 3, "verifier:json") in plans


def test_hedges_are_among_the_four_that_are_worth_most() -> None:
    """Each with each, and with its own spare."""
    quality = [0.2, 0.9, 0.3, 0.8, 0.7, 0.6]
    priced = menu(candidates(quality, spares=["x"] * 6), POLICY, None, NOTHING)
    hedged = [priced.places[k] for k in range(len(priced.utility)) if priced.kind(k) == "hedge"]
    assert sorted(hedged) == sorted(product((1, 3, 4, 5), repeat=2))


def test_stalls_make_hedges_worth_more() -> None:
    """What a stall would cost comes off the expected time."""
    found = candidates([0.7, 0.7])
    often = replace(found, stall_ratio=0.05)
    rare_s, often_s = (priced_as("hedge", c).latency_s for c in (found, often))
    assert (rare_s - often_s > 0.3).all()
