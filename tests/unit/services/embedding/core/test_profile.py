"""The profile head."""

import numpy as np
import pytest

from services.embedding.core.lexical import NAMES
from services.embedding.core.profile import (
    MAX_OUTPUT_TOKENS,
    TASKS,
    Head,
    dump,
    load,
    profiles,
    sigmoid,
    softmax,
)

DIMENSIONS = 3
FEATURES = DIMENSIONS + len(NAMES)


def head(bias: list[float]) -> Head:
    """Return a head that looks at nothing but the first dimension, which speaks for code."""
    weights = np.zeros((FEATURES, 6), np.float32)
    weights[0, 0] = 1
    return Head(
        mean=np.zeros(FEATURES, np.float32),
        scale=np.ones(FEATURES, np.float32),
        weights=weights,
        bias=np.array(bias, np.float32),
    )


def test_a_profile_follows_from_weights_and_bias() -> None:
    """Logits become shares, a ratio and tokens as the formulas say."""
    vectors = np.array([[np.log(3), 0, 0]], np.float32)

    (profile,) = profiles(["hi"], vectors, head([0, 0, 0, 0, 0, np.log(11)]))

    assert profile.tasks == pytest.approx((0.5, 1 / 6, 1 / 6, 1 / 6))
    assert profile.difficulty_ratio == pytest.approx(0.5)
    assert profile.output_tokens == pytest.approx(10)


@pytest.mark.parametrize("extreme", [-1e4, 1e4])
def test_extreme_scores_stay_in_range(extreme: float) -> None:
    """No overflow: shares sum to 1, the ratio is one, tokens are bounded."""
    vectors = np.array([[extreme, 0, 0]], np.float32)

    (profile,) = profiles(["x"], vectors, head([0, 0, 0, 0, extreme, extreme]))

    assert sum(profile.tasks) == pytest.approx(1)
    assert 0 <= profile.difficulty_ratio <= 1
    assert 1 <= profile.output_tokens <= MAX_OUTPUT_TOKENS


def test_profiles_come_in_order() -> None:
    """The text that speaks for code is the one that is found to be code."""
    vectors = np.array([[0, 0, 0], [9, 0, 0]], np.float32)

    plain, code = profiles(["a", "b"], vectors, head([0, 0, 1, 0, 0, 1]))

    assert TASKS[int(np.argmax(plain.tasks))] == "general"
    assert TASKS[int(np.argmax(code.tasks))] == "code"


def test_a_head_survives_its_file() -> None:
    """What is dumped is what is loaded."""
    kept = head([1, 2, 3, 4, 5, 6])

    back = load(dump(kept))

    assert (back.weights == kept.weights).all()
    assert (back.bias == kept.bias).all()


def test_softmax_and_sigmoid_agree_on_two_classes() -> None:
    """The sigmoid of a difference is the softmax of two."""
    logits = np.array([[2.0, -1.0]])

    assert softmax(logits)[0, 0] == pytest.approx(float(sigmoid(np.array([3.0]))[0]))
