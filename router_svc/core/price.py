"""What each kind of ensemble is expected to achieve and to take: one pricer per kind of plan.

The figures rest on what was learned of how models succeed together (`agreement`), of how their
confidence spreads (`confidence`), and on assumptions, each a named constant, which `Gains` corrects
from outcomes. A pricer gets the options that may join an ensemble, the best alone first.
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, combinations, product, repeat
from math import log, sqrt
from typing import Final, TypeAlias

import numpy as np

from router_svc.core.clip import Floats, clipped
from router_svc.core.hedging import STALL_S, late_after_s
from router_svc.core.option import Option, in_time
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
_NOBODY: Final = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0)
"""Time, cost, capacity, being in time, quality and weight of who fills up a smaller group."""
_HEDGE_POOL: Final = 4
"""Who is not among the best has hardly ever a hedge that is worth most: a third of the plans."""
_LATE: Final = 0.05
"""Share of calls that are late, by the meaning of `late_after_s`."""
_EXCESS: Final = 0.25
"""How much longer a late call takes yet, as a share of what it is late by."""

Priced: TypeAlias = tuple[float, float, float, float, float, tuple[int, ...], float]
"""Expected quality, latency in seconds, cost in dollars and capacity of one plan; the probability
that it makes the deadline; its candidates in order; and its setting: what a cascade accepts from,
or the seconds after which a hedge asks its backup. A plain tuple: there are dozens per decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What pricers look at beside the options."""

    candidates: Candidates
    agreement: Sequence[Sequence[float]]
    """(N, N) Correlation of success, the same whichever comes first."""
    both_in_time: Mapping[tuple[int, int], float]
    """By two candidates: the probability that both make the deadline, one after the other."""
    policy: Policy
    deadline_s: float | None
    log_deadline: float | None


Pricer: TypeAlias = Callable[[Sequence[Option], View], list[Priced]]


def cascade(pool: Sequence[Option], view: View) -> list[Priced]:
    """Price every ordered pair of *pool*.

    The first answer stands where its confidence beats what the second model would bring after its
    own price. What made the first unsure is hard for the second as well, as far as the two are
    correlated: given confidence c in the first, the second is expected to be right with
    probability q₂ + r √(v₂/v₁) (c - q₁), r the correlation, v the variances: the best linear guess.
    Where the first answer would always stand there is no cascade: that is its first model alone.
    Load makes no answer better: neither capacity's price nor want of time lowers what is accepted.
    """
    found: list[Priced] = []
    accept = [(two, clipped(_unloaded(two), 0.0, 1.0), _spread(two.quality)) for two in pool]
    confidence = view.candidates.confidence
    for one in pool:
        sure = confidence[one.place].tolist()
        count, spread = len(sure), _spread(one.quality)
        above = [*accumulate(reversed(sure), initial=0.0)]
        agreement = view.agreement[one.place]
        for two, accept_from, spread_two in accept:
            if two is one:
                continue
            accepted = count - bisect_left(sure, accept_from)
            if accepted == count:
                continue
            stands, right_and_stands = accepted / count, above[accepted] / count
            asked = 1.0 - stands
            doubt = right_and_stands - one.quality * stands
            slope = agreement[two.place] * spread_two / spread
            right = right_and_stands + two.quality * asked - slope * doubt
            found.append(
                (
                    0.0 if right < 0.0 else min(right, 1.0),
                    one.mean_s + asked * two.mean_s,
                    one.cost_usd + asked * two.cost_usd,
                    one.capacity + asked * two.capacity,
                    stands * one.in_time + asked * view.both_in_time[one.place, two.place],
                    (one.place, two.place),
                    accept_from,
                )
            )
    return found


def vote(pool: Sequence[Option], view: View) -> list[Priced]:
    """Price every group of *pool*, whose answers are weighed by how sure each turns out to be.

    Such a vote is at least as good as one weighed by what is expected of each model beforehand,
    and as taking the surest answer; the better of the two is its price.
    """
    most, candidates = min(view.policy.max_calls, len(pool)), view.candidates
    if most < _PAIR:
        return []
    pool = sorted(pool, key=lambda option: -option.quality)
    among, places = groups(len(pool), most), np.array([option.place for option in pool])
    together = correlations(candidates.agreement.take(places, 0).take(places, 1), among)
    blocks = candidates.confidence.take(places, 0).reshape(len(pool), _LEVELS, -1)
    right = surest(np.add.reduce(blocks, 2) / blocks.shape[2], among, together)
    figures = [
        (o.mean_s, o.cost_usd, o.capacity, o.in_time, o.quality, vote_weight(o.quality))
        for o in pool
    ]
    rows = np.array(list(zip(*figures, _NOBODY, strict=True)))
    latency_s, cost_usd, capacity, in_time, quality, weight = rows.take(among.padded, 1)
    columns = (
        _better(right, quality, weight, together, among),
        np.maximum.reduce(latency_s, 0),
        np.add.reduce(cost_usd, 0),
        np.add.reduce(capacity, 0),
        np.multiply.reduce(in_time, 0),
    )
    asked = _named(tuple([option.place for option in pool]), among)
    return list(zip(*[each.tolist() for each in columns], asked, repeat(0.0), strict=False))


def best_of(pool: Sequence[Option], view: View) -> list[Priced]:
    """Price answers of pairs, and several of one model, scored by a third or by a verifier.

    Some answer is right with a probability between independence and failing together. Of what
    that is above the better model, the scorer's skill is won. Scoring takes about a prefill.
    """
    pool, policy = pool[:_BEST_OF_POOL], view.policy
    if policy.verifier:
        return [
            _asked_at_once(_chosen(_VERIFIER_SKILL, drawn, view), drawn)
            for count in range(2, policy.max_calls + 1)
            for drawn in _draws(pool, count, policy)
        ]
    return [
        _scored(answers, judge)
        for count in range(2, policy.max_calls)
        for drawn in _draws(pool, count, policy)
        for answers in [_asked_at_once(_chosen(_SCORER_SKILL, drawn, view), drawn)]
        for judge in pool
        if judge not in drawn
    ]


def refine(pool: Sequence[Option], view: View) -> list[Priced]:
    """Price every ordered pair of *pool*, the second seeing what the first says.

    The reviewer is at least as good as alone, and wins its skill's share of the cases in which
    the draft is right and it alone would not be. It reads the draft besides.
    """
    found: list[Priced] = []
    for one, two in combinations(pool, 2):
        either = some_right((one.quality, two.quality), _together((one, two), view))
        latency_s, cost_usd = one.mean_s + two.mean_s, one.cost_usd + two.cost_usd
        capacity = one.capacity + two.capacity
        sure = view.both_in_time[one.place, two.place]
        for draft, review in ((one, two), (two, one)):
            won = _REVIEWER_SKILL * max(either - review.quality, 0.0)
            places = (draft.place, review.place)
            found.append((review.quality + won, latency_s, cost_usd, capacity, sure, places, 0.0))
    return found


def hedge(pool: Sequence[Option], view: View) -> list[Priced]:
    """Price every ordered pair of the best of *pool*, and each model with its own spare replica.

    The primary is late with probability `_LATE`; what it then still needs, and what the backup
    needs, are taken as exponential, so that the backup wins the race with probability a / (a + b)
    and saves a² / (a + b) on average. A stall is lost whole without a backup. Singles' prices
    leave stalls out, hence what a hedge saves comes off its primary's own time.
    """
    c = view.candidates
    found: list[Priced] = []
    stalled, stall_s = c.stall_ratio, min(STALL_S, view.deadline_s or STALL_S)
    asked, log_deadline = _LATE + stalled, view.log_deadline
    ttft_p50_s, ttft_p90_s = c.ttft_p50_s.tolist(), c.ttft_p90_s.tolist()
    calls = [
        _first_token(each, ttft_p50_s[each.place], ttft_p90_s[each.place])
        for each in pool[:_HEDGE_POOL]
    ]
    for (one, late_s, more_s, needs_one_s), (two, _, _, needs_two_s) in product(calls, calls):
        if one is two and not c.spares[one.place]:
            continue
        races = more_s / (more_s + needs_two_s + 1e-6)
        lost_s = max(stall_s - late_s - needs_two_s, 0.0)
        backed = _LATE * races + stalled
        rest_s = (two.mean_s - needs_two_s) - (one.mean_s - needs_one_s)
        latency_s = one.mean_s - _LATE * races * more_s - stalled * lost_s + backed * rest_s
        backup = in_time(log(two.median_s + late_s), two.sigma, log_deadline)
        found.append(
            (
                one.quality + backed * (two.quality - one.quality),
                max(latency_s, 0.0),
                one.cost_usd + asked * two.cost_usd,
                one.capacity + asked * two.capacity,
                one.in_time + (1.0 - one.in_time) * backed * backup,
                (one.place, two.place),
                late_s,
            )
        )
    return found


PRICERS: Final[Mapping[str, Pricer]] = {
    p.__name__: p for p in (cascade, vote, best_of, refine, hedge)
}
"""Every kind of ensemble: more than one call, by one policy or another."""


def _better(
    surest: Floats, quality: Floats, weight: Floats, together: Floats, among: Groups
) -> Floats:
    """Return the better of the *surest* answers (G,) and votes of *weight* (S, G) beforehand.

    Of two, the better one alone decides such a vote: that is no better than the surest.
    """
    found = surest.copy()
    for size, some in among.blocks:
        if size > _PAIR:
            best, apart = quality[0, some], outweighing(quality[:size, some], weight[:size, some])
            found[some] = np.maximum(surest[some], apart + together[some] * (best - apart))
    return found


@lru_cache(maxsize=1024)
def _named(places: tuple[int, ...], among: Groups) -> list[tuple[int, ...]]:
    """Return the candidates of every group, which stand at *places*."""
    return [tuple([places[i] for i in members]) for members in among.members]


def _asked_at_once(quality: float, asked: Sequence[Option]) -> Priced:
    """Price all of *asked* together."""
    latency_s, cost_usd, capacity, in_time = 0.0, 0.0, 0.0, 1.0
    for option in asked:
        latency_s = max(latency_s, option.mean_s)
        cost_usd += option.cost_usd
        capacity += option.capacity
        in_time *= option.in_time
    places = tuple([option.place for option in asked])
    return quality, latency_s, cost_usd, capacity, in_time, places, 0.0


def _scored(answers: Priced, judge: Option) -> Priced:
    """Add to the price of *answers* what *judge* takes to score them."""
    quality, latency_s, cost_usd, capacity, in_time, places, setting = answers
    return (
        quality,
        latency_s + _SCORING * judge.mean_s,
        cost_usd + _SCORING * judge.cost_usd,
        capacity + _SCORING * judge.capacity,
        in_time * judge.in_time,
        (*places, judge.place),
        setting,
    )


def _draws(pool: Sequence[Option], count: int, policy: Policy) -> list[tuple[Option, ...]]:
    """Return what *count* answers may be drawn from: different models, or one several times."""
    same = [(each,) * count for each in pool] if policy.may_draw else []
    return [*combinations(pool, count), *same]


def _chosen(skill: float, drawn: Sequence[Option], view: View) -> float:
    """Expected quality of the answer that *skill* chooses from *drawn*."""
    qualities = [o.quality for o in drawn]
    best = max(qualities)
    return best + skill * max(some_right(qualities, _together(drawn, view)) - best, 0.0)


def _together(group: Sequence[Option], view: View) -> float:
    return correlation(view.agreement, [o.place for o in group])


def _first_token(option: Option, p50_s: float, p90_s: float) -> tuple[Option, float, float, float]:
    """Return with *option* when it is late, what it then needs yet, and needs to its first token.

    All in seconds. The last is the expectation of what was predicted as a median.
    """
    late_s = late_after_s(p50_s, p90_s)
    needs_s = option.mean_s * p50_s / option.median_s
    return option, late_s, _EXCESS * (late_s - p50_s), needs_s


def _unloaded(option: Option) -> float:
    """Return what *option* would be worth if there were time and room."""
    return option.worth + option.quality * (1.0 - option.in_time) + option.capacity


def _spread(quality: float) -> float:
    """Return the standard deviation of being right with probability *quality*."""
    q = clipped(quality, 0.05, 0.95)
    return sqrt(q * (1.0 - q))
