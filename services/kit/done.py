"""What a context of one call among several has to say of its end."""

from collections.abc import Callable
from typing import Any


class Ending:
    """Tells whoever works on something when it is over, once each."""

    def __init__(self) -> None:
        self._callbacks: list[Callable[[Any], None]] = []
        self._ended = False

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Have *callback* called with this when it ends; at once where it has."""
        if self._ended:
            callback(self)
        else:
            self._callbacks.append(callback)

    def end(self) -> None:
        """Tell whoever works on this that it is over; again has no effect."""
        self._ended = True
        while self._callbacks:
            self._callbacks.pop()(self)
