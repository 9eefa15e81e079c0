"""The generator waits for nobody, and counts from when a request was due."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from zeta.inference.v1.inference_service_pb2 import Delta, Finished, GenerateResponse, Started

from services.kit.errors import OverloadedError
from zeta_client import wire
from zeta_client.load.send import OK, Result, send
from zeta_client.load.shots import Shot
from zeta_client.tasks import Task

TASK = Task(prompt="2 + 2?", answer="4", family="arithmetic", difficulty=0.1, kind="reasoning")


def shot(at_s: float = 0.0, task: Task | None = TASK) -> Shot:
    """One question, due *at_s* after the start."""
    return Shot(
        at_s=at_s, kind="reasoning", priority="standard", request=wire.question("?"), task=task
    )


def answered(text: str) -> list[GenerateResponse]:
    """The events of an answer."""
    return [
        GenerateResponse(started=Started(model="m", plan="single(m)", decision_id="d")),
        GenerateResponse(delta=Delta(seq=1, text=text)),
        GenerateResponse(finished=Finished(model="m")),
    ]


async def test_requests_do_not_wait_for_each_other() -> None:
    """The first ends only once the last was sent: a closed loop would hang here."""
    all_sent, sent = asyncio.Event(), 0

    async def call(_asked: Shot, _left_s: float | None) -> AsyncIterator[GenerateResponse]:
        nonlocal sent
        sent += 1
        if sent == 20:
            all_sent.set()
        await all_sent.wait()
        for event in answered("4"):
            yield event

    seen: list[Result] = []
    found = await send([shot() for _ in range(20)], call, deadline_s=None, done=seen.append)

    assert [r.status for r in found] == [OK] * 20
    assert all(r.right for r in found)
    assert len(seen) == 20


async def test_time_counts_from_when_a_request_was_due() -> None:
    """A request that is sent late has waited all the same, and has less time left."""
    given: list[float | None] = []

    async def call(_asked: Shot, left_s: float | None) -> AsyncIterator[GenerateResponse]:
        given.append(left_s)
        for event in answered("5"):
            yield event

    (found,) = await send([shot(at_s=-3.0)], call, deadline_s=10.0)

    assert found.late_s >= 3.0
    assert found.ttft_s >= found.late_s
    assert found.total_s >= found.ttft_s
    assert given[0] == pytest.approx(10.0 - found.late_s)
    assert found.right is False


async def test_a_refusal_is_a_result() -> None:
    """What is not answered counts by its reason, and is neither right nor wrong of itself."""

    async def call(_asked: Shot, _left_s: float | None) -> AsyncIterator[GenerateResponse]:
        raise OverloadedError("full")
        yield

    refused, unjudged = await send([shot(), shot(task=None)], call, deadline_s=None)

    assert refused.status == "OVERLOADED"
    assert unjudged.right is None


async def test_what_is_left_early_leaves_nothing_running() -> None:
    """Cancelling the benchmark cancels its calls."""
    began, ended = asyncio.Event(), asyncio.Event()

    async def call(_asked: Shot, _left_s: float | None) -> AsyncIterator[GenerateResponse]:
        try:
            began.set()
            await asyncio.get_running_loop().create_future()
            yield GenerateResponse()
        finally:
            ended.set()

    running = asyncio.create_task(send([shot()], call, deadline_s=None))
    await began.wait()
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    await ended.wait()


async def test_who_is_refused_comes_back_when_told_to() -> None:
    """With its whole time again, as often as is asked for; without a time it does not."""
    left = []

    async def call(asked: Shot, left_s: float | None) -> AsyncIterator[GenerateResponse]:
        left.append(left_s)
        if len(left) < 3:
            raise OverloadedError("full", retry_after_s=0.001 if asked.task else None)
        for event in answered("4"):
            yield event

    (patient,) = await send([shot()], call, deadline_s=9.0, returns=2)
    assert (patient.status, patient.returns) == (OK, 2)
    assert min(each or 0.0 for each in left) > 8.0
    left.clear()
    (once,) = await send([shot()], call, deadline_s=None, returns=1)
    left.clear()
    (untold,) = await send([shot(task=None)], call, deadline_s=None, returns=1)
    assert (once.status, once.returns) == ("OVERLOADED", 1)
    assert (untold.status, untold.returns) == ("OVERLOADED", 0)
