"""Prices of plans against closed forms and simulations."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.plan import BestOf, Hedge
from router_svc.core.price import Block, Menu, cumulative, menu, moments, vote_weights
from router_svc.core.types import Policy
from tests.unit.router_svc.fixtures import candidates

POLICY = Policy(max_calls=3)


def block(priced: Menu, kind: str) -> Block:
    """The only block of its kind."""
    (found,) = [b for b in priced.blocks if b.kind == kind]
    return found


def test_a_lognormal_is_fitted_through_its_quantiles() -> None:
    """Median and 90th percentile give back their own probabilities."""
    found = candidates([0.5], total_s=[2.0], spread=1.5)
    assert moments(found, 2.0).in_time[0] == pytest.approx(0.5, abs=1e-3)
    assert moments(found, 3.0).in_time[0] == pytest.approx(0.9, abs=1e-3)
    draws = np.random.default_rng(1).lognormal(np.log(2.0), np.log(1.5) / 1.2816, 400_000)
    assert moments(found, None).mean_s[0] == pytest.approx(draws.mean(), rel=0.01)
    assert moments(found, None).variance_s2[0] == pytest.approx(draws.var(), rel=0.05)


def test_the_normal_distribution_is_close() -> None:
    """Within 2e-4 of known values."""
    known = {-2.0: 0.02275, -1.0: 0.158655, 0.0: 0.5, 1.2816: 0.9, 3.0: 0.99865}
    for z, p in known.items():
        assert cumulative(np.array([z]))[0] == pytest.approx(p, abs=2e-4)


def test_a_cascade_that_can_tell_nothing_is_worth_one_of_its_models() -> None:
    """Without sharpness it is its better half, and no more."""
    priced = menu(candidates([0.5, 0.8], sharpness=0.0), POLICY, None, {})
    singles, cascades = block(priced, "single"), block(priced, "cascade")
    assert singles.figures.quality.tolist() == [0.5, 0.8]
    assert cascades.figures.quality == pytest.approx([0.8, 0.8], abs=1e-3)


def test_a_sharp_cascade_beats_both_its_models() -> None:
    """And takes less time than both together."""
    priced = menu(candidates([0.7, 0.7], sharpness=2.0), POLICY, None, {})
    cascades = block(priced, "cascade")
    assert (cascades.figures.quality > 0.75).all()
    single_s = priced.blocks[0].figures.latency_s[0]
    assert (cascades.figures.latency_s < 1.9 * single_s).all()
    assert (cascades.figures.latency_s > single_s).all()


def test_a_cascade_of_which_both_calls_may_be_needed_is_later() -> None:
    """Its probability of being in time is below its first model's."""
    priced = menu(candidates([0.8, 0.9], sharpness=2.0), POLICY, 1.5, {})
    alone, together = (
        block(priced, kind).figures.deadline_probability for kind in ("single", "cascade")
    )
    assert (together < alone.max()).all()


@pytest.mark.parametrize("together", [-0.2, 0.0, 0.5, 1.0])
def test_a_vote_of_equals_gains_what_their_agreement_leaves(together: float) -> None:
    """Three independent models at 0.7 are right with 0.784; models that fail together gain none."""
    found = replace(candidates([0.7, 0.7, 0.7]), agreement=np.full((3, 3), together))
    vote = block(menu(found, POLICY, None, {}), "vote")
    assert vote.figures.quality == pytest.approx([0.7 + (1.0 - max(together, 0.0)) * 0.084])


def test_a_cascade_of_models_that_fail_together_gains_less() -> None:
    """A second model that fails wherever the first is unsure is asked in vain."""
    found = candidates([0.7, 0.7], sharpness=2.0)
    apart, alike = (
        block(menu(replace(found, agreement=np.full((2, 2), rho)), POLICY, None, {}), "cascade")
        for rho in (0.0, 0.98)
    )
    assert (apart.figures.quality > alike.figures.quality + 0.05).all()
    assert alike.figures.quality == pytest.approx([0.7, 0.7], abs=0.01)


def test_a_vote_cannot_outdo_a_dictator() -> None:
    """Where one weight outweighs the rest, the vote is that model, at three times the price."""
    found = candidates([0.99, 0.3, 0.3], cost_usd=[0.1, 0.1, 0.1])
    vote = block(menu(found, POLICY, None, {}), "vote")
    assert vote.figures.quality == pytest.approx([0.99])
    assert vote.figures.cost_usd == pytest.approx([0.3])


def test_weights_follow_the_likelihood_ratio() -> None:
    """Chance level weighs next to nothing; the order is the order of quality."""
    weights = vote_weights(np.array([0.2, 0.5, 0.8]))
    assert weights == pytest.approx([0.01, np.log(4.0), np.log(16.0)], abs=1e-9)


