"""What a plan is expected to achieve and to take, for every plan worth considering at once.

N = candidates, P = those that may join an ensemble, K = plans of one kind, G = models of one plan.

The ensembles' figures rest on what was learned of how models succeed together (`agreement`), of
how their confidence spreads (`confidence`), and on two assumptions, each a named constant, which
`Gains` corrects from outcomes: wrong answers scatter over about `_ALTERNATIVES` answers, so that
they rarely outvote a right one; and what a late call still needs (`_EXCESS`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import combinations, permutations, product
from typing import Final, TypeAlias

import numpy as np

from router_svc.core.hedging import STALL_S, late_after_s
from router_svc.core.plan import VERIFIER, BestOf, Cascade, Hedge, Plan, Refine, Single, Vote
from router_svc.core.scorers import SCORERS, Figures
from router_svc.core.types import Bools, Candidates, Floats, Ints, Policy

_ALTERNATIVES: Final = 5
_SCORER_SKILL: Final = 0.1
"""Share of what a perfect choice among answers would win that another model's choice does: models
like what they would say themselves."""
_VERIFIER_SKILL: Final = 0.6
_REVIEWER_SKILL: Final = 0.1
_SCORING: Final = 0.5
"""What scoring takes of the scorer, as a share of a whole answer: about its prefill."""
_BEST_OF_POOL: Final = 3
"""Fewer still take part in best-of, which has a scorer to choose as well."""
_LATE: Final = 0.05
"""Share of calls that are late, by the meaning of `late_after_s`."""
_EXCESS: Final = 0.25
"""How much longer a late call takes yet, as a share of what it is late by."""
_ENSEMBLE_POOL: Final = 6
"""Only the best few single models are combined; pairs and triples of many would cost more time
than they could win."""
_MAX_SIGMA: Final = 1.5
"""A cold latency model is unsure, not infinitely slow."""

_FIGURES: Final = tuple(f.name for f in fields(Figures))


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """K plans of one kind."""

    kind: str
    members: Ints
    """(K, G) indices of candidates."""
    figures: Figures
    verifier: str = ""
    """Scores instead of the last member, in plans of best-of."""
    setting: Floats
    """(K,) What a cascade accepts from, or the seconds after which a hedge asks its backup."""

    def plan(self, k: int, models: tuple[str, ...]) -> Plan:
        """Build plan number *k*."""
        if self.kind == "best_of":
            return self._best_of(k, models)
        names = tuple(models[i] for i in self.members[k].tolist())
        match self.kind:
            case "single":
                return Single(names[0])
            case "cascade":
                return Cascade(names[0], names[1], float(self.setting[k]))
            case "refine":
                return Refine(names[0], names[1])
            case "hedge":
                return Hedge(names[0], names[1], float(self.setting[k]))
            case _:
                return Vote(names)

    def _best_of(self, k: int, models: tuple[str, ...]) -> BestOf:
        *drawn, judge = self.members[k].tolist()
        scorer = self.verifier or models[judge]
        return BestOf(tuple(dict.fromkeys(models[i] for i in drawn)), len(drawn), scorer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Each candidate's predicted time, as a lognormal; arrays (N,)."""

    mean_s: Floats
    variance_s2: Floats
    in_time: Floats
    """Probability of finishing before the deadline."""
    sigma: Floats
    """Standard deviation of the logarithm."""
    deadline_s: float | None


def moments(candidates: Candidates, deadline_s: float | None) -> Moments:
    """Fit lognormals through the predicted median and 90th percentile."""
    median = np.maximum(candidates.total_p50_s, 1e-6)
    spread = np.log(np.maximum(candidates.total_p90_s, median) / median) / 1.2816
    sigma = within(spread, 1e-3, _MAX_SIGMA)
    mean = median * np.exp(0.5 * sigma**2)
    return Moments(
        mean_s=mean,
        variance_s2=mean**2 * np.expm1(sigma**2),
        in_time=_in_time(np.log(median), sigma, deadline_s),
        sigma=sigma,
        deadline_s=deadline_s,
    )


