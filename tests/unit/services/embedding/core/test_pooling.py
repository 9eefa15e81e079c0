"""Shortening, padding, pooling."""

import numpy as np
import pytest

from services.embedding.core.pooling import first, head_and_tail, mean, padded, unit


def test_short_texts_stay_whole() -> None:
    """Nothing is cut at the limit or below it."""
    assert head_and_tail([1, 2, 3], 3) == (1, 2, 3)


@pytest.mark.parametrize("limit", [4, 5])
def test_long_texts_lose_their_middle(limit: int) -> None:
    """What is left is as long as allowed, and begins and ends as the text did."""
    left = head_and_tail(range(100), limit)

    assert len(left) == limit
    assert left[:2] == (0, 1)
    assert left[-2:] == (98, 99)


def test_padding_is_masked() -> None:
    """Rows of different lengths become a rectangle whose mask counts their tokens."""
    ids, mask = padded([(5, 6, 7), (8,)])

    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.sum(axis=1).tolist() == [3, 1]


def test_the_mean_leaves_padding_out() -> None:
    """Whatever the vectors of padding are, the average is that of the tokens."""
    hidden = np.array([[[1, 2], [3, 4], [99, 99]]], np.float32)

    assert mean(hidden, np.array([[1, 1, 0]], np.int32)).tolist() == [[2, 3]]


def test_first_takes_the_first_token() -> None:
    """CLS pooling returns the vector of the first token."""
    hidden = np.array([[[1, 2], [3, 4]]], np.float32)

    assert first(hidden, np.ones((1, 2), np.int32)).tolist() == [[1, 2]]


def test_unit_vectors_have_length_one_and_zero_stays_zero() -> None:
    """No division by zero for a vector without direction."""
    vectors = unit(np.array([[3, 4], [0, 0]], np.float32))

    np.testing.assert_allclose(vectors, np.array([[0.6, 0.8], [0, 0]]), rtol=1e-6)
