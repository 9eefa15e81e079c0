"""Decisions as pure functions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_svc.core.decide import (
    DeadlineError,
    Decision,
    NoCandidateError,
    QualityError,
    choice_of,
    decide,
    drawn,
    keeping,
    weighed,
    worth_promising,
)
from router_svc.core.plan import KINDS, Cascade, Single, Vote, kind_of, models_of
from router_svc.core.types import Candidates, Places, Policy, Priority
from tests.unit.router_svc.fixtures import ask, candidates

RNG = np.random.default_rng(7)
PLAIN = Policy(explore_ratio=0.0, max_calls=1)


def leading(decision: Decision) -> int:
    """The number of the plan that is likeliest to be chosen."""
    return max(range(len(decision.probabilities)), key=decision.probabilities.__getitem__)


def test_the_best_quality_wins_when_nothing_else_matters() -> None:
    """Without weights, utility is quality."""
    decision = decide(ask(), candidates([0.5, 0.9, 0.7]), PLAIN, RNG, gains={})
    assert decision.plan == Single("b")
    assert decision.propensity == 1.0
    assert not decision.explored


def test_latency_and_cost_take_off_at_their_prices() -> None:
    """A better model that is dear or slow enough loses."""
    slow = candidates([0.6, 0.9], total_s=[0.1, 10.0])
    dear = candidates([0.6, 0.9], cost_usd=[0.0, 0.1])
    priced = Policy(
        explore_ratio=0.0, max_calls=1, latency_weight_per_s=0.05, cost_weight_per_usd=10
    )
    assert decide(ask(), slow, priced, RNG, gains={}).plan == Single("a")
    assert decide(ask(), dear, priced, RNG, gains={}).plan == Single("a")
    mine = ask(latency_weight_per_s=0.0)
    assert decide(mine, slow, weighed(priced, mine), RNG, gains={}).plan == Single("b")


def test_the_deadline_moves_the_choice_to_a_faster_model() -> None:
    """A model that would be late gives way, and that is the decision."""
    found = candidates([0.75, 0.9], total_s=[0.5, 5.0])
    assert decide(ask(deadline_s=1.0), found, PLAIN, RNG, gains={}).plan == Single("a")
    assert decide(ask(deadline_s=60.0), found, PLAIN, RNG, gains={}).plan == Single("b")


def test_a_hopeless_deadline_is_refused_and_a_doubtful_one_is_tried() -> None:
    """Refused only where a miss is as sure as a hit should be."""
    found = candidates([0.9], total_s=[5.0])
    with pytest.raises(DeadlineError) as late:
        decide(ask(deadline_s=0.1), found, PLAIN, RNG, gains={})
    assert late.value.best < 0.1
    assert decide(ask(deadline_s=4.5), found, PLAIN, RNG, gains={}).plan == Single("a")


def test_a_cold_model_refuses_no_reasonable_deadline() -> None:
    """Wide uncertainty is no certainty of missing."""
    cold = candidates([0.9], total_s=[5.0], spread=4.0)
    assert decide(ask(deadline_s=2.0), cold, PLAIN, RNG, gains={}).plan == Single("a")


def test_an_answer_is_worth_as_much_as_it_is_likely_in_time() -> None:
    """A better model that is likely late gives way, one that is likely in time does not."""
    found = candidates([0.75, 0.9], total_s=[0.5, 4.0])
    assert decide(ask(deadline_s=3.8), found, PLAIN, RNG, gains={}).plan == Single("a")
    assert decide(ask(deadline_s=5.5), found, PLAIN, RNG, gains={}).plan == Single("b")


def test_who_waits_for_a_place_must_be_sure_to_make_it() -> None:
    """An idle place may be tried with doubts; one that others wait for may not."""
    doubtful = candidates([0.9], total_s=[4.0])
    waits = replace(doubtful, wait_s=[2.0])
    assert decide(ask(deadline_s=3.8), doubtful, PLAIN, RNG, gains={}).plan == Single("a")
    with pytest.raises(DeadlineError) as late:
        decide(ask(deadline_s=3.8), waits, PLAIN, RNG, gains={})
    assert late.value.wait_s == 2.0
    assert decide(ask(deadline_s=9.0), waits, PLAIN, RNG, gains={}).plan == Single("a")


def test_a_promise_permits_more_doubt_and_never_less() -> None:
    """Who has a place waits for it if that is likelier than not any use; else as anybody."""
    places = Places(full=np.zeros(1, dtype=np.bool_), wait_s=np.zeros(1), promised=True)
    kept, newcomer = keeping(PLAIN, places), keeping(PLAIN, None)
    assert newcomer == PLAIN
    doubtful = candidates([0.9], total_s=[4.0])
    waits = replace(doubtful, wait_s=[0.1])
    for left_s in (2.5, 3.0, 3.8, 4.5, 6.0, 9.0):
        for found in (doubtful, waits):
            if _goes(found, newcomer, left_s):
                assert _goes(found, kept, left_s)
    assert _goes(waits, kept, 4.5)
    assert not _goes(waits, newcomer, 4.5)
    assert _goes(doubtful, kept, 3.8)


def test_a_place_is_promised_only_where_it_would_help() -> None:
    """To whom it would make likelier in time than not, be others as bold as they like."""
    doubtful = candidates([0.9], total_s=[4.0])
    assert _goes(doubtful, PLAIN, 3.8)
    assert not _goes(doubtful, worth_promising(PLAIN), 3.8)
    assert _goes(doubtful, worth_promising(PLAIN), 4.5)


def _goes(found: Candidates, policy: Policy, left_s: float) -> bool:
    """Whether *policy* lets a request try that has so many seconds."""
    try:
        decide(ask(deadline_s=left_s), found, policy, RNG, gains={})
    except DeadlineError:
        return False
    return True


def test_who_is_refused_hears_of_the_model_that_it_would_have_waited_for() -> None:
    """Not of the first one that its best plan asks, which may have places enough."""
    found = candidates([0.5, 0.9], total_s=[0.5, 4.0], sharpness=4.0)
    busy = replace(found, wait_s=[0.0, 2.0])
    cascades = Policy(explore_ratio=0.0, plans=frozenset({"cascade"}))
    wanted = decide(ask(), found, cascades, RNG, gains={}).plan
    assert isinstance(wanted, Cascade)
    assert wanted.first == "a"
    with pytest.raises(DeadlineError) as late:
        decide(ask(deadline_s=4.0), busy, cascades, RNG, gains={})
    assert late.value.model == "b"


def test_want_of_time_or_room_makes_nobody_ask_a_much_worse_model() -> None:
    """Rather it is refused; a worse one that was wanted anyway is asked, or to learn, in quiet."""
    found = candidates([0.2, 0.9], total_s=[0.5, 5.0])
    with pytest.raises(DeadlineError):
        decide(ask(deadline_s=1.0), found, PLAIN, RNG, gains={})
    lenient = replace(PLAIN, downgrade_ratio=0.2)
    assert decide(ask(deadline_s=1.0), found, lenient, RNG, gains={}).plan == Single("a")
    dear = replace(found, capacity_price=[0.0, 0.8])
    assert decide(ask(deadline_s=60.0), dear, PLAIN, RNG, gains={}).plan == Single("b")
    quiet, busy = (
        decide(ask(deadline_s=60.0), each, Policy(max_calls=1), RNG, gains={})
        for each in (found, dear)
    )
    assert quiet.probabilities[0] == pytest.approx(0.01)
    assert busy.probabilities == [0.0, 1.0]
    queue = replace(candidates([0.2, 0.9], total_s=[0.5, 9.0]), wait_s=[0.0, 8.0])
    hurried = replace(PLAIN, latency_weight_per_s=0.1)
    assert decide(ask(deadline_s=60.0), queue, hurried, RNG, gains={}).plan == Single("b")
    fast = replace(PLAIN, latency_weight_per_s=1.0)
    assert decide(ask(deadline_s=1.0), found, fast, RNG, gains={}).plan == Single("a")


def test_what_is_hardly_known_eases_no_load() -> None:
    """It stands in where it is known to be good enough, or where load is not what is in the way."""
    dear = replace(candidates([0.8, 0.9], stddev=[0.2, 0.1]), capacity_price=[0.0, 0.3])
    slow = candidates([0.8, 0.9], total_s=[0.5, 5.0], stddev=[0.2, 0.1])
    known = replace(dear, quality_stddev=[0.05, 0.1])
    hurried = ask(deadline_s=60.0)
    assert decide(hurried, dear, PLAIN, RNG, gains={}).plan == Single("b")
    assert decide(hurried, known, PLAIN, RNG, gains={}).plan == Single("a")
    assert decide(ask(deadline_s=1.0), slow, PLAIN, RNG, gains={}).plan == Single("a")
    anything = replace(PLAIN, downgrade_ratio=0.0)
    unknown = replace(dear, quality_stddev=[0.5, 0.5], quality=[0.4, 0.5])
    assert decide(hurried, unknown, anything, RNG, gains={}).plan == Single("a")


def test_who_leaves_the_best_model_out_must_be_known_to_do_without() -> None:
    """That the wanted vote asks the others as well says nothing of what they are without it."""
    votes = Policy(explore_ratio=0.0, plans=frozenset({"vote"}))
    known = candidates([0.7, 0.7, 0.75], stddev=[0.01, 0.01, 0.1], sharpness=2.0)
    dear = replace(known, capacity_price=[0.0, 0.0, 0.3])
    unsure = replace(dear, quality_stddev=[0.2, 0.2, 0.1])
    assert decide(ask(deadline_s=60.0), dear, votes, RNG, gains={}).plan == Vote(("a", "b"))
    plan = decide(ask(deadline_s=60.0), unsure, votes, RNG, gains={}).plan
    assert "c" in models_of(plan)


def test_what_is_tried_is_good_enough_where_it_can_be() -> None:
    """A model is shown by a plan that is fit to be the best, even if an unfit one is worth more."""
    found = candidates([0.5, 0.9], total_s=[0.1, 3.0], cost_usd=[0.1, 0.15], sharpness=2.0)
    policy = Policy(
        explore_ratio=0.3,
        latency_weight_per_s=0.1,
        cost_weight_per_usd=1.0,
        plans=frozenset({"single", "vote"}),
    )
    decision = decide(ask(deadline_s=60.0), found, policy, RNG, gains={})
    alone, best, together = range(3)
    assert leading(decision) == best
    assert decision.menu.utility[alone] > decision.menu.utility[together]
    assert decision.probabilities[alone] == 0.0
    assert decision.probabilities[together] == pytest.approx(0.15)


def test_a_decision_that_waits_says_where() -> None:
    """At the model that lets it wait longest of those that it asks, and what it takes there."""
    known = candidates([0.75, 0.9], total_s=[0.5, 3.0], stddev=[0.01, 0.01])
    found = replace(known, wait_s=[0.0, 2.0])
    fleet = ("z", "b", "a")
    waiting = decide(ask(), found, PLAIN, RNG, gains={})
    assert choice_of(waiting, fleet).model == 1
    assert choice_of(waiting, fleet).service_s == pytest.approx(1.0)
    hasty = decide(ask(deadline_s=1.0), found, PLAIN, RNG, gains={})
    assert choice_of(hasty, fleet).model == -1


def test_a_demanded_quality_is_met_or_refused() -> None:
    """No plan below it is chosen, not even to explore."""
    curious = Policy(explore_ratio=0.5, max_calls=1)
    found = candidates([0.5, 0.9])
    for _ in range(50):
        assert decide(ask(min_quality=0.8), found, curious, RNG, gains={}).plan == Single("b")
    with pytest.raises(QualityError) as low:
        decide(ask(min_quality=0.95), found, curious, RNG, gains={})
    assert low.value.best == 0.9


def test_without_candidates_there_is_no_decision() -> None:
    """It says so."""
    with pytest.raises(NoCandidateError):
        decide(ask(), candidates([]), PLAIN, RNG, gains={})


def test_exploration_is_as_frequent_and_as_spread_as_its_propensities_say() -> None:
    """Over many decisions every plan comes up with the probability that was logged for it."""
    found = candidates([0.9, 0.5, 0.5], stddev=[0.01, 0.01, 0.03])
    policy = Policy(explore_ratio=0.2, max_calls=1)
    logged: dict[str, float] = {}
    seen = dict.fromkeys("abc", 0)
    for _ in range(4000):
        decision = decide(ask(), found, policy, RNG, gains={})
        assert isinstance(decision.plan, Single)
        logged[decision.plan.model] = decision.propensity
        seen[decision.plan.model] += 1
    assert logged == pytest.approx({"a": 0.84, "b": 0.04, "c": 0.12})
    for model, count in seen.items():
        assert count / 4000 == pytest.approx(logged[model], abs=0.02)


def test_single_models_are_drawn_by_how_unsure_the_best_is() -> None:
    """Where exploring is allowed, and never against an ensemble; a tie is drawn evenly.

    Each has the benefit of half a standard deviation; heat is half of the best one's, 0.03 at most.
    """
    found = candidates([0.80, 0.76, 0.80], stddev=[0.04, 0.08, 0.04])
    drawing = decide(ask(), found, Policy(max_calls=1, explore_ratio=0.04), RNG, gains={})
    near = np.exp([0.0, -0.02 / 0.02, 0.0])
    expected = 0.96 * near / near.sum() + [0.01, 0.02, 0.01]
    np.testing.assert_allclose(drawing.probabilities, expected)
    hot = candidates([0.80, 0.74], stddev=[0.4, 0.4])
    chances = decide(
        ask(), hot, Policy(max_calls=1, explore_ratio=1e-9), RNG, gains={}
    ).probabilities
    assert chances[1] / chances[0] == pytest.approx(np.exp(-0.06 / 0.03))
    sure = candidates([0.80, 0.78], stddev=[0.0, 0.0])
    assert decide(ask(), sure, Policy(max_calls=1), RNG, gains={}).probabilities == [1.0, 0.0]
    found = candidates([0.80, 0.78], stddev=[0.01, 0.2])
    for still in (
        decide(ask(), found, PLAIN, RNG, gains={}),
        decide(ask(priority=Priority.CRITICAL), found, Policy(max_calls=1), RNG, gains={}),
    ):
        assert still.probabilities == [1.0, 0.0]
    both = decide(ask(), found, Policy(max_calls=2), RNG, gains={"cascade": 0.02})
    best = max(range(len(both.probabilities)), key=both.menu.utility.__getitem__)
    assert leading(both) == best >= len(found.models)


def test_critical_requests_never_explore() -> None:
    """Their propensity is 1."""
    policy = Policy(explore_ratio=0.5, max_calls=1)
    found = candidates([0.9, 0.5])
    decision = decide(ask(priority=Priority.CRITICAL), found, policy, RNG, gains={})
    assert decision.propensity == 1.0


def test_a_model_that_fell_is_probed_as_often_as_is_said() -> None:
    """Its share is part of the exact propensities; no more where nobody explores."""
    found = replace(candidates([0.9, 0.2]), probe_ratio=[0.0, 0.05])
    chances = decide(ask(), found, Policy(max_calls=1), RNG, gains={}).probabilities
    assert chances == pytest.approx([0.94, 0.06])
    for still in (ask(priority=Priority.CRITICAL), ask(min_quality=0.5)):
        assert decide(still, found, Policy(max_calls=1), RNG, gains={}).propensity == 1.0
    assert decide(ask(), found, PLAIN, RNG, gains={}).propensity == 1.0


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=9).filter(any),
    st.floats(0, 1, exclude_max=True),
)
def test_nothing_without_a_chance_is_drawn(chances: list[float], draw: float) -> None:
    """Whatever the draw, and at the very ends of the range."""
    shares = [chance / sum(chances) for chance in chances]
    for each in (0.0, draw, float(np.nextafter(1.0, 0.0))):
        assert shares[drawn(shares, each)] > 0.0


def test_a_model_is_tried_in_the_best_plan_that_shows_how_good_it_is() -> None:
    """Alone, as a cascade's first, or in a vote: whatever of these is worth most."""
    found = candidates([0.8, 0.5, 0.4], sharpness=3.0)
    policy = Policy(explore_ratio=0.3, max_calls=2, plans=frozenset({"single", "cascade"}))
    decision = decide(ask(), found, policy, RNG, gains={})
    chances, m = decision.probabilities, decision.menu
    showing = [
        max((k for k in range(len(chances)) if m.places[k][0] == i), key=m.utility.__getitem__)
        for i in range(3)
    ]
    assert all(m.kind(k) == "cascade" for k in showing[1:])
    # Beside them single models far from the best are drawn, as good as never.
    assert {k for k, chance in enumerate(chances) if chance > 1e-3} == {
        *showing,
        max(range(len(chances)), key=m.utility.__getitem__),
    }
    assert [chances[k] for k in showing[1:]] == pytest.approx([0.1, 0.1])
    assert sum(chances) == pytest.approx(1.0)

    voting = replace(policy, plans=frozenset({"single", "vote"}), max_calls=3)
    together = decide(ask(), found, voting, RNG, gains={"vote": 0.1})
    assert together.propensity == pytest.approx(1.0), "the vote that is best shows all"


