"""Who is told to come back."""

from dataclasses import replace

import pytest

from router_svc.core.decide import DeadlineError
from router_svc.core.refusal import Refusal, refused
from tests.unit.router_svc.fixtures import candidates

FOUND = replace(candidates([0.5, 0.9]), work_s=[0.2, 0.7])


def late(wait_s: float, model: str) -> DeadlineError:
    """A request that would be late for want of a place at *model*, or of time."""
    return DeadlineError(FOUND, 0.2, 3.0, wait_s, model)


def helps() -> None:
    """A kept place is all that it takes."""


def helps_nothing() -> None:
    """Not even with a kept place."""
    raise late(0.0, "a")


def test_a_place_is_promised_at_the_model_that_lacks_one() -> None:
    """Where it is load that stands in the way, and only that."""
    full = late(2.0, "b")
    assert refused(full, helps, ("other", "a", "b")) == Refusal(full, 2, 0.7)


@pytest.mark.parametrize("wait_s", [0.0, 2.0])
def test_whom_no_place_would_help_is_promised_none(wait_s: float) -> None:
    """It hears that time is too short, of the decision that had all the room."""
    found = refused(late(wait_s, "b"), helps_nothing, ("a", "b"))
    assert found.model == -1
    assert found.why.wait_s == 0.0
