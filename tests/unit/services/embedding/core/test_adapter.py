"""Adapters."""

import numpy as np
import pytest

from services.embedding.core.adapter import adapt, learn, stretched

VECTORS = np.array([[0.6, 0.8]], np.float32)


def test_a_model_without_an_adapter_gets_the_vectors_as_they_are() -> None:
    """Nothing was learned, and the caller is told so."""
    vectors, adapted = adapt(VECTORS, "coder-7b", {})

    assert vectors is VECTORS
    assert not adapted


def test_a_learned_adapter_is_applied() -> None:
    """Vectors get twice as long along the model's direction, and then as long as before."""
    first = np.array([1, 0], np.float32)

    vectors, adapted = adapt(VECTORS, "coder-7b", {"coder-7b": first})

    np.testing.assert_allclose(vectors, [[1.2 / 2.08**0.5, 0.8 / 2.08**0.5]], rtol=1e-6)
    assert adapted


def test_nothing_has_a_length_of_zero_afterwards() -> None:
    """An empty vector stays what it is."""
    assert stretched(np.zeros((1, 2), np.float32), np.array([1, 0], np.float32)).tolist() == [
        [0, 0]
    ]


def test_the_direction_in_which_scores_rise_is_found() -> None:
    """One per model, from the prompts that it was run on; none where scores tell nothing."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(400, 6)).astype(np.float32)
    scores = np.stack([vectors[:, 1], -vectors[:, 4], np.full(400, 0.5), np.full(400, np.nan)], 1)
    scores[::3, 0] = np.nan

    found = learn(vectors, scores.astype(np.float64))

    assert found[0, 1] == pytest.approx(1.0, abs=0.01)
    assert found[1, 4] == pytest.approx(-1.0, abs=0.01)
    assert not found[2:].any()
