"""Votes."""

import pytest

from router_svc.core.answer import normalised
from router_svc.core.merge import decided, tally


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("42", " 42.0 "),
        ("1,234", "1234"),
        ("$5", "5.00"),
        ("Paris", "paris."),
        ("<think>3 + 4 is 7</think> 7", "7"),
        ("<think>a\nb</think>\n'yes'", "Yes"),
        ("a  b\nc", "a b c"),
    ],
)
def test_equal_answers_are_equal(one: str, other: str) -> None:
    """Whatever they look like."""
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"), [("42", "43"), ("1.5", "15"), ("Paris", "London"), ("-3", "3"), ("", "0")]
)
def test_different_answers_are_different(one: str, other: str) -> None:
    """However alike they look."""
    assert normalised(one) != normalised(other)


def test_the_heaviest_group_wins_not_the_largest() -> None:
    """A lone dissenter is kept when its weight wins."""
    groups = tally({0: "7", 1: "8", 2: "8"}, [5.0, 1.0, 1.0])
    assert list(groups.values()) == [[0], [1, 2]]
    groups = tally({0: "7", 1: "8", 2: "8.0"}, [1.5, 1.0, 1.0])
    assert list(groups.values()) == [[1, 2], [0]]


def test_counting_stops_when_the_rest_cannot_matter() -> None:
    """Two equal answers of three equals decide; one does not; a heavy one alone may."""
    assert decided({0: "7", 1: "7"}, [1.0, 1.0, 1.0], [2])
    assert not decided({0: "7"}, [1.0, 1.0, 1.0], [1, 2])
    assert not decided({0: "7", 1: "8"}, [1.0, 1.0, 1.0], [2])
    assert decided({0: "7"}, [5.0, 1.0, 1.0], [1, 2])
    assert not decided({}, [1.0, 1.0], [0, 1])
    assert decided({}, [1.0, 1.0], [])