def test_an_ensemble_is_chosen_where_it_pays() -> None:
    """Equals vote; a sharp cheap model leads a cascade; dear calls leave one model."""
    vote = candidates([0.7, 0.7, 0.7])
    free = Policy(explore_ratio=0.0, max_calls=3)
    assert isinstance(decide(ask(), vote, free, RNG, gains={}).plan, Vote)
    sharp = candidates([0.7, 0.75], sharpness=3.0, cost_usd=[0.001, 0.01])
    costs = Policy(explore_ratio=0.0, max_calls=3, cost_weight_per_usd=10.0)
    plan = decide(ask(), sharp, costs, RNG, gains={}).plan
    assert isinstance(plan, Cascade)
    assert (plan.first, plan.then) == ("a", "b")
    dear = Policy(explore_ratio=0.0, max_calls=3, cost_weight_per_usd=1000.0)
    assert decide(ask(), sharp, dear, RNG, gains={}).plan == Single("a")


def test_what_ensembles_proved_to_be_worth_changes_the_choice() -> None:
    """A learned loss takes them off the table."""
    found = candidates([0.7, 0.7, 0.7])
    free = Policy(explore_ratio=0.0, max_calls=3)
    bad = dict.fromkeys(KINDS[1:], -0.3)
    assert isinstance(decide(ask(), found, free, RNG, gains=bad).plan, Single)


