"""What callers say of answers that did not pass through the router."""

import math
from dataclasses import dataclass
from typing import Final

from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.router.v1 import router_service_pb2 as router_pb

from router_svc.wire.values import Finished, seconds, timestamp
from services.kit.errors import invalid

_SLACK_S: Final = 0.05
"""Two clocks may tick a little apart."""
_STATUS: Final = {
    router_pb.UNFINISHED_REASON_REFUSED: "REFUSED",
    router_pb.UNFINISHED_REASON_BROKEN: "STREAM_BROKEN",
    router_pb.UNFINISHED_REASON_CANCELLED: "CANCELLED",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a ticket's call ended."""

    status: str
    """As the journal says it: "OK", or why there is no whole answer."""
    finished: Finished | None = None


def outcome_of(request: router_pb.ReportOutcomeRequest) -> Outcome:
    """Read an outcome. Raises InvalidRequestError naming the field."""
    match request.WhichOneof("outcome"):
        case "finished":
            return Outcome(status="OK", finished=request.finished)
        case "unfinished":
            if (status := _STATUS.get(request.unfinished)) is None:
                raise invalid("unfinished", f"must be a reason, got {request.unfinished}")
            return Outcome(status=status)
    raise invalid("outcome", "one of finished, unfinished is required")


def check_timings(finished: Finished, most_s: float) -> None:
    """Raise InvalidRequestError for what cannot be within *most_s* since the ticket was issued."""
    ttft_s, total_s = times_of(finished)
    if not 0.0 <= ttft_s <= total_s:
        raise invalid(
            "finished.timings.time_to_first_token",
            f"must be from 0 to the total of {total_s:g} s, got {ttft_s:g} s",
        )
    if total_s > most_s + _SLACK_S:
        raise invalid(
            "finished.timings.total",
            f"must be at most the {most_s:.3f} s since the ticket was issued, got {total_s:.3f} s",
        )
    if not math.isfinite(finished.mean_logprob) or finished.mean_logprob > 0.0:
        raise invalid("finished.mean_logprob", f"must be at most 0, got {finished.mean_logprob}")


def times_of(finished: Finished) -> tuple[float, float]:
    """Return the times to first and last token, in seconds, as the replica measured them."""
    timings = finished.timings
    return seconds(timings.time_to_first_token), seconds(timings.total)


def ticket_pb(address: str, replica: str, token: str, expires_s: float) -> router_pb.Ticket:
    """Write a ticket out."""
    ticket = router_pb.Ticket(address=address, replica=replica, token=token.encode())
    ticket.expires.CopyFrom(timestamp(expires_s))
    return ticket


def no_resume(request: inference_pb.GenerateRequest) -> None:
    """Raise InvalidRequestError where *request* goes on with an answer that the router holds."""
    if request.HasField("resume"):
        raise invalid("generate.resume", "an answer goes on through the router; leave ticket out")