def test_calls_are_limited_by_the_policy() -> None:
    """One call: singles; two: cascades as well; three: votes as well."""
    found = candidates([0.7, 0.6, 0.5])
    kinds = [
        {b.kind for b in menu(found, Policy(max_calls=calls), None, {}).blocks}
        for calls in (1, 2, 3)
    ]
    two = {"single", "cascade", "refine", "hedge"}
    assert kinds == [{"single"}, two, two | {"vote", "best_of"}]


def test_many_models_do_not_explode() -> None:
    """Twelve candidates are priced alone, and only the best are combined."""
    found = candidates(np.linspace(0.3, 0.9, 12).tolist())
    priced = menu(found, Policy(max_calls=5), None, {})
    assert priced.single.sum() == 12
    assert len(priced.utility) < 250
    best, i = priced.at(int(priced.utility.argmax()))
    assert "l" in repr(best.plan(i, found.models))


def test_a_hedge_is_worth_a_little_time_and_costs_a_little_load() -> None:
    """Between equals: no quality, less time, about a twentieth of the backup's price."""
    found = candidates([0.7, 0.7], cost_usd=[0.2, 0.2])
    priced = menu(found, POLICY, None, {})
    alone, hedged = block(priced, "single").figures, block(priced, "hedge").figures
    assert hedged.quality == pytest.approx([0.7, 0.7])
    assert hedged.cost_usd == pytest.approx([0.2 * 1.051] * 2)
    assert (hedged.latency_s < alone.latency_s).all()
    assert (hedged.latency_s > 0.8 * alone.latency_s).all()


def test_a_hedge_waits_for_the_95th_percentile() -> None:
    """Of the primary's time to first token, as sampled."""
    found = candidates([0.7, 0.7], total_s=[2.0, 1.0], spread=1.5)
    (first, second) = block(menu(found, POLICY, None, {}), "hedge").setting
    draws = np.random.default_rng(1).lognormal(np.log(1.0), np.log(1.5) / 1.2816, 400_000)
    assert first == pytest.approx(np.quantile(draws, 0.95), rel=0.01)
    assert second == pytest.approx(first / 2.0)


def test_a_worse_backup_costs_quality() -> None:
    """In proportion to how often it answers."""
    found = candidates([0.9, 0.1])
    hedged = block(menu(found, POLICY, None, {}), "hedge")
    strong = hedged.members[:, 0] == 0
    assert (hedged.figures.quality[strong] < 0.9).all()
    assert (hedged.figures.quality[strong] > 0.85).all()


def test_a_spare_replica_is_a_backup_of_the_same_model() -> None:
    """It costs no quality, and is there with a single model too."""
    found = candidates([0.7], spares=["a-1"])
    hedged = block(menu(found, POLICY, None, {}), "hedge")
    assert hedged.plan(0, found.models) == Hedge("a", "a", float(hedged.setting[0]))
    assert hedged.figures.quality == pytest.approx([0.7])


def test_a_second_opinion_is_worth_what_the_models_do_not_share() -> None:
    """Best-of and refine gain their skill's share of what only the other would have right."""
    found = replace(candidates([0.7, 0.7, 0.7]), agreement=np.full((3, 3), 0.0))
    alike = replace(found, agreement=np.full((3, 3), 1.0))
    for kind in ("best_of", "refine"):
        apart, same = (
            np.concatenate(
                [b.figures.quality for b in menu(c, POLICY, None, {}).blocks if b.kind == kind]
            )
            for c in (found, alike)
        )
        assert apart == pytest.approx(np.full(len(apart), 0.7 + 0.1 * 0.21))
        assert same == pytest.approx(np.full(len(same), 0.7))


def test_a_caller_who_wants_the_likeliest_answer_has_no_model_drawn_from() -> None:
    """Then best-of asks different models only, and a verifier takes the scorer's place."""
    found = candidates([0.7, 0.6, 0.5])
    plans = [
        b.plan(k, found.models)
        for policy in (Policy(max_calls=3, may_draw=False), Policy(max_calls=3, verifier="json"))
        for b in menu(found, policy, None, {}).blocks
        if b.kind == "best_of"
        for k in range(len(b.members))
    ]
    assert BestOf(("a", "b"), 2, "c") in plans
    assert not any(isinstance(p, BestOf) and p.scorer == "c" and len(p.models) == 1 for p in plans)
    assert BestOf(("a",), 3, "verifier:json") in plans
    assert BestOf(("a", "b", "c"), 3, "verifier:json") in plans


def test_stalls_make_hedges_worth_more() -> None:
    """What a stall would cost comes off the expected time."""
    found = candidates([0.7, 0.7])
    often = replace(found, stall_ratio=0.05)
    rare_s, often_s = (
        block(menu(c, POLICY, None, {}), "hedge").figures.latency_s for c in (found, often)
    )
    assert (rare_s - often_s > 0.3).all()
