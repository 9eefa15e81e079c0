"""What is kept of answers, and for how long."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc import trails
from router_svc.core.decide import decide
from router_svc.core.types import Policy
from router_svc.run import Run
from router_svc.trails import Told, Trails
from router_svc.wire import Event
from services.kit.errors import InvalidRequestError, UnknownDecisionError
from tests.unit.router_svc.fixtures import ManualClock, ask, candidates, features


async def unscored(model: str, answers: Sequence[str], timeout_s: float | None) -> list[float]:
    """Nobody asks."""
    raise NotImplementedError(model, answers, timeout_s)


def run(decision_id: str, *, characters: int = 5, tenant: str = "t") -> Run:
    """Make a run of one delta."""
    decision = decide(
        ask(), candidates([0.5]), Policy(explore_ratio=0.0), np.random.default_rng(1), gains={}
    )
    return Run(
        id=decision_id,
        ask=ask(tenant=tenant),
        features=features(),
        decision=decision,
        upstream=lambda *_: (_ for _ in ()),  # type: ignore[arg-type]
        scores=unscored,
        replan=lambda *_: decision,
        explain=lambda: None,
        arrived_s=0.0,
        deadline_at_s=None,
        shown=[Event(delta=inference_pb.Delta(seq=1, text="x" * characters))],
    )


async def test_an_answer_can_be_taken_once_by_its_tenant() -> None:
    """Others learn no more than of one that never was."""
    kept = Trails(60.0, ManualClock())
    mine = run("d-1")
    kept.begin(mine)
    kept.end(mine, None)
    with pytest.raises(UnknownDecisionError):
        await kept.take("d-1", "another", 0)
    with pytest.raises(InvalidRequestError, match="got to 1, got 2"):
        await kept.take("d-1", "t", 2)
    assert await kept.take("d-1", "t", 1) is mine
    with pytest.raises(UnknownDecisionError):
        await kept.take("d-1", "t", 1)


async def test_a_whole_answer_can_be_had_again() -> None:
    """Its events, in their order, as often as its tenant asks; nothing of how it was made."""
    kept, mine = Trails(60.0, ManualClock()), run("d-1")
    mine.first = Event(started=inference_pb.Started(decision_id="d-1"))
    mine.moves.append(Event(handover=inference_pb.Handover(after_seq=1, to_replica="b-0")))
    mine.shown.append(Event(delta=inference_pb.Delta(seq=2, text="y")))
    finished = Event(finished=inference_pb.Finished(model="b"))
    whole = [mine.first, mine.shown[0], mine.moves[0], mine.shown[1], finished]
    kept.end(mine, finished)

    for after_seq, missing in ((0, whole[1:]), (1, whole[2:]), (2, whole[4:])):
        answer = await kept.take("d-1", "t", after_seq)
        assert isinstance(answer, Told)
        assert answer.behind(after_seq) == [mine.first, *missing]
    with pytest.raises(InvalidRequestError, match="got to 2, got 3"):
        await kept.take("d-1", "t", 3)
    with pytest.raises(UnknownDecisionError):
        await kept.take("d-1", "another", 0)


async def test_answers_are_forgotten_with_time() -> None:
    """After so many seconds."""
    clock = ManualClock()
    kept = Trails(60.0, clock)
    kept.end(run("d-1"), None)
    clock.now_s += 61.0
    with pytest.raises(UnknownDecisionError, match="more than 60 s ago"):
        await kept.take("d-1", "t", 0)


async def test_long_answers_push_old_ones_out() -> None:
    """The memory is bounded, whatever the answers' length."""
    kept = Trails(60.0, ManualClock())
    kept.end(run("d-1"), None)
    kept.end(run("d-2", characters=trails._MAX_BYTES - 3 * trails._ENTRY_BYTES), None)
    kept.end(run("d-3", characters=2 * trails._ENTRY_BYTES), None)
    for gone in ("d-1", "d-2"):
        with pytest.raises(UnknownDecisionError):
            await kept.take(gone, "t", 0)
    assert isinstance(await kept.take("d-3", "t", 0), Run)


async def test_nobody_stops_the_answer_of_another_tenant() -> None:
    """Coming back for what still runs stops it, so that too is its tenant's alone."""
    kept, mine, begun = Trails(60.0, ManualClock()), run("d-1"), asyncio.Event()

    async def make() -> None:
        kept.begin(mine)
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            kept.end(mine, None)

    making = asyncio.create_task(make())
    await begun.wait()
    with pytest.raises(UnknownDecisionError):
        await kept.take("d-1", "another", 0)
    assert not making.cancelling()
    assert await kept.take("d-1", "t", 0) is mine
    assert making.cancelled()


async def test_what_was_taken_in_vain_can_be_given_back() -> None:
    """A caller that was refused may come again."""
    kept, mine = Trails(60.0, ManualClock()), run("d-1")
    kept.end(mine, None)
    kept.end(mine if await kept.take("d-1", "t", 0) is mine else run("d-2"), None)
    assert await kept.take("d-1", "t", 0) is mine