def single(candidates: Candidates, pool: Ints, policy: Policy, when: Moments) -> list[Block]:
    """Price every candidate on its own; *pool* does not matter."""
    del pool, policy
    count = len(candidates.models)
    figures = Figures(
        quality=candidates.quality,
        latency_s=when.mean_s,
        cost_usd=candidates.cost_usd,
        capacity=candidates.capacity_price,
        deadline_probability=when.in_time,
    )
    members = np.arange(count)[:, None]
    return [Block(kind="single", members=members, figures=figures, setting=np.zeros(count))]


def cascade(candidates: Candidates, pool: Ints, policy: Policy, when: Moments) -> list[Block]:
    """Price every ordered pair of *pool*.

    The first answer stands where its confidence beats what the second model would bring after its
    own price. What made the first unsure is hard for the second as well, as far as the two are
    correlated: given confidence c in the first, the second is expected to be right with
    probability q₂ + r √(v₂/v₁) (c - q₁), r the correlation, v the variances: the best linear guess.
    """
    if policy.max_calls < 2 or len(pool) < 2:  # noqa: PLR2004 - a cascade is two calls
        return []
    members = pool[_pairs(len(pool))]
    one, two = members[:, 0], members[:, 1]
    q_one, q_two = candidates.quality[one], candidates.quality[two]
    price = (
        policy.latency_weight_per_s * when.mean_s
        + policy.cost_weight_per_usd * candidates.cost_usd
        + candidates.capacity_price
    )
    accept = within(q_two - price[two], 0.0, 1.0)
    sure = candidates.confidence[one]
    accepted = sure >= accept[:, None]
    stands = accepted.mean(axis=1)
    right_and_stands = (sure * accepted).mean(axis=1)
    doubt = q_one * (1.0 - stands) - (q_one - right_and_stands)
    slope = candidates.agreement[one, two] * np.sqrt(_variance(q_two) / _variance(q_one))
    quality = right_and_stands + q_two * (1.0 - stands) - slope * doubt
    asked = 1.0 - stands
    figures = Figures(
        quality=within(quality, 0.0, 1.0),
        latency_s=when.mean_s[one] + asked * when.mean_s[two],
        cost_usd=candidates.cost_usd[one] + asked * candidates.cost_usd[two],
        capacity=candidates.capacity_price[one] + asked * candidates.capacity_price[two],
        deadline_probability=stands * when.in_time[one] + asked * _both_in_time(when, one, two),
    )
    return [Block(kind="cascade", members=members, figures=figures, setting=accept)]


def vote(candidates: Candidates, pool: Ints, policy: Policy, when: Moments) -> list[Block]:
    """Price every odd group of at least three of *pool*, weighted as `merge` weighs."""
    blocks = []
    for size in range(3, min(policy.max_calls, len(pool)) + 1, 2):
        members = pool[_groups(len(pool), size)]
        q = candidates.quality[members]
        figures = Figures(
            quality=vote_quality(q, _together(candidates.agreement, members)),
            latency_s=when.mean_s[members].max(axis=1),
            cost_usd=candidates.cost_usd[members].sum(axis=1),
            capacity=candidates.capacity_price[members].sum(axis=1),
            deadline_probability=when.in_time[members].prod(axis=1),
        )
        none = np.zeros(len(members))
        blocks.append(Block(kind="vote", members=members, figures=figures, setting=none))
    return blocks


def best_of(candidates: Candidates, pool: Ints, policy: Policy, when: Moments) -> list[Block]:
    """Price answers of pairs, and several of one model, scored by a third or by a verifier.

    Some answer is right with a probability between independence and failing together. Of what
    that is above the better model, the scorer's skill is won. Scoring takes about a prefill.
    """
    pool = pool[:_BEST_OF_POOL]
    if policy.verifier:
        return [
            block
            for count in range(2, policy.max_calls + 1)
            for block in _best_of(candidates, _drawn(pool, count, policy), policy, when)
        ]
    members = [
        np.concatenate([drawn, np.full((len(drawn), 1), judge)], axis=1)
        for count in range(2, policy.max_calls)
        for judge in pool.tolist()
        if len(drawn := _drawn(pool[pool != judge], count, policy))
    ]
    return [block for each in members for block in _best_of(candidates, each, policy, when)]


