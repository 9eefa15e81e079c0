"""What another policy would have scored, from decisions that were made under this one.

Every decision carries the exact probability with which it was chosen (its propensity), so that
outcomes can be weighed by how much likelier the other policy would have chosen the same. Intervals
are normal approximations from the variance of the terms. N = decisions with a score.

* IPS, inverse propensity scoring (Horvitz and Thompson, 1952): unbiased, of large variance.
* SNIPS, self-normalised (Swaminathan and Joachims, 2015): weights made to average one.
* DR, doubly robust (Dudík, Langford and Li, 2011): predicted quality, corrected by what weighs.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from router_svc.core.types import Floats

Z95: Final = 1.959964
_FEW: Final = 50.0
_SHARE: Final = 0.1
_SUPPORT: Final = 0.95
_HEAVY: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """Decisions with their scores, and what the other policy makes of them; arrays (N,)."""

    score: Floats
    """Of the answer that was given, in [0, 1]."""
    weight: Floats
    """The other policy's probability of the plan that was run, over that with which it was."""
    expected: Floats
    """Predicted quality of the plan that was run."""
    other_expected: Floats
    """Predicted quality under the other policy, over all its plans."""
    support: Floats
    """Probability that the other policy chooses a plan that could have been run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean score with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All that can be said of the other policy."""

    decisions: int
    logged: Estimate
    """What was really scored."""
    ips: Estimate
    snips: Estimate
    dr: Estimate
    effective: float
    """Decisions that would say as much under the other policy itself (Kish, 1965)."""
    largest_weight: float
    support: float
    """Share of the other policy's choices that could have been seen."""
    warnings: tuple[str, ...]


def evaluate(logged: Logged) -> Evaluation:
    """Estimate the other policy's mean score. Raises ValueError without any decision."""
    if not len(logged.score):
        raise ValueError("no decision has a score")
    w, r = logged.weight, logged.score
    effective = float(w.sum() ** 2 / max((w**2).sum(), 1e-300))
    support = float(logged.support.mean())
    largest = float(w.max())
    return Evaluation(
        decisions=len(r),
        logged=_mean(r),
        ips=_mean(w * r),
        snips=_ratio(w, r),
        dr=_mean(logged.other_expected + w * (r - logged.expected)),
        effective=effective,
        largest_weight=largest,
        support=support,
        warnings=tuple(_warnings(w, effective, support)),
    )


def _mean(terms: Floats) -> Estimate:
    """Estimate a mean; of one term, nothing is known about its error."""
    n = len(terms)
    error = float(terms.std(ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
    return _around(float(terms.mean()), error)


def _ratio(w: Floats, r: Floats) -> Estimate:
    """Estimate Σwr / Σw, its error by the delta method."""
    total = float(w.sum())
    if total == 0.0:
        return Estimate(value=0.0, low=float("-inf"), high=float("inf"))
    value = float((w * r).sum() / total)
    n = len(w)
    spread = float(np.sqrt((w**2 * (r - value) ** 2).sum() * n / max(n - 1, 1)))
    return _around(value, spread / total)


def _around(value: float, error: float) -> Estimate:
    return Estimate(value=value, low=value - Z95 * error, high=value + Z95 * error)


def _warnings(w: Floats, effective: float, support: float) -> list[str]:
    """Say where the decisions overlap too little to carry the estimates."""
    found = []
    if effective < max(_FEW, _SHARE * len(w)):
        found.append(
            f"the {len(w)} decisions say as much as {effective:.0f}: wait for more, or explore more"
        )
    if support < _SUPPORT:
        found.append(
            f"{1.0 - support:.0%} of the policy's choices could never have been seen: there IPS "
            "and SNIPS are biased, and DR believes the predictions"
        )
    if w.sum() > 0.0 and w.max() > _HEAVY * w.sum():
        found.append(f"one decision carries {w.max() / w.sum():.0%} of all weight")
    return found
