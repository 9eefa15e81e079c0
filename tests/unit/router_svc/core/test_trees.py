"""Randomised trees: what must hold of a forest whatever the points."""

import numpy as np
import pytest

from router_svc.core import trees
from router_svc.core.kernel import Halved


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(6)


def scattered(count: int, rng: np.random.Generator, width: int = 12) -> Halved:
    return rng.normal(size=(count, width)).astype(np.float32)


def test_a_threshold_among_noise_is_found(rng: np.random.Generator) -> None:
    """One number of twelve decides both targets, also on points never seen."""
    points = scattered(400, rng)
    targets = np.stack([points[:, 3] > 0.0, points[:, 3] <= 0.0], axis=1).astype(np.float64)
    forest, _ = trees.learn(points[:300], targets[:300], np.arange(300))
    found = forest.predict(points[300:])

    clear = np.abs(points[300:, 3]) > 0.3
    assert (found.argmax(axis=1) == targets[300:].argmax(axis=1))[clear].mean() > 0.95


def test_what_is_said_unseen_knows_nothing_of_the_target(rng: np.random.Generator) -> None:
    """Of pure chance trees that saw a point repeat its target; those that missed it cannot."""
    points, targets = scattered(300, rng), rng.normal(size=(300, 1))
    forest, unseen = trees.learn(points, targets, np.arange(300))

    assert np.corrcoef(forest.predict(points)[:, 0], targets[:, 0])[0, 1] > 0.5
    assert abs(np.corrcoef(unseen[:, 0], targets[:, 0])[0, 1]) < 0.2


def test_copies_are_seen_together(rng: np.random.Generator) -> None:
    """A copy's target would tell: points of a group are drawn together."""
    points, targets = scattered(150, rng), rng.normal(size=(150, 1))
    twice = np.concatenate([np.arange(150)] * 2)
    _, unseen = trees.learn(points[twice], targets[twice], twice)

    assert abs(np.corrcoef(unseen[:, 0], targets[twice, 0])[0, 1]) < 0.2


def test_a_leaf_is_no_single_point(rng: np.random.Generator) -> None:
    """No leaf says more than its fewest points may, shrunk towards the mean."""
    targets = np.zeros((200, 1))
    targets[7] = 1.0
    forest, _ = trees.learn(scattered(200, rng), targets, np.arange(200))
    drawn = trees._drawn(200, np.random.default_rng(200))[:, 7].max()

    largest = (drawn * (1.0 - 1.0 / 200)) / (trees._LEAST + 0.5)
    assert forest.value.max() <= largest + 1e-6


def test_a_missing_target_is_no_target(rng: np.random.Generator) -> None:
    """Where a model was not run its mean is all that there is; where never, 0."""
    points = scattered(60, rng)
    targets = np.full((60, 2), np.nan)
    targets[:30, 0] = 0.7
    forest, unseen = trees.learn(points, targets, np.arange(60))

    np.testing.assert_allclose(forest.predict(points), [[0.7, 0.0]] * 60, atol=1e-6)
    np.testing.assert_allclose(unseen, [[0.7, 0.0]] * 60, atol=1e-6)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_few_points_are_learned(count: int, rng: np.random.Generator) -> None:
    """Too few for a split: the mean is expected, near enough."""
    targets = rng.random((count, 6))
    forest, unseen = trees.learn(scattered(count, rng), targets, np.arange(count))

    assert np.isfinite(forest.predict(scattered(3, rng))).all()
    assert unseen.shape == (count, 6)


def test_main_axes_judge_many_targets(rng: np.random.Generator) -> None:
    """More targets than guides are still told apart."""
    points = scattered(400, rng)
    targets = np.where(points[:, :1] > 0.0, np.linspace(0.0, 1.0, 9), np.linspace(1.0, 0.0, 9))
    forest, _ = trees.learn(points, targets, np.arange(400))
    right = (forest.predict(points).argmax(axis=1) == 8) == (points[:, 0] > 0.0)

    assert right.mean() > 0.95


def test_arrays_hold_all_of_it(rng: np.random.Generator) -> None:
    """Taken apart and put together it predicts the same, and the same points teach the same."""
    points, targets = scattered(80, rng), rng.random((80, 3))
    forest, _ = trees.learn(points, targets, np.arange(80))
    again, _ = trees.learn(points, targets, np.arange(80))

    for other in (again, trees.restored(forest.to_arrays())):
        np.testing.assert_array_equal(other.predict(points), forest.predict(points))
