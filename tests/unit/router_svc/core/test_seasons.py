"""Days and weeks that repeat, seen by a clock that is set by hand."""

from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.ahead import Ahead
from router_svc.core.seasons import SLOT_S, Seasons
from router_svc.core.types import Floats
from tests.unit.router_svc.core.test_ahead import MODELS, SmallFleet, told
from tests.unit.router_svc.fixtures import candidates

DAY_S = 86_400.0
MONDAY_S = 4 * DAY_S
"""The first Monday since 1970, at midnight."""


def busy(at_s: float) -> Floats:
    """Twenty a second from nine to five on working days, else two; others are steady, and none."""
    weekday, hour = int(at_s / DAY_S + 3) % 7, at_s % DAY_S / 3600.0
    rate = 20.0 if weekday < 5 and 9.0 <= hour < 17.0 else 2.0
    return np.array([rate, 5.0, 0.0])


def lived(days: int, noise: np.random.Generator | None = None) -> Seasons:
    """Seasons that saw so many days from a Monday on."""
    seasons = Seasons(3)
    for i in range(round(days * DAY_S / SLOT_S)):
        at_s = MONDAY_S + i * SLOT_S
        rates = busy(at_s)
        if noise is not None:
            rates = noise.poisson(rates * SLOT_S) / SLOT_S
        seasons.learn(int(at_s // SLOT_S), rates)
    return seasons


def at(week: int, day: int, hour: float) -> float:
    """Seconds since 1970."""
    return MONDAY_S + (7 * week + day) * DAY_S + hour * 3600.0


def test_nothing_is_known_of_a_first_day() -> None:
    """One day is no pattern: the forecast stays as it is."""
    assert Seasons(3).ratio(at(0, 0, 9.0), 60.0) == 1.0
    assert lived(1).rates(at(0, 1, 12.0)) is None
    assert lived(1).ratio(at(0, 1, 9.0), 60.0) == 1.0


def test_a_day_repeats() -> None:
    """After three working days the morning's rise is expected before it is there."""
    seasons = lived(3)
    usual = seasons.rates(at(0, 3, 12.0))

    assert usual is not None
    assert usual == pytest.approx([20.0, 5.0, 0.0], rel=0.01)
    before = seasons.ratio(at(0, 3, 9.0) - 150.0, 60.0)
    assert np.asarray(before)[0] > 1.5
    assert np.asarray(before)[1] == pytest.approx(1.0, rel=0.01)
    evening = seasons.ratio(at(0, 3, 17.0) - 120.0, 60.0)
    assert np.asarray(evening)[0] < 0.85
    assert np.asarray(seasons.ratio(at(0, 3, 13.0), 60.0)) == pytest.approx(np.ones(3), rel=0.01)


def test_a_week_repeats() -> None:
    """After three weeks a Saturday morning is quiet, and a Monday's is not."""
    seasons = lived(21, np.random.default_rng(1))
    saturday, monday = seasons.rates(at(3, 5, 12.0)), seasons.rates(at(3, 0, 12.0))

    assert saturday is not None
    assert monday is not None
    assert saturday == pytest.approx([2.0, 5.0, 0.0], rel=0.2)
    assert monday == pytest.approx([20.0, 5.0, 0.0], rel=0.2)


def test_a_change_of_habits_is_learned() -> None:
    """Old days fade: two months of other days outweigh them."""
    seasons = lived(28)
    for i in range(round(60 * DAY_S / SLOT_S)):
        seasons.learn(int(at(4, 0, 0.0) // SLOT_S) + i, np.array([3.0, 5.0, 0.0]))
    usual = seasons.rates(at(13, 0, 12.0))

    assert usual is not None
    assert usual[0] < 8.0


def test_few_requests_make_no_pattern() -> None:
    """A request an hour, at whatever minute, is not expected again at that minute."""
    seasons, rng = Seasons(1), np.random.default_rng(2)
    for i in range(round(10 * DAY_S / SLOT_S)):
        seasons.learn(i, rng.poisson(1.0 / 12.0, 1) / SLOT_S)
    ratios = [
        float(np.asarray(seasons.ratio(11 * DAY_S + 600.0 * i, 300.0)).item()) for i in range(144)
    ]

    assert min(ratios) > 0.7
    assert max(ratios) < 1.4


def test_what_was_learned_is_kept() -> None:
    """To arrays and back, and never into another fleet's."""
    seasons, again = lived(3), Seasons(3)
    again.restore(seasons.to_arrays())
    usual = seasons.rates(at(0, 3, 9.0))

    assert usual is not None
    assert again.rates(at(0, 3, 9.0)) == pytest.approx(usual)
    with pytest.raises(ValueError, match="shape"):
        Seasons(2).restore(seasons.to_arrays())


def test_foresight_lives_through_the_season() -> None:
    """Slots that were seen whole are learned from the traffic itself; a late start is not."""
    ahead, fleet = Ahead(MODELS, target=0.9), SmallFleet()
    fleet.ahead = [ahead]
    idle = fleet.seen_by(0)
    for i in range(round(4 * SLOT_S / 5.0)):
        ahead.step(idle, 5.0 * i + 5.0, MONDAY_S + 100.0 + 5.0 * i)

    assert ahead.seasons.learned == 3


def test_a_start_in_the_morning_expects_the_morning() -> None:
    """Before its first request a restarted router expects what is usual, and prepares for it."""
    found = {}
    for known in (False, True):
        ahead, fleet = Ahead(MODELS, target=0.9), SmallFleet()
        fleet.ahead = [ahead]
        if known:
            ahead.seasons.restore(lived(3).to_arrays())
        ahead.step(fleet.seen_by(0), 0.25, at(0, 3, 12.0))
        found[known] = ahead.rates().tolist()

    assert found[False] == [0.0, 0.0, 0.0]
    assert found[True][0] > 12.0
    assert found[True][2] == 0.0


def test_before_the_rush_slots_are_needed_that_nobody_uses_yet() -> None:
    """A minute before nine more slots are needed than at half past eight, by the season alone."""
    need = {}
    for hour in (8.5, 9.0 - 120.0 / 3600.0):
        ahead, fleet = Ahead(MODELS, target=0.9), SmallFleet()
        fleet.ahead = [ahead]
        ahead.seasons.restore(lived(3).to_arrays())
        found = replace(candidates([0.9, 0.3, 0.3]), work_s=[0.5] * 3)
        for step in range(40):
            told(ahead, found, 0.25 * step)
            ahead.step(fleet.seen_by(0), 0.25 * (step + 1), at(0, 3, hour) + 0.25 * step)
        need[hour] = ahead.need(np.array([True, True, True]), 24.0)[0]
    usual, rush = need.values()

    assert rush > 1.3 * usual
