"""When a second model is asked because the first is late, and how often that may happen.

A call is late after the 95th percentile of its predicted time to first token (Dean and Barroso,
"The tail at scale", 2013, who found that this takes most of the tail away for a few per cent of
extra load). Time is an argument.
"""

from dataclasses import dataclass
from typing import Final

STALL_S: Final = 10.0
"""What a stalled call costs whoever waits for it: about until its replica is given up."""
_LATE_Z: Final = 1.645
"""Standard normal quantile of 0.95."""
_P90_Z: Final = 1.2816
_STALLED_AFTER: Final = 10.0
"""Times its lateness after which a silent call counts as stalled, not slow."""
_PRIOR_CALLS: Final = 500.0
_PRIOR_RATIO: Final = 0.001
_KEPT: Final = 0.999


def late_after_s(ttft_p50_s: float, ttft_p90_s: float) -> float:
    """Return the 95th percentile of a lognormal through these quantiles."""
    median_s = max(ttft_p50_s, 1e-3)
    return float(median_s * (max(ttft_p90_s, median_s) / median_s) ** (_LATE_Z / _P90_Z))


@dataclass(slots=True)
class Stalls:
    """Share of calls that stall, learned from all calls. Mutable, one owner."""

    calls: float = 0.0
    stalled: float = 0.0

    def learn(self, silent_s: float, late_s: float) -> None:
        """Take in a call that was silent for *silent_s* where *late_s* was late."""
        self.calls = _KEPT * self.calls + 1.0
        self.stalled = _KEPT * self.stalled + float(silent_s > _STALLED_AFTER * late_s)

    @property
    def ratio(self) -> float:
        """The share, from a prior of one call in a thousand."""
        return (self.stalled + _PRIOR_CALLS * _PRIOR_RATIO) / (self.calls + _PRIOR_CALLS)


@dataclass(slots=True)
class HedgeBudget:
    """Backups may add *ratio* to the calls; a bucket of *burst* lets a few come at once.

    A ratio of 0 is no hedging.
    """

    ratio: float
    burst: float = 5.0
    tokens: float = 1.0

    def earned(self) -> None:
        """Note a request, which pays for a part of a backup."""
        self.tokens = min(self.burst, self.tokens + self.ratio)

    def take(self) -> bool:
        """Pay for one backup, if there is enough."""
        if self.ratio <= 0.0 or self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
