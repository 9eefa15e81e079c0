"""What a slow reading last returned, taken again and again in a thread of its own.

A driver may take its time, and a board that hangs may never answer: reports must not wait.
"""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")

log = structlog.get_logger()


class Latest(Generic[T]):
    """Calls *read* every *every_s* seconds for as long as the process lives."""

    def __init__(
        self,
        read: Callable[[], T],
        *,
        every_s: float,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        self._read, self._every_s, self._clock, self._pause = read, every_s, clock, pause
        self._value: tuple[T, float] | None = None
        # A daemon: nothing waits for a driver that hangs, not even the end of the process.
        threading.Thread(target=self._run, name="latest", daemon=True).start()

    def value(self, *, max_age_s: float) -> T | None:
        """Return the last reading; None where there is none, or none so young."""
        found = self._value
        if found is None or self._clock() - found[1] > max_age_s:
            return None
        return found[0]

    def _run(self) -> None:
        while True:
            try:
                self._value = self._read(), self._clock()
            except Exception:
                log.exception("a reading failed; the next one may not")
            self._pause(self._every_s)
