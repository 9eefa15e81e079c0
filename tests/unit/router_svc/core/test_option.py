"""Candidates as lognormals."""

import numpy as np
import pytest

from router_svc.core.menu import rates
from router_svc.core.option import best, both_in_time, cumulative, log_of, options
from router_svc.core.types import Policy
from tests.unit.router_svc.fixtures import candidates

RATES = rates(Policy())


def test_a_lognormal_is_fitted_through_its_quantiles() -> None:
    """Median and 90th percentile give back their own probabilities, and sampled moments agree."""
    found = candidates([0.5], total_s=[2.0], spread=1.5)
    assert options(found, RATES, 2.0)[0].in_time == pytest.approx(0.5, abs=1e-3)
    assert options(found, RATES, 3.0)[0].in_time == pytest.approx(0.9, abs=1e-3)
    (option,) = options(found, RATES, None)
    draws = np.random.default_rng(1).lognormal(np.log(2.0), np.log(1.5) / 1.2816, 400_000)
    assert option.mean_s == pytest.approx(draws.mean(), rel=0.01)
    assert option.variance_s2 == pytest.approx(draws.var(), rel=0.05)
    assert option.in_time == 1.0


def test_one_after_the_other_is_as_late_as_sampled() -> None:
    """The fitted sum is within two hundredths of the sampled one, wherever the deadline is."""
    one, two = options(candidates([0.5, 0.5], total_s=[2.0, 1.0], spread=2.0), RATES, None)
    rng, sigma = np.random.default_rng(2), np.log(2.0) / 1.2816
    sums = rng.lognormal(np.log(2.0), sigma, 200_000) + rng.lognormal(0.0, sigma, 200_000)
    for deadline_s in (2.0, 3.5, 6.0):
        expected = (sums < deadline_s).mean()
        assert both_in_time(one, two, log_of(deadline_s)) == pytest.approx(expected, abs=0.02)


def test_the_normal_distribution_is_close() -> None:
    """Within 2e-4 of known values, and between 0 and 1 far out."""
    known = {-2.0: 0.02275, -1.0: 0.158655, 0.0: 0.5, 1.2816: 0.9, 3.0: 0.99865}
    for z, p in known.items():
        assert cumulative(z) == pytest.approx(p, abs=2e-4)
    assert 0.0 < cumulative(-1e9) < 1e-4
    assert 1.0 - 1e-4 < cumulative(1e9) < 1.0


def test_the_best_come_first() -> None:
    """By what they are worth after their price."""
    found = candidates([0.9, 0.8, 0.7], cost_usd=[0.02, 0.0, 0.0])
    order = best(options(found, rates(Policy(cost_weight_per_usd=10.0)), None), 2)
    assert [option.place for option in order] == [1, 0]
    assert order[1].worth == pytest.approx(0.7)
