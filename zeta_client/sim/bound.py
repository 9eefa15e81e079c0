"""What no way of routing could exceed, even one that knows every answer and its length beforehand.

Right answers in time are work that a model's replicas must do between a request's arrival and its
deadline. Prices on that time give an upper bound, whatever they are (weak duality: Bertsekas,
"Nonlinear Programming", 5.1): the worth of the time at these prices, and of each request what its
best model's answer is worth beyond the cheapest time that it could be made in. Subgradient descent
finds prices that make the bound small. K = requests, M = models, B = bins of time.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeta_client.sim.draw import Drawn
from zeta_client.sim.scenario import Model, Scenario

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]

_BIN_S: Final = 0.5
_SWEEPS, _GRID = 2, 61
_DEAREST: Final = 3.0
"""Prices are tried up to so many times what makes an answer of the usual work worthless."""
_ROUNDS: Final = 150
_STEP: Final = 0.2
"""Of the price, per unit of overload; less and less."""


def most_right(scenario: Scenario, drawn: Sequence[Drawn]) -> float:
    """Return how many of *drawn* could be answered right and in time, at most."""
    deadline_s = scenario.deadline_s
    came = [each for each in drawn if each.arrival.at_s >= scenario.warm_s]
    worth = np.array([each.right for each in came], dtype=np.float64)
    if deadline_s is None or not came:
        return float(worth.max(axis=1, initial=0.0).sum())
    took = [[_alone_s(m, each, i) for i, m in enumerate(scenario.models)] for each in came]
    worth *= np.array(took) <= deadline_s
    work_s = np.array([[_work_s(m, e, i) for i, m in enumerate(scenario.models)] for e in came])
    first = np.array([(e.arrival.at_s - scenario.warm_s) // _BIN_S for e in came], dtype=np.intp)
    capacity = np.array([_machines(model) for model in scenario.models]) * _BIN_S
    return _descended(worth, work_s, first, int(deadline_s // _BIN_S) + 2, capacity)


def _constant(worth: Floats, work_s: Floats, time_s: Floats) -> Floats:
    """Return the prices (M,) that bound best of those that never change; *time_s* (M,) there is."""
    usual_s = np.maximum((work_s * worth).sum(axis=0) / np.maximum(worth.sum(axis=0), 1.0), 1e-9)
    prices = np.zeros(len(time_s))
    for m in [*range(len(prices))] * _SWEEPS:
        tried = np.linspace(0.0, _DEAREST / usual_s[m], _GRID)
        others = np.delete(worth - work_s * prices, m, axis=1).max(axis=1, initial=0.0)
        gains = np.maximum(worth[:, m, None] - work_s[:, m, None] * tried, others[:, None])
        prices[m] = tried[(np.maximum(gains, 0.0).sum(axis=0) + tried * time_s[m]).argmin()]
    return prices


def _descended(worth: Floats, work_s: Floats, first: Ints, bins: int, capacity: Floats) -> float:
    """Lower the bound by subgradient descent; a request may use *bins* from its *first* on."""
    count = int(first.max()) + bins
    start = _constant(worth, work_s, capacity * count)
    prices, least, rows = np.repeat(start[:, None], count, axis=1), np.inf, np.arange(len(first))
    for n in range(_ROUNDS):
        windows = np.lib.stride_tricks.sliding_window_view(prices, bins, axis=1)
        gain = worth - work_s * windows.min(axis=2)[:, first].T
        best = gain.argmax(axis=1)
        won = np.maximum(gain[rows, best], 0.0)
        least = min(least, float(won.sum() + (prices.sum(axis=1) * capacity).sum()))
        # Spread over the whole window, or all would move to the same bin.
        used = np.zeros_like(prices)
        for shift in range(bins):
            np.add.at(used, (best, first + shift), (won > 0.0) * work_s[rows, best] / bins)
        step = _STEP / (1.0 + n) * np.maximum(start, _STEP)[:, None]
        prices = np.maximum(prices + step * (used / capacity[:, None] - 1.0), 0.0)
    return least


def _alone_s(model: Model, each: Drawn, i: int) -> float:
    """Return how long an answer takes on the fastest machine with nobody else there."""
    costs, fastest = model.costs, min(model.slowdowns[: model.replicas])
    assert costs is not None
    step_s = costs.step_s + costs.step_s_per_running
    fed_s = costs.prefill_s_per_token * each.prompt_tokens
    return costs.overhead_s + fastest * (fed_s + step_s * max(each.output_tokens[i] - 1, 0))


def _work_s(model: Model, each: Drawn, i: int) -> float:
    """Return what of a machine's time an answer needs, in full batches."""
    costs = model.costs
    assert costs is not None
    token_s = costs.step_s / model.max_running + costs.step_s_per_running
    fed_s = costs.prefill_s_per_token * each.prompt_tokens
    return fed_s + token_s * max(each.output_tokens[i] - 1, 0)


def _machines(model: Model) -> float:
    """Count a model's machines, slower ones as parts of one."""
    return sum(1.0 / model.slowdowns[i % len(model.slowdowns)] for i in range(model.replicas))
