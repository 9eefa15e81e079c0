"""Nearest neighbours against sums done by hand."""

import numpy as np
import pytest

from router_svc.core import neighbours
from router_svc.core.kernel import Halved


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def on_a_line(*places: float) -> Halved:
    return np.array(places, dtype=np.float32)[:, None]


def test_nearer_neighbours_weigh_more() -> None:
    """A weight is exp(-sharpness * squared distance beyond the nearest), beside half of a mean."""
    known = neighbours.remember(on_a_line(0.0, 2.0), np.array([[1.0], [0.0]]), sharpness=0.25)
    second = np.exp(-0.25 * (1.5**2 - 0.5**2))

    expected = 0.5 + (1.0 * 0.5 - second * 0.5) / (1.0 + second + 0.5)
    assert known.predict(on_a_line(0.5))[0, 0] == pytest.approx(expected, abs=1e-6)


def test_only_the_nearest_count(rng: np.random.Generator) -> None:
    """A point beyond the last neighbour changes nothing but the mean."""
    near = rng.normal(size=neighbours.NEIGHBOURS)
    targets = rng.random((neighbours.NEIGHBOURS + 2, 1))
    targets[-2], targets[-1] = 0.0, 1.0
    one = neighbours.remember(on_a_line(*near, 90.0, 91.0), targets, sharpness=1.0)
    other = neighbours.remember(on_a_line(*near, 91.0, 90.0), targets, sharpness=1.0)

    np.testing.assert_allclose(one.predict(on_a_line(0.3)), other.predict(on_a_line(0.3)))


def test_a_missing_target_is_no_target() -> None:
    """Neighbours on which a model was not run say nothing of it; without any the mean is left."""
    targets = np.array([[1.0, np.nan], [1.0, 0.2], [0.0, np.nan]])
    known = neighbours.remember(on_a_line(0.0, 5.0, 9.0), targets, sharpness=1.0)

    assert known.predict(on_a_line(0.0))[0, 1] == pytest.approx(0.2)


def test_memory_is_bounded(rng: np.random.Generator) -> None:
    """Of a very long table a part is kept."""
    count = neighbours.KEPT + 100
    points = rng.normal(size=(count, 2)).astype(np.float32)

    assert len(neighbours.remember(points, np.zeros((count, 1)), sharpness=1.0).points) < count


def test_arrays_hold_all_of_it(rng: np.random.Generator) -> None:
    """Taken apart and put together it predicts the same."""
    points = rng.normal(size=(20, 4)).astype(np.float32)
    known = neighbours.remember(points, rng.random((20, 2)), sharpness=2.0)
    again = neighbours.restored(known.to_arrays())

    np.testing.assert_array_equal(again.predict(points), known.predict(points))
