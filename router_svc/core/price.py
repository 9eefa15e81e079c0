"""What each kind of ensemble is expected to achieve and to take: one pricer per kind of plan.

The figures rest on what was learned of how models succeed together (`agreement`), of how their
confidence spreads (`confidence`), and on assumptions, each a named constant, which `Gains` corrects
from outcomes. A pricer gets the options that may join an ensemble, the best alone first.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from math import log, sqrt
from typing import Final, TypeAlias

from router_svc.core.clip import clipped
from router_svc.core.hedging import STALL_S, late_after_s
from router_svc.core.option import Option, in_time
from router_svc.core.plans import Plans
from router_svc.core.types import Candidates, Policy
from router_svc.core.voting import (
    Groups,
    correlation,
    correlations,
    groups,
    outweighing,
    some_right,
    surest,
    vote_weight,
)

_SCORER_SKILL: Final = 0.1
"""Share of what a perfect choice among answers would win that another model's choice does: models
like what they would say themselves."""
_VERIFIER_SKILL: Final = 0.6
_REVIEWER_SKILL: Final = 0.1
_SCORING: Final = 0.5
"""What scoring takes of the scorer, as a share of a whole answer: about its prefill."""
_BEST_OF_POOL: Final = 3
"""Fewer still take part in best-of, which has a scorer to choose as well."""
_LEVELS: Final = 4
"""Of confidence that a vote's price tells apart."""
_PAIR: Final = 2
_HEDGE_POOL: Final = 4
"""Who is not among the best has hardly ever a hedge that is worth most: a third of the plans."""
_LATE: Final = 0.05
"""Share of calls that are late, by the meaning of `late_after_s`."""
_EXCESS: Final = 0.25
"""How much longer a late call takes yet, as a share of what it is late by."""


class View:
    """What pricers look at beside the options. As `Option`, what a compiler makes fast."""

    __slots__ = (
        "agreement",
        "both_in_time",
        "candidates",
        "confidence",
        "deadline_s",
        "log_deadline",
        "policy",
    )

    def __init__(
        self,
        *,
        candidates: Candidates,
        both_in_time: list[list[float]],
        policy: Policy,
        deadline_s: float | None,
        log_deadline: float | None,
    ) -> None:
        self.candidates = candidates
        self.confidence = candidates.confidence
        """(N, Z) Equally likely confidences of each, ascending."""
        self.agreement = candidates.agreement
        """(N, N) Correlation of success, the same whichever comes first."""
        self.both_in_time = both_in_time
        """(P, P) Probability that two of the pool make the deadline, one after the other."""
        self.policy = policy
        self.deadline_s = deadline_s
        self.log_deadline = log_deadline


Pricer: TypeAlias = Callable[[list[Option], View, Plans], None]


def cascade(pool: list[Option], view: View, plans: Plans) -> None:
    """Price every ordered pair of *pool*.

    The first answer stands where its confidence beats what the second model would bring after its
    own price. What made the first unsure is hard for the second as well, as far as the two are
    correlated: given confidence c in the first, the second is expected to be right with
    probability q₂ + r √(v₂/v₁) (c - q₁), r the correlation, v the variances: the best linear guess.
    Where the first answer would always stand there is no cascade: that is its first model alone.
    Load makes no answer better: neither capacity's price nor want of time lowers what is accepted.
    """
    accept = [clipped(_unloaded(two), 0.0, 1.0) for two in pool]
    spreads = [_spread(two.quality) for two in pool]
    for i, one in enumerate(pool):
        sure = view.confidence[one.place]
        count, spread, above = len(sure), spreads[i], _sums(sure)
        agreement, both_in_time = view.agreement[one.place], view.both_in_time[i]
        for j, two in enumerate(pool):
            accepted = count - bisect_left(sure, accept[j])
            if i == j or accepted == count:
                continue
            stands, right_and_stands = accepted / count, above[accepted] / count
            asked = 1.0 - stands
            doubt = right_and_stands - one.quality * stands
            slope = agreement[two.place] * spreads[j] / spread
            right = right_and_stands + two.quality * asked - slope * doubt
            plans.add(
                0.0 if right < 0.0 else min(right, 1.0),
                one.mean_s + asked * two.mean_s,
                one.cost_usd + asked * two.cost_usd,
                one.capacity + asked * two.capacity,
                stands * one.in_time + asked * both_in_time[j],
                (one.place, two.place),
                accept[j],
            )


