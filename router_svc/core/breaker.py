"""Circuit breaker: stop asking a replica that fails, and try it again now and then."""

from dataclasses import dataclass


@dataclass(slots=True)
class Breaker:
    """Closed, open after *failures* in a row, and half open *open_s* later: one probe at a time.

    Mutable, one owner; time is an argument.
    """

    failures: int
    open_s: float
    in_a_row: int = 0
    opened_at_s: float | None = None
    probe_at_s: float | None = None

    def allows(self, now_s: float) -> bool:
        """Whether a call may be made now."""
        if self.opened_at_s is None:
            return True
        if now_s - self.opened_at_s < self.open_s:
            return False
        # A probe that was cancelled reports nothing; the next may go after as long again.
        return self.probe_at_s is None or now_s - self.probe_at_s >= self.open_s

    def began(self, now_s: float) -> None:
        """Note a call; in the half-open state it is the probe."""
        if self.opened_at_s is not None:
            self.probe_at_s = now_s

    def succeeded(self) -> None:
        """Close."""
        self.in_a_row, self.opened_at_s, self.probe_at_s = 0, None, None

    def failed(self, now_s: float) -> None:
        """Count a failure; open, or open again, where it is one too many."""
        self.in_a_row += 1
        if self.opened_at_s is not None or self.in_a_row >= self.failures:
            self.opened_at_s, self.probe_at_s = now_s, None


@dataclass(slots=True)
class RetryBudget:
    """Retries may add *ratio* to the load; a full bucket of *burst* outlives one lost replica."""

    ratio: float
    burst: float
    tokens: float = -1.0

    def __post_init__(self) -> None:
        """Start full."""
        self.tokens = self.burst

    def earned(self) -> None:
        """Note a request, which pays for a part of a retry."""
        self.tokens = min(self.burst, self.tokens + self.ratio)

    def take(self) -> bool:
        """Pay for one retry, if there is enough."""
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True
