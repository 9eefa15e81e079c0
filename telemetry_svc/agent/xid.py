"""Critical errors of GPUs ("Xid"), as the driver reports them while the agent listens."""

from collections.abc import Iterable
from typing import Any

import pynvml
import structlog

from telemetry_svc.agent.nvml import Nvml, address, given

log = structlog.get_logger()

MOST_AT_ONCE = 100
"""A board that reports errors without end is not listened to without end."""


class Xids:
    """Counts them per board, from its making on."""

    def __init__(self, nvml: Nvml, handles: Iterable[Any]) -> None:
        self._nvml, self._events = nvml, given(nvml.nvmlEventSetCreate)
        self._seen: dict[int | None, tuple[int, int | None]] = {}
        for handle in handles if self._events is not None else ():
            if self._register(handle):
                self._seen[address(handle)] = 0, None

    def of(self, handle: Any) -> tuple[int | None, int | None]:
        """Return how many there were, and the last; None where the board reports none."""
        return self._seen.get(address(handle), (None, None))

    def listen(self) -> None:
        """Take in what was reported since the last call, without waiting for more."""
        if not self._seen:
            return
        for _ in range(MOST_AT_ONCE):
            event = given(self._nvml.nvmlEventSetWait_v2, self._events, 0)
            if event is None:
                return
            self._take(address(event.device), int(event.eventData))

    def _register(self, handle: Any) -> bool:
        try:
            self._nvml.nvmlDeviceRegisterEvents(
                handle, pynvml.nvmlEventTypeXidCriticalError, self._events
            )
        except pynvml.NVMLError:
            return False
        return True

    def _take(self, board: int | None, xid: int) -> None:
        count, _ = self._seen.get(board, (0, None))
        self._seen[board] = count + 1, xid
        log.error("gpu reported an error", xid=xid)
