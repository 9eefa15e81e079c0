"""Kernel ridge regression against its closed form."""

import numpy as np
import pytest

from router_svc.core import kernel
from router_svc.core.features import Floats
from router_svc.core.kernel import Halved

NOISE = 2.0


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


def cloud(count: int, rng: np.random.Generator) -> Halved:
    """Return random points (N, 6)."""
    return rng.normal(size=(count, 6)).astype(np.float32)


def exact(points: Halved, targets: Floats) -> Floats:
    """Return k (K + noise)^-1 (y - mean) + mean at the very *points*, in double precision."""
    x = points.astype(np.float64)
    near = np.exp(-np.sqrt(np.square(x[:, None] - x[None]).sum(axis=-1)))
    mean = targets.mean()
    alpha = np.linalg.solve(near + NOISE * np.eye(len(x)), targets - mean)
    solution: Floats = near @ alpha + mean
    return solution


def test_with_all_points_as_support_it_is_exact(rng: np.random.Generator) -> None:
    """The subset of regressors is the full Gaussian process where the subset is everything."""
    points, targets = cloud(60, rng), rng.random((60, 2))
    found = kernel.learn(points, targets, noise=NOISE).predict(points)

    for model in range(2):
        np.testing.assert_allclose(found[:, model], exact(points, targets[:, model]), atol=2e-3)


def test_a_missing_target_is_no_target(rng: np.random.Generator) -> None:
    """A target's prediction does not depend on rows in which it is not known."""
    points, targets = cloud(40, rng), rng.random((40, 2))
    holes = targets.copy()
    holes[:15, 1] = np.nan
    whole, partial = (kernel.learn(points, each, noise=NOISE) for each in (targets, holes))
    point = points[3:4]

    assert partial.predict(point)[0, 0] == pytest.approx(whole.predict(point)[0, 0], abs=1e-6)
    assert partial.mean[1] == pytest.approx(targets[15:, 1].mean())
    assert partial.predict(point)[0, 1] != pytest.approx(whole.predict(point)[0, 1], abs=1e-3)


def test_far_from_everything_the_mean_is_expected(rng: np.random.Generator) -> None:
    """What was never seen is not extrapolated to; a target never known is expected to be 0."""
    targets = np.stack([rng.random(30), np.full(30, np.nan)], axis=1)
    learned = kernel.learn(cloud(30, rng), targets, noise=NOISE)

    far = learned.predict(np.full((1, 6), 1e3, dtype=np.float32))[0]
    np.testing.assert_allclose(far, (targets[:, 0].mean(), 0.0), atol=1e-6)


def test_the_support_is_bounded_and_the_same_each_time(rng: np.random.Generator) -> None:
    """However long the table, a prediction costs no more; the same table teaches the same."""
    points = np.tile(cloud(50, rng), (25, 1))
    targets = rng.random((len(points), 1))
    one, again = (kernel.learn(points, targets, noise=NOISE) for _ in range(2))

    assert len(one.support) == kernel.SUPPORT < len(points)
    np.testing.assert_array_equal(one.predict(points[:5]), again.predict(points[:5]))


def test_arrays_hold_all_of_it(rng: np.random.Generator) -> None:
    """Taken apart and put together it predicts the same."""
    points = cloud(20, rng)
    learned = kernel.learn(points, rng.random((20, 3)), noise=NOISE)
    again = kernel.restored(learned.to_arrays())

    np.testing.assert_array_equal(again.predict(points), learned.predict(points))
