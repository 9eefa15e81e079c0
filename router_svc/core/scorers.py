"""Scorers say what one unit of a plan's figure adds to its utility, which is the sum over them all.

Utility is linear because it is an expectation: what a plan takes on average is worth what it takes
each time, on average. Laws, held by `tests/laws/test_scorers.py`: a scorer looks at the policy
alone, is finite, and goes one way only: more quality never lowers utility; more latency, cost or
capacity never raises it.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from router_svc.core.types import Policy

Scorer: TypeAlias = Callable[[Policy], float]


def quality(policy: Policy) -> float:
    """Expected quality, in time, itself is the unit of utility."""
    del policy
    return 1.0


def latency(policy: Policy) -> float:
    """Price an expected second."""
    return -policy.latency_weight_per_s


def cost(policy: Policy) -> float:
    """Price an expected dollar."""
    return -policy.cost_weight_per_usd


def capacity(policy: Policy) -> float:
    """Capacity comes at its shadow price, in units of quality."""
    del policy
    return -1.0


SCORERS: Final[Mapping[str, Scorer]] = {s.__name__: s for s in (quality, latency, cost, capacity)}
"""In the order of the figures that `price.Priced` begins with."""
