"""Every plan worth considering, and what each is worth: the menu that a decision chooses from.

N = candidates, K = plans, the single ones first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Final

from router_svc.core.clip import clipped
from router_svc.core.option import Option, best, both_in_time, log_of, options
from router_svc.core.plan import VERIFIER, BestOf, Cascade, Hedge, Plan, Refine, Single, Vote
from router_svc.core.price import PRICERS, Priced, View
from router_svc.core.scorers import SCORERS
from router_svc.core.types import Candidates, Policy

_ENSEMBLE_POOL: Final = 6
"""Only the best few single models are combined; pairs and triples of many would cost more time
than they could win."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """Every plan that was priced, single models first, in the candidates' order."""

    kinds: tuple[tuple[str, int], ...]
    """Each kind of plan in order, and how many there are of it."""
    quality: tuple[float, ...]
    """(K,) Expected."""
    latency_s: tuple[float, ...]
    """(K,) Expected."""
    cost_usd: tuple[float, ...]
    """(K,) Expected."""
    capacity: tuple[float, ...]
    """(K,) What each takes from other requests, in units of quality."""
    in_time: tuple[float, ...]
    """(K,) Probability of finishing before the deadline."""
    places: tuple[tuple[int, ...], ...]
    """(K,) Who is asked, in order: numbers of candidates."""
    settings: tuple[float, ...]
    """(K,) What a cascade accepts from, or the seconds after which a hedge asks its backup."""
    utility: Sequence[float]
    """(K,) An answer that comes too late is worth nothing."""
    models: tuple[str, ...]
    """(N,) Names of the candidates."""
    verifier: str
    """What scores in plans of best-of, where it is no model."""

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
    found = options(candidates, policy, deadline_s)
    singles: list[Priced] = [
        (o.quality, o.mean_s, o.cost_usd, o.capacity, o.in_time, (o.place,), 0.0) for o in found
    ]
    blocks = {"single": singles}
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
                blocks[kind] = _gained(price(pool, view), gains.get(kind, 0.0))
    plans = list(chain.from_iterable(blocks.values()))
    quality, latency_s, cost_usd, capacity, in_time, places, settings = zip(*plans, strict=True)
    of_quality, of_latency, of_cost, of_capacity = rates(policy)
    return Menu(
        kinds=tuple([(kind, len(block)) for kind, block in blocks.items()]),
        quality=quality,
        latency_s=latency_s,
        cost_usd=cost_usd,
        capacity=capacity,
        in_time=in_time,
        places=places,
        settings=settings,
        utility=[
            of_quality * q * sure + of_latency * s + of_cost * usd + of_capacity * c
            for q, s, usd, c, sure, _, _ in plans
        ],
        models=candidates.models,
        verifier=policy.verifier,
    )


def rates(policy: Policy) -> list[float]:
    """Return what a unit of each of a plan's first figures adds to its utility."""
    return [score(policy) for score in SCORERS.values()]


def _both_in_time(
    pool: Sequence[Option], log_deadline: float | None
) -> Mapping[tuple[int, int], float]:
    found = {}
    for one, two in combinations(pool, 2):
        sure = both_in_time(one, two, log_deadline)
        found[one.place, two.place] = found[two.place, one.place] = sure
    return found


def _gained(block: list[Priced], gain: float) -> list[Priced]:
    if gain == 0.0:
        return block
    return [(clipped(plan[0] + gain, 0.0, 1.0), *plan[1:]) for plan in block]
