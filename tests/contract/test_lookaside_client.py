"""Both Python clients on the direct path: a router, and a replica that does as scripted."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import grpc
import msgspec
import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.router.v1 import router_service_pb2 as router_pb

from services.kit.config import Tickets
from services.kit.errors import InvalidRequestError, StreamBrokenError
from services.kit.rpc import Context
from tests.clients import Kind, both_clients
from tests.contract.router_fakes import (
    Answer,
    FakeModel,
    World,
    asking,
    candidates_are,
    config_of,
    failing,
    hang,
    routed,
    saying,
    served,
    until,
    world,
)

Events: TypeAlias = list[inference_pb.GenerateResponse]


async def ask_with(kind: Kind, address: str, request: inference_pb.GenerateRequest) -> Events:
    """Ask the replica."""
    async with kind(address) as zeta:
        return [event async for event in zeta.generate(request, lookaside=True)]


@asynccontextmanager
async def fleet(folder: Path, *script: Answer) -> AsyncGenerator[tuple[World, FakeModel], None]:
    """A router that makes tickets, before one replica."""
    (folder / "keys").write_text(f"one {b64encode(bytes(32)).decode()}\n")
    model = FakeModel("a", list(script))
    async with served(model) as server:
        config = config_of(folder, [("a", [server.address])])
        tickets = Tickets(keys=str(folder / "keys"))
        async with routed(msgspec.structs.replace(config, tickets=tickets)) as ready:
            await until(lambda: candidates_are(ready, 1))
            yield ready, model


async def outcome(ready: World) -> list[float]:
    """Return the mean times that the router has learned."""
    policy = await ready.router.GetPolicy(router_pb.GetPolicyRequest())
    return [belief.total_mean_s for belief in policy.beliefs if belief.total_mean_s]


def timed(text: str, total_s: float) -> Answer:
    """A replica that says how long it took."""

    async def answer(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        async for event in saying(text)(request, context):
            if event.HasField("finished"):
                event.finished.timings.total.FromNanoseconds(int(total_s * 1e9))
            yield event

    return answer


async def refusing(
    request: inference_pb.GenerateRequest, context: Context
) -> AsyncIterator[inference_pb.GenerateResponse]:
    """Refuse a ticket."""
    await context.abort(grpc.StatusCode.PERMISSION_DENIED, "as the script says")
    yield inference_pb.GenerateResponse(started=inference_pb.Started(model=request.model))


@both_clients
async def test_the_answer_comes_from_the_replica(tmp_path: Path, kind: Kind) -> None:
    """The request goes there as it is, with a ticket; the report is there before the end is."""
    wanted = asking(preference=inference_pb.Preference(explain=True, policy="balanced"))
    async with fleet(tmp_path, timed("four", 0.001)) as (ready, model):
        events = await ask_with(kind, ready.address, wanted)

        assert await outcome(ready) == [pytest.approx(0.001)]
    assert "".join(event.delta.text for event in events) == "four"
    assert model.requests == [wanted]
    assert model.metadata[0]["zeta-ticket"].startswith("v1.one.")
    assert events[-1].finished.decision.plan.single.model == "a"


@both_clients
async def test_whom_the_replica_refuses_the_router_answers(tmp_path: Path, kind: Kind) -> None:
    """The caller sees one whole answer, from the beginning."""
    async with fleet(tmp_path, refusing, saying("four")) as (ready, model):
        events = await ask_with(kind, ready.address, asking())

    assert kinds(events) == ["started", "delta", "finished"]
    assert len(model.requests) == 2
    assert "zeta-ticket" not in model.metadata[1]


@both_clients
async def test_an_answer_that_breaks_goes_on_through_the_router(tmp_path: Path, kind: Kind) -> None:
    """Behind the text that was shown, with deltas that count on, as if it had been in between."""
    broken = failing(grpc.StatusCode.UNAVAILABLE, after=2)
    async with fleet(tmp_path, broken, saying("the rest", parts=2)) as (ready, model):
        events = await ask_with(kind, ready.address, asking(max_tokens=9))

    assert kinds(events) == ["started", "delta", "delta", "handover", "delta", "delta", "finished"]
    assert [event.delta.seq for event in events if event.HasField("delta")] == [1, 2, 3, 4]
    assert events[3].handover.after_seq == 2
    assert events[3].handover.to_replica == "a-0"
    assert model.requests[1].continuation.text == "half half "
    assert model.requests[1].max_tokens == 9


@both_clients
async def test_without_tickets_the_router_answers(tmp_path: Path, kind: Kind) -> None:
    """A router without keys is asked as if nothing had been said of lookaside."""
    async with world(tmp_path, FakeModel("a")) as ready:
        events = await ask_with(kind, ready.address, asking())

    assert kinds(events) == ["started", "delta", "finished"]


@both_clients
async def test_a_callers_mistake_is_told_once(tmp_path: Path, kind: Kind) -> None:
    """What nobody could answer is not asked again."""
    wrong = failing(grpc.StatusCode.INVALID_ARGUMENT)
    async with fleet(tmp_path, wrong) as (ready, model):
        with pytest.raises(InvalidRequestError):
            await ask_with(kind, ready.address, asking())

        assert len(model.requests) == 1


@both_clients
async def test_several_answers_that_break_are_not_mended(tmp_path: Path, kind: Kind) -> None:
    """The caller is told to ask again."""
    async with fleet(tmp_path, failing(after=1), saying("x")) as (ready, _):
        with pytest.raises(StreamBrokenError, match="several answers"):
            await ask_with(kind, ready.address, asking(samples=2))


@both_clients
async def test_whoever_leaves_stops_the_work_and_the_counting(tmp_path: Path, kind: Kind) -> None:
    """The replica's call is cancelled, and the router hears of it."""
    async with fleet(tmp_path, hang) as (ready, model):
        async with kind(ready.address) as zeta:
            events = zeta.generate(asking(), lookaside=True)
            async for event in events:
                if event.HasField("delta"):
                    break
            await events.aclose()
            await asyncio.wait_for(model.cancelled.wait(), 5.0)

        ticket = router_pb.ReportOutcomeRequest(
            token=model.metadata[0]["zeta-ticket"].encode(),
            unfinished=router_pb.UNFINISHED_REASON_CANCELLED,
        )
        assert not (await ready.router.ReportOutcome(ticket)).counted


def kinds(events: Events) -> list[str | None]:
    """Name the events."""
    return [event.WhichOneof("event") for event in events]
