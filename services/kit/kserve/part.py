"""The context of one request among several of one call.

`Generate` stops its work when its context is done. A batch and a stream hold many requests in
one call, each of which ends on its own, so that each has a context of its own.
"""

from time import monotonic
from typing import cast

import grpc

from services.kit.done import Ending
from services.kit.rpc import Context, deadline_s


class Part(Ending):
    """One request's share of *context*: done when it ends, or when the whole call does.

    *timeout_s*: seconds from now that this request may take; None: as long as the call.
    """

    def __init__(self, context: Context, timeout_s: float | None = None) -> None:
        super().__init__()
        self._whole = context
        self._until_s = None if timeout_s is None else monotonic() + timeout_s

    @property
    def context(self) -> Context:
        """Itself, as what a servicer takes; servicers use no more than the methods below."""
        return cast("Context", self)

    def time_remaining(self) -> float | None:
        """Seconds left of the call or of this request's own time; None without a limit."""
        left = [self._until_s - monotonic()] if self._until_s is not None else []
        whole = deadline_s(self._whole)
        return min(left + ([] if whole is None else [whole]), default=None)

    def invocation_metadata(self) -> grpc.aio.Metadata | None:
        """Return what the caller sent beside the message."""
        return self._whole.invocation_metadata()
