"""One candidate on its own, as plain numbers: what it is worth and how its time is spread.

A decision weighs a few dozen plans of a few models. At that size an array costs more than the
arithmetic on it, which is why everything from here on to the choice is scalar.
"""

from math import exp, expm1, log, log1p, sqrt
from typing import Final

from router_svc.core.clip import clipped
from router_svc.core.types import Candidates

_Z90: Final = 1.2816
"""The 90 % quantile of the standard normal distribution."""
_MAX_SIGMA: Final = 1.5
"""A cold latency model is unsure, not infinitely slow."""
_SHORTEST_S: Final = 1e-6


class Option:
    """One candidate. Nobody changes it; a plain class is what a compiler makes fast."""

    __slots__ = (
        "capacity",
        "cost_usd",
        "in_time",
        "mean_s",
        "median_s",
        "place",
        "quality",
        "sigma",
        "variance_s2",
        "worth",
    )

    def __init__(
        self,
        *,
        place: int,
        quality: float,
        mean_s: float,
        cost_usd: float,
        capacity: float,
        in_time: float,
        worth: float,
        variance_s2: float,
        median_s: float,
        sigma: float,
    ) -> None:
        self.place = place
        """Its number among the candidates."""
        self.quality = quality
        self.mean_s = mean_s
        """Expected time of a whole answer."""
        self.cost_usd = cost_usd
        self.capacity = capacity
        """What a call takes from others, in units of quality."""
        self.in_time = in_time
        """Probability of finishing before the deadline."""
        self.worth = worth
        """Utility of asking this candidate alone."""
        self.variance_s2 = variance_s2
        self.median_s = median_s
        self.sigma = sigma
        """Standard deviation of the logarithm of its time."""


def options(candidates: Candidates, rates: list[float], deadline_s: float | None) -> list[Option]:
    """Fit lognormals through every candidate's predicted median and 90th percentile.

    *rates*: what a unit of quality, of latency, of cost and of capacity is worth.
    """
    of_quality, of_latency, of_cost, of_capacity = rates
    log_deadline = log_of(deadline_s)
    p50s_s, p90s_s = candidates.total_p50_s, candidates.total_p90_s
    costs_usd, capacities = candidates.cost_usd, candidates.capacity_price
    found = []
    for place, quality in enumerate(candidates.quality):
        cost_usd, capacity = costs_usd[place], capacities[place]
        median_s = max(p50s_s[place], _SHORTEST_S)
        slower = p90s_s[place] / median_s
        sigma = clipped(log(slower) / _Z90, 1e-3, _MAX_SIGMA) if slower > 1.0 else 1e-3
        variance = sigma * sigma
        mean_s = median_s * exp(0.5 * variance)
        sure = in_time(log(median_s), sigma, log_deadline)
        worth = of_quality * quality * sure + of_latency * mean_s
        worth = worth + of_cost * cost_usd + of_capacity * capacity
        found.append(
            Option(
                place=place,
                quality=quality,
                mean_s=mean_s,
                cost_usd=cost_usd,
                capacity=capacity,
                in_time=sure,
                worth=worth,
                variance_s2=mean_s * mean_s * expm1(variance),
                median_s=median_s,
                sigma=sigma,
            )
        )
    return found


def best(found: list[Option], count: int) -> list[Option]:
    """Return the *count* options that are worth most, best first."""
    return sorted(found, key=_worth, reverse=True)[:count]


def log_of(deadline_s: float | None) -> float | None:
    """Return the logarithm of *deadline_s*, to ask often whether there is time; None for None."""
    return None if deadline_s is None else log(max(deadline_s, _SHORTEST_S))


def in_time(log_median: float, sigma: float, log_deadline: float | None) -> float:
    """Return the probability that a lognormal time is below a deadline; 1 without one."""
    if log_deadline is None:
        return 1.0
    return cumulative((log_deadline - log_median) / sigma)


def both_in_time(one: Option, two: Option, log_deadline: float | None) -> float:
    """Do so for one after the other: a lognormal of the sum's two moments (Fenton, 1960)."""
    if log_deadline is None:
        return 1.0
    mean_s = one.mean_s + two.mean_s
    squared = log1p((one.variance_s2 + two.variance_s2) / (mean_s * mean_s))
    return in_time(log(mean_s) - 0.5 * squared, sqrt(squared), log_deadline)


def _worth(option: Option) -> float:
    return option.worth


def cumulative(z: float) -> float:
    """Return the normal distribution function to 2e-4."""
    z = -6.0 if z < -6.0 else 6.0 if z > 6.0 else z  # noqa: PLR2004, FURB136 - dozens a decision
    return 1.0 / (1.0 + exp(-z * (1.5976 + 0.070566 * z * z)))