def refine(candidates: Candidates, pool: Ints, policy: Policy, when: Moments) -> list[Block]:
    """Price every ordered pair of *pool*, the second seeing what the first says.

    The reviewer is at least as good as alone, and wins its skill's share of the cases in which
    the draft is right and it alone would not be. It reads the draft besides.
    """
    if policy.max_calls < 2 or len(pool) < 2:  # noqa: PLR2004 - two calls
        return []
    members = pool[_pairs(len(pool))]
    one, two = members[:, 0], members[:, 1]
    own = candidates.quality[two]
    figures = Figures(
        quality=own + _REVIEWER_SKILL * np.maximum(_some_right(candidates, members) - own, 0.0),
        latency_s=when.mean_s[members].sum(axis=1),
        cost_usd=candidates.cost_usd[members].sum(axis=1),
        capacity=candidates.capacity_price[members].sum(axis=1),
        deadline_probability=_both_in_time(when, one, two),
    )
    return [Block(kind="refine", members=members, figures=figures, setting=np.zeros(len(members)))]


def hedge(candidates: Candidates, pool: Ints, policy: Policy, when: Moments) -> list[Block]:
    """Price every ordered pair of *pool*, and each model with its own spare replica.

    The primary is late with probability `_LATE`; what it then still needs, and what the backup
    needs, are taken as exponential, so that the backup wins the race with probability a / (a + b)
    and saves a² / (a + b) on average. A stall is lost whole without a backup. Singles' prices
    leave stalls out, hence what a hedge saves comes off its primary's own time.
    """
    spared = np.array([i for i in pool.tolist() if candidates.spares[i]], dtype=np.intp)
    members = np.concatenate([pool[_pairs(len(pool))], np.stack([spared, spared], axis=1)])
    if policy.max_calls < 2 or not len(members):  # noqa: PLR2004 - a hedge is two calls
        return []
    one, two = members[:, 0], members[:, 1]
    late_s = late_after_s(candidates.ttft_p50_s, candidates.ttft_p90_s)
    needs_s = when.mean_s * candidates.ttft_p50_s / np.maximum(candidates.total_p50_s, 1e-6)
    more_s = _EXCESS * (late_s - candidates.ttft_p50_s)[one]
    races = more_s / (more_s + needs_s[two] + 1e-6)
    stall_s = min(STALL_S, when.deadline_s or STALL_S)
    stalled = candidates.stall_ratio
    saved_s = _LATE * races * more_s + stalled * np.maximum(
        stall_s - late_s[one] - needs_s[two], 0.0
    )
    backed = _LATE * races + stalled
    asked = _LATE + stalled
    rest_s = when.mean_s - needs_s
    in_time = _in_time(
        np.log(candidates.total_p50_s[two] + late_s[one]), when.sigma[two], when.deadline_s
    )
    latency_s = when.mean_s[one] - saved_s + backed * (rest_s[two] - rest_s[one])
    figures = Figures(
        quality=candidates.quality[one]
        + backed * (candidates.quality[two] - candidates.quality[one]),
        latency_s=np.maximum(latency_s, 0.0),
        cost_usd=candidates.cost_usd[one] + asked * candidates.cost_usd[two],
        capacity=candidates.capacity_price[one] + asked * candidates.capacity_price[two],
        deadline_probability=when.in_time[one] + (1.0 - when.in_time[one]) * backed * in_time,
    )
    return [Block(kind="hedge", members=members, figures=figures, setting=late_s[one])]


