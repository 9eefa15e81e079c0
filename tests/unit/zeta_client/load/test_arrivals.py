"""Arrivals have the rate that was asked for, and bursts where they should be."""

import numpy as np
import pytest

from services.kit.errors import ConfigError
from zeta_client.load.arrivals import Burst, bursts, poisson, replay
from zeta_client.load.trace import Line


def rng(seed: int = 1) -> np.random.Generator:
    """Chance that repeats."""
    return np.random.default_rng(seed)


def test_poisson_arrivals_are_independent() -> None:
    """Gaps have the mean and the spread of an exponential distribution."""
    times = np.array([a.at_s for a in poisson(50.0, 200.0, rng())])
    gaps = np.diff(times)

    assert len(times) == pytest.approx(10_000, rel=0.03)
    assert gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.05)


def test_bursts_keep_the_mean_rate() -> None:
    """Four times as many come inside the bursts, and as many as asked for over all."""
    burst = Burst(factor=4.0, every_s=10.0, for_s=2.0)
    times = np.array([a.at_s for a in bursts(50.0, 400.0, burst, rng())])
    inside = times % 10.0 >= 8.0

    assert len(times) / 400.0 == pytest.approx(50.0, rel=0.03)
    assert (inside.sum() / 80.0) / ((~inside).sum() / 320.0) == pytest.approx(4.0, rel=0.1)


def test_the_same_seed_gives_the_same_arrivals() -> None:
    """And another seed gives others."""
    assert poisson(5.0, 10.0, rng(3)) == poisson(5.0, 10.0, rng(3))
    assert poisson(5.0, 10.0, rng(3)) != poisson(5.0, 10.0, rng(4))


def trace(start_s: float, gaps_s: list[float]) -> list[Line]:
    """A trace with these gaps between its requests."""
    times = start_s + np.cumsum([0.0, *gaps_s])
    return [
        Line(at_s=at_s, prompt_tokens=i, output_tokens=2 * i)
        for i, at_s in enumerate(times.tolist())
    ]


def test_traces_are_merged_and_scaled() -> None:
    """Both begin together, the longer ends with the shorter, and all of it fits in the time."""
    one, two = trace(1e9, [1.0, 1.0]), trace(5.0, [0.5, 1.0, 9.0])
    merged = replay([("code", one), ("", two)], 6.0, 1.0, rng())

    assert [a.kind for a in merged] == ["code", "", "", "code", "", "code"]
    assert [a.prompt_tokens for a in merged] == [0, 0, 1, 1, 2, 2]
    assert [a.at_s for a in merged] == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.75, 1.0])


def test_a_thinned_trace_keeps_its_shape() -> None:
    """Of a trace whose second half is three times as busy, so is the tenth that is kept."""
    lines = trace(0.0, [0.3] * 1000 + [0.1] * 3000)
    times = np.array([a.at_s for a in replay([("", lines)], 40.0, 10.0, rng())])

    assert len(times) == 400
    assert (times > 5.0).mean() == pytest.approx(0.75, abs=0.05)


def test_a_trace_that_is_too_short_is_refused() -> None:
    """More requests than it has cannot be made of it."""
    with pytest.raises(ConfigError, match=r"hold 3 requests, 9 per second for 1 s are 9"):
        replay([("", trace(0.0, [1.0, 1.0]))], 9.0, 1.0, rng())


def test_a_trace_of_one_moment_is_refused() -> None:
    """It has no rate to scale."""
    with pytest.raises(ConfigError, match="one that lasts"):
        replay([("", trace(0.0, [0.0]))], 1.0, 1.0, rng())