def vote(pool: list[Option], view: View, plans: Plans) -> None:
    """Price every group of *pool*, whose answers are weighed by how sure each turns out to be.

    Such a vote is at least as good as one weighed by what is expected of each model beforehand,
    and as taking the surest answer; the better of the two is its price.
    """
    most = min(view.policy.max_calls, len(pool))
    if most < _PAIR:
        return
    pool = sorted(pool, key=_quality, reverse=True)
    places = [option.place for option in pool]
    among = groups(len(pool), most)
    right = _right(pool, among, view)
    together = [_Together(0.0, 0.0, 0.0, 1.0)]
    for group in among.groups:
        one, rest = pool[group.tail], together[group.rest]
        found = _Together(
            max(rest.latency_s, one.mean_s),
            rest.cost_usd + one.cost_usd,
            rest.capacity + one.capacity,
            rest.in_time * one.in_time,
        )
        if group.pairs:
            found.priced(right[len(together)], tuple([places[m] for m in group.members]), plans)
        together.append(found)


def best_of(pool: list[Option], view: View, plans: Plans) -> None:
    """Price answers of pairs, and several of one model, scored by a third or by a verifier.

    Some answer is right with a probability between independence and failing together. Of what
    that is above the better model, the scorer's skill is won. Scoring takes about a prefill.
    """
    pool, policy = pool[:_BEST_OF_POOL], view.policy
    if policy.verifier:
        for count in range(2, policy.max_calls + 1):
            for drawn in _draws(pool, count, policy):
                places = tuple([option.place for option in drawn])
                _asked_at_once(drawn).priced(_chosen(_VERIFIER_SKILL, drawn, view), places, plans)
        return
    for count in range(2, policy.max_calls):
        for drawn in _draws(pool, count, policy):
            quality, asked = _chosen(_SCORER_SKILL, drawn, view), _asked_at_once(drawn)
            for judge in pool:
                if judge not in drawn:
                    places = (*[option.place for option in drawn], judge.place)
                    asked.scored(judge).priced(quality, places, plans)


def refine(pool: list[Option], view: View, plans: Plans) -> None:
    """Price every ordered pair of *pool*, the second seeing what the first says.

    The reviewer is at least as good as alone, and wins its skill's share of the cases in which
    the draft is right and it alone would not be. It reads the draft besides.
    """
    for i, one in enumerate(pool):
        for j in range(i + 1, len(pool)):
            two = pool[j]
            either = some_right((one.quality, two.quality), _agreed((one, two), view))
            latency_s, cost_usd = one.mean_s + two.mean_s, one.cost_usd + two.cost_usd
            capacity, sure = one.capacity + two.capacity, view.both_in_time[i][j]
            for draft, review in ((one, two), (two, one)):
                right = review.quality + _REVIEWER_SKILL * max(either - review.quality, 0.0)
                places = (draft.place, review.place)
                plans.add(right, latency_s, cost_usd, capacity, sure, places, 0.0)


def hedge(pool: list[Option], view: View, plans: Plans) -> None:
    """Price every ordered pair of the best of *pool*, and each model with its own spare replica.

    The primary is late with probability `_LATE`; what it then still needs, and what the backup
    needs, are taken as exponential, so that the backup wins the race with probability a / (a + b)
    and saves a² / (a + b) on average. A stall is lost whole without a backup. Singles' prices
    leave stalls out, hence what a hedge saves comes off its primary's own time.
    """
    c, log_deadline = view.candidates, view.log_deadline
    stalled, stall_s = c.stall_ratio, min(STALL_S, view.deadline_s or STALL_S)
    asked = _LATE + stalled
    calls = [_call(o, c.ttft_p50_s[o.place], c.ttft_p90_s[o.place]) for o in pool[:_HEDGE_POOL]]
    for primary in calls:
        one, late_s = primary.option, primary.late_s
        more_s = _EXCESS * (late_s - primary.ttft_p50_s)
        for second in calls:
            two = second.option
            if one is two and not c.spares[one.place]:
                continue
            races = more_s / (more_s + second.needs_s + 1e-6)
            lost_s = max(stall_s - late_s - second.needs_s, 0.0)
            backed = _LATE * races + stalled
            rest_s = (two.mean_s - second.needs_s) - (one.mean_s - primary.needs_s)
            latency_s = one.mean_s - _LATE * races * more_s - stalled * lost_s + backed * rest_s
            backup = in_time(log(two.median_s + late_s), two.sigma, log_deadline)
            plans.add(
                one.quality + backed * (two.quality - one.quality),
                max(latency_s, 0.0),
                one.cost_usd + asked * two.cost_usd,
                one.capacity + asked * two.capacity,
                one.in_time + (1.0 - one.in_time) * backed * backup,
                (one.place, two.place),
                late_s,
            )


PRICERS: Final[Mapping[str, Pricer]] = {
    p.__name__: p for p in (cascade, vote, best_of, refine, hedge)
}
"""Every kind of ensemble: more than one call, by one policy or another."""


