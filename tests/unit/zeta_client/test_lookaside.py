"""What a caller has of a replica's answer, and what it asks the router for."""

import pytest
from zeta.inference.v1.inference_service_pb2 import (
    HANDOVER_REASON_DRAINING,
    HANDOVER_REASON_REPLICA_LOST,
    Continuation,
    Delta,
    Finished,
    GenerateRequest,
    GenerateResponse,
    Handover,
    Started,
    Usage,
)
from zeta.router.v1.router_service_pb2 import (
    UNFINISHED_REASON_BROKEN,
    UNFINISHED_REASON_CANCELLED,
    UNFINISHED_REASON_REFUSED,
    RouteResponse,
    Ticket,
)

from services.kit.errors import (
    DeadlinePassedError,
    DrainingError,
    InvalidRequestError,
    TicketUsedError,
    UnavailableError,
    ZetaError,
)
from tests.unit.router_svc.fixtures import ManualClock
from zeta_client.lookaside import Direct, Left

ASKED = GenerateRequest(prompt="what?", max_tokens=9)
ROUTED = RouteResponse(ticket=Ticket(address="here:1", token=b"v1.one.x.y"))
BEGUN = GenerateResponse(started=Started(replica="a-0"))
LOST = UnavailableError("gone")


def direct(*events: GenerateResponse, broken: ZetaError | None = None) -> Direct:
    """An answer that has got so far."""
    answer = Direct(ASKED, ROUTED)
    for event in events:
        answer.note(event)
    answer.broken = broken
    return answer


def delta(seq: int, text: str = "x") -> GenerateResponse:
    """A piece of two tokens."""
    return GenerateResponse(delta=Delta(seq=seq, text=text, token_ids=[1, 2]))


def test_time_runs_out_and_not_below() -> None:
    """None is for ever."""
    clock = ManualClock()
    left = Left(5.0, clock)
    clock.now_s += 2.0
    assert left.s() == pytest.approx(3.0)
    clock.now_s += 9.0
    assert left.s() == 0.0
    assert Left(None, clock).s() is None


def test_it_says_where_to_call_and_with_what() -> None:
    """The token goes as text."""
    assert direct().address == "here:1"
    assert direct().metadata == (("zeta-ticket", "v1.one.x.y"),)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (direct(), UNFINISHED_REASON_CANCELLED),
        (direct(broken=DeadlinePassedError("late")), UNFINISHED_REASON_CANCELLED),
        (direct(broken=TicketUsedError("used")), UNFINISHED_REASON_REFUSED),
        (direct(BEGUN, broken=LOST), UNFINISHED_REASON_BROKEN),
    ],
    ids=["left", "too late", "refused", "broken"],
)
def test_an_answer_that_is_not_whole_has_a_reason(answer: Direct, reason: int) -> None:
    """Leaving and running out of time are the caller's own doing."""
    outcome = answer.outcome()

    assert outcome.token == b"v1.one.x.y"
    assert outcome.WhichOneof("outcome") == "unfinished"
    assert outcome.unfinished == reason


def test_a_whole_answer_is_reported_with_its_end() -> None:
    """As the replica said it."""
    finished = Finished(usage=Usage(completion_tokens=2))

    assert direct(BEGUN, GenerateResponse(finished=finished)).outcome().finished == finished


def test_before_any_text_the_request_is_asked_anew() -> None:
    """Whatever kept the replica from answering."""
    assert direct(broken=TicketUsedError("used")).rest() == ASKED
    assert direct(BEGUN, delta(1, ""), broken=LOST).rest() == ASKED


def test_behind_text_only_the_rest_is_asked_for() -> None:
    """Together with what the caller began the answer with itself; tokens are another model's."""
    answer = Direct(
        GenerateRequest(prompt="p", continuation=Continuation(text="a ", token_ids=[7])), ROUTED
    )
    answer.note(delta(1, "b "))
    answer.note(delta(2, "c"))
    answer.broken = LOST

    assert answer.rest().continuation == Continuation(text="a b c")


def test_what_nobody_could_do_is_raised() -> None:
    """A caller's mistake, or its deadline."""
    for error in (InvalidRequestError("wrong"), DeadlinePassedError("late")):
        with pytest.raises(type(error)):
            direct(broken=error).rest()


@pytest.mark.parametrize(
    ("broken", "reason"),
    [(LOST, HANDOVER_REASON_REPLICA_LOST), (DrainingError("d"), HANDOVER_REASON_DRAINING)],
)
def test_the_rest_counts_on(broken: ZetaError, reason: int) -> None:
    """Its start is a handover, its deltas and tokens come on top of what was shown."""
    answer = direct(BEGUN, delta(1), delta(2), broken=broken)
    answer.rest()

    begun = answer.behind(GenerateResponse(started=Started(replica="a-1", model="a")))
    further = answer.behind(delta(1))
    again = answer.behind(GenerateResponse(handover=Handover(after_seq=1)))
    end = answer.behind(GenerateResponse(finished=Finished(usage=Usage(completion_tokens=3))))

    assert begun.handover.from_replica == "a-0"
    assert begun.handover.to_replica == "a-1"
    assert begun.handover.after_seq == 2
    assert begun.handover.reason == reason
    assert further.delta.seq == 3
    assert again.handover.after_seq == 3
    assert end.finished.usage.completion_tokens == 7
