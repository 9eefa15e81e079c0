"""What a caller has of an answer, and when it goes on with it."""

from random import Random

import pytest
from zeta.inference.v1.inference_service_pb2 import (
    Delta,
    Finished,
    GenerateRequest,
    GenerateResponse,
    Handover,
    Started,
)

from services.kit.errors import (
    DrainingError,
    NotBuiltError,
    OverloadedError,
    StreamBrokenError,
    UnavailableError,
    UnknownDecisionError,
    ZetaError,
)
from tests.unit.router_svc.fixtures import ManualClock
from zeta_client.resume import NEVER, PATIENT, Patience, Thread

GONE = UnavailableError("nothing answers")
ASKED = GenerateRequest(prompt="what?", tenant="t")


def thread(
    clock: ManualClock, *, deadline_s: float | None = None, patience: Patience = PATIENT
) -> Thread:
    rng = Random(7)  # noqa: S311 - jitter
    return Thread(ASKED, patience=patience, deadline_s=deadline_s, clock=clock, rng=rng)


def begun(clock: ManualClock, deltas: int = 2) -> Thread:
    """Return one that has got so far."""
    mine = thread(clock)
    assert mine.is_new(GenerateResponse(started=Started(decision_id="d")))
    assert all(mine.is_new(delta(i + 1)) for i in range(deltas))
    return mine


def delta(seq: int) -> GenerateResponse:
    return GenerateResponse(delta=Delta(seq=seq, text="x"))


def test_before_the_first_event_the_request_is_sent_again() -> None:
    """There is no decision yet to come back to."""
    mine = thread(ManualClock())
    mine.again_in_s(GONE, broke=True)
    assert mine.request == ASKED


def test_behind_what_came_it_asks_for_the_rest() -> None:
    """With the decision, the last delta and the tenant; what comes twice is not new."""
    mine = begun(ManualClock())
    mine.again_in_s(GONE, broke=True)
    assert (mine.request.resume.decision_id, mine.request.resume.after_seq) == ("d", 2)
    assert mine.request.tenant == "t"
    assert not mine.request.prompt
    again = [GenerateResponse(started=Started(decision_id="d")), delta(2), delta(3)]
    assert [mine.is_new(event) for event in again] == [False, False, True]
    assert mine.is_new(GenerateResponse(finished=Finished()))
    assert mine.finished


def test_a_server_that_stops_is_come_back_to() -> None:
    """When it says, as it was the server's will."""
    mine = thread(ManualClock())
    assert mine.again_in_s(DrainingError("stops", retry_after_s=1.0), broke=False) >= 1.0
    assert mine.request == ASKED


def test_a_handover_is_told_once() -> None:
    """The server tells again of one that stands behind the last delta."""
    mine = begun(ManualClock())
    moved = GenerateResponse(handover=Handover(from_replica="a-0", to_replica="b-0", after_seq=2))
    assert mine.is_new(moved)
    mine.again_in_s(GONE, broke=True)
    assert not mine.is_new(moved)
    back = GenerateResponse(handover=Handover(from_replica="b-0", to_replica="a-0", after_seq=2))
    assert mine.is_new(back)


def test_a_gap_is_an_error() -> None:
    """What the server left out is never passed over in silence."""
    mine = begun(ManualClock())
    mine.again_in_s(GONE, broke=True)
    with pytest.raises(StreamBrokenError, match="delta 4"):
        mine.is_new(delta(4))


def test_pauses_grow_and_attempts_end() -> None:
    """Equal jitter: each pause is at least half of its longest; the last failure is raised."""
    mine = begun(ManualClock())
    pauses = [mine.again_in_s(GONE, broke=True) for _ in range(PATIENT.attempts)]
    longest = [min(PATIENT.most_s, PATIENT.first_s * 2**i) for i in range(PATIENT.attempts)]
    assert all(most / 2 <= pause <= most for pause, most in zip(pauses, longest, strict=True))
    with pytest.raises(UnavailableError, match="nothing answers"):
        mine.again_in_s(GONE, broke=True)


def test_whatever_comes_makes_patience_whole_again() -> None:
    """Only failures in a row count."""
    mine = begun(ManualClock())
    for _ in range(PATIENT.attempts):
        mine.again_in_s(GONE, broke=True)
    assert mine.is_new(delta(3))
    assert mine.again_in_s(GONE, broke=True) <= PATIENT.first_s


def test_the_callers_deadline_bounds_it_all() -> None:
    """A pause that would outlast it is not begun, and each call gets what is left."""
    clock = ManualClock()
    mine = thread(clock, deadline_s=5.0)
    clock.now_s += 4.0
    assert mine.left_s() == pytest.approx(1.0)
    assert mine.again_in_s(GONE, broke=True) < 1.0
    with pytest.raises(OverloadedError):
        mine.again_in_s(OverloadedError("full", retry_after_s=2.0), broke=False)


def test_a_refusal_for_now_is_waited_for_once_it_broke() -> None:
    """As long as the server says; a first refusal is the caller's to see."""
    full = OverloadedError("full", retry_after_s=3.0)
    with pytest.raises(OverloadedError):
        thread(ManualClock()).again_in_s(full, broke=False)
    mine = begun(ManualClock())
    mine.again_in_s(GONE, broke=True)
    assert mine.again_in_s(full, broke=False) == 3.0


@pytest.mark.parametrize("error", [UnknownDecisionError("no answer 'd'"), NotBuiltError("resume")])
def test_who_cannot_go_on_is_told_apart(error: ZetaError) -> None:
    """A router that restarted, or a model server: the message says why the answer is broken."""
    mine = begun(ManualClock())
    mine.again_in_s(GONE, broke=True)
    with pytest.raises(StreamBrokenError, match=f"behind delta 2 of d.*{error}"):
        mine.again_in_s(error, broke=False)


def test_errors_of_the_server_are_the_callers() -> None:
    """Nothing is tried again where the connection held; nor where it is switched off."""
    with pytest.raises(StreamBrokenError):
        begun(ManualClock()).again_in_s(StreamBrokenError("lost"), broke=False)
    with pytest.raises(UnavailableError):
        thread(ManualClock(), patience=NEVER).again_in_s(GONE, broke=True)


def test_only_the_end_of_the_call_was_lost() -> None:
    """After the last event there is nothing to go on with."""
    mine = begun(ManualClock())
    mine.is_new(GenerateResponse(finished=Finished()))
    assert mine.again_in_s(GONE, broke=True) == 0.0
