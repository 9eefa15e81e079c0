"""Calls of `Generate` on one stream, over a real connection: each is as one of its own."""

import asyncio
import gc
import itertools
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zeta.inference.v1 import call_service_pb2 as pb
from zeta.inference.v1 import call_service_pb2_grpc as pb_grpc
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc

from services.kit.aio import cancelled
from services.kit.channel import open_channel
from services.kit.config import Server
from services.kit.errors import (
    DeadlinePassedError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
)
from services.kit.metrics import RPC_DURATION
from services.kit.mux.client import WINDOW, Call, Line
from services.kit.mux.server import MOST_CALLS
from services.kit.orca import REPORT_KEY, Use
from services.kit.rpc import Context, is_bare, zeta_error
from services.kit.server import serving
from tests.contract.router_fakes import (
    INFERENCE,
    SETTINGS,
    Answer,
    FakeModel,
    asking,
    candidates_are,
    config_of,
    failing,
    hang,
    mute,
    read,
    routed,
    saying,
    served,
    until,
    world,
)
from tests.proxy import proxied

LIMIT_S = 30.0


@dataclass(slots=True, kw_only=True)
class Carried:
    """A fake model, and a line to it."""

    model: FakeModel
    line: Line
    channel: grpc.aio.Channel
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: the server leaves."""
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def call(self, request: inference_pb.GenerateRequest | None = None, **said: Any) -> Call:
        """Begin a call."""
        encoded = (request or asking()).SerializeToString()
        assert self.line.takes(encoded)
        return self.line.call(encoded, said.get("timeout_s"), said.get("metadata", ()))


@asynccontextmanager
async def kept(channel: grpc.aio.Channel) -> AsyncIterator[Line]:
    """Keep a line open."""
    line = Line(channel, "fake")
    keeping = asyncio.create_task(line.keep())
    try:
        await line.settled(LIMIT_S)
        yield line
    finally:
        await cancelled(keeping)


@asynccontextmanager
async def carried(*script: Answer, settings: Server = SETTINGS) -> AsyncIterator[Carried]:
    """Serve a fake model, and keep a line to it."""
    model = FakeModel("a", list(script) or [saying("four")])
    add = partial(inference_grpc.add_InferenceServiceServicer_to_server, model)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(_leaving(settings, add))
        channel = await stack.enter_async_context(open_channel(server[0], settings))
        line = await stack.enter_async_context(kept(channel))
        yield Carried(model=model, line=line, channel=channel, stop=server[1], left=server[2])


@asynccontextmanager
async def _leaving(
    settings: Server, add: Any
) -> AsyncIterator[tuple[str, asyncio.Event, asyncio.Event]]:
    """Serve until told to stop."""
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop, left = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        use = partial(Use, slots=2)
        async with serving("127.0.0.1:0", settings, {INFERENCE: add}, use=use) as server:
            address.set_result(server.address)
            await stop.wait()
        left.set()

    task = asyncio.create_task(serve())
    try:
        yield await address, stop, left
    finally:
        stop.set()
        await task


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """Return what *call* fails with."""
    async with asyncio.timeout(LIMIT_S):
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            [event async for event in call]
    return failed.value


async def test_calls_side_by_side_are_told_apart() -> None:
    """Each gets its own answer, whole and in its order."""

    async def echo(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        async for event in saying(request.prompt, parts=len(request.prompt))(request, context):
            yield event
            await asyncio.sleep(0)

    async with carried(echo) as it:
        prompts = [f"{i}: {'x' * i}" for i in range(1, 20)]
        answers = await asyncio.gather(*(read(it.call(asking(prompt))) for prompt in prompts))

    assert [text for _, text, _ in answers] == prompts


async def test_what_comes_at_once_shares_a_message() -> None:
    """It is what the stream is for: one moment of sixteen calls is not sixteen messages."""
    gate, all_there, count = asyncio.Event(), asyncio.Event(), itertools.count(1)

    async def together(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        if next(count) == 16:
            all_there.set()
        await gate.wait()
        async for event in saying("four")(request, context):
            yield event

    async with carried(together) as it:
        stub: Any = pb_grpc.CallServiceStub(it.channel)
        stream = stub.GenerateMany()
        start = pb.CallStart(request=asking().SerializeToString())
        orders = [pb.CallOrder(call=i, start=start) for i in range(16)]
        assert await stream.read() == pb.GenerateManyResponse()
        await stream.write(pb.GenerateManyRequest(orders=orders))
        async with asyncio.timeout(LIMIT_S):
            await all_there.wait()
        gate.set()
        news: list[int] = []
        while sum(news) < 16 * 4:
            news.append(len((await stream.read()).news))
        stream.cancel()

    assert len(news) < 16


async def test_metadata_and_deadline_reach_the_handler() -> None:
    """The request's id, the trace, a ticket: whatever goes with a call."""
    said = (("x-request-id", "r1"), ("traceparent", "00-aa-bb-01"), ("zeta-ticket", "t"))
    async with carried() as it:
        await read(it.call(timeout_s=60.0, metadata=said))
        await read(it.call())

    assert it.model.metadata == [dict(said), {}]
    with_one, without = it.model.time_left_s
    assert 0.0 < with_one <= 60.0
    assert without == 0.0  # as the fake writes down that there is none


