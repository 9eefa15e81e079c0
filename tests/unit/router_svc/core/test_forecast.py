"""What is expected to come, against what comes."""

import numpy as np
import pytest
from numpy.typing import NDArray

from router_svc.core.forecast import HORIZON_S, STEP_S, Forecast

STEPS = round(HORIZON_S / STEP_S)


def fed(rates: NDArray[np.float64]) -> Forecast:
    """A forecast that has seen *rates* (T,) of one stream."""
    forecast = Forecast(1)
    for rate in rates:
        forecast.observe(np.array([rate]))
    return forecast


def test_what_is_steady_goes_on() -> None:
    """A constant rate is its own forecast, from the first step on, without any error."""
    for steps in (1, 10, 200):
        assert fed(np.full(steps, 7.0)).rates() == pytest.approx([7.0])
    assert fed(np.full(200, 7.0)).error == pytest.approx([0.0])


def test_noise_is_averaged_away() -> None:
    """Requests that come by chance at a steady rate: the error is far below the naive one."""
    counts = np.random.default_rng(1).poisson(10.0 * STEP_S, 2000) / STEP_S
    forecast = fed(counts)

    assert forecast.rates() == pytest.approx([10.0], rel=0.3)
    assert forecast.error[0] < 0.6 * forecast.naive_error[0]


def test_a_rise_is_followed_ahead() -> None:
    """On a ramp the forecast is above what the last second saw, and nearer to what comes."""
    ramp = np.concatenate([np.full(100, 5.0), 5.0 + 0.5 * np.arange(120)])
    for steps in (145, 160, 220):
        forecast = fed(ramp[:steps])
        assert forecast.rates()[0] > ramp[steps - 4 : steps].mean()
    forecast = fed(ramp)
    assert forecast.error[0] < forecast.naive_error[0]


def test_a_trend_is_damped() -> None:
    """After a ramp that stops, no forecast runs away."""
    ramp = np.concatenate([np.linspace(0.0, 40.0, 40), np.full(STEPS, 40.0)])

    assert fed(ramp[:40]).rates()[0] < 60.0
    assert fed(ramp).rates()[0] < 50.0


def test_silence_is_forgotten_soon() -> None:
    """Two horizons after the last request next to nothing is expected, and never less."""
    quiet = np.concatenate([np.full(100, 8.0), np.zeros(2 * STEPS)])
    rates = fed(quiet).rates()[0]

    assert 0.0 <= rates < 1.5


def test_streams_are_apart() -> None:
    """What comes in one says nothing of the other."""
    forecast = Forecast(2)
    for step in range(100):
        forecast.observe(np.array([4.0, 20.0 * (step % 8 == 0)]))

    assert forecast.rates()[0] == pytest.approx(4.0)
    assert forecast.error[0] == pytest.approx(0.0)
    assert forecast.error[1] > 0.0


def test_a_bursty_stream_is_followed_quickly() -> None:
    """Where levels jump, quick smoothing wins; where noise alone moves them, slow smoothing."""
    rng = np.random.default_rng(2)
    levels = np.repeat(rng.choice([2.0, 30.0], 40), 40)
    jumpy = fed(levels)
    jumped = fed(np.concatenate([levels, np.full(8, 60.0)]))

    assert jumped.rates()[0] > 45.0
    steady = fed(np.concatenate([rng.poisson(10.0, 1600).astype(float), np.full(8, 60.0)]))
    assert steady.rates()[0] < jumped.rates()[0]
    assert jumpy.error[0] > 0.0
