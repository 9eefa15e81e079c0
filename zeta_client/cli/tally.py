"""What a run of known-answer prompts amounts to: accuracy and latency, routed and alone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One answer, judged."""

    right: bool
    plan: str
    model: str
    ttft_s: float
    total_s: float
    tokens: int


def accuracy(results: Sequence[Result]) -> float:
    """Return the share of right answers, 0 of none."""
    return sum(r.right for r in results) / len(results) if results else 0.0


def oracle(singles: Mapping[str, Sequence[Result]]) -> float:
    """Return the share of prompts that at least one model alone answers right."""
    columns = list(zip(*singles.values(), strict=True))
    return sum(any(r.right for r in column) for column in columns) / max(len(columns), 1)


def captured(routed: float, best_single: float, best_possible: float) -> float:
    """Return how far *routed* is on the way from the best single model to the oracle.

    1 is the oracle; where there is no way to go, 1 unless routing fell behind.
    """
    if best_possible <= best_single:
        return 1.0 if routed >= best_single else 0.0
    return (routed - best_single) / (best_possible - best_single)


def quantile_s(results: Sequence[Result], q: float) -> float:
    """Return a quantile of the times to first token, 0 of none."""
    return float(np.quantile([r.ttft_s for r in results], q)) if results else 0.0


def last_third(results: Sequence[Result]) -> Sequence[Result]:
    """Return the results of the last third of the prompts."""
    return results[len(results) - len(results) // 3 :]


def standing(routed: Sequence[Result], singles: Mapping[str, Sequence[Result]]) -> dict[str, float]:
    """Return routed, best single and oracle accuracy on the same prompts, and what is captured."""
    best, most = max(accuracy(results) for results in singles.values()), oracle(singles)
    return {
        "routed": accuracy(routed),
        "best_single": best,
        "oracle": most,
        "captured": captured(accuracy(routed), best, most),
    }


def summary(routed: Sequence[Result], singles: Mapping[str, Sequence[Result]]) -> dict[str, Any]:
    """Return the object of `zeta demo --json`; prompts are in the order they were asked."""
    alone = {name: accuracy(results) for name, results in singles.items()}
    return {
        "prompts": len(routed),
        "accuracy": {"routed": accuracy(routed), **alone, "oracle": oracle(singles)},
        "ttft_s": {"p50": quantile_s(routed, 0.5), "p99": quantile_s(routed, 0.99)},
        "by_model": {
            name: {
                **figures([r for r in routed if r.model == name]),
                "alone": figures(results),
            }
            for name, results in singles.items()
        },
        "by_plan": grouped(routed, lambda r: r.plan),
        "last_third": standing(
            last_third(routed), {name: last_third(results) for name, results in singles.items()}
        ),
    }


def grouped(results: Sequence[Result], key: Callable[[Result], str]) -> dict[str, Any]:
    """Return the figures of the results that share a key, the largest group first."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    ordered = sorted(groups.items(), key=lambda group: -len(group[1]))
    return {name: figures(group) for name, group in ordered}


def figures(results: Sequence[Result]) -> dict[str, float]:
    """Return how many answers there are, how many right, how fast: zeros of none."""
    return {
        "answers": len(results),
        "accuracy": accuracy(results),
        "ttft_p50_s": quantile_s(results, 0.5),
        "ttft_p99_s": quantile_s(results, 0.99),
        "tokens_per_s": sum(r.tokens for r in results) / max(sum(r.total_s for r in results), 1e-9),
    }