async def test_a_failure_keeps_its_status_and_details() -> None:
    """What the other side raised is what this side gets."""

    async def refuse(
        _request: inference_pb.GenerateRequest, _context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        yield inference_pb.GenerateResponse(started=inference_pb.Started())
        raise OverloadedError("full", retry_after_s=2.5)

    async with carried(refuse, failing(grpc.StatusCode.UNAVAILABLE), saying("four")) as it:
        ours, bare = await failure(it.call()), await failure(it.call())
        _, after, _ = await read(it.call())

    error = zeta_error(ours)
    assert isinstance(error, OverloadedError)
    assert (str(error), error.retry_after_s) == ("full", 2.5)
    assert isinstance(zeta_error(bare), UnavailableError)
    assert is_bare(bare)
    assert after == "four"


async def test_a_request_that_cannot_be_read_fails_alone() -> None:
    """Others on the stream go on."""
    async with carried(hang) as it:
        other = it.call()
        assert (await anext(other)).HasField("started")
        failed = await failure(it.line.call(b"\xff", None, ()))
        assert (await anext(other)).delta.text == "wait"

    assert isinstance(zeta_error(failed), InvalidRequestError)


async def test_a_cancel_stops_the_work() -> None:
    """The model hears of it at once, and the reader as with a call of its own."""
    async with carried(hang) as it:
        call = it.call()
        await anext(call)
        assert call.cancel()
        assert not call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await anext(call)
        async with asyncio.timeout(LIMIT_S):
            await it.model.cancelled.wait()


async def test_a_deadline_stops_the_work() -> None:
    """Both sides keep the time; what is told is what gRPC would tell."""
    async with carried(hang) as it:
        failed = await failure(it.call(timeout_s=1.0))
        async with asyncio.timeout(LIMIT_S):
            await it.model.cancelled.wait()

    assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert isinstance(zeta_error(failed), DeadlinePassedError)


async def test_a_deadline_is_kept_where_nothing_is_heard() -> None:
    """A replica that hangs, or a link that does, tells nobody that time is up."""
    async with (
        served(FakeModel("a", [hang])) as server,
        proxied(server.address) as way,
        open_channel(way.address, SETTINGS) as channel,
        kept(channel) as line,
    ):
        way.flowing.clear()
        failed = await failure(line.call(asking().SerializeToString(), 0.1, ()))

    assert failed.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_the_server_tells_of_a_deadline_by_itself() -> None:
    """A caller need not keep the time."""
    start = pb.CallStart(request=asking().SerializeToString(), timeout=Duration(nanos=1_000_000))
    async with carried(hang) as it:
        *_, last = await _news(it.channel, start)

    assert last.end.code == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]


async def test_the_load_goes_behind_each_call() -> None:
    """As ORCA's report does behind a call of its own."""
    start = pb.CallStart(request=asking().SerializeToString())
    async with carried() as it:
        *events, last = await _news(it.channel, start)

    assert [each.WhichOneof("news") for each in events] == ["event"] * 3
    assert last.end.code == 0
    assert [trailer.key for trailer in last.end.trailers] == [REPORT_KEY]


