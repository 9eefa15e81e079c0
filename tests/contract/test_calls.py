"""Answers of one client share a stream: each is as it would be by itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc

from services.kit.config import Server
from services.kit.errors import DeadlinePassedError, OverloadedError, UnavailableError
from services.kit.rpc import Context
from tests.clients import Kind, both_clients
from tests.contract.router_fakes import (
    Answer,
    FakeModel,
    asking,
    candidates_are,
    config_of,
    hang,
    routed,
    saying,
    served,
    until,
    world,
)
from tests.contract.test_lookaside_client import fleet
from tests.proxy import proxied
from zeta_client import AsyncClient

LIMIT_S = 30.0


def looking(into: list[str], answer: Answer | None = None) -> Answer:
    """A model that writes down what kind of context it is asked in."""

    async def look(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        into.append(type(context).__name__)
        async for event in (answer or saying("four"))(request, context):
            yield event

    return look


async def sharing(zeta: AsyncClient) -> None:
    """Ask until the next answer comes on the stream."""

    async def shares() -> bool:
        await zeta.answers("warm up", deadline_s=LIMIT_S)
        return zeta._calls.shares

    await until(shares, LIMIT_S)


def warm(model: FakeModel, *script: Answer) -> None:
    """Have *model* do as scripted from now on."""
    model.script[:] = script
    for event in (model.arrived, model.cancelled):
        event.clear()


@both_clients
async def test_the_first_answer_goes_by_itself_and_later_ones_share(kind: Kind) -> None:
    """Who asks once opens nothing more than a call."""
    seen: list[str] = []
    async with (
        served(FakeModel("a", [looking(seen)])) as server,
        kind(server.address) as zeta,
    ):
        await zeta.answers("what?")
        opened = zeta._calls._carrying is not None
        await sharing(zeta)
        seen_before = len(seen)
        answers = await asyncio.gather(*(zeta.answers("what?") for _ in range(8)))

    assert not opened
    assert seen[0] == "_ServicerContext"
    assert seen[seen_before:] == ["CallContext"] * 8
    assert [answer.text for answer in answers] == ["four"] * 8


@both_clients
async def test_sharing_can_be_switched_off(kind: Kind) -> None:
    """For a proxy that is to spread calls."""
    seen: list[str] = []
    async with (
        served(FakeModel("a", [looking(seen)])) as server,
        kind(server.address, share_stream=False) as zeta,
    ):
        for _ in range(4):
            await zeta.answers("what?")
        opened = zeta._calls._carrying is not None

    assert not opened
    assert seen == ["_ServicerContext"] * 4


@both_clients
async def test_a_server_without_the_stream_is_asked_call_by_call(kind: Kind) -> None:
    """`Generate` is all that a model must have; it is not asked for more each time."""
    seen: list[str] = []
    server = grpc.aio.server()
    inference_grpc.add_InferenceServiceServicer_to_server(FakeModel("a", [looking(seen)]), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()

    async with kind(f"127.0.0.1:{port}") as zeta:

        async def knows() -> bool:
            await zeta.answers("what?")
            return zeta._calls._again_at_s > 0.0

        await until(knows)
        for _ in range(3):
            await zeta.answers("what?")
        asks_again = zeta._calls._carrying is not None
    await server.stop(None)

    assert not asks_again
    assert set(seen) == {"_ServicerContext"}


@both_clients
async def test_errors_deadlines_and_leaving_are_those_of_a_call(kind: Kind) -> None:
    """With their details, and at once at the model."""

    async def refuse(
        _request: inference_pb.GenerateRequest, _context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        yield inference_pb.GenerateResponse(started=inference_pb.Started())
        raise OverloadedError("full", retry_after_s=2.5)

    model = FakeModel("a")
    async with served(model) as server, kind(server.address) as zeta:
        await sharing(zeta)
        seen: list[str] = []
        warm(model, looking(seen, refuse), looking(seen, hang), looking(seen, hang))
        with pytest.raises(OverloadedError, match="full") as refused:
            await zeta.answers("what?")
        with pytest.raises(DeadlinePassedError):
            await zeta.answers("what?", deadline_s=2.0)
        async with asyncio.timeout(LIMIT_S):
            await model.cancelled.wait()
        model.cancelled.clear()
        events: Any = zeta.generate(asking())
        await anext(events)
        await events.aclose()
        async with asyncio.timeout(LIMIT_S):
            await model.cancelled.wait()

    assert refused.value.retry_after_s == 2.5
    assert seen == ["CallContext"] * 3


@both_clients
async def test_a_long_request_goes_by_itself(kind: Kind) -> None:
    """Others would wait behind it."""
    seen: list[str] = []
    model = FakeModel("a")
    async with served(model) as server, kind(server.address) as zeta:
        await sharing(zeta)
        warm(model, looking(seen))
        await zeta.answers("x" * 100_000)
        await zeta.answers("x")

    assert seen == ["_ServicerContext", "CallContext"]


@both_clients
async def test_a_client_that_closes_cancels_what_runs(kind: Kind) -> None:
    """The model stops, and the reader sees what it would of a call of its own."""
    model = FakeModel("a")
    async with served(model) as server:
        async with kind(server.address) as zeta:
            await sharing(zeta)
            warm(model, hang)
            events: Any = zeta.generate(asking())
            await anext(events)
        with pytest.raises(asyncio.CancelledError if kind is AsyncClient else UnavailableError):
            [event async for event in events]
        async with asyncio.timeout(LIMIT_S):
            await model.cancelled.wait()


@both_clients
async def test_answers_outlive_the_stream_that_they_share(tmp_path: Path, kind: Kind) -> None:
    """Each goes on behind what came of it, and the next ones share again."""
    model, there = FakeModel("only"), 0
    async with (
        world(tmp_path, model) as ready,
        proxied(ready.address) as network,
        kind(network.address) as zeta,
    ):
        await sharing(zeta)
        warm(model, hang, hang, hang, saying(" and four", parts=2))
        begun = asyncio.Event()

        async def whole() -> list[inference_pb.GenerateResponse]:
            nonlocal there
            events = []
            async for event in zeta.generate(asking(), deadline_s=20.0):
                events.append(event)
                if event.delta.seq == 1:
                    there += 1
                    if there == 3:
                        begun.set()
            return events

        reading = [asyncio.create_task(whole()) for _ in range(3)]
        async with asyncio.timeout(LIMIT_S):
            await begun.wait()
        shared = zeta._calls.shares
        network.cut()
        answers = await asyncio.gather(*reading)
        await sharing(zeta)

    assert shared
    for events in answers:
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["started", "delta", "delta", "delta", "finished"]
        assert [event.delta.seq for event in events[1:-1]] == [1, 2, 3]
        assert "".join(event.delta.text for event in events) == "wait and four"


@both_clients
async def test_what_comes_while_a_router_stops_goes_to_its_successor(
    tmp_path: Path, kind: Kind
) -> None:
    """The old one still finishes an answer on the stream, which holds up nobody else."""
    go_on, begun = asyncio.Event(), asyncio.Event()

    async def slow(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        events = [event async for event in saying("slow")(request, context)]
        yield events[0]
        yield events[1]
        begun.set()
        await go_on.wait()
        yield events[2]

    model = FakeModel("only")
    async with served(model) as upstream, AsyncExitStack() as stack:
        configs = [
            msgspec.structs.replace(
                config_of(tmp_path / name, [("only", [upstream.address])]),
                server=Server(drain_grace_s=60.0),
            )
            for name in ("old", "new")
        ]
        new = await stack.enter_async_context(routed(configs[1]))
        await until(partial(candidates_are, new, 1))
        leaving = AsyncExitStack()
        old = await leaving.enter_async_context(routed(configs[0]))
        await until(partial(candidates_are, old, 1))
        network = await stack.enter_async_context(proxied(old.address))
        zeta = await stack.enter_async_context(kind(network.address))
        await sharing(zeta)
        warm(model, slow, saying("four"))
        running = asyncio.create_task(zeta.answers("what?"))
        async with asyncio.timeout(LIMIT_S):
            await begun.wait()
        network.target = new.address
        stopping = asyncio.create_task(leaving.aclose())
        texts: list[str] = []

        async def arrived() -> bool:
            texts.append((await zeta.answers("what?", deadline_s=LIMIT_S)).text)
            return network.connections > 1

        await until(arrived, LIMIT_S)
        unfinished = not running.done()
        go_on.set()
        answer = await running
        async with asyncio.timeout(LIMIT_S):
            await stopping

    assert unfinished
    assert answer.text == "slow"
    assert set(texts) == {"four"}


@both_clients
async def test_answers_with_tickets_share_a_stream_to_their_replica(
    tmp_path: Path, kind: Kind
) -> None:
    """Each shows its own ticket."""
    seen: list[str] = []
    async with (
        fleet(tmp_path, looking(seen)) as (ready, model),
        kind(ready.address) as zeta,
    ):

        async def shared() -> bool:
            events = [event async for event in zeta.generate(asking(), lookaside=True)]
            assert events[-1].HasField("finished")
            return seen[-1] == "CallContext"

        await until(shared, LIMIT_S)

    tickets = [said["zeta-ticket"] for said in model.metadata]
    assert len(set(tickets)) == len(tickets) == len(seen)