def _right(pool: list[Option], among: Groups, view: View) -> list[float]:
    """Return the probability that the vote of each group of *pool*, best first, is right; (G,).

    Of two, the better one alone decides a vote that is weighed beforehand: that is no better than
    the surer one.
    """
    rows = [view.agreement[option.place] for option in pool]
    together = correlations([[row[option.place] for option in pool] for row in rows], among)
    tallies = surest([_coarse(view.confidence[option.place]) for option in pool], among)
    quality = [option.quality for option in pool]
    weight = [vote_weight(q) for q in quality]
    found = [0.0]
    for group in among.groups:
        i, members = len(found), group.members
        shared, right = together[i], tallies[i].apart
        right += shared * (tallies[i].alike - right)
        if len(members) > _PAIR:
            heavier = outweighing([quality[m] for m in members], [weight[m] for m in members])
            beforehand = heavier + shared * (quality[members[0]] - heavier)
            right = max(right, beforehand)
        found.append(right)
    return found


def _sums(sure: list[float]) -> list[float]:
    """Return the sums of none, the highest, the two highest … of confidences (Z,), ascending."""
    total, found = 0.0, [0.0]
    for i in range(len(sure) - 1, -1, -1):
        total += sure[i]
        found.append(total)
    return found


def _coarse(sure: list[float]) -> list[float]:
    """Return the means of `_LEVELS` equal parts of confidences (Z,), ascending."""
    part, found = len(sure) // _LEVELS, []
    for level in range(_LEVELS if part else 0):
        total = 0.0
        for i in range(level * part, (level + 1) * part):
            total += sure[i]
        found.append(total / part)
    return found


class _Together:
    """What some calls take together."""

    __slots__ = ("capacity", "cost_usd", "in_time", "latency_s")

    def __init__(self, latency_s: float, cost_usd: float, capacity: float, in_time: float) -> None:
        self.latency_s = latency_s
        self.cost_usd = cost_usd
        self.capacity = capacity
        self.in_time = in_time

    def scored(self, judge: Option) -> "_Together":
        """Add what *judge* takes to score their answers."""
        return _Together(
            self.latency_s + _SCORING * judge.mean_s,
            self.cost_usd + _SCORING * judge.cost_usd,
            self.capacity + _SCORING * judge.capacity,
            self.in_time * judge.in_time,
        )

    def priced(self, quality: float, places: tuple[int, ...], plans: Plans) -> None:
        """Add the plan that asks so of *places*, expected to be as good as *quality*."""
        plans.add(quality, self.latency_s, self.cost_usd, self.capacity, self.in_time, places, 0.0)


def _asked_at_once(asked: Sequence[Option]) -> _Together:
    """Return what all of *asked* take together."""
    latency_s, cost_usd, capacity, in_time = 0.0, 0.0, 0.0, 1.0
    for option in asked:
        latency_s = max(latency_s, option.mean_s)
        cost_usd += option.cost_usd
        capacity += option.capacity
        in_time *= option.in_time
    return _Together(latency_s, cost_usd, capacity, in_time)


def _draws(pool: Sequence[Option], count: int, policy: Policy) -> list[tuple[Option, ...]]:
    """Return what *count* answers may be drawn from: different models, or one several times."""
    same = [(each,) * count for each in pool] if policy.may_draw else []
    return [*combinations(pool, count), *same]


def _chosen(skill: float, drawn: Sequence[Option], view: View) -> float:
    """Expected quality of the answer that *skill* chooses from *drawn*."""
    qualities = [o.quality for o in drawn]
    best = max(qualities)
    return best + skill * max(some_right(qualities, _agreed(drawn, view)) - best, 0.0)


def _agreed(group: Sequence[Option], view: View) -> float:
    return correlation(view.agreement, [o.place for o in group])


class _Call:
    """When a call begins to answer."""

    __slots__ = ("late_s", "needs_s", "option", "ttft_p50_s")

    def __init__(self, option: Option, ttft_p50_s: float, late_s: float, needs_s: float) -> None:
        self.option = option
        self.ttft_p50_s = ttft_p50_s
        self.late_s = late_s
        """After so long it is late."""
        self.needs_s = needs_s
        """Expectation of what was predicted as a median."""


def _call(option: Option, p50_s: float, p90_s: float) -> _Call:
    needs_s = option.mean_s * p50_s / option.median_s
    return _Call(option, p50_s, late_after_s(p50_s, p90_s), needs_s)


def _unloaded(option: Option) -> float:
    """Return what *option* would be worth if there were time and room."""
    return option.worth + option.quality * (1.0 - option.in_time) + option.capacity


def _quality(option: Option) -> float:
    return option.quality


def _spread(quality: float) -> float:
    """Return the standard deviation of being right with probability *quality*."""
    q = clipped(quality, 0.05, 0.95)
    return sqrt(q * (1.0 - q))
