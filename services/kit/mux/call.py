"""A call that came on a stream with others, as a servicer sees it."""

from collections.abc import Iterable
from math import inf
from time import monotonic
from typing import Any, NoReturn, cast

import grpc
from zeta.inference.v1 import call_service_pb2 as pb

from services.kit.aio import Bell
from services.kit.done import Ending
from services.kit.mux import headers
from services.kit.mux.headers import Value

_LATE_S = -1e-6
"""What is left once the deadline has passed, whatever the clocks' resolution says."""


class CallContext(Ending):
    """The context of one call on a stream, whose own is *whole*.

    Servicers and the interceptor use no more of a context than the methods below. Raises
    ValueError for metadata that no call of its own could have.
    """

    def __init__(self, whole: Any, start: pb.CallStart) -> None:
        super().__init__()
        self._whole = whole
        self._metadata = headers.checked(start.headers)
        self._until_s = inf
        if start.HasField("timeout"):
            self._until_s = monotonic() + start.timeout.ToNanoseconds() / 1e9
        self._room: float = start.window or inf
        self._more = Bell()
        self.late = False
        self.code, self.message = grpc.StatusCode.OK, ""
        self.trailers: tuple[tuple[str, Value], ...] = ()

    def time_remaining(self) -> float | None:
        """Seconds left to the call's deadline; None without one."""
        if self._until_s == inf:
            return None
        left_s = self._until_s - monotonic()
        return min(left_s, _LATE_S) if self.late else left_s

    def invocation_metadata(self) -> tuple[tuple[str, Value], ...]:
        """Return what the caller sent with the call."""
        return self._metadata

    def peer(self) -> str:
        """Return the address of whoever opened the stream."""
        return cast("str", self._whole.peer())

    def auth_context(self) -> Any:
        """Return what the certificate of whoever opened the stream says."""
        return self._whole.auth_context()

    def set_trailing_metadata(self, trailing: Iterable[tuple[str, Value]]) -> None:
        """Set what goes with the call's end."""
        self.trailers = tuple(trailing)

    def trailing_metadata(self) -> tuple[tuple[str, Value], ...]:
        """Return what was set."""
        return self.trailers

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, Value]] = (),
    ) -> NoReturn:
        """End the call with that status. Raises AbortError."""
        self.code, self.message = code, details
        self.trailers = tuple(trailing_metadata)
        raise grpc.aio.AbortError

    def allow(self, more: int) -> None:
        """Have room for so many events more."""
        self._room += more
        self._more.ring()

    async def room(self) -> None:
        """Wait until one event more may be sent, and count it."""
        while self._room < 1:
            await self._more.heard()
        self._room -= 1
