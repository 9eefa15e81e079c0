"""Which pieces stand in a text: what must hold of their numbers whatever the text."""

import re
from itertools import pairwise

import numpy as np
import pytest

from router_svc.core.pieces import NUMBERS, RUNS, pieces

_32 = 0xFFFFFFFF


def by_hand(text: str) -> list[int]:
    """Number the pieces of a text as the docstrings say, with whole numbers of Python."""
    data = f" {text.lower()} ".encode()
    found = set()
    for n in (2, 3, 4):
        for i in range(len(data) - n + 1):
            found.add(hashed(int.from_bytes(data[i : i + n]) ^ n))
    words = [
        sum(byte * pow(0x01000193, i + 1) for i, byte in enumerate(word)) & _32
        for word in re.findall(rb"[0-9a-z_\x80-\xff]+|[^0-9a-z_\x80-\xff\s\x1c-\x1f]", data)
    ]
    pairs = [(a * 0x01000193 & _32) ^ b for a, b in pairwise(words)]
    return sorted(found | {RUNS + hashed(word) for word in words + pairs})


def hashed(number: int) -> int:
    return ((number * 0x9E3779B1) & _32) >> (32 - 11)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "What is 2 + 2?",
        "def f(x):\n\treturn x  # ünïcode, 東京",
        "`~!@#$%^&*()_+-={}[]|\\:;\"'<>,./ \x00\x1c\x7f",
    ],
)
def test_numbers_are_those_of_the_pieces(text: str) -> None:
    """Arrays give what whole numbers give, piece by piece."""
    assert pieces(text).tolist() == by_hand(text)


def test_case_says_nothing_and_order_little() -> None:
    """The same letters are the same pieces; other words are others."""
    assert pieces("Sum It").tolist() == pieces("sum it").tolist()
    assert pieces("sum it").tolist() != pieces("it sum").tolist()


def test_of_a_long_text_its_ends_count() -> None:
    """What stands in the middle costs nothing."""
    one, other = ("a" * 1500 + middle * 400 + "z" * 500 for middle in ("one two ", "1 + 2 = 3"))
    assert pieces(one).tolist() == pieces(other).tolist()


def test_any_text_has_numbers_in_range() -> None:
    """Half a surrogate pair is text too; numbers fit the journal's two bytes."""
    found = pieces("\ud800 " + "".join(map(chr, range(32, 1500))))
    assert found.dtype == np.uint16
    assert (np.diff(found.astype(int)) > 0).all()
    assert found.max() < NUMBERS
