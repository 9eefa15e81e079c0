"""What one score says about every model that took part."""

import pytest

from router_svc.core.reward import Step, agreement, joint, preferred, scores


def step(model: str, *, chosen: bool = False, agrees: bool | None = None, error: str = "") -> Step:
    """A call that is over."""
    return Step(model=model, replica=f"{model}-0", chosen=chosen, agrees=agrees, error=error)


def test_agreeing_models_share_the_score() -> None:
    """Right or wrong."""
    steps = [step("a", chosen=True), step("b", agrees=True)]
    for score in (1.0, 0.25, 0.0):
        assert [(s.model, x) for s, x in scores(steps, score)] == [("a", score), ("b", score)]


def test_who_disagrees_with_a_right_answer_is_wrong() -> None:
    """And who disagrees with a wrong or doubtful one may be either."""
    steps = [step("a", chosen=True), step("b", agrees=False)]
    assert [(s.model, x) for s, x in scores(steps, 1.0)] == [("a", 1.0), ("b", 0.0)]
    assert [(s.model, x) for s, x in scores(steps, 0.0)] == [("a", 0.0)]


def test_the_unknown_and_the_failed_learn_nothing() -> None:
    """No answer, no score."""
    steps = [step("a", chosen=True), step("b"), step("c", agrees=True, error="lost")]
    assert [(s.model, x) for s, x in scores(steps, 1.0)] == [("a", 1.0)]


def test_long_answers_cannot_be_compared() -> None:
    """Two essays differ and are both right."""
    assert agreement("7", "7.0") is True
    assert agreement("7", "8") is False
    assert agreement("word " * 100, "words " * 100) is None


def test_what_is_known_of_several_answers_at_once() -> None:
    """Who differs from a wrong answer is unknown, not left out; who failed is."""
    steps = [
        step("a", chosen=True),
        step("b", agrees=True),
        step("c", agrees=False),
        step("d"),
        step("e", error="gone"),
    ]
    wrong = [(s.model, known) for s, known in joint(steps, 0.0)]
    right = [(s.model, known) for s, known in joint(steps, 1.0)]
    assert wrong == [("a", 0.0), ("b", 0.0), ("c", None)]
    assert right == [("a", 1.0), ("b", 1.0), ("c", 0.0)]


def test_an_expected_preference_says_nothing_new() -> None:
    """Equals that are called equal stay; a surprise moves both, apart or together."""
    assert preferred(0.8, 0.8, 0.5) == (0.8, 0.8)
    assert preferred(0.8, 0.5, 0.8) == pytest.approx((0.8, 0.5))
    up, down = preferred(0.5, 0.5, 1.0)
    assert (up, down) == (1.0, 0.0)
    one, other = preferred(0.9, 0.2, 0.0)
    assert one < 0.9
    assert other > 0.2
