"""Recursive ridge regression against its closed form."""

import numpy as np
import pytest

from router_svc.core.ridge import Ridges

FORGETTING = 0.9


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def test_updates_equal_the_closed_form(rng: np.random.Generator) -> None:
    """After any outcomes, coefficients and covariance are those of the weighted batch problem."""
    prior, precision = rng.normal(size=4), rng.uniform(0.5, 2.0, size=4)
    x, y, v = rng.normal(size=(30, 4)), rng.normal(size=30), rng.uniform(0.1, 3.0, size=30)
    ridges = Ridges(np.tile(prior, (2, 1)), precision, forgetting=FORGETTING)

    for each, target, weight in zip(x, y, v, strict=True):
        ridges.learn(1, each, float(target), float(weight))

    w = np.diag(v * FORGETTING ** np.arange(29, -1, -1))
    gram = x.T @ w @ x + np.diag(precision)
    expected = np.linalg.solve(gram, x.T @ w @ y + precision * prior)
    np.testing.assert_allclose(ridges.coefficients[1], expected, atol=1e-10)
    np.testing.assert_allclose(ridges.covariance[1], np.linalg.inv(gram), atol=1e-10)
    np.testing.assert_array_equal(ridges.coefficients[0], prior)


@pytest.mark.parametrize("apart", [1.0, 8.0, 100.0])
def test_the_past_may_age_in_steps(rng: np.random.Generator, apart: float) -> None:
    """Then weights are those of the last step, and everything else is as exact; of any weight."""
    prior, precision = rng.normal(size=4), rng.uniform(0.5, 2.0, size=4)
    x, y, v = rng.normal(size=(30, 4)), rng.normal(size=30), rng.uniform(0.1, 3.0, size=30)
    v[5] = 0.0
    ridges = Ridges(np.tile(prior, (2, 1)), precision, forgetting=FORGETTING, apart=apart)

    for each, target, weight in zip(x, y, v, strict=True):
        ridges.learn(1, each, float(target), float(weight))

    aged = np.array([sum(n % apart == 0 for n in range(i + 2, 31)) for i in range(30)]) * apart
    w = np.diag(v * FORGETTING**aged)
    gram = x.T @ w @ x + np.diag(precision)
    expected = np.linalg.solve(gram, x.T @ w @ y + precision * prior)
    np.testing.assert_allclose(ridges.coefficients[1], expected, atol=1e-10)
    np.testing.assert_allclose(ridges.covariance[1], np.linalg.inv(gram), atol=1e-10)
    np.testing.assert_array_equal(ridges.covariance[1], ridges.covariance[1].T)


def test_what_is_saved_has_aged_and_goes_on_alike(rng: np.random.Generator) -> None:
    """Whether it is restored or was there all the time; what was learned instead is gone."""
    saved, other = (
        Ridges(np.zeros((1, 3)), np.ones(3), forgetting=FORGETTING, apart=8.0) for _ in range(2)
    )
    x, y = rng.normal(size=(20, 3)), rng.normal(size=20)
    other.learn(0, x[19], 5.0)
    for each, target in zip(x[:11], y[:11], strict=True):
        saved.learn(0, each, float(target))
    other.restore(0, *(part[0] for part in saved.statistics()))
    for each, target in zip(x[11:], y[11:], strict=True):
        saved.learn(0, each, float(target))
        other.learn(0, each, float(target))
    np.testing.assert_array_equal(saved.coefficients, other.coefficients)
    np.testing.assert_array_equal(saved.covariance, other.covariance)


def test_returns_to_the_prior_where_nothing_recent_was_seen() -> None:
    """A direction that outcomes no longer excite is forgotten, and its variance stays bounded."""
    ridges = Ridges(np.array([[0.5, -0.5]]), np.ones(2), forgetting=FORGETTING)
    ridges.learn(0, np.array([0.0, 1.0]), 9.0)

    for _ in range(400):
        ridges.learn(0, np.array([1.0, 0.0]), 2.0)

    assert ridges.coefficients[0, 1] == pytest.approx(-0.5)
    assert ridges.covariance[0, 1, 1] == pytest.approx(1.0)


def test_an_outcome_may_age_the_past_by_less() -> None:
    """Ten outcomes of a tenth age the past as much as one whole."""
    whole, tenths = (Ridges(np.zeros((1, 1)), np.ones(1), forgetting=0.5) for _ in range(2))
    for ridges in (whole, tenths):
        ridges.learn(0, np.ones(1), 1.0)

    whole.learn(0, np.zeros(1), 0.0)
    for _ in range(10):
        tenths.learn(0, np.zeros(1), 0.0, outcomes=0.1)

    np.testing.assert_allclose(tenths.coefficients, whole.coefficients)
