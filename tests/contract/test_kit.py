"""The kit's server, interceptor and channel, over a real connection."""

import asyncio
import itertools
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.rpc import error_details_pb2, status_pb2
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from zeta.telemetry.v1 import telemetry_service_pb2 as pb
from zeta.telemetry.v1 import telemetry_service_pb2_grpc as pb_grpc

from services.kit import errors, metrics
from services.kit.channel import open_channel
from services.kit.config import Server
from services.kit.errors import ConfigError, DrainingError, ZetaError
from services.kit.rpc import DETAILS_KEY, Context, deadline_s, outgoing, zeta_error
from services.kit.server import Serving, serving

NAME = "zeta.telemetry.v1.TelemetryService"
Answer = Callable[[pb.QueryHistoryRequest, Context], Awaitable[pb.QueryHistoryResponse]]


class Scripted(pb_grpc.TelemetryServiceServicer):
    """Answers as the test says."""

    def __init__(self) -> None:
        self.answer: Answer = empty

    async def QueryHistory(  # noqa: N802 - the name is the wire's
        self, request: pb.QueryHistoryRequest, context: Context
    ) -> pb.QueryHistoryResponse:
        """Answer."""
        return await self.answer(request, context)

    async def Report(  # noqa: N802 - the name is the wire's
        self, request_iterator: AsyncIterator[pb.ReportRequest], context: Context
    ) -> AsyncIterator[pb.ReportResponse]:
        """Acknowledge everything."""
        del context
        async for request in request_iterator:
            yield pb.ReportResponse(acked_seq=request.report.seq)

    async def Watch(  # noqa: N802 - the name is the wire's
        self, request: pb.WatchRequest, context: Context
    ) -> AsyncIterator[pb.WatchResponse]:
        """Send one message, then fail as scripted."""
        del request
        yield pb.WatchResponse(seq=1)
        await self.answer(pb.QueryHistoryRequest(), context)


async def empty(request: pb.QueryHistoryRequest, context: Context) -> pb.QueryHistoryResponse:
    del request, context
    return pb.QueryHistoryResponse()


def raising(error: Exception) -> Answer:
    async def answer(request: pb.QueryHistoryRequest, context: Context) -> pb.QueryHistoryResponse:
        del request, context
        raise error

    return answer


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
async def served(scripted: Scripted) -> AsyncIterator[Serving]:
    add = {NAME: lambda server: pb_grpc.add_TelemetryServiceServicer_to_server(scripted, server)}
    async with serving("127.0.0.1:0", Server(drain_grace_s=0.0), add) as running:
        await running.set_serving()
        yield running


@pytest.fixture
async def channel(served: Serving) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(served.address, Server()) as opened:
        yield opened


async def refusal(channel: grpc.aio.Channel) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await pb_grpc.TelemetryServiceStub(channel).QueryHistory(pb.QueryHistoryRequest())
    return refused.value


KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, ZetaError)
    and kind not in (ZetaError, ConfigError)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_every_error_survives_the_wire(
    scripted: Scripted, channel: grpc.aio.Channel, kind: type[ZetaError]
) -> None:
    """What one process raises, its caller can raise again: kind, words, details."""
    violations = [errors.Violation("a.b", "is wrong")]
    scripted.answer = raising(kind("because", retry_after_s=1.5, violations=violations))

    failed = await refusal(channel)
    error = zeta_error(failed)

    assert failed.code() is kind.status
    assert error.status is kind.status
    assert error.reason == kind.reason
    assert (str(error), error.retry_after_s, list(error.violations)) == ("because", 1.5, violations)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlinePassedError),
        (grpc.StatusCode.UNAVAILABLE, errors.UnavailableError),
        (grpc.StatusCode.ABORTED, ZetaError),
        (grpc.StatusCode.NOT_FOUND, ZetaError),
    ],
)
def test_a_bare_status_becomes_the_nearest_error(
    status: grpc.StatusCode, kind: type[ZetaError]
) -> None:
    """What gRPC itself says, or a stranger, is not taken for one of our own reasons."""
    nothing = grpc.aio.Metadata()

    assert type(zeta_error(grpc.aio.AioRpcError(status, nothing, nothing, "words"))) is kind


async def test_details_are_standard_messages(scripted: Scripted, channel: grpc.aio.Channel) -> None:
    """A client in any language reads them with google.rpc alone."""
    scripted.answer = raising(errors.invalid("max_tokens", "must be at least 1, got 0"))

    failed = await refusal(channel)

    status, bad = status_pb2.Status(), error_details_pb2.BadRequest()
    (packed,) = [v for k, v in failed.trailing_metadata() or () if k == DETAILS_KEY]
    assert isinstance(packed, bytes)
    status.ParseFromString(packed)
    assert sum(detail.Unpack(bad) for detail in status.details) == 1
    assert bad.field_violations[0].field == "max_tokens"


