"""What a task is, and which split its problem belongs to."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from types import MappingProxyType
from typing import Final, Literal, TypeAlias

Kind: TypeAlias = Literal["code", "reasoning", "general"]
Split: TypeAlias = Literal["train", "heldout", "demo"]

SHARE_OF_HUNDRED: Final[Mapping[Split, range]] = MappingProxyType(
    {"train": range(80), "heldout": range(80, 92), "demo": range(92, 100)}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One prompt with one checkable answer.

    A router sees `prompt` alone; the other fields exist to train, to check and to report.
    `solution` is the scratchpad a reasoning model learns to write first, empty if none.
    """

    prompt: str
    answer: str
    family: str
    difficulty: float
    kind: Kind
    solution: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A drawn problem before its split is known; `problem` names it whatever the wording."""

    problem: str
    prompt: str
    answer: str
    difficulty: float
    solution: str = ""


Draw: TypeAlias = Callable[[Random], Draft]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A kind of problem: how to draw one and how often it is asked."""

    kind: Kind
    weight: float
    draw: Draw


def split_of(problem: str) -> Split:
    """Return the one split that owns `problem`, the same on every machine and in every run."""
    bucket = int.from_bytes(blake2b(problem.encode(), digest_size=8).digest()) % 100
    return next(split for split, share in SHARE_OF_HUNDRED.items() if bucket in share)