async def _news(channel: grpc.aio.Channel, start: pb.CallStart) -> list[pb.CallNews]:
    """Make one call on a stream, and return all that comes of it."""
    stub: Any = pb_grpc.CallServiceStub(channel)
    stream = stub.GenerateMany()
    assert await stream.read() == pb.GenerateManyResponse()
    await stream.write(pb.GenerateManyRequest(orders=[pb.CallOrder(call=7, start=start)]))
    await stream.done_writing()
    async with asyncio.timeout(LIMIT_S):
        news = [each async for each in _messages(stream)]
    assert {each.call for each in news} == {7}
    return news


async def _messages(stream: Any) -> AsyncIterator[pb.CallNews]:
    while (message := await stream.read()) is not grpc.aio.EOF:
        for each in message.news:
            yield each


async def test_a_stream_without_sense_is_refused() -> None:
    """An order that says nothing, and a number that is given twice."""
    async with carried(hang) as it:
        start = pb.CallStart(request=asking().SerializeToString())
        for orders in (
            [pb.CallOrder(call=1)],
            [pb.CallOrder(call=1, start=start), pb.CallOrder(call=1, start=start)],
        ):
            stub: Any = pb_grpc.CallServiceStub(it.channel)
            stream = stub.GenerateMany()
            await stream.write(pb.GenerateManyRequest(orders=orders))
            with pytest.raises(grpc.aio.AioRpcError) as failed:
                [each async for each in _messages(stream)]
            assert isinstance(zeta_error(failed.value), InvalidRequestError)


