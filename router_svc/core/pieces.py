"""Which short pieces stand in a text, as numbers: hashes from which no text can be read.

What a text is about stands in its embedding; how it is worded, and so what kind of prompts it is
one of, stands here. C = bytes read, P = different pieces.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Pieces: TypeAlias = NDArray[np.uint16]
_Hashes: TypeAlias = NDArray[np.uint32]

RUNS: Final = 2048
"""Numbers below are those of runs of letters, the others those of words."""
NUMBERS: Final = 2 * RUNS
_HEAD, _TAIL = 1500, 500
"""Characters read of a long text: instructions stand at its ends."""
_LENGTHS: Final = (2, 3, 4)
_MULTIPLIER: Final = np.uint32(0x9E3779B1)
"""Of multiplicative hashing (Knuth, 1973): 2³² over the golden ratio, made prime."""
_SHIFT: Final = np.uint32(32 - RUNS.bit_length() + 1)
_BYTE: Final = np.uint32(8)
_SPACE: Final = np.array([chr(i).isspace() for i in range(128)] + [False] * 128)
_IN_WORD: Final = np.array([chr(i).isalnum() or chr(i) == "_" for i in range(128)] + [True] * 128)
_POWERS: Final = np.cumprod(np.full(64, 0x01000193, dtype=np.uint32), dtype=np.uint32)
"""Of what tells the places in a word apart: the multiplier of FNV (Fowler, Noll and Vo, 1991)."""


def pieces(text: str) -> Pieces:
    """Return the numbers of the pieces of *text*, in lower case; (P,), ascending.

    Runs are pairs, triples and quadruples of bytes. Words are words, marks, and pairs of either
    side by side. Tens of microseconds: of a long text, its ends count.
    """
    read = text if len(text) <= _HEAD + _TAIL else f"{text[:_HEAD]}\n{text[-_TAIL:]}"
    data = np.frombuffer(f" {read.lower()} ".encode("utf-8", "surrogatepass"), dtype=np.uint8)
    there = np.zeros(NUMBERS, dtype=np.bool_)
    there[_hashed(_runs(data))] = True
    there[_hashed(_words(data)) + RUNS] = True
    return np.flatnonzero(there).astype(np.uint16)


def _runs(data: NDArray[np.uint8]) -> _Hashes:
    """Return each run of bytes in *data* (C,), those of different lengths apart."""
    letters = data.astype(np.uint32)
    run, runs = letters, []
    for length in _LENGTHS:
        # A text that is shorter than the run has none of it.
        run = (run[:-1] << _BYTE) | letters[length - 1 :]
        runs.append(run ^ np.uint32(length))
    return np.concatenate(runs)


def _words(data: NDArray[np.uint8]) -> _Hashes:
    """Return each word and mark in *data* (C,), and each pair of neighbours."""
    inside, space = _IN_WORD[data], _SPACE[data]
    first = ~inside & ~space
    first[1:] |= inside[1:] & ~inside[:-1]
    start = np.flatnonzero(first)
    if not len(start):
        return np.zeros(0, dtype=np.uint32)
    place = np.arange(len(data)) - start[np.cumsum(first) - 1]
    letters = np.where(space, 0, data).astype(np.uint32) * _POWERS[place % len(_POWERS)]
    words = np.add.reduceat(letters, start, dtype=np.uint32)
    return np.concatenate([words, (words[:-1] * _POWERS[0]) ^ words[1:]])


def _hashed(found: _Hashes) -> NDArray[np.intp]:
    """Return the numbers below `RUNS` that what was *found* has."""
    return ((found * _MULTIPLIER) >> _SHIFT).astype(np.intp)
