"""Prices that even out what models are asked to do."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.latency import Latency
from router_svc.core.load import Load
from router_svc.core.shadow import (
    MOST,
    Demand,
    ascended,
    congestion,
    slot_s,
    usual_s,
    utilisation,
    would_take,
)

TARGET = 0.9
# A hundred requests, all of them better on the first model, the later the more.
GAPS = np.linspace(0.0, 0.3, 100)
DEMAND = Demand(
    values=np.stack([0.5 + GAPS, np.full(100, 0.5)], axis=1),
    work_s=np.tile([1.0, 0.5], (100, 1)),
    rates=np.full(100, 0.1),
    capacity=np.array([5.0, 20.0]),
    taken=np.zeros(2),
)


def settled(demand: Demand, steps: int = 60) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Prices after many steps from nothing."""
    prices = np.zeros(len(demand.capacity))
    for _ in range(steps):
        prices = ascended(demand, prices, TARGET)
    return prices


def test_capacity_that_is_left_is_free() -> None:
    """Without overload nothing has a price, and an old price goes."""
    roomy = replace(DEMAND, capacity=np.array([20.0, 20.0]))

    assert settled(roomy).tolist() == [0.0, 0.0]
    prices = np.array([0.3, 0.2])
    for _ in range(60):
        prices = ascended(roomy, prices, TARGET)
    assert prices.tolist() == [0.0, 0.0]


def test_the_price_rises_until_demand_fits() -> None:
    """Ten slots' work for five: the price ends where the target is met, and the other is free."""
    prices = settled(DEMAND)

    assert utilisation(DEMAND, np.zeros(2))[0] == pytest.approx(2.0, rel=0.05)
    assert utilisation(DEMAND, prices)[0] == pytest.approx(TARGET, abs=0.01)
    assert prices[1] == 0.0


def test_who_gains_least_leaves_first() -> None:
    """At the price, requests with a small gap go elsewhere and those with a large one stay."""
    worth = DEMAND.values - settled(DEMAND) * DEMAND.work_s
    stays = worth[:, 0] > worth[:, 1]

    assert not stays[:40].any()
    assert stays[60:].all()


def test_long_work_leaves_before_short() -> None:
    """Of requests that gain the same, those that hold a slot for long are priced out."""
    work_s = np.tile([1.0, 0.5], (100, 1))
    work_s[::2, 0] = 3.0
    same = replace(DEMAND, values=np.tile([0.7, 0.5], (100, 1)), work_s=work_s)
    worth = same.values - settled(same) * work_s

    # Five seconds' work of short requests a second stays, of fifteen of long ones none.
    assert would_take(same, settled(same))[0] == pytest.approx(5.0, rel=0.1)
    assert (worth[::2, 0] < worth[::2, 1]).all()
    assert (worth[1::2, 0] > worth[1::2, 1]).all()


def test_prices_come_to_rest() -> None:
    """No cycle: once the target is met, they stay as they are."""
    prices = settled(DEMAND)

    assert settled(DEMAND, 61) == pytest.approx(prices, abs=1e-4)


def test_a_price_is_bounded() -> None:
    """Whatever the overload, a usual call pays at most `MOST`, and what matters more stays."""
    flood = replace(DEMAND, rates=np.full(100, 10.0), taken=np.array([50.0, 50.0]))

    assert settled(flood) * usual_s(flood) == pytest.approx([MOST, MOST])


def test_what_others_take_leaves_less_for_us() -> None:
    """Slots that others hold raise the price as our own demand does."""
    half = replace(DEMAND, taken=np.array([1.0, 0.0]))

    assert settled(half)[0] > settled(DEMAND)[0]
    assert utilisation(half, settled(half))[0] == pytest.approx(TARGET, abs=0.01)


def test_a_model_that_is_gone_or_not_allowed_takes_nothing() -> None:
    """No capacity is no overload; a request that only one model may answer goes there."""
    gone = replace(DEMAND, capacity=np.array([0.0, 20.0]))
    values = DEMAND.values.copy()
    values[:, 0] = -np.inf

    assert utilisation(gone, np.zeros(2))[0] == 0.0
    assert would_take(replace(DEMAND, values=values), np.zeros(2)) == pytest.approx([0.0, 5.0])


def test_nobody_comes() -> None:
    """Without a request there is nothing to price, and prices fall."""
    none = replace(DEMAND, values=np.empty((0, 2)), work_s=np.empty((0, 2)), rates=np.empty(0))
    after = ascended(none, np.array([0.1, 0.0]), TARGET)

    assert after[0] < 0.1
    assert after[1] == 0.0


def test_waiting_is_no_work() -> None:
    """A slot is held from the first piece of the prompt on, not while a request queues."""
    model = Latency(["a"])
    fleet, prompt, output = Load(np.zeros(1, dtype=np.intp), [4]), 100.0, np.array([20.0])
    idle = model.quantiles(model.predict(fleet.loads(0.0), prompt, output), 0)
    assert slot_s(idle) == pytest.approx(idle.total_p50_s)

    fleet.began(0, 0.0, 5 * 20.0, requests=5, now_s=0.0)
    full = model.quantiles(model.predict(fleet.loads(0.0), prompt, output), 0)
    # Two are ahead of it for four slots, each with half of its answer to go.
    assert full.wait_s == pytest.approx(2 / 4 * 10 * full.tpot_s)
    assert slot_s(full) == pytest.approx(full.total_p50_s - full.wait_s)


def test_present_use_is_free_until_it_is_short() -> None:
    """Then its price rises."""
    fleet, prices = Load(np.zeros(1, dtype=np.intp), [4]), []
    for _ in range(8):
        fleet.began(0, 0.0, 0.0, now_s=1.5)
        prices.append(congestion(*fleet.loads(0.0).use_of(0)))
    assert prices[:3] == [0.0, 0.0, 0.0]
    assert prices[3:] == sorted(prices[3:])
    assert prices[-1] == pytest.approx(0.2)
