"""Expected length starts at the profile's guess and follows each model's answers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_svc.core.features import TASKS, Features, lexical_profile
from router_svc.core.length import Length


def profile(task: str = "general", expected: float = 20.0) -> Features:
    tasks = np.array([float(task == t) for t in TASKS])
    base = lexical_profile("Something.")
    return replace(base, tasks=tasks, expected_output_tokens=expected)


def sum_of(numbers: int) -> Features:
    """The profile of a sum of so many numbers, which only its text tells."""
    profiled = lexical_profile(" + ".join(["17"] * numbers))
    return replace(profiled, expected_output_tokens=20.0, difficulty=0.5)


def numbered(numbers: int, asked: str) -> Features:
    """The profile of so many numbers and what is *asked* of them."""
    profiled = lexical_profile(asked + " and ".join(["17"] * numbers))
    return replace(profiled, expected_output_tokens=20.0, difficulty=0.5)


@pytest.fixture
def length() -> Length:
    return Length(["short", "long"])


def test_trusts_the_profile_before_any_answer(length: Length) -> None:
    """Every model is expected to answer in as many tokens as the profile says."""
    np.testing.assert_allclose(length.predict(profile(expected=37.0)), 37.0)


def test_learns_each_model_s_way_with_each_task(length: Length) -> None:
    """A model that thinks aloud on reasoning is known for it, and for it alone."""
    for _ in range(60):
        length.learn("short", profile("reasoning"), 5)
        length.learn("long", profile("reasoning"), 80)
        length.learn("long", profile("general"), 20)

    np.testing.assert_allclose(length.predict(profile("reasoning")), [5.0, 80.0], rtol=0.15)
    assert length.predict(profile("general"))[1] == pytest.approx(20.0, rel=0.15)


def test_learns_that_more_to_reckon_is_a_longer_answer(length: Length) -> None:
    """Of the same task: what stands in the prompt says more than the task alone."""
    for numbers in (2, 6, 3, 7, 4, 5) * 12:
        length.learn("long", sum_of(numbers), 8 * numbers)

    short, longer = (float(length.predict(sum_of(n))[1]) for n in (2, 7))
    assert short == pytest.approx(16.0, rel=0.25)
    assert longer == pytest.approx(56.0, rel=0.25)


def test_learns_what_a_number_adds_where(length: Length) -> None:
    """Where one thing is asked a model takes a step for each, where another it says one word."""
    for numbers in (2, 6, 3, 7, 4, 5) * 12:
        length.learn("long", numbered(numbers, ""), 8 * numbers)
        length.learn("long", numbered(numbers, "Repeat "), 4)

    steps = [float(length.predict(numbered(n, ""))[1]) for n in (2, 7)]
    words = [float(length.predict(numbered(n, "Repeat "))[1]) for n in (2, 7)]
    assert steps == pytest.approx([16.0, 56.0], rel=0.14)
    assert words == pytest.approx([4.0, 4.0], rel=0.14)


def test_forgets_a_model_s_former_way() -> None:
    """After a few half-lives only the recent answers count."""
    length = Length(["a"], half_life_outcomes=10.0)
    for tokens in [100] * 50 + [10] * 60:
        length.learn("a", profile(), tokens)

    assert length.predict(profile())[0] == pytest.approx(10.0, rel=0.2)


def test_a_restart_changes_nothing(length: Length) -> None:
    """State saved and restored predicts bit for bit the same; a new model trusts the profile."""
    for tokens in (3, 50, 12):
        length.learn("long", profile("code"), tokens)
    again = Length(["new", "long"])
    again.restore(length.to_arrays())

    assert again.predict(profile())[1] == length.predict(profile())[1]
    assert again.predict(profile(expected=37.0))[0] == pytest.approx(37.0)


def test_refuses_the_state_of_another_version(length: Length) -> None:
    """State of an unknown layout is refused, not guessed at."""
    with pytest.raises(ValueError, match="version 99"):
        length.restore({**length.to_arrays(), "version": np.array(99)})


@pytest.mark.parametrize("version", [1, 2])
def test_what_knew_less_of_the_text_is_learned_anew(length: Length, version: int) -> None:
    """State of before leaves a router's other knowledge to be restored."""
    length.learn("long", profile(), 50)
    before = length.predict(profile()).tolist()
    length.restore({**length.to_arrays(), "version": np.array(version)})
    assert length.predict(profile()).tolist() == before


def test_refuses_negative_lengths(length: Length) -> None:
    """No answer has fewer than no tokens."""
    with pytest.raises(ValueError, match="-1"):
        length.learn("long", profile(), -1)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(TASKS), st.integers(0, 10**9)), max_size=20),
    st.floats(0.0, 1e12),
)
def test_lengths_are_finite_and_at_least_one(seen: list[tuple[str, int]], expected: float) -> None:
    """Whatever was learned and whatever the profile says, lengths make sense."""
    length = Length(["a"])
    for task, tokens in seen:
        length.learn("a", profile(task), tokens)

    tokens_expected = length.predict(profile(expected=expected))
    assert np.isfinite(tokens_expected).all()
    assert (tokens_expected >= 1.0).all()
