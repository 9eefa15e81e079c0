"""One routing decision: model, replica and ensemble together. Pure: same arguments, same decision.

With probability 1 - ε the plan with the best expected utility, where single models are given the
benefit of the doubt against each other (optimism: Auer, 2002); otherwise, to learn, a single model
drawn by how unsure its quality is, or one that fell and may have recovered. Who does not explore
does without both. The propensity
of what was chosen is exact, so that other policies can be evaluated on the journal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from router_svc.core.gate import Choice
from router_svc.core.plan import KINDS, Plan, models_of
from router_svc.core.price import Menu, menu
from router_svc.core.types import (
    Ask,
    Bools,
    Candidates,
    Floats,
    Places,
    Policy,
    Priority,
    Rejection,
)

VERSION: Final = 3
"""Grows with every change that lets equal arguments decide otherwise; journals carry it."""


_EVEN: Final = 0.5
_OPTIMISM: Final = 0.5
"""Standard deviations that a single model is given the benefit of, among single models."""


class Chance(Protocol):
    """Where a decision's one random number comes from: a generator, or a journal."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


class NoCandidateError(LookupError):
    """Every replica was filtered out."""

    def __init__(self, rejections: tuple[Rejection, ...]) -> None:
        super().__init__("no replica can serve")
        self.rejections = rejections


class DeadlineError(LookupError):
    """No plan is expected to finish in time; `best` is the highest probability of it.

    `wait_s` is how long the request would wait for a place at the model that suits it best: where
    that is above 0, load is what stands in its way, at `model`.
    """

    def __init__(self, best: float, expected_s: float, wait_s: float, model: str) -> None:
        super().__init__("no plan makes the deadline")
        self.best = best
        self.expected_s = expected_s
        self.wait_s = wait_s
        self.model = model


class QualityError(LookupError):
    """No plan is expected to be as good as asked; `best` is the best expectation."""

    def __init__(self, best: float) -> None:
        super().__init__("no plan reaches the quality")
        self.best = best


@dataclass(frozen=True, slots=True, kw_only=True)
class PricedPlan:
    """One plan and its price, for explanation."""

    plan: Plan
    utility: float
    quality: float
    latency_term: float
    cost_term: float
    capacity_term: float
    deadline_probability: float
    propensity: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What to run, and everything needed to explain it."""

    plan: Plan
    policy: Policy
    propensity: float
    explored: bool
    quality: float
    """Expected quality of the plan."""
    candidates: Candidates
    menu: Menu
    probabilities: Floats
    """(K,) Probability with which each plan of the menu would be chosen."""
    draw: float
    """The random number in [0, 1) that chose between them."""
    gains: Mapping[str, float]
    """What each kind of ensemble proved to be worth above its price's assumptions."""
    rejections: tuple[Rejection, ...]

    def replica_of(self, model: str) -> str:
        """The replica that would serve *model*."""
        return self.candidates.replicas[self.candidates.models.index(model)]

    def plans(self, limit: int = 16) -> list[PricedPlan]:
        """Return the best plans and those that could have been chosen, best first."""
        worth = np.lexsort((-self.menu.utility, self.probabilities == 0.0))[:limit]
        order = worth[np.argsort(-self.menu.utility[worth], kind="stable")]
        return [self._priced(k) for k in order.tolist()]

    def _priced(self, k: int) -> PricedPlan:
        block, i = self.menu.at(k)
        terms = self.menu.terms
        return PricedPlan(
            plan=block.plan(i, self.candidates.models),
            utility=float(self.menu.utility[k]),
            quality=float(self.menu.figures.quality[k]),
            latency_term=float(-terms["latency"][k]),
            cost_term=float(-terms["cost"][k]),
            capacity_term=float(-terms["capacity"][k]),
            deadline_probability=float(self.menu.figures.deadline_probability[k]),
            propensity=float(self.probabilities[k]),
        )


def weighed(policy: Policy, ask: Ask) -> Policy:
    """Return *policy* with what the request overrides."""
    unreadable = frozenset() if ask.reviewable else frozenset({"best_of", "refine"})
    latency, cost = ask.latency_weight_per_s, ask.cost_weight_per_usd
    return replace(
        policy,
        latency_weight_per_s=policy.latency_weight_per_s if latency is None else latency,
        cost_weight_per_usd=policy.cost_weight_per_usd if cost is None else cost,
        plans=(policy.plans or frozenset(KINDS)) - unreadable if unreadable else policy.plans,
        may_draw=ask.may_draw,
        verifier=ask.verifier,
    )


def keeping(policy: Policy, places: Places | None) -> Policy:
    """Return *policy* for a request with these *places*: a promise is kept if it is any use."""
    if places is None or not places.promised:
        return policy
    return replace(policy, deadline_confidence=min(policy.deadline_confidence, _EVEN))


