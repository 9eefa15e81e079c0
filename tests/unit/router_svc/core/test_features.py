"""Lexical features and the profile that stands in when the embedding service is late."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_svc.core.features import LEXICAL, TASKS, lexical, lexical_profile

TEXTS = st.text(max_size=6000)


@given(TEXTS)
def test_any_text_gives_finite_features(text: str) -> None:
    """Whatever the text, features are finite, moderate and of one length."""
    x = lexical(text)

    assert x.shape == (len(LEXICAL),)
    assert np.isfinite(x).all()
    assert np.abs(x).max() < 6.0


@given(TEXTS)
def test_any_text_gives_a_valid_profile(text: str) -> None:
    """Shares sum to 1, difficulty is in [0, 1], counts are positive, the input is finite."""
    profile = lexical_profile(text)

    assert profile.tasks.sum() == pytest.approx(1.0)
    assert (profile.tasks >= 0.0).all()
    assert 0.0 <= profile.difficulty <= 1.0
    assert profile.expected_output_tokens >= 1.0
    assert profile.prompt_tokens >= 1
    assert np.isfinite(profile.regressors).all()


@pytest.mark.parametrize(
    ("text", "task"),
    [
        ("What does len([3, 1, 2]) return in Python?", "code"),
        ("def area(r):\n    return", "code"),
        ("What is 31 + 7 * (12 - 5)?", "reasoning"),
        ("Tom has 12 apples and buys 7 more each day. How many after 3 days?", "reasoning"),
        ("Who painted the Mona Lisa?", "general"),
        ("What is the capital of France?", "general"),
    ],
)
def test_guesses_the_kind_of_task(text: str, task: str) -> None:
    """Plain examples of each kind are told apart by rules alone."""
    assert TASKS[int(lexical_profile(text).tasks.argmax())] == task


def test_more_steps_are_harder() -> None:
    """A longer sum is harder than a short one."""
    short, long = "What is 3 + 4?", "What is 31 + 47 * (12 - 5) + 88 - 3 * (9 + 14)?"

    assert lexical_profile(long).difficulty > lexical_profile(short).difficulty


def test_a_long_text_counts_by_its_ends() -> None:
    """What stands in the middle of a very long text is not read, its length is."""
    head, tail = "a " * 2000, " b" * 2000
    plain, filled = lexical(head + "c " * 5000 + tail), lexical(head + "(1" * 5000 + tail)

    np.testing.assert_array_equal(plain, filled)


@pytest.mark.parametrize("unit", ["\n", " ", "1 ", "1    ", "(", "'", "=", "a.b", "\u00e9", "A. "])
def test_repetition_is_read_like_anything_else(unit: str) -> None:
    """Texts made to slow regular expressions down give features like any other."""
    assert np.isfinite(lexical(unit * 100_000)).all()


def test_closer_embeddings_give_closer_inputs(rng: np.random.Generator) -> None:
    """The projection keeps distances between embeddings within a third."""
    points = rng.normal(size=(20, 384))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    base = lexical_profile("x")
    inputs = [replace(base, embedding=p).regressors for p in points]

    true = np.linalg.norm(points[:-1] - points[1:], axis=1)
    seen = 2.0 * np.linalg.norm(np.diff(np.array(inputs), axis=0), axis=1)

    assert np.abs(seen / true - 1.0).max() < 1 / 3


def test_what_regressions_take_follows_the_profile() -> None:
    """A profile with another mix of tasks has the input that it would have been made with."""
    base = lexical_profile("How many apples are 3 + 4?")
    hinted = replace(base, tasks=np.array([0.0, 1.0, 0.0, 0.0]))

    np.testing.assert_array_equal(hinted.regressors[3:7], hinted.tasks)
    np.testing.assert_array_equal(hinted.length_regressors[2:5], hinted.tasks[:3])
    again = replace(hinted, tasks=base.tasks)
    np.testing.assert_array_equal(again.regressors, base.regressors)
    np.testing.assert_array_equal(again.length_regressors, base.length_regressors)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)
