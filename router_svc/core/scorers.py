"""Scorers turn the figures of K plans into terms of their utility, which is the sum of them all.

Laws, held by `tests/laws/test_scorers.py`: a scorer returns one finite term per plan, judges
each plan alone, gives nothing for a figure of zero, and goes one way only: more quality never
lowers utility; more latency, cost or capacity never raises it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

from router_svc.core.types import Floats, Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What K plans are expected to do; arrays (K,)."""

    quality: Floats
    latency_s: Floats
    cost_usd: Floats
    capacity: Floats
    """What the plan takes from other requests, in units of quality."""
    deadline_probability: Floats


Scorer: TypeAlias = Callable[[Figures, Policy], Floats]


def quality(figures: Figures, policy: Policy) -> Floats:
    """Expected quality itself is the unit of utility; an answer that comes too late has none."""
    del policy
    return figures.quality * figures.deadline_probability


def latency(figures: Figures, policy: Policy) -> Floats:
    """Expected seconds at their price."""
    return -policy.latency_weight_per_s * figures.latency_s


def cost(figures: Figures, policy: Policy) -> Floats:
    """Expected dollars at their price."""
    return -policy.cost_weight_per_usd * figures.cost_usd


def capacity(figures: Figures, policy: Policy) -> Floats:
    """Capacity at its shadow price."""
    del policy
    return -figures.capacity


SCORERS: Final[Mapping[str, Scorer]] = {s.__name__: s for s in (quality, latency, cost, capacity)}
