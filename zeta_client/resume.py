"""One answer across the calls that it takes when the caller's own connection breaks; no I/O.

The router keeps an answer for a while after its caller is gone (`router.resume_keep_s`), by the
id in `Started`. A caller comes back with `Resume {decision_id, after_seq}` and gets what follows
the last delta it has. Before `Started` there is nothing to come back for: the request itself is
sent again, which the contract permits (`Generate` is idempotent), and the router stops the work
of the connection that broke.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from zeta.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse, Resume

from services.kit.errors import (
    DrainingError,
    NotBuiltError,
    StreamBrokenError,
    UnknownDecisionError,
    ZetaError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How often a broken stream is gone on with, and after which pauses."""

    attempts: int = 10
    """In a row, without anything new in between; 0: never."""
    first_s: float = 0.05
    most_s: float = 2.0

    def pause_s(self, attempt: int, rng: Random) -> float:
        """Return the pause before *attempt* (from 1): equal-jitter exponential."""
        longest = min(self.most_s, self.first_s * 2.0 ** min(attempt - 1, 32))
        return longest * rng.uniform(0.5, 1.0)


PATIENT: Final = Patience()
"""About ten seconds in all: a router that restarts is back by then."""
NEVER: Final = Patience(attempts=0)
_NO_WAY_BACK: Final = (UnknownDecisionError, NotBuiltError)
"""A router that restarted, or that waited too long; a model server, which keeps no answers."""


class Thread:
    """What the caller has of an answer. Mutable, one owner; *clock* is monotonic seconds."""

    def __init__(
        self,
        request: GenerateRequest,
        *,
        patience: Patience,
        deadline_s: float | None,
        clock: Callable[[], float],
        rng: Random,
    ) -> None:
        self._asked, self._patience, self._clock, self._rng = request, patience, clock, rng
        self._ends_s = None if deadline_s is None else clock() + deadline_s
        self._decision_id, self._seq, self._failures = "", 0, 0
        self._moved: GenerateResponse | None = None
        self.finished = False

    @property
    def request(self) -> GenerateRequest:
        """What to send next: the request, or where to go on."""
        if not self._decision_id:
            return self._asked
        earlier = Resume(decision_id=self._decision_id, after_seq=self._seq)
        return GenerateRequest(resume=earlier, tenant=self._asked.tenant)

    def left_s(self) -> float | None:
        """Seconds that the caller still waits, None for ever."""
        return None if self._ends_s is None else max(self._ends_s - self._clock(), 0.0)

    def is_new(self, event: GenerateResponse) -> bool:
        """Take in *event*; False where the caller has it already.

        Raises StreamBrokenError where something in between is missing.
        """
        match event.WhichOneof("event"):
            case "started":
                new = not self._decision_id
                self._decision_id = event.started.decision_id
            case "delta":
                new = event.delta.seq > self._seq
                if event.delta.seq > self._seq + 1 and self._failures:
                    raise self._lost(f"it went on with delta {event.delta.seq}")
                self._seq = max(self._seq, event.delta.seq)
            case "handover":
                # Told again where nothing came behind it before the connection broke.
                new, self._moved = event != self._moved, event
            case kind:
                new, self.finished = True, kind == "finished"
        if new:
            self._failures = 0
        return new

    def again_in_s(self, error: ZetaError, *, broke: bool) -> float:
        """Return after which pause to go on behind *error*, by which the last call ended.

        *broke* says that the connection did, and not the server's will; a server that stops is
        come back to as well. Raises what the caller should see where there is no going on: *error*,
        or StreamBrokenError.
        """
        if self.finished:
            return 0.0  # only the end of the call was lost
        if self._failures and self._decision_id and isinstance(error, _NO_WAY_BACK):
            raise self._lost(str(error)) from error
        broke |= isinstance(error, DrainingError)
        refused_for_now = self._failures > 0 and error.retry_after_s is not None
        if not (broke or refused_for_now) or self._failures >= self._patience.attempts:
            raise error
        self._failures += 1
        pause_s = self._patience.pause_s(self._failures, self._rng)
        pause_s = max(pause_s, error.retry_after_s or 0.0)
        if self._ends_s is not None and self._clock() + pause_s >= self._ends_s:
            raise error
        return pause_s

    def _lost(self, why: str) -> StreamBrokenError:
        return StreamBrokenError(
            f"the connection broke behind delta {self._seq} of {self._decision_id}, and the "
            f"server cannot go on: {why}; ask again"
        )
