"""Who is told to come back."""

import pytest

from router_svc.core.decide import DeadlineError
from router_svc.core.refusal import refused
from tests.unit.router_svc.fixtures import candidates

FOUND = candidates([0.5, 0.9])


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
    assert refused(full, helps, ("a", "b")) == (full, 1)


@pytest.mark.parametrize("wait_s", [0.0, 2.0])
def test_whom_no_place_would_help_is_promised_none(wait_s: float) -> None:
    """It hears that time is too short, of the decision that had all the room."""
    why, model = refused(late(wait_s, "b"), helps_nothing, ("a", "b"))
    assert model == -1
    assert why.wait_s == 0.0
