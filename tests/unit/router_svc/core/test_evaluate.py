"""The figures of routing on outcome tables, against closed forms."""

import numpy as np
import pytest

from router_svc.core import evaluate

NAN = float("nan")
SCORES = np.array([[1.0, 0.0, NAN], [0.0, 1.0, 1.0], [0.5, NAN, 0.0], [1.0, 1.0, 0.0]])


def test_averages_count_only_models_that_were_run() -> None:
    """A missing score is neither a failure nor a candidate."""
    np.testing.assert_allclose(evaluate.single_quality(SCORES), [2.5 / 4, 2 / 3, 1 / 3])
    assert evaluate.oracle_quality(SCORES) == (1 + 1 + 0.5 + 1) / 4
    assert evaluate.random_quality(SCORES) == pytest.approx((1 / 2 + 2 / 3 + 1 / 4 + 2 / 3) / 4)


def test_a_model_run_on_few_prompts_is_not_comparable() -> None:
    """Nine tenths of what the most-run model has is enough, less is not."""
    scores = np.zeros((20, 3))
    scores[:2, 1] = scores[:3, 2] = NAN

    assert evaluate.comparable(scores).tolist() == [True, True, False]
    assert evaluate.comparable(scores[:2, :1]).tolist() == [True]


def test_a_model_that_was_not_run_is_not_chosen() -> None:
    """The best among those that were run is, and of equals the first."""
    value = np.array([[0.1, 0.2, 0.9], [0.5, 0.5, 0.5], [0.0, 0.9, 0.1], [0.0, 0.0, 1.0]])
    models = evaluate.chosen(value, SCORES)

    assert models.tolist() == [1, 0, 2, 2]
    assert evaluate.taken(SCORES, models).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_folds_are_even_and_keep_equal_prompts_together() -> None:
    """Every fold has its share, and a group is never split; the seed decides which."""
    groups = np.concatenate([np.arange(100), np.arange(20)])
    fold = evaluate.folds(groups, 5, np.random.default_rng(3))

    assert (fold[:20] == fold[100:]).all()
    assert np.bincount(fold[:100]).tolist() == [20] * 5
    assert (evaluate.folds(groups, 5, np.random.default_rng(3)) == fold).all()
    assert (evaluate.folds(groups, 5, np.random.default_rng(4)) != fold).any()


def test_the_hull_leaves_out_what_mixing_beats() -> None:
    """Points under a line between two others, and dearer ones that are worse, are no part of it."""
    cost = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    quality = np.array([0.2, 0.3, 0.8, 0.7, 0.9])
    x, y = evaluate.hull(cost, quality)

    assert x.tolist() == [0.0, 2.0, 4.0]
    assert y.tolist() == [0.2, 0.8, 0.9]


def test_of_equally_dear_points_the_best_counts() -> None:
    """A vertical step has no lower end."""
    x, y = evaluate.hull(np.array([1.0, 1.0, 2.0]), np.array([0.1, 0.5, 0.6]))

    assert (x.tolist(), y.tolist()) == ([1.0, 2.0], [0.5, 0.6])


def test_aiq_of_two_models_is_their_mean() -> None:
    """Drawing between two models gives a line, whose average is that of its ends."""
    assert evaluate.aiq(np.array([1.0, 3.0]), np.array([0.4, 0.8]), 1.0, 3.0) == pytest.approx(0.6)


def test_aiq_stays_at_the_best_beyond_it_and_is_scaled_by_the_range() -> None:
    """(½·1·(0.4 + 0.8) + 3·0.8) / 4: what is dearer than the best is never bought."""
    cost, quality = np.array([0.0, 1.0, 4.0]), np.array([0.4, 0.8, 0.5])

    assert evaluate.aiq(cost, quality, 0.0, 4.0) == pytest.approx((0.6 + 2.4) / 4)
    assert evaluate.aiq(cost, quality, 2.0, 2.0) == 0.8


def test_the_tradeoff_runs_from_the_best_to_the_cheapest() -> None:
    """A free choice takes the best predictions; at the highest price the cheapest model answers."""
    scores = np.array([[0.0, 1.0], [1.0, 1.0]])
    costs = np.tile([1.0, 5.0], (2, 1))
    cost, quality = evaluate.tradeoff(np.array([[0.1, 0.9], [0.8, 0.9]]), costs, scores, costs)

    assert (cost[0], quality[0]) == (5.0, 1.0)
    assert (cost[-1], quality[-1]) == (1.0, 0.5)
    assert (3.0, 1.0) in set(zip(cost.tolist(), quality.tolist(), strict=True))


def test_a_random_order_recovers_in_proportion() -> None:
    """Where the strong model is better everywhere alike, PGR is the share, APGR a half."""
    pgr = evaluate.recovered(np.zeros(100), np.zeros(100), np.full(100, 0.5))

    np.testing.assert_allclose(pgr, evaluate.SHARES)
    assert evaluate.apgr(pgr) == pytest.approx(0.5)
    assert evaluate.call_share(pgr, 0.5) == pytest.approx(0.5)
    assert evaluate.call_share(pgr, 0.83) == pytest.approx(0.83)


def test_a_perfect_order_recovers_early() -> None:
    """20 of 100 prompts need the strong model and come first: PGR is 1 from a share of 0.2 on."""
    strong = np.where(np.arange(100) < 20, 1.0, 0.0)
    pgr = evaluate.recovered(strong, np.zeros(100), strong)

    np.testing.assert_allclose(pgr[:3], [0.0, 0.5, 1.0])
    assert evaluate.apgr(pgr) == pytest.approx(0.05 * (0 + 0.5) + 0.05 * 1.5 + 0.8)
    assert evaluate.call_share(pgr, 0.8) == pytest.approx(0.16)


def test_equally_good_models_leave_nothing_to_recover() -> None:
    """Without a gap its recovered part is not a number."""
    pgr = evaluate.recovered(np.arange(4.0), np.array([1.0, 0, 1, 0]), np.array([0.0, 1, 0, 1]))

    assert np.isnan(pgr).all()
    assert np.isnan(evaluate.call_share(pgr, 0.5))


def test_calibration_error_is_the_weighted_distance() -> None:
    """Three predictions of 0.9, two right, and one of 0.1, right: (3·|0.9-2/3| + 0.9) / 4."""
    predicted = np.array([[0.9, 0.9], [0.9, 0.1], [1.0, 0.3]])
    scores = np.array([[1.0, 0.0], [1.0, 1.0], [NAN, NAN]])

    assert evaluate.calibration_error(predicted, scores) == pytest.approx((0.7 + 0.9) / 4)
    assert evaluate.calibration(predicted, scores)[0].tolist() == [0, 1, 0, 0, 0, 0, 0, 0, 0, 3]
