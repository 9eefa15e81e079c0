"""What a router does in the background costs little."""

import pytest

from router_svc.chores import pause_s


def test_what_takes_long_to_save_is_saved_seldom() -> None:
    """A small state every 15 s, a large one in a hundredth of the time, none less than so often."""
    assert pause_s(0.0) == pause_s(0.15) == 15.0
    assert pause_s(1.2) == pytest.approx(120.0)
    assert pause_s(60.0) == 300.0
