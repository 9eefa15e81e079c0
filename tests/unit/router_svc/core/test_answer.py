"""Which answers say the same."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_svc.core.answer import code_of, final, normalised, number_of


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1/2", "0.5"),
        (r"\frac{1}{2}", "0.5"),
        (r"$\dfrac{3}{4}$", "0.75"),
        ("50%", r"50\%"),
        ("So we get 3 + 4 = 7.\n#### 7", "7"),
        (r"Thus x = 2, and \boxed{\frac{1}{3}} it is", "1/3"),
        ("We add. The final answer is: 1,024.", "1024"),
        ('{"reasoning": "two and two", "answer": "4"}', "4"),
        ('``` json\n{"reasoning": "so", "answer": "$18"}\n```', "18"),
        ('{"a": 1, "b": [2]}', '{ "b":[2], "a":1 }'),
        ("{'a': 1}", '{"a": 1}'),
        ('{"reasoning": "2\\m", "answer": "18 dollars"}', "18"),
        ("The answer is $7 per day.", "7"),
        ("[1,2,3]", "[1, 2, 3]"),
        ("(B)", "B."),
        ("(B) Paris", "The correct answer is B)"),
        ("a+b", "a + b"),
        ("len(s)==2", "len( s ) == 2"),
        ("```python\ndef f(x):\n    return x+1\n```", "def f(x): return x + 1  # adds"),
        ("'yes'", "Yes"),
        (r"\text{cats}", "Cats"),
    ],
)
def test_equal_answers_are_equal(one: str, other: str) -> None:
    """However they are written."""
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1/2", "1/3"),
        ("a + b", "a - b"),
        ("x[A]", "x[a]"),
        ("(B)", "(C)"),
        ('{"answer": 4}', '{"answer": 5}'),
        (r"\boxed{3}", r"\boxed{-3}"),
        ("1/0", "0"),
    ],
)
def test_different_answers_are_different(one: str, other: str) -> None:
    """However alike they look."""
    assert normalised(one) != normalised(other)


def test_marked_results_are_known_to_be_marked() -> None:
    """Long answers are compared by those, and by nothing else."""
    assert final("It is so.\n#### 12") == ("12", True)
    assert final("It is twelve") == ("It is twelve", False)
    assert final("<think>#### 3</think>4") == ("4", False)


def test_numbers_are_read_or_not() -> None:
    """Words with digits in them are no numbers."""
    assert [number_of(t) for t in ("12", "-1.5e3", "$3", "1/4")] == [12.0, -1500.0, 3.0, 0.25]
    assert [number_of(t) for t in ("", "12 apples", "1/0", "e5", "1.2.3")] == [None] * 5


def test_code_is_the_last_block_or_all() -> None:
    """Its indentation stays."""
    assert code_of("First:\n```\nx\n```\nthen\n```py\n  y\n```") == "  y\n"
    assert code_of("  y = 1") == "  y = 1"


@settings(max_examples=300)
@given(st.text(max_size=300))
def test_any_text_has_a_common_form(text: str) -> None:
    """And it is the form of itself."""
    once = normalised(text)
    assert normalised(text) == once
    assert isinstance(once, str)
