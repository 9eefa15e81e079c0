"""Every error that Zeta raises on purpose.

ZetaError                        INTERNAL
├── InvalidRequestError          INVALID_ARGUMENT     INVALID_FIELD
│   └── ContextTooLongError                           CONTEXT_TOO_LONG
├── UnknownModelError            NOT_FOUND            UNKNOWN_MODEL
├── UnknownDecisionError         NOT_FOUND            UNKNOWN_DECISION
├── OverloadedError              RESOURCE_EXHAUSTED   OVERLOADED
├── PredictedDeadlineMissError   DEADLINE_EXCEEDED    PREDICTED_DEADLINE_MISS
├── DeadlinePassedError          DEADLINE_EXCEEDED    DEADLINE_PASSED
├── UnavailableError             UNAVAILABLE          NO_REPLICA
│   ├── DrainingError                                 DRAINING
│   └── StreamBrokenError                             STREAM_BROKEN
├── PreemptedError               ABORTED              PREEMPTED
├── StaleEtagError               ABORTED              STALE_ETAG
├── QualityUnreachableError      FAILED_PRECONDITION  QUALITY_UNREACHABLE
├── NotBuiltError                UNIMPLEMENTED        NOT_IMPLEMENTED
├── UnauthenticatedError         UNAUTHENTICATED      UNAUTHENTICATED
│   ├── TicketInvalidError                            TICKET_INVALID
│   └── TicketExpiredError                            TICKET_EXPIRED
├── ForbiddenError               PERMISSION_DENIED    FORBIDDEN
│   ├── TicketMismatchError                           TICKET_MISMATCH
│   └── TicketUsedError                               TICKET_USED
└── ConfigError                  stops a start; never leaves by RPC

Reasons are those of `zeta.inference.v1.ErrorReason`. `kit.rpc` is the only place that turns
an error into a status and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field: its path in the request, and what is wrong with it."""

    field: str
    description: str


class ZetaError(Exception):
    """An error with a gRPC status."""

    status = grpc.StatusCode.INTERNAL
    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        """When trying again is worth it; None where it never is, or nobody knows."""
        self.violations = tuple(violations)


class InvalidRequestError(ZetaError):
    """The request can never succeed, whatever the state of the system."""

    status = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_FIELD"


def invalid(field: str, description: str) -> InvalidRequestError:
    """Build the error of one wrong field."""
    return InvalidRequestError(
        f"{field}: {description}", violations=[Violation(field, description)]
    )


class ContextTooLongError(InvalidRequestError):
    """Prompt and answer do not fit in the model's context."""

    reason = "CONTEXT_TOO_LONG"


class UnknownModelError(ZetaError):
    """No such model here."""

    status = grpc.StatusCode.NOT_FOUND
    reason = "UNKNOWN_MODEL"


class UnknownDecisionError(ZetaError):
    """No such decision in the journal."""

    status = grpc.StatusCode.NOT_FOUND
    reason = "UNKNOWN_DECISION"


class OverloadedError(ZetaError):
    """Refused to protect the requests already admitted."""

    status = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "OVERLOADED"


class PredictedDeadlineMissError(ZetaError):
    """Refused at once, because no plan is expected to finish in time."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "PREDICTED_DEADLINE_MISS"


class DeadlinePassedError(ZetaError):
    """The deadline passed while the work ran or waited."""

    status = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_PASSED"


class UnavailableError(ZetaError):
    """Nobody can serve this now; retry with backoff."""

    status = grpc.StatusCode.UNAVAILABLE
    reason = "NO_REPLICA"


class DrainingError(UnavailableError):
    """The server takes no new work."""

    reason = "DRAINING"


class StreamBrokenError(UnavailableError):
    """A replica was lost in the middle of an answer."""

    reason = "STREAM_BROKEN"


class PreemptedError(ZetaError):
    """Stopped in favour of work of a higher class."""

    status = grpc.StatusCode.ABORTED
    reason = "PREEMPTED"


class StaleEtagError(ZetaError):
    """Somebody else changed it first; read again and repeat."""

    status = grpc.StatusCode.ABORTED
    reason = "STALE_ETAG"


class QualityUnreachableError(ZetaError):
    """No plan is expected to be as good as the request demands."""

    status = grpc.StatusCode.FAILED_PRECONDITION
    reason = "QUALITY_UNREACHABLE"


class NotBuiltError(ZetaError):
    """The contract has it, this server does not."""

    status = grpc.StatusCode.UNIMPLEMENTED
    reason = "NOT_IMPLEMENTED"


class UnauthenticatedError(ZetaError):
    """No credential, or a bad one."""

    status = grpc.StatusCode.UNAUTHENTICATED
    reason = "UNAUTHENTICATED"


class ForbiddenError(ZetaError):
    """A good credential that does not allow this."""

    status = grpc.StatusCode.PERMISSION_DENIED
    reason = "FORBIDDEN"


class TicketInvalidError(UnauthenticatedError):
    """Not a ticket, or not one that was made with a key known here."""

    reason = "TICKET_INVALID"


class TicketExpiredError(UnauthenticatedError):
    """A ticket whose time is over."""

    reason = "TICKET_EXPIRED"


class TicketMismatchError(ForbiddenError):
    """A ticket for another replica or another request."""

    reason = "TICKET_MISMATCH"


class TicketUsedError(ForbiddenError):
    """A ticket that was used before."""

    reason = "TICKET_USED"


class ConfigError(ZetaError):
    """The configuration is wrong; the message lists every mistake, a line each."""
