"""The memory of outcomes: bounded, in order, and it forgets what it is told to."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.features import lexical_profile
from router_svc.core.memory import Memory

PROMPT = replace(lexical_profile("What is 3 + 4?"), tasks=np.array([0.1, 0.7, 0.2, 0.0]))
REASONING, GENERAL = 1, 2


def filled(count: int, size: int = 4) -> Memory:
    """Remember outcomes 0, 1, 2 … of models 0 and 1 in turn."""
    memory = Memory(size)
    for n in range(count):
        memory.add(PROMPT, n % 2, float(n), 1.0)
    return memory


@pytest.mark.parametrize("count", [0, 3, 4, 5, 11])
def test_the_newest_outcomes_are_held_oldest_first(count: int) -> None:
    """However many came."""
    expected = list(range(count))[-4:]
    seen = filled(count).seen()
    assert seen.targets.tolist() == expected
    assert seen.models.tolist() == [n % 2 for n in expected]


def test_a_changed_block_is_forgotten_but_for_its_newest() -> None:
    """Other models and other kinds of task stay."""
    memory = filled(8, size=8)
    memory.forget(1, GENERAL, 0)
    assert memory.seen().weights.all()
    memory.forget(1, REASONING, 2)
    assert memory.seen().weights.tolist() == [1, 0, 1, 0, 1, 1, 1, 1]
    memory.forget(0, REASONING, 9)
    assert memory.seen().weights.tolist() == [1, 0, 1, 0, 1, 1, 1, 1]


def test_it_survives_a_restart() -> None:
    """Also where models went, came and changed places, and where the size differs."""
    memory, again = filled(7), Memory(3)
    again.restore(memory.to_arrays(), np.array([-1, 2]))
    assert again.seen().targets.tolist() == [3.0, 5.0]
    assert again.seen().models.tolist() == [2, 2]
    again.restore(memory.to_arrays(), np.array([0, 1]))
    assert again.seen().targets.tolist() == [4.0, 5.0, 6.0]
    again.add(PROMPT, 1, 7.0, 1.0)
    assert again.seen().targets.tolist() == [5.0, 6.0, 7.0]


def test_the_state_of_another_version_is_refused() -> None:
    """It is not guessed at."""
    with pytest.raises(ValueError, match="version 9"):
        Memory(4).restore({**filled(3).to_arrays(), "version": np.array(9)}, np.array([0, 1]))