async def test_the_cause_of_our_own_failure_stays_in_our_log(
    scripted: Scripted, channel: grpc.aio.Channel, capfd: pytest.CaptureFixture[str]
) -> None:
    """The caller gets an id that the log explains, and nothing else."""
    scripted.answer = raising(ZeroDivisionError("secret"))

    failed = await refusal(channel)

    assert failed.code() is grpc.StatusCode.INTERNAL
    details = failed.details() or ""
    assert "secret" not in details
    output = "".join(capfd.readouterr())
    assert details.rsplit(" ", 1)[-1] in output
    assert "secret" in output


async def test_a_stream_keeps_what_it_sent_before_it_failed(
    scripted: Scripted, channel: grpc.aio.Channel
) -> None:
    """An error in the middle of a stream carries its details, too."""
    scripted.answer = raising(errors.StreamBrokenError("lost"))
    call = pb_grpc.TelemetryServiceStub(channel).Watch(pb.WatchRequest())

    first = await call.read()
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call.read()

    assert isinstance(first, pb.WatchResponse)
    assert isinstance(zeta_error(failed.value), errors.StreamBrokenError)


async def test_request_id_trace_and_deadline_reach_the_handler(
    scripted: Scripted, channel: grpc.aio.Channel
) -> None:
    """What a caller says about a call goes on with every call made for it, and into its logs."""
    seen: list[object] = []

    async def look(request: pb.QueryHistoryRequest, context: Context) -> pb.QueryHistoryResponse:
        logged = structlog.contextvars.get_contextvars()
        seen.extend((dict(outgoing(context)), deadline_s(context), logged))
        return await empty(request, context)

    scripted.answer = look
    metadata = {"x-request-id": "r1", "traceparent": "00-aa-bb-01"}
    stub = pb_grpc.TelemetryServiceStub(channel)
    await stub.QueryHistory(pb.QueryHistoryRequest(), metadata=tuple(metadata.items()), timeout=5)

    carried, left_s, logged = seen
    assert carried == metadata
    assert left_s == pytest.approx(5.0, abs=1.0)
    assert isinstance(logged, dict)
    assert (logged["request_id"], logged["traceparent"]) == ("r1", "00-aa-bb-01")


async def test_health_tells_each_service_apart(served: Serving, channel: grpc.aio.Channel) -> None:
    """SERVING is said per service, and taken back."""
    stub: Any = health_pb2_grpc.HealthStub(channel)

    async def status(name: str) -> int:
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
        return int(answer.status)

    assert await status("") == await status(NAME) == health_pb2.HealthCheckResponse.SERVING
    await served.set_serving(serving=False)
    assert await status(NAME) == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_and_channelz_answer(channel: Any) -> None:
    """A generic client finds the service, an operator its sockets."""
    ask = reflection_pb2.ServerReflectionRequest(list_services="")
    reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = reflection.ServerReflectionInfo(iter([ask]))
    names = [s.name async for answer in call for s in answer.list_services_response.service]
    servers = await channelz_pb2_grpc.ChannelzStub(channel).GetServers(
        channelz_pb2.GetServersRequest()
    )

    assert NAME in names
    assert servers.server


async def test_leaving_lets_running_calls_finish(scripted: Scripted) -> None:
    """Drain means that no accepted call is cut within the grace."""
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: pb.QueryHistoryRequest, context: Context) -> pb.QueryHistoryResponse:
        begun.set()
        await go_on.wait()
        return await empty(request, context)

    scripted.answer = slow
    add = {NAME: lambda server: pb_grpc.add_TelemetryServiceServicer_to_server(scripted, server)}
    leaving = serving("127.0.0.1:0", Server(drain_grace_s=30.0), add)
    running = await leaving.__aenter__()
    async with open_channel(running.address, Server()) as opened:
        stub = pb_grpc.TelemetryServiceStub(opened)
        call = asyncio.ensure_future(stub.QueryHistory(pb.QueryHistoryRequest()))
        await begun.wait()
        left = asyncio.create_task(leaving.__aexit__(None, None, None))
        go_on.set()
        assert await call == pb.QueryHistoryResponse()
        await left