async def test_a_slow_reader_holds_up_its_own_model_alone() -> None:
    """So many events wait and no more, while others are served; then it goes on."""
    made = 0

    async def much(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        nonlocal made
        async for event in saying("x" * 1000, parts=1000)(request, context):
            made += 1
            yield event

    async with carried(much, saying("four")) as it:
        slow = it.call()
        first = await anext(slow)
        for _ in range(3):
            await read(it.call())
        waiting = made
        rest = [event async for event in slow]

    assert first.HasField("started")
    assert waiting <= WINDOW + 1
    assert len(rest) == 1001


async def test_who_does_not_read_is_not_served_on() -> None:
    """A caller that allows everything and takes nothing costs a few megabytes, and no more."""
    made, parts = 0, 300

    async def much(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        nonlocal made
        async for event in saying("x" * parts * 100_000, parts=parts)(request, context):
            made += 1
            yield event

    async with carried(much, saying("four")) as it:
        start = pb.CallStart(request=asking().SerializeToString())
        stream: Any = pb_grpc.CallServiceStub(it.channel)
        stream = stream.GenerateMany()
        assert await stream.read() == pb.GenerateManyResponse()
        await stream.write(pb.GenerateManyRequest(orders=[pb.CallOrder(call=1, start=start)]))
        async with asyncio.timeout(LIMIT_S):
            await it.model.arrived.wait()
        await read(it.call())
        waiting = made
        news = 0
        async for each in _messages(stream):
            news += 1
            if each.HasField("end"):
                break
        stream.cancel()

    assert waiting < parts * 2 / 3
    assert news == parts + 3


async def test_a_stream_carries_so_many_calls_at_once() -> None:
    """One more is refused, and the others are not."""
    start = pb.CallStart(request=asking().SerializeToString())
    async with carried(mute) as it:
        stub: Any = pb_grpc.CallServiceStub(it.channel)
        stream = stub.GenerateMany()
        assert await stream.read() == pb.GenerateManyResponse()
        orders = [pb.CallOrder(call=i, start=start) for i in range(MOST_CALLS + 1)]
        await stream.write(pb.GenerateManyRequest(orders=orders))
        begun, refused = 0, []
        async with asyncio.timeout(LIMIT_S):
            async for each in _messages(stream):
                begun += each.HasField("event")
                refused += [each] if each.HasField("end") else []
                if begun == MOST_CALLS and refused:
                    break
        stream.cancel()

    assert [(each.call, each.end.code) for each in refused] == [
        (MOST_CALLS, grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
    ]


@pytest.mark.parametrize(
    "header",
    [
        pb.CallHeader(key="x-request-id", value=b"one\ntwo"),
        pb.CallHeader(key="X Request", value=b"one"),
        pb.CallHeader(key="x-long", value=b"x" * 20_000),
    ],
)
async def test_metadata_that_no_call_could_have_is_refused(header: pb.CallHeader) -> None:
    """It would go into logs, and on to the next server, which takes it to be checked."""
    start = pb.CallStart(request=asking().SerializeToString(), headers=[header])
    async with carried() as it:
        [only] = await _news(it.channel, start)
        assert it.model.requests == []

    assert only.end.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


async def test_a_line_that_is_left_ends_with_its_calls() -> None:
    """What runs is finished, nothing new is taken, and another stream is opened behind it."""
    go_on = asyncio.Event()

    async def slow(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        events = [event async for event in saying("four")(request, context)]
        yield events[0]
        await go_on.wait()
        for event in events[1:]:
            yield event

    async with carried(slow, saying("five")) as it:
        running = it.call()
        first = await anext(running)
        it.line.leave()
        taken = it.line.takes(b"")
        go_on.set()
        rest = [event async for event in running]
        async with asyncio.timeout(LIMIT_S):
            while not it.line.takes(b""):
                await it.line.settled(LIMIT_S)
        _, text, _ = await read(it.call())

    assert not taken
    assert [event.WhichOneof("event") for event in (first, *rest)] == [
        "started",
        "delta",
        "finished",
    ]
    assert text == "five"


async def test_a_connection_that_breaks_fails_each_call_as_its_own_would() -> None:
    """Without details, so that the router knows that the replica is lost; then all begins anew."""
    model, request = FakeModel("a", [hang, hang, saying("four")]), asking().SerializeToString()
    async with (
        served(model) as server,
        proxied(server.address) as way,
        open_channel(way.address, SETTINGS) as channel,
        kept(channel) as line,
    ):
        calls = [line.call(request, None, ()) for _ in range(2)]
        for call in calls:
            await anext(call)
        way.cut()
        failed = [await failure(call) for call in calls]
        async with asyncio.timeout(LIMIT_S):
            while not line.takes(request):
                await line.settled(LIMIT_S)
        _, text, _ = await read(line.call(request, None, ()))

    assert all(is_bare(each) for each in failed)
    assert all(isinstance(zeta_error(each), UnavailableError) for each in failed)
    assert text == "four"


async def test_a_server_that_stops_finishes_its_calls_and_takes_no_more() -> None:
    """What runs gets its grace; what comes on the open stream is told to ask elsewhere."""
    go_on = asyncio.Event()

    async def slow(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        yield inference_pb.GenerateResponse(started=inference_pb.Started())
        await go_on.wait()
        events = [event async for event in saying("four")(request, context)]
        for event in events[1:]:
            yield event

    async with carried(slow, settings=Server(drain_grace_s=60.0)) as it:
        running = it.call()
        started = await anext(running)
        it.stop.set()
        refused = DrainingError("", retry_after_s=0.0)
        async with asyncio.timeout(LIMIT_S):
            while str(refused) == "":
                late = it.call()
                try:
                    await anext(late)
                except grpc.aio.AioRpcError as failed:
                    error = zeta_error(failed)
                    assert isinstance(error, DrainingError)
                    refused = error
                finally:
                    late.cancel()
        go_on.set()
        rest = [event async for event in running]
        async with asyncio.timeout(LIMIT_S):
            await it.left.wait()

    assert refused.retry_after_s == 1.0
    assert started.HasField("started")
    assert [event.WhichOneof("event") for event in rest] == ["delta", "finished"]


async def test_what_a_stop_cuts_is_told_why() -> None:
    """After the grace, as with a call of its own."""
    async with carried(hang, settings=Server(drain_grace_s=0.0)) as it:
        call = it.call()
        await anext(call)
        it.stop.set()
        failed = await failure(call)

    error = zeta_error(failed)
    assert isinstance(error, DrainingError)
    assert error.retry_after_s == 1.0


async def test_an_idle_stream_holds_no_stop_up() -> None:
    """A line is open for as long as a router runs."""
    async with carried(settings=Server(drain_grace_s=600.0)) as it:
        await read(it.call())
        stub: Any = pb_grpc.CallServiceStub(it.channel)
        stream = stub.GenerateMany()
        assert await stream.read() == pb.GenerateManyResponse()
        ended = asyncio.ensure_future(stream.read())
        it.stop.set()
        async with asyncio.timeout(LIMIT_S):
            await it.left.wait()
        # It would raise, had the stream been cut.
        assert await ended is grpc.aio.EOF


@pytest.mark.parametrize("script", [saying("four"), failing(grpc.StatusCode.RESOURCE_EXHAUSTED)])
async def test_a_call_that_ended_leaves_no_cycle(script: Answer) -> None:
    """Whoever makes hundreds in a second would have Python search for them."""
    async with carried(script) as it:
        call = it.call()
        gone = weakref.ref(call)
        gc.disable()
        try:
            with suppress(grpc.aio.AioRpcError):
                await read(call)
            del call
            assert gone() is None
        finally:
            gc.enable()


async def test_calls_are_counted_as_generate() -> None:
    """Metrics do not change with the way that a call takes."""

    def counted() -> float:
        labels = RPC_DURATION.labels(INFERENCE, "Generate", "OK")
        return sum(s.value for s in labels._child_samples() if s.name == "_count")

    before = counted()
    async with carried() as it:
        await read(it.call())

    assert counted() == before + 1


async def test_a_long_request_goes_by_a_call_of_its_own() -> None:
    """It would hold up what is behind it."""
    async with carried() as it:
        assert it.line.takes(b"x" * 1000)
        assert not it.line.takes(b"x" * 1_000_000)


def looking(into: list[str]) -> Answer:
    """A model that writes down what kind of context it is asked in."""

    async def answer(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        into.append(type(context).__name__)
        async for event in saying("four")(request, context):
            yield event

    return answer


async def test_the_router_uses_the_stream(tmp_path: Path) -> None:
    """It does before it takes the replica to be healthy, so that no call goes another way."""
    seen: list[str] = []
    async with world(tmp_path, FakeModel("a", [looking(seen)])) as ready:
        await read(ready.inference.Generate(asking()))

    assert seen == ["CallContext"]


async def test_a_replica_without_the_stream_is_asked_call_by_call(tmp_path: Path) -> None:
    """Health and `Generate` are all that a replica must have."""
    seen: list[str] = []
    server = grpc.aio.server()
    inference_grpc.add_InferenceServiceServicer_to_server(FakeModel("a", [looking(seen)]), server)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    for name in ("", INFERENCE):
        await health.set(name, health_pb2.HealthCheckResponse.SERVING)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with (
        asyncio.timeout(LIMIT_S / 2),
        open_channel(f"127.0.0.1:{port}", SETTINGS) as channel,
        kept(channel) as line,
    ):
        # Nothing to wait for, as `kept` does for longer.
        assert not line.takes(asking().SerializeToString())
    async with routed(config_of(tmp_path, [("a", [f"127.0.0.1:{port}"])])) as ready:
        await until(lambda: candidates_are(ready, 1))
        _, text, _ = await read(ready.inference.Generate(asking()))
    await server.stop(None)

    assert text == "four"
    assert seen == ["_ServicerContext"]


async def test_a_router_that_stops_finishes_its_calls_on_the_stream(tmp_path: Path) -> None:
    """The stream stays as long as there are answers on it: none has to be begun anew."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        events = [event async for event in saying("four", parts=2)(request, context)]
        for event in events[:2]:
            yield event
        begun.set()
        await go_on.wait()
        for event in events[2:]:
            yield event

    model = FakeModel("a", [slow])
    async with served(model) as server:
        config = config_of(tmp_path, [("a", [server.address])])
        settings = msgspec.structs.replace(config, server=Server(drain_grace_s=60.0))
        async with AsyncExitStack() as stack:
            ready = await stack.enter_async_context(routed(settings))
            await until(lambda: candidates_are(ready, 1))
            # The fixture's own channel is closed before the router is stopped.
            channel = open_channel(ready.address, SETTINGS)
            stub = inference_grpc.InferenceServiceStub(channel)
            call = asyncio.create_task(read(stub.Generate(asking())))
            await begun.wait()
            stopping = asyncio.create_task(stack.aclose())
            await until(partial(_refuses, ready.address))
            go_on.set()
            _, text, _ = await call
            await stopping
            await channel.close()

    assert text == "four"
    assert len(model.requests) == 1


async def _refuses(address: str) -> bool:
    """Whether nobody listens there any more."""
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return True
    writer.close()
    return False