Pricer: TypeAlias = Callable[[Candidates, Ints, Policy, Moments], list[Block]]
PRICERS: Final[Mapping[str, Pricer]] = {
    p.__name__: p for p in (single, cascade, vote, best_of, refine, hedge)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """Every plan that was priced, singles first; arrays (K,) over all kinds."""

    blocks: tuple[Block, ...]
    figures: Figures
    terms: Mapping[str, Floats]
    utility: Floats
    single: Bools

    def at(self, k: int) -> tuple[Block, int]:
        """Return the block and the index in it of plan *k*."""
        for block in self.blocks:
            if k < len(block.members):
                return block, k
            k -= len(block.members)
        raise IndexError(k)


def menu(
    candidates: Candidates, policy: Policy, deadline_s: float | None, gains: Mapping[str, float]
) -> Menu:
    """Enumerate and price the plans of the kinds that the policy permits, and the single ones.

    *gains*: kind of plan to what its quality proved to be above (or below) the assumptions'.
    """
    when = moments(candidates, deadline_s)
    singles = single(candidates, np.arange(0), policy, when)
    pool = np.argsort(-_utility(singles[0].figures, policy))[:_ENSEMBLE_POOL]
    rest = [
        _gained(block, gains)
        for name, pricer in PRICERS.items()
        if name != "single" and (not policy.plans or name in policy.plans)
        for block in pricer(candidates, pool, policy, when)
    ]
    blocks = (*singles, *rest)
    figures = Figures(
        **{n: np.concatenate([getattr(b.figures, n) for b in blocks]) for n in _FIGURES}
    )
    terms = {name: scorer(figures, policy) for name, scorer in SCORERS.items()}
    return Menu(
        blocks=blocks,
        figures=figures,
        terms=terms,
        utility=sum(terms.values(), start=np.zeros(len(figures.quality))),
        single=np.arange(len(figures.quality)) < len(candidates.models),
    )


def vote_weights(quality: Floats) -> Floats:
    """Weigh answers by the log-likelihood ratio of being right; never below a little.

    Of an answer that is right with probability q, and otherwise one of A - 1 equally likely
    wrong ones, the optimal weight is log(q (A - 1) / (1 - q)) (Nitzan and Paroush, 1982).
    """
    q = within(quality, 0.01, 0.99)
    return np.maximum(np.log(q * (_ALTERNATIVES - 1) / (1.0 - q)), 0.01)


def cumulative(z: Floats) -> Floats:
    """The normal distribution function to 2e-4, in a tenth of the time of an exact one."""
    z = within(z, -6.0, 6.0)
    return 1.0 / (1.0 + np.exp(-z * (1.5976 + 0.070566 * z * z)))


def within(values: Floats, low: float, high: float) -> Floats:
    """`np.clip`, which takes several times as long on a few values."""
    return np.minimum(np.maximum(values, low), high)


def _gained(block: Block, gains: Mapping[str, float]) -> Block:
    gain = gains.get(block.kind, 0.0)
    if gain == 0.0:
        return block
    f = block.figures
    return Block(
        kind=block.kind,
        members=block.members,
        setting=block.setting,
        figures=Figures(
            quality=within(f.quality + gain, 0.0, 1.0),
            latency_s=f.latency_s,
            cost_usd=f.cost_usd,
            capacity=f.capacity,
            deadline_probability=f.deadline_probability,
        ),
    )


def _utility(figures: Figures, policy: Policy) -> Floats:
    return sum(
        (scorer(figures, policy) for scorer in SCORERS.values()),
        start=np.zeros(len(figures.quality)),
    )


def vote_quality(q: Floats, together: Floats) -> Floats:
    """Probability that the weighted vote of models right with *q* (K, G) is right; (K,).

    Between independent models and models that all fail together, by the correlation *together*.
    """
    weights = vote_weights(q)
    right = _outcomes(q.shape[1])  # (2^G, G)
    chance = np.where(right, q[:, None, :], 1.0 - q[:, None, :]).prod(axis=2)
    for_right = (right * weights[:, None, :]).sum(axis=2)
    lone_wrong = (~right * weights[:, None, :]).max(axis=2)
    apart = (chance * (for_right > lone_wrong)).sum(axis=1)
    best = q.max(axis=1)
    quality: Floats = best + (1.0 - together) * (apart - best)
    return quality


def _best_of(candidates: Candidates, members: Ints, policy: Policy, when: Moments) -> list[Block]:
    """Price groups (K, G), the last of each the scorer unless there is a verifier."""
    if not len(members):
        return []
    drawn = members if policy.verifier else members[:, :-1]
    judge = members[:, -1]
    best = candidates.quality[drawn].max(axis=1)
    skill = _VERIFIER_SKILL if policy.verifier else _SCORER_SKILL
    share = 0.0 if policy.verifier else _SCORING
    figures = Figures(
        quality=best + skill * np.maximum(_some_right(candidates, drawn) - best, 0.0),
        latency_s=when.mean_s[drawn].max(axis=1) + share * when.mean_s[judge],
        cost_usd=candidates.cost_usd[drawn].sum(axis=1) + share * candidates.cost_usd[judge],
        capacity=candidates.capacity_price[drawn].sum(axis=1)
        + share * candidates.capacity_price[judge],
        deadline_probability=when.in_time[members].prod(axis=1),
    )
    if policy.verifier:  # a place for the scorer that is not asked
        members = np.concatenate([members, judge[:, None]], axis=1)
    return [
        Block(
            kind="best_of",
            members=members,
            figures=figures,
            setting=np.zeros(len(members)),
            verifier=policy.verifier and f"{VERIFIER}{policy.verifier}",
        )
    ]


def _drawn(pool: Ints, count: int, policy: Policy) -> Ints:
    """Return what *count* answers may be drawn from: different models, or one several times."""
    groups = (
        pool[_groups(len(pool), count)] if count <= len(pool) else np.zeros((0, count), np.intp)
    )
    same = np.repeat(pool[:, None], count, axis=1) if policy.may_draw else groups[:0]
    return np.concatenate([groups, same])


def _some_right(candidates: Candidates, members: Ints) -> Floats:
    """Probability that at least one of *members* (K, G) is right; (K,)."""
    wrong = 1.0 - candidates.quality[members]
    together = _together(candidates.agreement, members)
    none: Floats = (1.0 - together) * wrong.prod(axis=1) + together * wrong.min(axis=1)
    return 1.0 - none


def _together(agreement: Floats, members: Ints) -> Floats:
    """Return the mean correlation within each group of *members* (K, G), at least 0; (K,)."""
    count = members.shape[1]
    within_group = agreement[members[:, :, None], members[:, None, :]]
    all_pairs = within_group.sum(axis=(1, 2)) - np.trace(within_group, axis1=1, axis2=2)
    return within(all_pairs / (count * (count - 1)), 0.0, 1.0)


def _variance(q: Floats) -> Floats:
    q = within(q, 0.05, 0.95)
    return q * (1.0 - q)


def _in_time(log_median: Floats, sigma: Floats, deadline_s: float | None) -> Floats:
    if deadline_s is None:
        return np.ones_like(sigma)
    return cumulative((np.log(max(deadline_s, 1e-6)) - log_median) / sigma)


def _both_in_time(when: Moments, one: Ints, two: Ints) -> Floats:
    """Fit a lognormal to the sum of two independent ones by its moments (Fenton, 1960)."""
    if when.deadline_s is None:
        return np.ones(len(one))
    mean = when.mean_s[one] + when.mean_s[two]
    squared = np.log1p((when.variance_s2[one] + when.variance_s2[two]) / mean**2)
    return _in_time(np.log(mean) - 0.5 * squared, np.sqrt(squared), when.deadline_s)


@lru_cache(maxsize=64)
def _pairs(count: int) -> Ints:
    return np.array(list(permutations(range(count), 2)), dtype=np.intp).reshape(-1, 2)


@lru_cache(maxsize=64)
def _groups(count: int, size: int) -> Ints:
    return np.array(list(combinations(range(count), size)), dtype=np.intp)


@lru_cache(maxsize=16)
def _outcomes(size: int) -> Bools:
    return np.array(list(product((False, True), repeat=size)), dtype=np.bool_)
