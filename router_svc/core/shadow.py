"""What a second of each model's capacity is worth: prices by dual ascent, and what a call pays.

Requests would each go where quality, latency and cost, less the price of the work, are best; where
the work that they would bring exceeds a model's capacity, its price rises, else it falls: gradient
ascent on the dual of the assignment problem (Bertsekas, "Nonlinear Programming", 6.1; revenue
management's bid prices). Demand counts where it *would* go at a price, not where it went, so that a
price need not wait for its own effect, which is what makes feedback oscillate.

K = requests, M = models, R = replicas. Work is seconds of a slot: a model with n slots does n of
them in a second. Prices are units of utility per second of a slot.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np

from router_svc.core.latency import Quantiles
from router_svc.core.types import Floats

MOST: Final = 0.2
"""Of quality: no price takes more from a call of the usual size."""
_STEP: Final = 0.02
"""Of quality, per call of the usual size and unit of utilisation above the target."""
_ROUNDS: Final = 10
"""Gradient steps at a time."""
_TEMPERATURE: Final = 0.02
"""Requests whose two best models are so close in value go to both: smoothes the gradient."""
_NEVER: Final = -1e9
_PRESENT: Final = 0.05
_FREE: Final = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What would come, and what there is for it."""

    values: Floats
    """(K, M) Utility of each request on each model before the price; -inf where it cannot go."""
    work_s: Floats
    """(K, M) Work of each request on each model."""
    rates: Floats
    """(K,) How often a second requests like each come, to all routers."""
    capacity: Floats
    """(M,) Slots."""
    taken: Floats
    """(M,) Slots that are taken whatever the price: by work that waits, or that no sample shows."""


def usual_s(demand: Demand) -> Floats:
    """Return the work of a call of the usual size on each model (M,)."""
    can = np.isfinite(demand.values) * np.maximum(demand.rates, 1e-9)[:, None]
    total = can.sum(axis=0)
    mean: Floats = (can * demand.work_s).sum(axis=0) / np.maximum(total, 1e-12)
    return np.where(total > 0.0, np.maximum(mean, 1e-6), 1.0)


def would_take(demand: Demand, prices: Floats) -> Floats:
    """Return the slots that the requests would take of each model at *prices* (M,); (M,)."""
    worth = np.maximum(demand.values - prices * demand.work_s, _NEVER)
    odds = np.exp((worth - worth.max(axis=1, keepdims=True)) / _TEMPERATURE)
    chances = odds / odds.sum(axis=1, keepdims=True)
    found: Floats = demand.rates @ (chances * demand.work_s)
    return found


def utilisation(demand: Demand, prices: Floats) -> Floats:
    """Return how much of each model would be used at *prices* (M,), 1 where it is all; (M,).

    A model that is gone is not overloaded: nobody can go there.
    """
    used = would_take(demand, prices) + demand.taken
    there = demand.capacity > 0.0
    found: Floats = np.where(there, used / np.maximum(demand.capacity, 1e-9), 0.0)
    return found


def ascended(demand: Demand, prices: Floats, target: float) -> Floats:
    """Return *prices* (M,) after a few steps towards every model's use of *target*.

    Steps are measured in calls of the usual size, so that models of any speed adjust alike.
    """
    scale = usual_s(demand)
    for _ in range(_ROUNDS if len(demand.rates) else 1):
        over = utilisation(demand, prices) - target
        prices = np.clip(prices + _STEP * over / scale, 0.0, MOST / scale)
    return prices


def slot_s(when: Quantiles) -> float:
    """Return the seconds that a request would hold a slot, not waiting."""
    return when.total_p50_s - min(when.wait_s, when.ttft_p50_s)


def congestion(requests: float, most: float) -> float:
    """Price a call by how full its replica is now: nothing up to 80 %, then rising.

    What no forecast foresees, and what divides requests that are worth the same.
    """
    over = requests / max(most, 1.0) - _FREE
    return _PRESENT * min(max(over / 0.2, 0.0), 4.0)
