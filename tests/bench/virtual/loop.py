"""An event loop whose time passes only while nobody has anything to do, and then at once."""

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar, TypeVarTuple, Unpack

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_BEGIN_S: Final = 1000.0


class VirtualLoop(asyncio.SelectorEventLoop):
    """Runs what is due in order of time, without waiting for it; seconds are virtual.

    Nothing from outside arrives: no network, no other thread. Work for a thread is done on the spot
    and takes no time. The same program does the same thing every time.
    """

    def __init__(self) -> None:
        self._now_s = _BEGIN_S
        super().__init__(_Nothing(self._pass))

    def time(self) -> float:
        """Return the virtual time, in seconds."""
        return self._now_s

    def run_in_executor(
        self,
        executor: Executor | None,  # noqa: ARG002 - asyncio's signature
        func: Callable[[Unpack[Ts]], T],
        *args: *Ts,
    ) -> asyncio.Future[T]:
        """Call *func* now, and return what came of it."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - the asker's to see
            done.set_exception(error)
        return done

    def _pass(self, span_s: float) -> None:
        self._now_s += span_s


class _Nothing(selectors.SelectSelector):
    """Sees no file ready, and lets time pass instead of waiting."""

    def __init__(self, passes: Callable[[float], None]) -> None:
        super().__init__()
        self._passes = passes

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let *timeout* seconds pass. Raises RuntimeError where nothing is ever due."""
        if timeout is None:
            raise RuntimeError("everybody waits, and nothing is due at any time")
        self._passes(max(timeout, 0.0))
        return []
