"""What adapters are worth is measured on prompts that they did not see."""

import numpy as np
import pytest

from zeta_client.outcomes import adapted


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / length, dtype=np.float32)


def test_they_help_where_one_direction_tells(rng: np.random.Generator) -> None:
    """Scores hang on one of 24 dimensions, half of them are missing: the error falls."""
    vectors = unit(rng.normal(size=(600, 24)))
    scores = np.stack([vectors[:, 0] > 0, vectors[:, 5] < 0], axis=1).astype(np.float64)
    scores[rng.random(scores.shape) < 0.5] = np.nan
    found = adapted.compared(vectors, scores, np.arange(600) % 3)
    assert adapted.error(found.adapted, scores) < 0.95 * adapted.error(found.plain, scores)


def test_they_see_nothing_of_what_is_predicted(rng: np.random.Generator) -> None:
    """Another score in a fold changes no prediction there."""
    vectors, fold = unit(rng.normal(size=(90, 8))), np.arange(90) % 3
    scores = (rng.random((90, 2)) < 0.5).astype(np.float64)
    other = np.where((fold == 1)[:, None], 1.0 - scores, scores)
    before, after = (adapted.compared(vectors, each, fold) for each in (scores, other))
    np.testing.assert_array_equal(before.adapted[fold == 1], after.adapted[fold == 1])
    assert (before.adapted[fold == 0] != after.adapted[fold == 0]).any()
