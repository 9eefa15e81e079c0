"""Columns of priced plans."""

import pytest

from router_svc.core.plans import Plans


def test_a_plan_is_worth_its_figures_at_their_rates() -> None:
    """Quality counts as far as it comes in time; every other figure as it is."""
    plans = Plans([1.0, -0.1, -20.0, -1.0])
    plans.add(0.8, 2.0, 0.001, 0.05, 0.9, (1, 0), 0.6)

    assert plans.utility == pytest.approx([0.8 * 0.9 - 0.1 * 2.0 - 20.0 * 0.001 - 0.05])
    assert (plans.quality, plans.latency_s, plans.cost_usd) == ([0.8], [2.0], [0.001])
    assert (plans.capacity, plans.in_time) == ([0.05], [0.9])
    assert (plans.places, plans.settings) == ([(1, 0)], [0.6])


@pytest.mark.parametrize(("gain", "quality"), [(0.1, 0.9), (0.5, 1.0), (-0.9, 0.0)])
def test_what_a_kind_proved_to_be_worth_counts_from_then_on(gain: float, quality: float) -> None:
    """In what is expected and in what that is worth, within what quality can be."""
    plans = Plans([1.0, 0.0, 0.0, 0.0])
    plans.add(0.8, 1.0, 0.0, 0.0, 1.0, (0,), 0.0)
    plans.gain(gain)
    plans.add(0.8, 1.0, 0.0, 0.0, 1.0, (0,), 0.0)
    plans.gain(0.0)
    plans.add(0.8, 1.0, 0.0, 0.0, 1.0, (0,), 0.0)

    assert plans.quality == pytest.approx([0.8, quality, 0.8])
    assert plans.utility == plans.quality