def hung(scripted: Scripted) -> asyncio.Event:
    """Have *scripted* never answer; return what is set once it is asked."""
    begun = asyncio.Event()

    async def hangs(_request: pb.QueryHistoryRequest, _context: Context) -> pb.QueryHistoryResponse:
        begun.set()
        await asyncio.Event().wait()
        return pb.QueryHistoryResponse()

    scripted.answer = hangs
    return begun


async def test_what_a_stop_cuts_is_told_why(scripted: Scripted) -> None:
    """After the grace, and with a time to ask again: the status is ours, not a connection's."""
    begun = hung(scripted)
    add = {NAME: lambda server: pb_grpc.add_TelemetryServiceServicer_to_server(scripted, server)}
    leaving = serving("127.0.0.1:0", Server(drain_grace_s=0.0), add)
    running = await leaving.__aenter__()
    async with open_channel(running.address, Server()) as opened:
        call = asyncio.create_task(refusal(opened))
        await begun.wait()
        await leaving.__aexit__(None, None, None)
        error = zeta_error(await call)
    assert isinstance(error, DrainingError)
    assert error.retry_after_s == 1.0


async def test_a_stop_waits_for_no_stream_without_an_end(scripted: Scripted) -> None:
    """Whoever watches health or state would hold it for all of the grace; watchers are told why."""
    begun = hung(scripted)
    add = {NAME: lambda server: pb_grpc.add_TelemetryServiceServicer_to_server(scripted, server)}
    leaving = serving("127.0.0.1:0", Server(drain_grace_s=600.0), add)
    running = await leaving.__aenter__()
    async with open_channel(running.address, Server()) as opened:
        stub: Any = health_pb2_grpc.HealthStub(opened)
        health = stub.Watch(health_pb2.HealthCheckRequest())
        watching = pb_grpc.TelemetryServiceStub(opened).Watch(pb.WatchRequest())
        assert await health.read() != grpc.aio.EOF
        assert await watching.read() == pb.WatchResponse(seq=1)
        await begun.wait()
        async with asyncio.timeout(60.0):
            await leaving.__aexit__(None, None, None)
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await watching.read()
    assert isinstance(zeta_error(told.value), DrainingError)


async def test_a_stream_that_is_being_sent_is_cut_behind_what_it_sends(scripted: Scripted) -> None:
    """It never waits for anything in its handler, where it could be told."""

    async def much(_request: pb.WatchRequest, _context: Context) -> AsyncIterator[pb.WatchResponse]:
        for seq in itertools.count(1):
            yield pb.WatchResponse(seq=seq)

    scripted.Watch = much  # type: ignore[method-assign, assignment]
    add = {NAME: lambda server: pb_grpc.add_TelemetryServiceServicer_to_server(scripted, server)}
    leaving = serving("127.0.0.1:0", Server(drain_grace_s=0.0), add)
    running = await leaving.__aenter__()
    async with open_channel(running.address, Server()) as opened:
        watching = aiter(pb_grpc.TelemetryServiceStub(opened).Watch(pb.WatchRequest()))
        await anext(watching)
        left = asyncio.create_task(leaving.__aexit__(None, None, None))
        with pytest.raises(grpc.aio.AioRpcError) as told:
            [each async for each in watching]
        await left
    assert isinstance(zeta_error(told.value), DrainingError)


async def test_unix_sockets_serve(scripted: Scripted, tmp_path: Path) -> None:
    """Neighbours on one machine need no port."""
    add = {NAME: lambda server: pb_grpc.add_TelemetryServiceServicer_to_server(scripted, server)}
    listen = f"unix:{tmp_path}/s"
    async with (
        serving(listen, Server(drain_grace_s=0.0), add) as running,
        open_channel(running.address, Server()) as opened,
    ):
        answer = await pb_grpc.TelemetryServiceStub(opened).QueryHistory(pb.QueryHistoryRequest())

    assert answer == pb.QueryHistoryResponse()


async def test_a_taken_address_is_a_sentence(served: Serving) -> None:
    """Two servers on one address would each get half of the calls."""
    with pytest.raises(ConfigError, match=r"is the address taken"):
        async with serving(served.address, Server(), {}):
            pass


def test_a_taken_metrics_port_is_a_sentence(unused_tcp_port: int) -> None:
    """The second process that is told the same port says so."""
    address = f"127.0.0.1:{unused_tcp_port}"
    metrics.serve(address)
    with urllib.request.urlopen(f"http://{address}/metrics") as page:
        assert b"rpc_server_duration_seconds" in page.read()

    with pytest.raises(ConfigError, match="choose a free port"):
        metrics.serve(address)
