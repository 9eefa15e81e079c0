"""Both Python clients and a router, with a network between them that breaks."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import grpc
import pytest
from prometheus_client import REGISTRY
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.config import Policy, Router
from services.kit.errors import DrainingError, StreamBrokenError, UnavailableError
from services.kit.rpc import zeta_error
from tests.clients import Kind, both_clients
from tests.contract.router_fakes import (
    FakeModel,
    asking,
    begun_only,
    candidates_are,
    config_of,
    hang,
    mute,
    routed,
    saying,
    served,
    until,
    world,
)
from tests.proxy import proxied
from zeta_client import AsyncClient
from zeta_client.resume import NEVER


async def read(
    client: AsyncClient, at_first: Callable[[], object]
) -> list[inference_pb.GenerateResponse]:
    """Read an answer; *at_first* is what happens once the first delta is there."""
    events = []
    async for event in client.generate(asking(), deadline_s=20.0):
        events.append(event)
        if event.delta.seq == 1:
            at_first()
    return events


@both_clients
async def test_an_answer_outlives_its_connection(tmp_path: Path, kind: Kind) -> None:
    """Nothing is repeated, nothing is missing, and the model feeds only what follows."""
    model = FakeModel("only", [hang, saying(" and four", parts=2)])
    async with (
        world(tmp_path, model) as ready,
        proxied(ready.address) as network,
        kind(network.address) as client,
    ):
        events = await read(client, network.cut)
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["started", "delta", "delta", "delta", "finished"]
    assert [event.delta.seq for event in events[1:-1]] == [1, 2, 3]
    assert "".join(event.delta.text for event in events) == "wait and four"
    assert model.requests[-1].continuation.text == "wait"
    assert network.connections == 2


@both_clients
async def test_what_had_not_begun_is_asked_again(tmp_path: Path, kind: Kind) -> None:
    """Where the server had answered before; the router drops the work of the lost connection."""
    model = FakeModel("only", [mute, saying("four")])
    async with (
        world(tmp_path, model) as ready,
        proxied(ready.address) as network,
        kind(network.address) as client,
    ):
        await client.list_models()
        answer = asyncio.create_task(client.answers("what is 2 + 2?", deadline_s=20.0))
        await model.arrived.wait()
        network.cut()
        assert (await answer).text == "four"
        await model.cancelled.wait()


@both_clients
async def test_a_wrong_address_is_told_at_once(kind: Kind) -> None:
    """Patience is for what was there."""
    async with proxied("127.0.0.1:1") as network, kind(network.address) as client:
        with pytest.raises(UnavailableError, match="nothing answers"):
            await client.answers("what?")
    assert network.connections <= 2, "gRPC's own attempts to connect"


@both_clients
async def test_a_router_that_restarted_knows_no_answer(tmp_path: Path, kind: Kind) -> None:
    """The error says so, and what to do."""
    model = FakeModel("only", [hang, saying(" and four")])
    async with world(tmp_path / "one", model) as ready, proxied(ready.address) as network:
        at = ready.config.models[0].replicas[0].listen
        async with (
            routed(config_of(tmp_path / "two", [("only", [at])])) as other,
            kind(network.address) as client,
        ):

            def restart() -> None:
                network.target = other.address
                network.cut()

            with pytest.raises(StreamBrokenError, match=r"behind delta 1 .* ask again"):
                await read(client, restart)


async def test_a_router_that_stops_says_so(tmp_path: Path) -> None:
    """A stream that it cuts has a status with details, and a time to ask again."""
    model = FakeModel("only", [hang])
    async with served(model) as upstream, AsyncExitStack() as stack:
        config = config_of(tmp_path, [("only", [upstream.address])])
        ready = await stack.enter_async_context(routed(config))
        await until(partial(candidates_are, ready, 1))
        async with grpc.aio.insecure_channel(ready.address) as channel:
            call = aiter(InferenceServiceStub(channel).Generate(asking()))
            assert (await anext(call)).HasField("started")
            assert (await anext(call)).delta.text == "wait"
            await stack.aclose()
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await anext(call)
    error = zeta_error(told.value)
    assert isinstance(error, DrainingError)
    assert error.retry_after_s == 1.0


@both_clients
async def test_what_had_not_begun_goes_to_the_successor_of_a_router_that_stops(
    tmp_path: Path, kind: Kind
) -> None:
    """The client asks it the same again."""
    model = FakeModel("only", [mute, saying("four")])
    async with served(model) as upstream, AsyncExitStack() as stack:
        replicas = [("only", [upstream.address])]
        other = await stack.enter_async_context(routed(config_of(tmp_path / "two", replicas)))
        await until(partial(candidates_are, other, 1))
        first = AsyncExitStack()
        old = await first.enter_async_context(routed(config_of(tmp_path / "one", replicas)))
        await until(partial(candidates_are, old, 1))
        async with proxied(old.address) as network, kind(network.address) as client:
            await client.list_models()
            asked = asyncio.create_task(client.answers("what?"))
            await model.arrived.wait()
            network.target = other.address
            await first.aclose()
            assert (await asked).text == "four"


@both_clients
async def test_going_on_can_be_switched_off(tmp_path: Path, kind: Kind) -> None:
    """Then the broken connection is the caller's to see."""
    model = FakeModel("only", [hang, saying(" and four")])
    async with (
        world(tmp_path, model) as ready,
        proxied(ready.address) as network,
        kind(network.address, resume=NEVER) as client,
    ):
        with pytest.raises(UnavailableError):
            await read(client, network.cut)
    assert len(model.requests) == 1


@both_clients
async def test_a_refused_return_is_tried_again(tmp_path: Path, kind: Kind) -> None:
    """A full router keeps the answer for who comes back; the client waits as long as it says."""
    model = FakeModel("only", [begun_only])
    settings = Router(
        listen="127.0.0.1:0",
        max_in_flight=1,
        max_queued=1,
        policies={"balanced": Policy(explore_ratio=0.0, max_calls=1)},
    )
    async with (
        world(tmp_path, model, router=settings) as ready,
        proxied(ready.address) as network,
        kind(network.address) as client,
    ):
        down = asyncio.Event()

        def cut() -> None:
            network.flowing.clear()
            network.cut()
            down.set()

        answer = asyncio.create_task(read(client, cut))
        await down.wait()
        await model.cancelled.wait()
        others = [ready.inference.Generate(asking()) for _ in range(2)]
        reading = [asyncio.ensure_future(call.read()) for call in others]
        await asyncio.wait(reading, return_when=asyncio.FIRST_COMPLETED)
        before = refusals()
        network.flowing.set()  # one runs and one waits: there is no room
        await until(partial(have_grown, before))
        for call in others:
            call.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        events = await answer
    assert "".join(event.delta.text for event in events) == "wait and four"


def refusals() -> float:
    """Return how many requests were refused for want of room."""
    count = REGISTRY.get_sample_value("zeta_router_refused_total", {"priority": "standard"})
    return count or 0.0


async def have_grown(before: float) -> bool:
    """Whether there were refusals since."""
    return refusals() > before
