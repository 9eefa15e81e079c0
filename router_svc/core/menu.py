"""Every plan worth considering, and what each is worth: the menu that a decision chooses from.

N = candidates, K = plans, the single ones first.
"""

from collections.abc import Mapping
from typing import Final

from router_svc.core.option import Option, best, both_in_time, log_of, options
from router_svc.core.plan import VERIFIER, BestOf, Cascade, Hedge, Plan, Refine, Single, Vote
from router_svc.core.plans import Plans
from router_svc.core.price import PRICERS, View
from router_svc.core.scorers import SCORERS
from router_svc.core.types import Candidates, Policy

_ENSEMBLE_POOL: Final = 6
"""Only the best few single models are combined; pairs and triples of many would cost more time
than they could win."""


class Menu:
    """Every plan that was priced, single models first, in the candidates' order.

    A plain class, which a compiler makes fast; nobody changes it.
    """

    __slots__ = (
        "capacity",
        "cost_usd",
        "in_time",
        "kinds",
        "latency_s",
        "models",
        "places",
        "quality",
        "settings",
        "utility",
        "verifier",
    )

    def __init__(
        self,
        plans: Plans,
        *,
        kinds: list[tuple[str, int]],
        models: tuple[str, ...],
        verifier: str,
    ) -> None:
        self.kinds = kinds
        """Each kind of plan in order, and how many there are of it."""
        self.models = models
        """(N,) Names of the candidates."""
        self.verifier = verifier
        """What scores in plans of best-of, where it is no model."""
        # As in `Plans`, (K,).
        self.quality = plans.quality
        self.latency_s = plans.latency_s
        self.cost_usd = plans.cost_usd
        self.capacity = plans.capacity
        self.in_time = plans.in_time
        self.places = plans.places
        self.settings = plans.settings
        self.utility = plans.utility

    def kind(self, k: int) -> str:
        """Return the kind of plan number *k*."""
        for kind, count in self.kinds:
            if k < count:
                return kind
            k -= count
        raise IndexError(k)

    @property
    def singles(self) -> int:
        """How many single models there are: N."""
        return len(self.models)

    def plan(self, k: int) -> Plan:
        """Build plan number *k*."""
        names, setting = tuple([self.models[i] for i in self.places[k]]), self.settings[k]
        match self.kind(k):
            case "single":
                return Single(names[0])
            case "cascade":
                return Cascade(names[0], names[1], setting)
            case "refine":
                return Refine(names[0], names[1])
            case "hedge":
                return Hedge(names[0], names[1], setting)
            case "best_of":
                return self._best_of(names)
            case _:
                return Vote(names)

    def _best_of(self, names: tuple[str, ...]) -> BestOf:
        drawn, scorer = names[:-1], names[-1]
        if self.verifier:
            drawn, scorer = names, f"{VERIFIER}{self.verifier}"
        return BestOf(tuple(dict.fromkeys(drawn)), len(drawn), scorer)


def menu(
    candidates: Candidates, policy: Policy, deadline_s: float | None, gains: Mapping[str, float]
) -> Menu:
    """Enumerate and price the plans of the kinds that the policy permits, and the single ones.

    *gains*: kind of plan to what its quality proved to be above (or below) the assumptions'.
    """
    worth = rates(policy)
    found, plans = options(candidates, worth, deadline_s), Plans(worth)
    for o in found:
        plans.add(o.quality, o.mean_s, o.cost_usd, o.capacity, o.in_time, (o.place,), 0.0)
    kinds = [("single", len(found))]
    if policy.max_calls > 1:
        pool, log_deadline = best(found, _ENSEMBLE_POOL), log_of(deadline_s)
        view = View(
            candidates=candidates,
            both_in_time=_both_in_time(pool, log_deadline),
            policy=policy,
            deadline_s=deadline_s,
            log_deadline=log_deadline,
        )
        for kind, price in PRICERS.items():
            if not policy.plans or kind in policy.plans:
                before = len(plans.utility)
                plans.gain(gains.get(kind, 0.0))
                price(pool, view, plans)
                kinds.append((kind, len(plans.utility) - before))
    return Menu(plans, kinds=kinds, models=candidates.models, verifier=policy.verifier)


def rates(policy: Policy) -> list[float]:
    """Return what a unit of each of a plan's first figures adds to its utility."""
    return [score(policy) for score in SCORERS.values()]


def _both_in_time(pool: list[Option], log_deadline: float | None) -> list[list[float]]:
    found = [[1.0] * len(pool) for _ in pool]
    for i, one in enumerate(pool):
        for j in range(i):
            found[i][j] = found[j][i] = both_in_time(one, pool[j], log_deadline)
    return found
