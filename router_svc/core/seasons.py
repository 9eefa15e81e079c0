"""What a day and a week usually look like: mean arrivals by time of day and by time of week.

Slots of five minutes, in UTC. A slot of the week is believed as far as enough requests were seen in
it, then what its time of day usually has, then the mean of all. Old weeks fade. S = streams.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router_svc.core.types import Floats

SLOT_S: Final = 300.0
_DAY: Final = 288
_WEEK: Final = 7 * _DAY
_DAYS_KEPT: Final = 28.0
_WEEKS_KEPT: Final = 8.0
_LEAST_TIMES: Final = 2.0
"""A time of day, or of the week, says something once it came so often."""
_PRIOR_REQUESTS: Final = 20.0
"""The next coarser mean counts as much as so many requests."""
_MOST_RATIO: Final = 4.0
VERSION: Final = 1


class Seasons:
    """Usual rates of S streams. Mutable, one owner."""

    def __init__(self, streams: int) -> None:
        self._day, self._day_count = np.zeros((_DAY, streams)), np.zeros(_DAY)
        self._week, self._week_count = np.zeros((_WEEK, streams)), np.zeros(_WEEK)
        self.learned = 0
        """Slots that were taken in since the start."""

    def learn(self, slot: int, rates: Floats) -> None:
        """Take in the mean *rates* (S,) of slot number *slot* since 1970."""
        _mean(self._day, self._day_count, slot % _DAY, rates, _DAYS_KEPT)
        _mean(self._week, self._week_count, slot % _WEEK, rates, _WEEKS_KEPT)
        self.learned += 1

    def rates(self, at_s: float) -> Floats | None:
        """Return the usual rates (S,) at *at_s* seconds since 1970; None while too little is known.

        Between the middles of two slots, linearly.
        """
        place = at_s / SLOT_S - 0.5
        slot = int(np.floor(place))
        before, after = self._usual(slot), self._usual(slot + 1)
        if before is None or after is None:
            return None
        share = place - slot
        found: Floats = (1.0 - share) * before + share * after
        return found

    def ratio(self, at_s: float, ahead_s: float) -> Floats | float:
        """Return how much more than at *at_s* usually comes *ahead_s* later (S,), bounded; or 1."""
        now, then = self.rates(at_s), self.rates(at_s + ahead_s)
        if now is None or then is None:
            return 1.0
        # Streams that are all but silent have no shape.
        floor = 1.0 / SLOT_S
        found: Floats = (then + floor) / (now + floor)
        return np.clip(found, 1.0 / _MOST_RATIO, _MOST_RATIO)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return what was learned, for `numpy.savez`."""
        return {
            "version": np.array(VERSION),
            "day": self._day,
            "day_count": self._day_count,
            "week": self._week,
            "week_count": self._week_count,
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take in what `to_arrays` returned.

        Raises ValueError where it was written by another version or for other streams.
        """
        same = int(arrays["version"]) == VERSION and arrays["day"].shape == self._day.shape
        if not same:
            raise ValueError(f"seasons of shape {arrays['day'].shape}, expected {self._day.shape}")
        self._day, self._day_count = arrays["day"].copy(), arrays["day_count"].copy()
        self._week, self._week_count = arrays["week"].copy(), arrays["week_count"].copy()

    def _usual(self, slot: int) -> Floats | None:
        d, w = slot % _DAY, slot % _WEEK
        if self._day_count[d] < _LEAST_TIMES:
            return None
        known = self._day_count > 0.0
        mean = self._day[known].mean(axis=0)
        day = _shrunk(self._day[d], self._day_count[d], mean)
        if self._week_count[w] < _LEAST_TIMES:
            return day
        return _shrunk(self._week[w], self._week_count[w], day)


def _mean(means: Floats, counts: Floats, i: int, rates: Floats, most: float) -> None:
    counts[i] = min(counts[i] + 1.0, most)
    means[i] += (rates - means[i]) / counts[i]


def _shrunk(mean: Floats, times: float, coarser: Floats) -> Floats:
    """Draw *mean* (S,) of so many *times* towards the *coarser* one, by how much was to be seen."""
    seen = times * SLOT_S * np.maximum(coarser, mean)
    weight = seen / (seen + _PRIOR_REQUESTS)
    found: Floats = weight * mean + (1.0 - weight) * coarser
    return found
