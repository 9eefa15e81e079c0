"""Adapters."""

import numpy as np

from services.embedding.core.adapter import adapt

VECTORS = np.array([[1, 2]], np.float32)


def test_a_model_without_an_adapter_gets_the_vectors_as_they_are() -> None:
    """Nothing was learned, and the caller is told so."""
    vectors, adapted = adapt(VECTORS, "coder-7b", {})

    assert vectors is VECTORS
    assert not adapted


def test_a_learned_adapter_is_applied() -> None:
    """Each vector is multiplied by the model's matrix."""
    swap = np.array([[0, 1], [1, 0]], np.float32)

    vectors, adapted = adapt(VECTORS, "coder-7b", {"coder-7b": swap})

    assert vectors.tolist() == [[2, 1]]
    assert adapted