def test_equal_arguments_make_equal_decisions() -> None:
    """Chance is an argument."""
    found, policy = candidates([0.9, 0.5, 0.5]), Policy(explore_ratio=0.5)
    plans = [
        [decide(ask(), found, policy, rng, gains={}).plan for _ in range(20)]
        for rng in (np.random.default_rng(3), np.random.default_rng(3))
    ]
    assert plans[0] == plans[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_policy_may_permit_one_kind_only(kind: str) -> None:
    """Then nothing else is chosen, except that what cannot be is replaced by what can."""
    found = candidates([0.7, 0.7, 0.7], sharpness=1.0)
    policy = Policy(explore_ratio=0.0, max_calls=3, plans=frozenset({kind}))
    assert kind_of(decide(ask(), found, policy, RNG, gains={}).plan) == kind
    lonely = decide(ask(), candidates([0.7]), policy, RNG, gains={})
    assert kind_of(lonely.plan) in {"single", kind}


def test_what_only_one_model_can_read_is_shown_to_no_other() -> None:
    """Token ids are neither reviewed nor scored by another model."""
    policy = Policy(explore_ratio=0.0, max_calls=3, plans=frozenset({"refine", "single"}))
    mine = ask(reviewable=False)
    found = candidates([0.7, 0.7, 0.7])
    assert weighed(Policy(), mine).plans == frozenset(KINDS) - {"best_of", "refine"}
    assert kind_of(decide(mine, found, weighed(policy, mine), RNG, gains={}).plan) == "single"
    assert kind_of(decide(ask(), found, policy, RNG, gains={}).plan) == "refine"


def test_load_folds_every_ensemble_by_itself() -> None:
    """As each call's capacity gets dearer, fewer calls are bought, down to one."""
    free = Policy(explore_ratio=0.0, max_calls=3)
    found = candidates([0.7, 0.7, 0.7], sharpness=1.0)
    calls = [
        len(
            models_of(
                decide(ask(), replace(found, capacity_price=[price] * 3), free, RNG, gains={}).plan
            )
        )
        for price in (0.0, 0.01, 0.05, 0.2)
    ]
    assert calls == sorted(calls, reverse=True)
    assert calls[0] > 1
    assert calls[-1] == 1
