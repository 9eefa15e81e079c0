"""The laws of scorers, for every entry of SCORERS."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.scorers import SCORERS, Figures
from router_svc.core.types import Policy

POLICY = Policy(latency_weight_per_s=0.1, cost_weight_per_usd=20.0)
DIRECTION = {"quality": 1, "latency_s": -1, "cost_usd": -1, "capacity": -1}


def figures(seed: int) -> Figures:
    """Random figures of seven plans."""
    rng = np.random.default_rng(seed)
    return Figures(
        quality=rng.random(7),
        latency_s=rng.exponential(2.0, 7),
        cost_usd=rng.exponential(0.01, 7),
        capacity=rng.random(7),
        deadline_probability=rng.random(7),
    )


@pytest.mark.parametrize("name", SCORERS)
def test_a_scorer_gives_each_plan_a_finite_term_of_its_own(name: str) -> None:
    """One term per plan, the same whatever stands beside it."""
    term = SCORERS[name](figures(1), POLICY)
    assert term.shape == (7,)
    assert np.isfinite(term).all()
    f = figures(1)
    alone = Figures(
        quality=f.quality[3:4],
        latency_s=f.latency_s[3:4],
        cost_usd=f.cost_usd[3:4],
        capacity=f.capacity[3:4],
        deadline_probability=f.deadline_probability[3:4],
    )
    assert SCORERS[name](alone, POLICY)[0] == term[3]


@pytest.mark.parametrize("name", SCORERS)
def test_nothing_scores_nothing(name: str) -> None:
    """A plan without quality, latency, cost or capacity has the term 0."""
    none = np.zeros(2)
    empty = Figures(
        quality=none, latency_s=none, cost_usd=none, capacity=none, deadline_probability=none
    )
    assert (SCORERS[name](empty, POLICY) == 0.0).all()


@pytest.mark.parametrize("name", SCORERS)
@pytest.mark.parametrize("field", DIRECTION)
def test_utility_moves_one_way(name: str, field: str) -> None:
    """More quality never lowers a term; more latency, cost or capacity never raises it."""
    f = figures(2)
    more = replace(f, **{field: getattr(f, field) + 0.5})
    change = SCORERS[name](more, POLICY) - SCORERS[name](f, POLICY)
    assert (change * DIRECTION[field] >= 0.0).all()


@pytest.mark.parametrize(("field", "name"), list(zip(DIRECTION, SCORERS, strict=True)))
def test_every_figure_counts(field: str, name: str) -> None:
    """Each figure moves its own scorer."""
    f = figures(3)
    more = replace(f, **{field: getattr(f, field) + 0.5})
    assert (SCORERS[name](more, POLICY) != SCORERS[name](f, POLICY)).all()
