"""What is heard of each source, and what it makes it count for."""

import pytest

from router_svc.core.trust import Trust

TASK = 2


def test_two_that_contradict_each_other_both_count_less() -> None:
    """Whoever was heard first, and whatever else is heard of other models."""
    trust = Trust(["a", "b"])
    for _ in range(20):
        trust.learn("other", 1, TASK, 0.0)
        assert trust.learn("first", 0, TASK, 0.5) == 1.0
    for _ in range(20):
        trust.learn("second", 0, TASK, -0.5)
    assert trust.learn("second", 0, TASK, -0.5) < 0.5
    assert trust.learn("first", 0, TASK, 0.5) < 0.5
    assert trust.learn("other", 1, TASK, 0.0) == 1.0


def test_what_was_heard_of_a_block_fades_with_each_outcome_of_it() -> None:
    """Of every source alike, and of no other block."""
    trust = Trust(["a", "b"])
    trust.learn("first", 1, TASK, 1.0)
    trust.learn("first", 0, TASK, 1.0)
    for _ in range(100):
        trust.learn("second", 0, TASK, 0.0)
    heard = trust.to_arrays()["heard"]
    kept = 1.0 - 1.0 / 400.0
    assert heard[0, 0, 0, TASK].tolist() == pytest.approx([kept**100] * 2)
    assert heard[0, 0, 1, TASK].tolist() == [1.0, 1.0]
    assert heard[1, 0, 0, TASK, 0] == pytest.approx((1.0 - kept**100) / (1.0 - kept))
