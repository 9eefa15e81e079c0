"""Prompts are profiled as the service would, and encoded once only."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.embedding.encoded import Prepared
from zeta_client.outcomes.profiles import encoded, opened


class Letters:
    """Encodes a text as its length, and counts what it is given."""

    name = "letters"
    batch_tokens = 32

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def prepare(self, text: str) -> Prepared:
        """Implement `Encoder.prepare`: a token per letter."""
        return Prepared(ids=(1,) * len(text), tokens=len(text), truncated=False)

    def run(self, rows: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """Implement `Encoder.run`."""
        self.batches.append([len(row) for row in rows])
        return np.array([[len(row), 1.0] for row in rows], np.float32)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(opened(tmp_path / "cache" / "vectors.sqlite3")) as connection:
        yield connection


def test_every_text_gets_its_own_vector(store: sqlite3.Connection) -> None:
    """Whatever the order of work, a text's vector is that of the text."""
    texts = ["a" * n for n in (9, 1, 30, 4, 60, 2)]
    vectors = encoded(texts, Letters(), store, lambda _done, _of: None)

    assert sorted(v[0] for v, _ in vectors.values()) == sorted(map(len, texts))
    assert all(vector[0] == tokens for vector, tokens in vectors.values())


def test_batches_hold_texts_of_like_length_within_the_limit(store: sqlite3.Connection) -> None:
    """Padded to their longest, texts fit the encoder's tokens; one that does not goes alone."""
    encoder = Letters()
    encoded(["a" * n for n in range(1, 41)], encoder, store, lambda _done, _of: None)

    assert sorted(n for batch in encoder.batches for n in batch) == list(range(1, 41))
    assert all(len(b) * max(b) <= 32 or len(b) == 1 for b in encoder.batches)


def test_nothing_is_encoded_twice(store: sqlite3.Connection) -> None:
    """The next run takes what is on disk and encodes what is new; progress tells both."""
    told: list[tuple[int, int]] = []
    first = encoded(["a", "bb"], Letters(), store, lambda *done: told.append(done))
    encoder = Letters()
    again = encoded(["bb", "a", "ccc"], encoder, store, lambda *done: told.append(done))

    assert encoder.batches == [[3]]
    assert told == [(0, 2), (2, 2), (2, 3), (3, 3)]
    for key, (vector, tokens) in first.items():
        np.testing.assert_array_equal(again[key][0], vector)
        assert again[key][1] == tokens