def decide(
    ask: Ask,
    candidates: Candidates,
    policy: Policy,
    chance: Chance,
    *,
    gains: Mapping[str, float],
    rejections: tuple[Rejection, ...] = (),
) -> Decision:
    """Choose a plan. Raises NoCandidateError, QualityError, DeadlineError."""
    if not candidates.models:
        raise NoCandidateError(rejections)
    priced = menu(candidates, policy, ask.deadline_s, gains)
    able = _able(ask, policy, priced, candidates)
    value = np.where(able, priced.utility, -np.inf)
    chances = _chances(ask, policy, value, candidates)
    best, draw = int(value.argmax()), float(chance.random())
    chosen = drawn(chances, draw)
    block, i = priced.at(chosen)
    return Decision(
        plan=block.plan(i, candidates.models),
        policy=policy,
        propensity=float(chances[chosen]),
        explored=chosen != best,
        quality=float(priced.figures.quality[chosen]),
        candidates=candidates,
        menu=priced,
        probabilities=chances,
        draw=draw,
        gains=gains,
        rejections=rejections,
    )


def choice_of(decision: Decision, models: Sequence[str]) -> Choice[Decision]:
    """Return whether *decision* waits for a place, and at which of the fleet's *models*."""
    found = decision.candidates
    if not found.wait_s.any():
        return Choice(value=decision)
    asked = [found.models.index(name) for name in models_of(decision.plan)]
    i = max(asked, key=lambda i: float(found.wait_s[i]))
    if found.wait_s[i] <= 0.0:
        return Choice(value=decision)
    service_s = float(found.total_p50_s[i] - found.wait_s[i])
    return Choice(value=decision, model=models.index(found.models[i]), service_s=service_s)


def drawn(chances: Floats, draw: float) -> int:
    """Return which of *chances* (K,) the number *draw* in [0, 1) falls on."""
    reached = np.cumsum(chances)
    chosen = int(np.searchsorted(reached, draw * reached[-1], side="right"))
    return min(chosen, int(np.flatnonzero(chances)[-1]))


def _able(ask: Ask, policy: Policy, priced: Menu, candidates: Candidates) -> Bools:
    """Which plans meet the request's constraints; (K,).

    A late answer's worth is weighed in the utility. What is refused here is the hopeless: a plan
    that is as sure to miss the deadline as it should be to make it. Who waits for a place takes it
    from others that wait, so that a plan that waits must be sure to make it.
    """
    figures = priced.figures
    good = (figures.quality >= ask.min_quality) & _permitted(policy, priced)
    if not good.any():
        raise QualityError(float(figures.quality.max()))
    if ask.deadline_s is None:
        return good
    wait_s = _waits(priced, candidates)
    least = np.where(wait_s > 0.0, policy.deadline_confidence, 1.0 - policy.deadline_confidence)
    able = good & (figures.deadline_probability > least)
    if not able.any() or _too_bad(policy, priced, good, able):
        in_time = np.where(good, figures.deadline_probability, 0.0)
        best = int(np.where(good, figures.quality, -1.0).argmax())
        block, i = priced.at(best)
        raise DeadlineError(
            float(in_time.max()),
            float(figures.latency_s[good].min()),
            float(wait_s[best]),
            models_of(block.plan(i, candidates.models))[0],
        )
    return able


def _waits(priced: Menu, candidates: Candidates) -> Floats:
    """Return how long each plan's models let the request wait for a place, at most; (K,)."""
    if not candidates.wait_s.any():
        return np.zeros(len(priced.utility))
    return np.concatenate([candidates.wait_s[b.members].max(axis=1) for b in priced.blocks])


def _too_bad(policy: Policy, priced: Menu, good: Bools, able: Bools) -> bool:
    """Whether time leaves only what is much worse than what it forbids."""
    quality = priced.figures.quality
    at_leisure = priced.utility + quality * (1.0 - priced.figures.deadline_probability)
    wanted = int(np.where(good, at_leisure, -np.inf).argmax())
    had = int(np.where(able, priced.utility, -np.inf).argmax())
    return bool(quality[had] < policy.downgrade_ratio * quality[wanted])


def _permitted(policy: Policy, priced: Menu) -> Bools:
    """Which plans are of a kind that the policy permits; all, where it names none that there is."""
    kinds = [block.kind in policy.plans for block in priced.blocks]
    permitted = np.repeat(kinds, [len(block.members) for block in priced.blocks])
    return permitted if permitted.any() else np.ones_like(permitted)


def _chances(ask: Ask, policy: Policy, value: Floats, candidates: Candidates) -> Floats:
    """Probability of choosing each plan; (K,), sums to 1. Single models come first."""
    chances, leading = np.zeros(len(value)), int(value.argmax())
    share = 0.0 if ask.priority is Priority.CRITICAL else policy.explore_ratio
    if share > 0.0:
        single = slice(len(candidates.models))
        can = np.isfinite(value[single])
        unsure = candidates.quality_stddev * can
        chances[single] = candidates.probe_ratio * can
        chances[single] += share * unsure / max(unsure.sum(), 1e-12)
        if leading < len(unsure):
            leading = int((value[single] + _OPTIMISM * candidates.quality_stddev).argmax())
    chances[leading] += 1.0 - chances.sum()
    return chances
