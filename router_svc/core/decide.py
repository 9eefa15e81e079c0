"""One routing decision: model, replica and ensemble together. Pure: same arguments, same decision.

With probability 1 - ε the plan with the best expected utility. Where that is a single model, it is
drawn among those that are about as good, with the benefit of the doubt (optimism: Auer, 2002; drawn
as in Boltzmann exploration: Sutton, 1990). Otherwise, to learn, a model drawn by how unsure its
quality is, or one that fell and may have recovered, in the best plan in which it answers: with
others at its side, learning seldom costs a wrong answer. Who does not explore does without both.
The propensity of what was chosen is exact, so that other policies can be evaluated on the journal.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Final, Protocol

from router_svc.core.clip import clipped
from router_svc.core.gate import Choice
from router_svc.core.menu import Menu, menu, rates
from router_svc.core.plan import KINDS, Plan, models_of
from router_svc.core.types import Ask, Candidates, Places, Policy, Priority, Rejection

VERSION: Final = 13
"""Grows with every change that lets equal arguments decide otherwise; journals carry it."""


_EVEN: Final = 0.5
_OPTIMISM: Final = 0.5
"""Standard deviations that a single model is given the benefit of, among single models."""
_HEAT: Final = 0.5
"""Standard deviations of the best single model that make another, so much worse, e times rarer."""
_LEAST_HEAT, _MOST_HEAT = 1e-9, 0.03
"""Of utility. Who knows little yet would otherwise draw much that is worse."""
_DOUBT: Final = 1.0
"""Standard deviations that a model loses before it stands in for another to ease the load."""
_ANSWER: Final = {"single": 1, "cascade": 1, "vote": 99}
"""How many of a plan's models, the first ones, answer whatever the others say."""


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
    that is above 0, load is what stands in its way, at `model`. The *candidates* are those that
    were decided about.
    """

    def __init__(
        self, candidates: Candidates, best: float, expected_s: float, wait_s: float, model: str
    ) -> None:
        super().__init__("no plan makes the deadline")
        self.candidates = candidates
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


class Decision:
    """What to run, and everything needed to explain it.

    A plain class, which a compiler makes fast; nobody changes it.
    """

    __slots__ = (
        "candidates",
        "draw",
        "explored",
        "gains",
        "menu",
        "plan",
        "policy",
        "probabilities",
        "propensity",
        "quality",
        "rejections",
    )

    def __init__(
        self,
        *,
        plan: Plan,
        policy: Policy,
        propensity: float,
        explored: bool,
        quality: float,
        candidates: Candidates,
        menu: Menu,
        probabilities: list[float],
        draw: float,
        gains: Mapping[str, float],
        rejections: tuple[Rejection, ...],
    ) -> None:
        self.plan = plan
        self.policy = policy
        self.propensity = propensity
        self.explored = explored
        self.quality = quality
        """Expected quality of the plan."""
        self.candidates = candidates
        self.menu = menu
        self.probabilities = probabilities
        """(K,) Probability with which each plan of the menu would be chosen."""
        self.draw = draw
        """The random number in [0, 1) that chose between them."""
        self.gains = gains
        """What each kind of ensemble proved to be worth above its price's assumptions."""
        self.rejections = rejections

    def explained(self, rejections: tuple[Rejection, ...]) -> "Decision":
        """Return the same decision, with why other replicas were rejected."""
        return self._with(self.candidates, rejections)

    def foreseen(self, candidates: Candidates) -> "Decision":
        """Return the same decision, with what is foreseen of its *candidates* by now."""
        return self._with(candidates, self.rejections)

    def _with(self, candidates: Candidates, rejections: tuple[Rejection, ...]) -> "Decision":
        return Decision(
            plan=self.plan,
            policy=self.policy,
            propensity=self.propensity,
            explored=self.explored,
            quality=self.quality,
            candidates=candidates,
            menu=self.menu,
            probabilities=self.probabilities,
            draw=self.draw,
            gains=self.gains,
            rejections=rejections,
        )

    def replica_of(self, model: str) -> str:
        """The replica that would serve *model*."""
        return self.candidates.replicas[self.candidates.models.index(model)]

    def alone(self) -> tuple[str, float]:
        """Return the single model that is worth most, and its expected quality."""
        k = self._single()
        return self.menu.models[k], self.menu.quality[k]

    def plans(self, limit: int = 16) -> list[PricedPlan]:
        """Return the best plans and those that could have been chosen, best first.

        The best single model is among them.
        """
        utility, chances, single = self.menu.utility, self.probabilities, self._single()
        worth = sorted(
            range(len(utility)),
            key=lambda k: (chances[k] == 0.0 and k != single, -utility[k]),
        )
        return [self._priced(k) for k in sorted(worth[:limit], key=lambda k: -utility[k])]

    def _single(self) -> int:
        return max(range(self.menu.singles), key=self.menu.utility.__getitem__)

    def _priced(self, k: int) -> PricedPlan:
        m, (_, latency, cost, capacity) = self.menu, rates(self.policy)
        return PricedPlan(
            plan=m.plan(k),
            utility=m.utility[k],
            quality=m.quality[k],
            latency_term=-latency * m.latency_s[k],
            cost_term=-cost * m.cost_usd[k],
            capacity_term=-capacity * m.capacity[k],
            deadline_probability=m.in_time[k],
            propensity=self.probabilities[k],
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
    return replace(policy, promised=True) if places is not None and places.promised else policy


def worth_promising(policy: Policy) -> Policy:
    """Return *policy* for whether a place is worth a promise: likelier in time than not."""
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
    able, fit = _able(ask, policy, priced, candidates)
    best, draw = _highest(priced.utility, fit), float(chance.random())
    share = 0.0 if ask.priority is Priority.CRITICAL else policy.explore_ratio
    chances = _chances(priced, candidates, able, fit, leading=best, share=share)
    chosen = drawn(chances, draw)
    return Decision(
        plan=priced.plan(chosen),
        policy=policy,
        propensity=chances[chosen],
        explored=chosen != best,
        quality=priced.quality[chosen],
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
    if not any(found.wait_s):
        return Choice(value=decision)
    asked = [found.models.index(name) for name in models_of(decision.plan)]
    i = max(asked, key=found.wait_s.__getitem__)
    if found.wait_s[i] <= 0.0:
        return Choice(value=decision)
    service_s = found.total_p50_s[i] - found.wait_s[i]
    return Choice(value=decision, model=models.index(found.models[i]), service_s=service_s)


def drawn(chances: list[float], draw: float) -> int:
    """Return which of *chances* (K,) the number *draw* in [0, 1) falls on; NaN says nothing: 0."""
    whole = 0.0
    for chance in chances:
        whole += chance
    reached, aim = 0.0, draw * whole
    for k, chance in enumerate(chances):
        reached += chance
        # Less than the whole by its last bit at least, so that somebody reaches beyond it.
        if reached > aim:
            return k
    return 0


def _able(
    ask: Ask, policy: Policy, priced: Menu, candidates: Candidates
) -> tuple[Sequence[int], Sequence[int]]:
    """Return which plans meet the request's constraints, and which of them are fit to be the best.

    A late answer's worth is weighed in the utility. What is refused here is the hopeless: a plan
    that is as sure to miss the deadline as it should be to make it. Who waits for a place takes it
    from others that wait, so that a plan that waits must be sure to make it. What is much worse
    than what is wanted is tried to learn, and does not stand in for it; where load is what stands
    in the way, nor does what may be, and neither is tried: there, learning costs right answers.
    """
    quality, in_time = priced.quality, priced.in_time
    good: Sequence[int] = _permitted(policy, priced)
    if ask.min_quality > 0.0:
        good = [k for k in good if quality[k] >= ask.min_quality]
    if not good:
        raise QualityError(max(quality))
    if ask.deadline_s is None:
        return good, good
    wait_s, sure = _waits(priced, candidates), policy.deadline_confidence
    hopeless = 1.0 - sure
    if policy.promised:
        sure = min(sure, _EVEN)
    if wait_s:
        able = [k for k in good if in_time[k] > (sure if wait_s[k] > 0.0 else hopeless)]
    else:
        able = [k for k in good if in_time[k] > hopeless]
    wanted = _wanted(policy, priced, good, wait_s)
    enough = policy.downgrade_ratio * quality[wanted]
    fit = [k for k in able if quality[k] >= enough]
    if priced.capacity[wanted] > 0.0 or (wait_s and wait_s[wanted] > 0.0):
        able = fit = _proven(fit, enough, priced, candidates, wanted)
    if not fit:
        best = _highest(quality, good)
        raise DeadlineError(
            candidates,
            max(in_time[k] for k in good),
            min(priced.latency_s[k] for k in good),
            wait_s[best] if wait_s else 0.0,
            _awaited(priced, candidates, best),
        )
    return able, fit


def _awaited(priced: Menu, candidates: Candidates, k: int) -> str:
    """Name the model of plan *k* for whose place it would wait longest."""
    wait_s = candidates.wait_s or [0.0] * priced.singles
    return candidates.models[max(priced.places[k], key=wait_s.__getitem__)]


def _proven(
    fit: Sequence[int], enough: float, priced: Menu, candidates: Candidates, wanted: int
) -> list[int]:
    """Return which of the plans that are *fit* are known to be good enough to ease the load.

    What is believed may be chance while there are few outcomes, and under load it is what looks
    better than it is that is chosen. So a plan that asks models which the *wanted* one would not
    must be good *enough* even if the least known of them is worse than believed. Of models that
    both ask, both know as little, as long as both ask the best of them.
    """
    stddev, quality = candidates.quality_stddev, candidates.quality
    shared = {*priced.places[wanted]}
    best = max(shared, key=quality.__getitem__)
    found = []
    for k in fit:
        asked = priced.places[k]
        unknown = [i for i in asked if i not in shared] if best in asked else asked
        doubt = _DOUBT * max([stddev[i] for i in unknown], default=0.0)
        if k == wanted or max(priced.quality[k] - doubt, 0.0) >= enough:
            found.append(k)
    return found


def _waits(priced: Menu, candidates: Candidates) -> list[float]:
    """Return how long each plan's models let the request wait for a place, at most; (K,).

    Empty where nobody does.
    """
    wait_s = candidates.wait_s
    if not any(wait_s):
        return []
    return [max([wait_s[i] for i in asked]) for asked in priced.places]


def _wanted(policy: Policy, priced: Menu, good: Sequence[int], wait_s: list[float]) -> int:
    """Return which plan would be best if neither time nor room were short."""
    quality, in_time, capacity = priced.quality, priced.in_time, priced.capacity
    per_s, wanted, most = policy.latency_weight_per_s, -1, 0.0
    for k in good:
        # What being late costs, and room.
        worth = priced.utility[k] + quality[k] * (1.0 - in_time[k]) + capacity[k]
        if wait_s:
            worth += per_s * wait_s[k]
        if wanted < 0 or worth > most:
            wanted, most = k, worth
    return wanted


def _highest(values: list[float], some: Sequence[int]) -> int:
    """Return which of *some* has the highest of *values* (K,), the first of several."""
    found, most = -1, 0.0
    for k in some:
        if found < 0 or values[k] > most:
            found, most = k, values[k]
    return found


def _permitted(policy: Policy, priced: Menu) -> range:
    """Return which plans are of a kind that the policy permits; all, where it has none of those.

    Others than single ones are on the menu only where they are permitted.
    """
    single = not policy.plans or "single" in policy.plans or len(priced.utility) == priced.singles
    return range(0 if single else priced.singles, len(priced.utility))


def _chances(
    priced: Menu,
    candidates: Candidates,
    able: Sequence[int],
    fit: Sequence[int],
    *,
    leading: int,
    share: float,
) -> list[float]:
    """Probability of choosing each plan; (K,), sums to 1.

    *able* may be chosen, the best of them if *fit*, that is *leading*; *share* is for exploring.
    """
    chances, utility = [0.0] * len(priced.utility), priced.utility
    if share > 0.0:
        stddev = candidates.quality_stddev
        probes = candidates.probe_ratio or [0.0] * len(stddev)
        showing = _showing(priced, fit, able)
        unsure = max(sum([stddev[i] for i in showing]), 1e-12)
        for i, k in showing.items():
            chances[k] += probes[i] + share * stddev[i] / unsure
        if leading < len(stddev):
            hopeful, left = [k for k in fit if k < len(stddev)], 1.0 - sum(chances)
            for k, drawing in zip(
                hopeful, _drawing(hopeful, utility, stddev, leading), strict=True
            ):
                chances[k] += drawing * left
            return chances
    chances[leading] += 1.0 - sum(chances)
    return chances


def _drawing(
    hopeful: list[int], utility: list[float], stddev: list[float], leading: int
) -> list[float]:
    """Return the probability of each *hopeful* single model, *leading* the best of them."""
    heat = clipped(_HEAT * stddev[leading], _LEAST_HEAT, _MOST_HEAT)
    hopes = [utility[k] + _OPTIMISM * stddev[k] for k in hopeful]
    most = max(hopes)
    pulls = [exp((hope - most) / heat) for hope in hopes]
    whole = sum(pulls)
    return [pull / whole for pull in pulls]


def _showing(priced: Menu, fit: Sequence[int], able: Sequence[int]) -> dict[int, int]:
    """Return the best plan that shows how good a candidate is, by the candidate's number.

    That is the candidate alone, or an ensemble that has it answer whatever the others say: one that
    is *fit* where there is one, else of the *able*. Who may be asked neither way is left out.
    """
    shown, left = _shown(priced), priced.singles
    found: dict[int, int] = {}
    for some in (fit, able):
        for k in sorted(some, key=priced.utility.__getitem__, reverse=True):
            for i in priced.places[k][: shown[k]]:
                if i not in found:
                    found[i] = k
                    left -= 1
            if not left:
                return found
    return found


def _shown(priced: Menu) -> list[int]:
    """Return how many of a plan's models answer in any case; (K,)."""
    shown: list[int] = []
    for kind, count in priced.kinds:
        shown += [_ANSWER.get(kind, 0)] * count
    return shown
