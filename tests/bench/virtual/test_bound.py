"""What can be in time where all is known beforehand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.kit.config import load
from tests.bench.virtual.bound import Call, relaxed, scheduled

MODEL = next(
    m
    for m in load(Path(__file__).parents[3] / "config" / "bench.toml").models
    if m.name == "reasoner-14b"
)
SLOTS = MODEL.max_running * len(MODEL.replicas)


def calls(at_s: list[float], tokens: list[int], deadline_s: float = 4.0) -> list[Call]:
    """Prompts of one token."""
    return [
        Call(at_s=at, due_s=at + deadline_s, prompt_tokens=1, output_tokens=n)
        for at, n in zip(at_s, tokens, strict=True)
    ]


def test_what_fits_is_served_whole() -> None:
    """As many as there are slots, at once, with time to spare."""
    few = calls([0.0] * SLOTS, [30] * SLOTS)

    assert scheduled(MODEL, few) == few
    assert relaxed(MODEL, few) == SLOTS


def test_of_too_many_the_shortest_are_served() -> None:
    """One full batch of answers of three seconds has time, and a batch of a second before it."""
    long, short = [50] * SLOTS, [12] * SLOTS
    found = scheduled(MODEL, calls([0.0] * 2 * SLOTS, long + short))
    twice = scheduled(MODEL, calls([0.0] * 2 * SLOTS, long * 2))

    assert len(found) == 2 * SLOTS
    assert len(twice) == SLOTS
    mixed = scheduled(MODEL, calls([0.0] * 3 * SLOTS, [50, 20, 20] * SLOTS))
    assert sum(c.output_tokens == 20 for c in mixed) == 2 * SLOTS


def test_nobody_is_served_who_cannot_be() -> None:
    """An answer of more steps than there is time for, even alone."""
    assert scheduled(MODEL, calls([0.0], [100])) == []


@pytest.mark.parametrize("seed", range(5))
def test_the_bound_is_at_least_what_was_found(seed: int) -> None:
    """And no more than there are; a later deadline never lowers it."""
    rng = np.random.default_rng(seed)
    at_s, tokens = np.sort(rng.random(60) * 6.0).tolist(), rng.integers(5, 60, 60).tolist()
    some = calls(at_s, tokens)
    most = relaxed(MODEL, some)

    assert len(scheduled(MODEL, some)) <= most < len(some)
    assert most <= relaxed(MODEL, [replace(c, due_s=c.due_s + 1.0) for c in some])
