"""Laws of verifiers, for every one that there is."""

from collections.abc import Mapping
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_svc.verifiers import VERIFIERS, WITHOUT_REFERENCE, verify
from services.kit.errors import InvalidRequestError

GOOD: Final[Mapping[str, tuple[str, str]]] = {
    "exact": ("Paris", "Paris"),
    "numeric": ("1/2", "0.5"),
    "json": ('{"a": 1}', '{"type": "object", "required": ["a"]}'),
    "python": ("def f(x):\n    return x", ""),
    "doctest": ("def f(x):\n    return x + 1", ">>> f(1)\n2\n>>> f(2)\n3\n"),
}
"""An answer and a reference that it satisfies."""
BAD: Final[Mapping[str, str]] = {
    "exact": "London",
    "numeric": "0.51",
    "json": '{"b": 1}',
    "python": "def f(x:",
    "doctest": "def f(x):\n    return x",
}
CHEAP = sorted(VERIFIERS.keys() - {"doctest"})
"""Those that start no process, and can be tried hundreds of times."""
every = pytest.mark.parametrize("name", sorted(VERIFIERS))


def test_every_verifier_has_examples() -> None:
    """A new one comes with a good and a bad answer."""
    assert GOOD.keys() == BAD.keys() == VERIFIERS.keys()


@every
def test_good_answers_earn_one_and_bad_ones_nothing(name: str) -> None:
    """A scratchpad and a block around the answer change nothing."""
    answer, reference = GOOD[name]
    assert verify(name, answer, reference) == 1.0
    assert verify(name, f"<think>7? No.</think>\n```\n{answer}\n```", reference) == 1.0
    assert verify(name, BAD[name], reference) == 0.0


@every
@pytest.mark.parametrize("answer", ["", "  ", "<think>never ends"])
def test_no_answer_earns_nothing(name: str, answer: str) -> None:
    """Nor does a thought without an answer."""
    assert verify(name, answer, GOOD[name][1]) == 0.0


@pytest.mark.parametrize("name", CHEAP)
@settings(max_examples=60)
@given(answer=st.text(max_size=200))
def test_any_text_earns_a_score(name: str, answer: str) -> None:
    """In [0, 1], the same each time, and without an error."""
    score = verify(name, answer, GOOD[name][1])
    assert 0.0 <= score <= 1.0
    assert verify(name, answer, GOOD[name][1]) == score


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("exact", ""),
        ("numeric", "many"),
        ("json", "{"),
        ("json", '{"type": 7}'),
        ("json", '{"$ref": "http://127.0.0.1:1/x"}'),
        ("doctest", "no test"),
        ("guess", ""),
    ],
)
def test_what_is_no_reference_is_refused(name: str, reference: str) -> None:
    """Whatever the answer; nothing is fetched for it."""
    with pytest.raises(InvalidRequestError):
        verify(name, "{}", reference)


@pytest.mark.parametrize("name", WITHOUT_REFERENCE)
def test_some_need_no_reference(name: str) -> None:
    """They can choose between answers before anybody knows the right one."""
    assert verify(name, GOOD[name][0]) == 1.0
