"""One answer straight from a replica, with a router's ticket, as far as it has got; no I/O.

What the replica cannot do, the router is asked for: from the beginning, or behind the text that
the caller has. The caller then sees a `Handover`, as it would had the router been in between.
"""

from collections.abc import Callable
from time import monotonic
from typing import Final

from zeta.inference.v1.inference_service_pb2 import (
    HANDOVER_REASON_DRAINING,
    HANDOVER_REASON_REPLICA_LOST,
    Finished,
    GenerateRequest,
    GenerateResponse,
    Handover,
    Started,
)
from zeta.router.v1.router_service_pb2 import (
    UNFINISHED_REASON_BROKEN,
    UNFINISHED_REASON_CANCELLED,
    UNFINISHED_REASON_REFUSED,
    ReportOutcomeRequest,
    RouteResponse,
)

from services.kit.errors import (
    DeadlinePassedError,
    DrainingError,
    ForbiddenError,
    OverloadedError,
    PreemptedError,
    StreamBrokenError,
    UnauthenticatedError,
    UnavailableError,
    ZetaError,
)
from services.kit.tickets import TICKET_KEY

_ELSEWHERE: Final = (
    UnavailableError,
    OverloadedError,
    PreemptedError,
    UnauthenticatedError,
    ForbiddenError,
)
"""What the router may well find somebody else for; a plain ZetaError (INTERNAL) counts as well."""


class Left:
    """What is left of *deadline_s*, counted from now; None means for ever."""

    def __init__(self, deadline_s: float | None, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._ends_s = None if deadline_s is None else clock() + deadline_s

    def s(self) -> float | None:
        """Return the seconds that are left, None for ever."""
        return None if self._ends_s is None else max(self._ends_s - self._clock(), 0.0)


class Direct:
    """What a caller has of an answer. Mutable, one owner."""

    def __init__(self, request: GenerateRequest, routed: RouteResponse) -> None:
        self.request, self._ticket, self._decision = request, routed.ticket, routed.decision
        self._started: Started | None = None
        self._text: list[str] = []
        self._seq = self._tokens = 0
        self.finished: Finished | None = None
        self.broken: ZetaError | None = None
        """Why the replica gave no whole answer, where the caller did not leave."""

    @property
    def address(self) -> str:
        """Where the replica is."""
        return self._ticket.address

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with the call to it."""
        return ((TICKET_KEY, self._ticket.token.decode()),)

    def note(self, event: GenerateResponse) -> None:
        """Take in an event of the replica's."""
        match event.WhichOneof("event"):
            case "started":
                self._started = event.started
            case "delta":
                self._text.append(event.delta.text)
                self._seq = event.delta.seq
                self._tokens += len(event.delta.token_ids)
            case "finished":
                self.finished = Finished()
                self.finished.CopyFrom(event.finished)
                if self.request.preference.explain:
                    event.finished.decision.CopyFrom(self._decision)

    def outcome(self) -> ReportOutcomeRequest:
        """Return what to report: the answer, or why there is none."""
        token = self._ticket.token
        if self.finished is not None:
            return ReportOutcomeRequest(token=token, finished=self.finished)
        if self.broken is None or isinstance(self.broken, DeadlinePassedError):
            return ReportOutcomeRequest(token=token, unfinished=UNFINISHED_REASON_CANCELLED)
        why = UNFINISHED_REASON_BROKEN if self._started else UNFINISHED_REASON_REFUSED
        return ReportOutcomeRequest(token=token, unfinished=why)

    def rest(self) -> GenerateRequest:
        """Return what to ask the router for, once the answer is broken.

        Raises what broke it where nobody else would do better, StreamBrokenError where several
        answers have begun.
        """
        error = self.broken
        assert error is not None, "an answer that is whole has no rest"
        if not isinstance(error, _ELSEWHERE) and type(error) is not ZetaError:
            raise error
        if self._seq and self.request.samples > 1:
            raise StreamBrokenError(
                f"several answers do not go on elsewhere; ask again: {error}"
            ) from error
        again = GenerateRequest()
        again.CopyFrom(self.request)
        if any(self._text):
            again.continuation.text += "".join(self._text)
            # Tokens mean something to one model alone, and any may go on.
            del again.continuation.token_ids[:]
        return again

    def behind(self, event: GenerateResponse) -> GenerateResponse:
        """Turn an event of the router's answer into one that goes on behind the replica's."""
        if self._started is None:
            return event
        match event.WhichOneof("event"):
            case "started":
                return GenerateResponse(handover=self._handover(event.started))
            case "delta":
                event.delta.seq += self._seq
            case "handover":
                event.handover.after_seq += self._seq
            case "finished":
                event.finished.usage.completion_tokens += self._tokens
        return event

    def _handover(self, to: Started) -> Handover:
        assert self._started is not None, "an answer that had begun"
        draining = isinstance(self.broken, DrainingError)
        return Handover(
            from_replica=self._started.replica,
            to_replica=to.replica,
            to_model=to.model,
            reason=HANDOVER_REASON_DRAINING if draining else HANDOVER_REASON_REPLICA_LOST,
            after_seq=self._seq,
        )
