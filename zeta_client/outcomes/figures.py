"""What a table of outcomes amounts to: the figures of `zeta eval outcomes`."""

from dataclasses import dataclass

import numpy as np

from router_svc.core import evaluate
from router_svc.core.evaluate import Floats
from zeta_client.outcomes.replay import Folded, Online
from zeta_client.outcomes.table import Outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Quality against cost; points (K,) each."""

    cost: Floats
    quality: Floats
    singles: tuple[str, ...]
    """Models that were run on enough prompts to be compared."""
    single_cost: Floats
    """Their mean costs."""
    single_quality: Floats
    """Their mean scores."""


def curves(table: Outcomes, found: Folded) -> Curves:
    """Return what routing costs and gives, price by price, and what each model does alone."""
    cost, quality = evaluate.tradeoff(
        found.predicted, found.expected_cost, table.scores, table.costs
    )
    run = np.where(np.isnan(table.scores), np.nan, table.costs)
    beside = evaluate.comparable(table.scores)
    return Curves(
        cost=cost,
        quality=quality,
        singles=tuple(m for m, fair in zip(table.models, beside.tolist(), strict=True) if fair),
        single_cost=np.nanmean(run, axis=0)[beside],
        single_quality=evaluate.single_quality(table.scores)[beside],
    )


def summary(
    table: Outcomes, found: Folded, passed: Online, shape: Curves
) -> dict[str, float | int | str | None]:
    """Return the figures by their keys; None where one is not defined."""
    single = shape.single_quality
    low, high = float(shape.single_cost.min()), float(shape.single_cost.max())
    routed = evaluate.taken(table.scores, evaluate.chosen(found.predicted, table.scores))
    last = passed.scores[len(passed.scores) * 3 // 4 :]
    return {
        "n": len(table.prompts),
        "random": evaluate.random_quality(table.scores),
        "best_single": float(single.max()),
        "best_single_model": shape.singles[int(single.argmax())],
        "oracle": evaluate.oracle_quality(table.scores),
        "routed_cv": float(routed.mean()),
        "online_mean": float(passed.scores.mean()),
        "online_last_quarter": float(last.mean()),
        "aiq": evaluate.aiq(shape.cost, shape.quality, low, high),
        "aiq_zero": evaluate.aiq(shape.single_cost, single, low, high),
        **_pair(table, found),
        "decisions_per_s": len(passed.scores) / passed.total_s,
        "p50_ms": float(np.quantile(passed.decision_s, 0.5)) * 1e3,
        "p99_ms": float(np.quantile(passed.decision_s, 0.99)) * 1e3,
    }


def _pair(table: Outcomes, found: Folded) -> dict[str, float | None]:
    """Return what is measured of two models, on the prompts that both were run on."""
    if len(table.models) != 2:  # noqa: PLR2004 - a pair
        return {}
    both = ~np.isnan(table.scores).any(axis=1)
    scores, predicted = table.scores[both], found.predicted[both]
    if not both.any():
        return {"apgr": None, "cpt50": None, "cpt80": None}
    weak, strong = np.argsort(scores.mean(axis=0), kind="stable").tolist()
    gap = predicted[:, strong] - predicted[:, weak]
    pgr = evaluate.recovered(gap, scores[:, weak], scores[:, strong])
    figures = {
        "apgr": evaluate.apgr(pgr),
        "cpt50": evaluate.call_share(pgr, 0.5),
        "cpt80": evaluate.call_share(pgr, 0.8),
    }
    return {key: None if np.isnan(value) else value for key, value in figures.items()}
