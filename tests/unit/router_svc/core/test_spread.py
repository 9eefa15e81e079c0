"""Confidences are what the sigmoid says, drawn to the quality that is predicted."""

from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_svc.core.spread import centred, spread

SURPRISE = [exp(-z) for z in (-1.5, -0.5, 0.5, 1.5)]
ratios = st.floats(0.0, 1.0)


def test_it_is_the_sigmoid_before_it_is_drawn_to_the_quality() -> None:
    """Level, quality and log-probability add up in log-odds; then the mean is made the quality."""
    odds = [0.2 + 1.3 * log(0.7 / 0.3) - log(each) for each in SURPRISE]
    sure = [1.0 / (1.0 + exp(-each)) for each in odds]

    assert spread(0.7, 0.2, 1.3, SURPRISE) == pytest.approx(centred(sure, 0.7))


@given(ratios, st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_spreads_obey_the_law(quality: float, level: float, trust: float) -> None:
    """Probabilities that ascend, as good on average as the model is, whatever was learned."""
    found = spread(quality, level, trust, SURPRISE)

    assert sum(found) / len(found) == pytest.approx(quality, abs=1e-9)
    assert -1e-12 <= min(found) <= max(found) <= 1.0 + 1e-12
    assert found == sorted(found)


@pytest.mark.parametrize(
    ("sure", "quality", "found"),
    [
        ([0.2, 0.6], 0.2, [0.1, 0.3]),
        ([0.2, 0.6], 0.7, [0.6, 0.8]),
        ([0.0, 0.0], 0.5, [0.5, 0.5]),
        ([1.0, 1.0], 0.25, [0.25, 0.25]),
    ],
)
def test_too_sure_goes_towards_0_and_too_unsure_towards_1(
    sure: list[float], quality: float, found: list[float]
) -> None:
    """By a factor on what is there, or on what is missing."""
    assert centred(sure, quality) == pytest.approx(found)
