"""How long an accepted request waits for somebody who can answer it. Time is an argument.

Laws: it waits `MOST_S` in all since it last got on; a token, however late, gives it all of that
again. Who was lost before it had taken the request, or was given up for its silence, says nothing
against the request; `MOST_DEATHS` in a row that ended with it, and no token in between, do: it may
well be what ends them, and is not given to one more.
"""

from dataclasses import dataclass
from typing import Final

MOST_S: Final = 60.0
"""A process that was killed is back in seconds, one that drains in tens of them."""
MOST_DEATHS: Final = 3


@dataclass(slots=True)
class Patience:
    """One request's. Mutable, one owner."""

    _since_s: float | None = None
    """When it first failed since it last got on."""
    _deaths: int = 0

    def failed(self, now_s: float, *, fatal: bool) -> None:
        """Note a failure, *fatal* where a replica that had taken the request ended with it."""
        if self._since_s is None:
            self._since_s = now_s
        self._deaths += fatal

    def got_on(self) -> None:
        """Note that tokens came."""
        self._since_s, self._deaths = None, 0

    @property
    def suspect(self) -> bool:
        """Whether the request may be what ends replicas."""
        return self._deaths >= MOST_DEATHS

    def left_s(self, now_s: float) -> float:
        """Return how long the request still waits for somebody."""
        return MOST_S if self._since_s is None else max(self._since_s + MOST_S - now_s, 0.0)
