"""How good routing is on a table of real outcomes: the field's figures, from plain arrays.

N = prompts, M = models, K = points of a curve. A score is in [0, 1], or NaN where the model was
not run on the prompt; such a model is no candidate there, and no average counts it. Every prompt
has at least one score, and so has every model.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]
Bools: TypeAlias = NDArray[np.bool_]

SHARES: Final = np.linspace(0.0, 1.0, 11)
"""Shares of prompts that go to the strong model, at which a pair is measured."""

_COVERAGE: Final = 0.9


def single_quality(scores: Floats) -> Floats:
    """Mean score of each model (M,), over the prompts that it was run on."""
    mean: Floats = np.nanmean(scores, axis=0)
    return mean


def comparable(scores: Floats) -> Bools:
    """Which models (M,) stand beside others as policies: run on about as many prompts as the most.

    The mean of a model that was only run on easy prompts is not what it would do on all.
    """
    run = (~np.isnan(scores)).sum(axis=0)
    enough: Bools = run >= _COVERAGE * run.max()
    return enough


def random_quality(scores: Floats) -> float:
    """Expected score of a model drawn evenly among those that were run on the prompt."""
    return float(np.nanmean(scores, axis=1).mean())


def oracle_quality(scores: Floats) -> float:
    """Mean of the best score that any model has on each prompt."""
    return float(np.nanmax(scores, axis=1).mean())


def chosen(value: Floats, scores: Floats) -> Ints:
    """Per prompt the model of highest *value* (N, M) among those run, the first of equals; (N,)."""
    best: Ints = np.where(np.isnan(scores), -np.inf, value).argmax(axis=1)
    return best


def taken(table: Floats, models: Ints) -> Floats:
    """What *table* (N, M) says of the model that was chosen for each prompt; (N,)."""
    return np.take_along_axis(table, models[:, None], axis=1)[:, 0]


def folds(groups: Ints, count: int, rng: np.random.Generator) -> Ints:
    """Deal prompts to *count* folds at random; those of one group (N,) share a fold."""
    order = rng.permutation(int(groups.max()) + 1)
    fold: Ints = order[groups] % count
    return fold


def hull(cost: Floats, quality: Floats) -> tuple[Floats, Floats]:
    """Return the non-decreasing upper convex hull of points (K,), by rising cost.

    Any of its points can be had by drawing between two policies (the "Zero router").
    """
    kept: list[int] = []
    for i in np.lexsort((-quality, cost)).tolist():
        if kept and quality[i] <= quality[kept[-1]]:
            continue
        while len(kept) > 1 and not _bends_down(cost, quality, kept[-2], kept[-1], i):
            kept.pop()
        kept.append(i)
    return cost[kept], quality[kept]


def aiq(cost: Floats, quality: Floats, low: float, high: float) -> float:
    """Average quality of the hull of points (K,) over costs from *low* to *high*.

    RouterBench's Average Improvement in Quality (Hu et al., 2024). Where nothing is as cheap as
    *low*, the cheapest point counts from there. Equal bounds: the best quality.
    """
    x, y = hull(cost, quality)
    if high <= low:
        return float(y[-1])
    inner = x[(x > low) & (x < high)]
    grid = np.concatenate([[low], inner, [high]])
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low))


def tradeoff(
    predicted: Floats, expected_cost: Floats, scores: Floats, costs: Floats
) -> tuple[Floats, Floats]:
    """Mean cost and quality (K,) of choosing by predicted quality less priced cost, price by price.

    *expected_cost* (N, M) is what was known beforehand, *costs* (N, M) what each answer came to.
    """
    span = float(np.ptp(expected_cost)) or 1.0
    prices = np.concatenate([[0.0], np.geomspace(1e-4, 1e6, 81)]) / span
    picks = [chosen(predicted - price * expected_cost, scores) for price in prices]
    return (
        np.array([taken(costs, pick).mean() for pick in picks]),
        np.array([taken(scores, pick).mean() for pick in picks]),
    )


def recovered(gap: Floats, weak: Floats, strong: Floats) -> Floats:
    """Performance gap recovered (PGR) at each of SHARES.

    The prompts with the largest predicted *gap* (N,) go to the strong model. 0 is the weak
    model's quality, 1 the strong one's (Ong et al., RouteLLM, 2024). NaN where both are equal.
    """
    order = np.argsort(-gap, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((strong - weak)[order])])
    if gained[-1] == 0.0:
        return np.full(len(SHARES), np.nan)
    curve: Floats = gained[np.rint(SHARES * len(gap)).astype(np.intp)] / gained[-1]
    return curve


def apgr(pgr: Floats) -> float:
    """Area under PGR over SHARES: 0.5 at random, 1 would be the strong model throughout."""
    return float(np.trapezoid(pgr, SHARES))


def call_share(pgr: Floats, level: float) -> float:
    """Share of strong calls where PGR first reaches *level*, between deciles linear (CPT)."""
    if np.isnan(pgr).any():
        return float("nan")
    reached = int(np.argmax(pgr >= level))
    if reached == 0:
        return float(SHARES[0])
    before, after = pgr[reached - 1], pgr[reached]
    step = SHARES[reached] - SHARES[reached - 1]
    return float(SHARES[reached - 1] + step * (level - before) / (after - before))


def calibration(predicted: Floats, scores: Floats, bins: int = 10) -> tuple[Floats, Floats, Floats]:
    """Return per bin of equal width: outcomes, mean prediction and mean score; (bins,) each.

    Empty bins have means of 0.
    """
    seen = ~np.isnan(scores)
    p, y = predicted[seen], scores[seen]
    index = np.minimum((p * bins).astype(np.intp), bins - 1)
    count, p_sum, y_sum = (
        np.bincount(index, weights=w, minlength=bins).astype(np.float64)
        for w in (np.ones(len(p)), p, y)
    )
    share = np.maximum(count, 1.0)
    return count, p_sum / share, y_sum / share


def calibration_error(predicted: Floats, scores: Floats, bins: int = 10) -> float:
    """Expected calibration error (ECE): |mean prediction - mean score|, weighted by outcomes."""
    count, p, y = calibration(predicted, scores, bins)
    return float(count @ np.abs(p - y) / max(count.sum(), 1.0))


def _bends_down(x: Floats, y: Floats, a: int, b: int, c: int) -> bool:
    """Whether point *b* is above the line from *a* to *c*."""
    return bool((y[b] - y[a]) * (x[c] - x[a]) > (y[c] - y[a]) * (x[b] - x[a]))
