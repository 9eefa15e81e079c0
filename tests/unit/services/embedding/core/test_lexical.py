"""Lexical features."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from services.embedding.core.lexical import NAMES, lexical


def feature(text: str, name: str) -> float:
    return float(lexical(text)[NAMES.index(name)])


@given(st.text())
def test_any_text_has_finite_features(text: str) -> None:
    """As many as there are names, whatever the text."""
    values = lexical(text)

    assert values.shape == (len(NAMES),)
    assert np.isfinite(values).all()


def test_features_see_what_they_are_named_for() -> None:
    """Code has code marks, sums have operations, questions have question marks."""
    assert feature("xs[0] = {1: 'a'}", "code_marks") > feature("an apple a day", "code_marks")
    assert feature("12 + 7", "operations") > 0 == feature("twelve and seven", "operations")
    assert feature("Why?", "ends_with_question") == 1
    assert feature("query: red shoes", "prefix") > 0


def test_the_middle_of_a_long_text_is_not_read() -> None:
    """Cost is bounded: only the length of what lies between the two ends counts."""
    ends = "start " * 400, " end" * 600

    assert (lexical("1+1 " * 5000 + ends[1]) != lexical("two " * 5000 + ends[1])).any()
    assert (
        lexical(ends[0] + "1+1 " * 5000 + ends[1]) == lexical(ends[0] + "two " * 5000 + ends[1])
    ).all()
