"""How much work comes over the next seconds, from how much came: a damped trend per stream.

Holt's linear smoothing with a damped trend (Gardner & McKenzie, 1985), at several speeds at once:
bursty streams are followed best by quick ones, steady ones by slow ones, and each stream weighs
them by how far they were off lately. All is measured against the naive forecast, that things go on
as in the last second. S = streams, E = speeds. A step is `STEP_S`; no clock is read.
"""

from collections import deque
from typing import Final

import numpy as np

from router_svc.core.types import Floats

STEP_S: Final = 0.25
HORIZON_S: Final = 4.0
"""What is forecast is the mean over so many seconds ahead."""
_STEPS: Final = round(HORIZON_S / STEP_S)
_NAIVE_STEPS: Final = round(1.0 / STEP_S)
_SPEEDS: Final = np.array([0.03, 0.1, 0.3])[:, None]
"""Weight of the newest step in each level (E, 1)."""
_TREND: Final = 0.05
_DAMPING: Final = 0.9
_REACH: Final = float(np.cumsum(_DAMPING ** np.arange(1, _STEPS + 1)).mean())
"""How many steps' trend the mean over the horizon lies above the level."""
_FADE: Final = 0.995
"""What a step leaves of the memory of errors: half in 35 s."""
_SHARPNESS: Final = 8.0
"""How strongly a smaller error is preferred."""
_TINY: Final = 1e-3


class Forecast:
    """Rates of S streams. Mutable, one owner."""

    def __init__(self, streams: int) -> None:
        self._level = np.zeros((len(_SPEEDS), streams))
        self._trend = np.zeros((len(_SPEEDS), streams))
        self._seen: deque[Floats] = deque(maxlen=_STEPS)
        self._made: deque[tuple[Floats, Floats, Floats]] = deque(maxlen=_STEPS)
        """What was forecast in each of the last steps: by every speed, by all, naively."""
        self._errors = np.zeros((len(_SPEEDS), streams))
        self._weight = 0.0
        self._begun = False
        self.error = np.zeros(streams)
        """Mean absolute error of `rates`, of late (S,)."""
        self.naive_error = np.zeros(streams)
        """The same of the naive forecast (S,)."""

    def begin(self, rates: Floats) -> None:
        """Begin at *rates* (S,), as long as nothing was seen."""
        if not self._seen:
            self._level[:] = rates
            self._begun = True

    def observe(self, rates: Floats) -> None:
        """Take in the *rates* (S,) of the step that has ended."""
        self._seen.append(rates)
        if len(self._made) == _STEPS:
            self._judge(np.mean(self._seen, axis=0))
        if len(self._seen) == 1 and not self._begun:
            self._level[:] = rates
        before = self._level
        expected = before + _DAMPING * self._trend
        self._level = _SPEEDS * rates + (1.0 - _SPEEDS) * expected
        self._trend = _TREND * (self._level - before) + (1.0 - _TREND) * _DAMPING * self._trend
        last = list(self._seen)[-_NAIVE_STEPS:]
        self._made.append((self._each(), self.rates(), np.mean(last, axis=0)))

    def rates(self) -> Floats:
        """Return the mean rates expected over the next `HORIZON_S` seconds (S,)."""
        weights = (self._errors + _TINY) ** -_SHARPNESS
        found: Floats = (weights * self._each()).sum(axis=0) / weights.sum(axis=0)
        return found

    def _each(self) -> Floats:
        """Return what every speed expects (E, S)."""
        return np.maximum(self._level + _REACH * self._trend, 0.0)

    def _judge(self, came: Floats) -> None:
        """Compare what was forecast a horizon ago with what *came* (S,)."""
        each, made, naive = self._made[0]
        self._weight = _FADE * self._weight + 1.0
        share = 1.0 / self._weight
        self._errors += share * (np.abs(each - came) - self._errors)
        self.error = self.error + share * (np.abs(made - came) - self.error)
        self.naive_error = self.naive_error + share * (np.abs(naive - came) - self.naive_error)
