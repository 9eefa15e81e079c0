"""What a run of load came to. Pure.

A request is *good* if it was answered within the objective, counted from when it was due. Goodput
is good requests per second of the run; of those whose answer can be judged, also how many were
right.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zeta_client.load.send import OK, Result

_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """Service-level objective; None: no limit."""

    ttft_s: float | None = None
    total_s: float | None = None

    def met(self, result: Result) -> bool:
        """Whether *result* is an answer within the limits."""
        return (
            result.status == OK
            and (self.ttft_s is None or result.ttft_s <= self.ttft_s)
            and (self.total_s is None or result.total_s <= self.total_s)
        )


def summary(results: Sequence[Result], objective: Objective, duration_s: float) -> dict[str, Any]:
    """Return the figures of one run, in all and by kind, class, tenant and model."""
    found = _figures(results, objective, duration_s)
    late = [r.late_s for r in results]
    back = [r for r in results if r.returns]
    ended_s = max((r.at_s + r.total_s for r in results if r.status == OK), default=duration_s)
    return {
        **found,
        "answered_per_s": found["answered"] / max(ended_s, duration_s),
        "offered_per_s": len(results) / duration_s,
        "generator_late_s": quantiles(late),
        "returned": len(back),
        "returned_good": sum(objective.met(r) for r in back),
        "returned_after_s": quantiles([r.back_after_s for r in back]),
        "by_kind": _grouped(results, objective, duration_s, lambda r: r.kind),
        "by_priority": _grouped(results, objective, duration_s, lambda r: r.priority),
        "by_tenant": _grouped(results, objective, duration_s, lambda r: r.tenant),
        "by_plan": dict(
            Counter(r.plan.partition("(")[0] for r in results if r.status == OK).most_common()
        ),
    }


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Return the median and two high quantiles, None of nothing."""
    if not values:
        return dict.fromkeys(_QUANTILES)
    return {name: float(np.quantile(values, q)) for name, q in _QUANTILES.items()}


def _figures(results: Sequence[Result], objective: Objective, duration_s: float) -> dict[str, Any]:
    answered = [r for r in results if r.status == OK]
    good = [r for r in answered if objective.met(r)]
    judged = [r for r in answered if r.right is not None]
    right = sum(bool(r.right) for r in judged)
    return {
        "requests": len(results),
        "answered": len(answered),
        "good": len(good),
        "goodput_per_s": len(good) / duration_s,
        "good_ratio": len(good) / max(len(results), 1),
        "right_ratio": right / len(judged) if judged else None,
        "good_and_right_per_s": sum(bool(r.right) for r in good) / duration_s if judged else None,
        "shed": dict(Counter(r.status for r in results if r.status != OK).most_common()),
        "by_model": dict(Counter(r.model for r in answered).most_common()),
        "mean_tokens": sum(r.tokens for r in answered) / max(len(answered), 1),
        "ttft_s": quantiles([r.ttft_s for r in answered]),
        "total_s": quantiles([r.total_s for r in answered]),
    }


def _grouped(
    results: Sequence[Result],
    objective: Objective,
    duration_s: float,
    key: Callable[[Result], str],
) -> Mapping[str, Any]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return {name: _figures(groups[name], objective, duration_s) for name in sorted(groups)}
