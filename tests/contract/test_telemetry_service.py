"""Telemetry and its agents over real gRPC, a small model process faked behind them."""

import asyncio
import math
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import grpc
import psutil
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import CollectorRegistry, generate_latest
from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.model.v1.model_control_service_pb2 import (
    GetStateRequest,
    GetStateResponse,
    LatencySketch,
    ModelState,
    TaskStats,
)
from zeta.model.v1.model_control_service_pb2_grpc import (
    ModelControlServiceServicer,
    add_ModelControlServiceServicer_to_server,
)
from zeta.telemetry.v1 import telemetry_service_pb2_grpc
from zeta.telemetry.v1.telemetry_service_pb2 import (
    FleetDelta,
    GpuUse,
    ProcessUse,
    QueryHistoryRequest,
    Rates,
    ReplicaHealth,
    ReplicaReport,
    ReplicaStatus,
    ReportRequest,
    ReportResponse,
    WatchRequest,
    WatchResponse,
)
from zeta.telemetry.v1.telemetry_service_pb2_grpc import (
    TelemetryServiceStub,
    add_TelemetryServiceServicer_to_server,
)

from services.kit import aio
from services.kit.channel import open_channel
from services.kit.config import Server, Telemetry
from services.kit.errors import DrainingError, InvalidRequestError, OverloadedError, ZetaError
from services.kit.rpc import Context, Scoped, zeta_error
from telemetry_svc.agent.__main__ import report_until
from telemetry_svc.agent.collect import Sampler, ThisMachine
from telemetry_svc.agent.gpu import Gpus
from telemetry_svc.agent.report import Reporter
from telemetry_svc.prometheus import FleetCollector
from telemetry_svc.servicer import TelemetryServicer
from tests.unit.telemetry_svc.agent.fake_nvml import FakeNvml, holder

Stub: TypeAlias = "telemetry_service_pb2_grpc.TelemetryServiceAsyncStub"
WatchCall: TypeAlias = "grpc.aio.UnaryStreamCall[WatchRequest, WatchResponse]"
ReportCall: TypeAlias = "grpc.aio.StreamStreamCall[ReportRequest, ReportResponse]"
View: TypeAlias = dict[str, ReplicaStatus]

SERVING = ReplicaHealth.REPLICA_HEALTH_SERVING
DRAINING = ReplicaHealth.REPLICA_HEALTH_DRAINING
DEAD = ReplicaHealth.REPLICA_HEALTH_DEAD
SILENT = ReplicaHealth.REPLICA_HEALTH_SILENT


@dataclass
class FakeModel(ModelControlServiceServicer):
    """A model process whose state the test sets; it can be made to hang."""

    state: ModelState
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answers.set()

    def add(self, server: grpc.aio.Server) -> None:
        """Serve on *server*."""
        add_ModelControlServiceServicer_to_server(self, server)

    async def GetState(  # noqa: N802 - gRPC's name
        self, request: GetStateRequest, context: Context
    ) -> GetStateResponse:
        """Answer when the test lets it."""
        del request, context
        await self.answers.wait()
        return GetStateResponse(state=self.state)

    async def SetAllocation(self, request: object, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Not asked for by agents."""

    async def Drain(self, request: object, context: Context) -> None:  # type: ignore[override]  # noqa: N802
        """Not asked for by agents."""


@asynccontextmanager
async def listening(add: Callable[[grpc.aio.Server], None], address: str) -> AsyncIterator[str]:
    """Serve on *address* as the kit does, without its signal handlers."""
    server = grpc.aio.server(interceptors=[Scoped()])
    add(server)
    server.add_insecure_port(address)
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


@asynccontextmanager
async def telemetry_at(address: str, servicer: TelemetryServicer) -> AsyncIterator[None]:
    """Run the telemetry service with its timer."""
    stopped = asyncio.Event()
    sweeping = asyncio.create_task(servicer.sweep_until(stopped))
    async with listening(partial(add_TelemetryServiceServicer_to_server, servicer), address):
        yield
        await servicer.close()
    stopped.set()
    await sweeping


@asynccontextmanager
async def agent_of(
    model: str, telemetry: str, name: str = "m-0", machine: ThisMachine | None = None
) -> AsyncIterator[Reporter]:
    """Run the agent of one replica."""
    stopped = asyncio.Event()
    async with (
        open_channel(model, Server()) as to_model,
        open_channel(telemetry, Server()) as to_telemetry,
    ):
        sampler = Sampler(
            model="m",
            replica=name,
            address=model,
            channel=to_model,
            machine=machine or ThisMachine(),
        )
        reporter = Reporter(to_telemetry, heartbeat_s=0.1, read_every_s=0.02)
        async with asyncio.TaskGroup() as group:
            group.create_task(report_until(stopped, sampler, reporter, 0.02))
            yield reporter
            stopped.set()


@dataclass
class Place:
    """Addresses of one test's servers."""

    folder: Path

    def __call__(self, name: str) -> str:
        """Return the address of the server *name*."""
        return f"unix:{self.folder}/{name}"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Give unix sockets in a folder of their own."""
    return Place(folder=tmp_path)


@pytest.fixture
def port() -> str:
    """Give a TCP address that can be served on again and again.

    Not a unix socket: gRPC removes a stopped server's path late, under its successor.
    """
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        return f"127.0.0.1:{chosen.getsockname()[1]}"


PATIENT = Telemetry(silent_after_s=20.0, gone_after_s=40.0)
"""A busy machine makes nobody silent by accident."""


@pytest.fixture
async def telemetry(place: Place) -> AsyncIterator[str]:
    """Run telemetry; yield its address."""
    async with telemetry_at(place("telemetry"), TelemetryServicer(PATIENT)):
        yield place("telemetry")


@pytest.fixture
async def stub(telemetry: str) -> AsyncIterator[Stub]:
    """Yield a stub for telemetry."""
    async with open_channel(telemetry, Server()) as channel:
        yield TelemetryServiceStub(channel)


def apply(view: View, told: WatchResponse) -> None:
    """Do what a watcher does with a message."""
    if told.HasField("snapshot"):
        view.clear()
    for status in (*told.snapshot.replicas, *told.delta.replicas):
        view[status.report.replica] = status
    for name in told.delta.removed:
        view.pop(name, None)


async def watched(stub: Stub, until: Callable[[View], bool]) -> View:
    """Watch until the view is as wanted."""
    view: View = {}
    call = stub.Watch(WatchRequest())
    async with asyncio.timeout(20):
        async for told in call:
            apply(view, told)
            if until(view):
                call.cancel()
                return view
    raise AssertionError(f"the watch ended before it was so: {view}")


def report(name: str = "m-0", seq: int = 1, *, running: int = 0) -> ReportRequest:
    """Make a report of a replica that is alive."""
    state = ModelState(model="m", running=running)
    return ReportRequest(report=ReplicaReport(replica=name, seq=seq, alive=True, state=state))


async def send(stub: Stub, *reports: ReportRequest) -> list[int]:
    """Send reports on a stream of their own until all are taken in; return what was acked."""
    call = stub.Report(iter(reports))
    return [response.acked_seq async for response in call]


def state_of(pid: int, *, running: int = 0, completion_tokens_total: int = 0) -> ModelState:
    """Make the state of the process *pid*."""
    started = Timestamp()
    started.FromNanoseconds(int(psutil.Process(pid).create_time() * 1e9))
    return ModelState(
        model="m",
        replica="m-0",
        pid=pid,
        started=started,
        running=running,
        completion_tokens_total=completion_tokens_total,
    )


@pytest.fixture
def model() -> FakeModel:
    """Fake the control service of this test's parent process."""
    return FakeModel(state=state_of(os.getppid()))


async def test_agent_reports_what_its_model_says(place: Place, stub: Stub) -> None:
    """Counters, address, use and rates travel from the model through agent and telemetry."""
    model = FakeModel(state=state_of(os.getppid(), running=3, completion_tokens_total=10))
    async with listening(model.add, place("model")), agent_of(place("model"), place("telemetry")):
        view = await watched(stub, lambda v: "m-0" in v and v["m-0"].report.alive)
        model.state.completion_tokens_total = 50
        await watched(stub, lambda v: v["m-0"].report.rates.completion_tokens_per_s > 0)

    status = view["m-0"]
    assert status.health == SERVING
    assert status.report.address == place("model")
    assert (status.report.state.model, status.report.state.running) == ("m", 3)
    assert status.report.process.rss_bytes > 0
    assert 0 <= status.age.ToNanoseconds() < 5e9


async def test_a_draining_replica_is_seen_draining(
    place: Place, stub: Stub, model: FakeModel
) -> None:
    """What the model says of itself is its health."""
    model.state.draining = True
    async with listening(model.add, place("model")), agent_of(place("model"), place("telemetry")):
        await watched(stub, lambda v: health_of(v) == {"m-0": DRAINING})


async def test_a_model_that_goes_is_dead_and_one_that_comes_back_serves(
    place: Place, port: str, stub: Stub, model: FakeModel
) -> None:
    """The agent outlives its model, and the last counters stay to be seen."""
    model.state.requests_total = 5
    async with agent_of(port, place("telemetry")):
        view = await watched(stub, lambda v: health_of(v) == {"m-0": DEAD})
        assert view["m-0"].report.state == ModelState(model="m", replica="m-0")
        async with listening(model.add, port):
            await watched(stub, lambda v: health_of(v) == {"m-0": SERVING})
        view = await watched(stub, lambda v: health_of(v) == {"m-0": DEAD})
        assert view["m-0"].report.state.requests_total == 5
        assert not view["m-0"].report.HasField("process")
        async with listening(model.add, port):
            await watched(stub, lambda v: health_of(v) == {"m-0": SERVING})


async def test_a_model_that_hangs_is_dead(place: Place, stub: Stub, model: FakeModel) -> None:
    """A process that is there and does not answer counts as one that is not."""
    async with listening(model.add, place("model")), agent_of(place("model"), place("telemetry")):
        await watched(stub, lambda v: health_of(v) == {"m-0": SERVING} and v["m-0"].held)
        model.answers.clear()
        await watched(stub, lambda v: health_of(v) == {"m-0": SERVING} and not v["m-0"].held)
        await watched(stub, lambda v: health_of(v) == {"m-0": DEAD})
        model.answers.set()
        await watched(stub, lambda v: health_of(v) == {"m-0": SERVING})


async def test_a_replica_without_its_agent_falls_silent_and_is_gone(place: Place) -> None:
    """Watchers are told both without anybody reporting anything."""
    hasty = Telemetry(silent_after_s=0.3, gone_after_s=0.6)
    async with (
        telemetry_at(place("hasty"), TelemetryServicer(hasty)),
        open_channel(place("hasty"), Server()) as channel,
    ):
        seen: list[dict[str, int]] = []

        def gone(view: View) -> bool:
            seen.append(health_of(view))
            return view == {} and len(seen) > 1

        watching = asyncio.create_task(watched(stub := TelemetryServiceStub(channel), gone))
        await send(stub, report("m-0"))
        await watching

    assert seen[-3:] == [{"m-0": SERVING}, {"m-0": SILENT}, {}]


async def test_an_agent_finds_telemetry_again(place: Place, port: str, model: FakeModel) -> None:
    """Telemetry restarted on the same address knows the replica again, with today's state."""
    async with listening(model.add, place("model")), agent_of(place("model"), port):
        for running in (1, 2, 3):
            model.state.running = running
            async with (
                telemetry_at(port, TelemetryServicer(PATIENT)),
                open_channel(port, Server()) as channel,
            ):
                await watched(
                    TelemetryServiceStub(channel),
                    lambda v: "m-0" in v and v["m-0"].report.state.running == running,  # noqa: B023
                )


async def test_repeated_and_older_reports_are_dropped(stub: Stub) -> None:
    """The highest number of a stream is what counts, and what is acknowledged."""
    acked = await send(
        stub, report(seq=5, running=5), report(seq=5, running=55), report(seq=4, running=4)
    )

    view = await watched(stub, lambda v: "m-0" in v)
    assert view["m-0"].report.state.running == 5
    assert acked[-1] == 5


async def test_an_agent_that_starts_again_is_heard_at_once(stub: Stub) -> None:
    """Its numbers begin at 1 on a new stream; what the old stream still brings is late."""
    old = stub.Report()
    await old.write(report(seq=900, running=9))
    assert await acked_by(old) == 900
    await send(stub, report(seq=1, running=1))
    await old.write(report(seq=901, running=99))
    await old.done_writing()
    assert await acked_by(old) == 901

    view = await watched(stub, lambda v: "m-0" in v)

    assert view["m-0"].report.state.running == 1


async def test_reports_are_acknowledged_now_and_then(stub: Stub) -> None:
    """The first at once, then every sixteenth, then the last."""
    acked = await send(stub, *(report(seq=i) for i in range(1, 41)))

    assert acked == [1, 17, 33, 40]


async def test_a_watcher_sees_a_snapshot_then_deltas_that_ascend(stub: Stub) -> None:
    """First the whole fleet, then only who has news, each message with a greater number."""
    await send(stub, report("m-0"), report("m-1"))
    call = stub.Watch(WatchRequest())
    told = [await next_of(call)]
    for seq in (2, 3):
        await send(stub, report("m-1", seq=seq))
        told.append(await next_of(call))
    call.cancel()

    assert [status.report.replica for status in told[0].snapshot.replicas] == ["m-0", "m-1"]
    assert [[s.report.replica for s in t.delta.replicas] for t in told[1:]] == [["m-1"], ["m-1"]]
    assert told[0].seq < told[1].seq < told[2].seq


async def test_min_interval_gathers_changes(stub: Stub) -> None:
    """However much happens in between, the next message comes later and tells the last state."""
    await send(stub, report("m-0", seq=1))
    call = stub.Watch(WatchRequest(min_interval=Duration(nanos=400_000_000)))
    await next_of(call)
    begun_s = asyncio.get_running_loop().time()
    await send(stub, *(report("m-0", seq=i, running=i) for i in range(2, 102)))

    told = await next_of(call)
    call.cancel()

    assert told.delta.replicas[0].report.state.running == 101
    assert asyncio.get_running_loop().time() - begun_s > 0.3


async def test_a_slow_watcher_is_caught_up_by_a_snapshot(stub: Stub, place: Place) -> None:
    """It costs no memory while it sleeps, and knows the newest state a few messages later."""
    changes, padding = 6000, "x" * 20_000
    async with open_channel(place("telemetry"), Server()) as channel:
        call = TelemetryServiceStub(channel).Watch(WatchRequest())
        first = await next_of(call)
        before_bytes = psutil.Process().memory_info().rss
        for seq in range(1, changes, 100):
            batch = [report("m-0", seq=i, running=i) for i in range(seq, seq + 100)]
            for request in batch:
                request.report.address = padding
            await send(stub, *batch)
        grown_bytes = psutil.Process().memory_info().rss - before_bytes
        told = [first]
        while not running_of(told[-1], changes):
            told.append(await next_of(call))
        call.cancel()

    assert grown_bytes < changes * len(padding) / 4
    assert len(told) < changes / 4
    assert any(t.HasField("snapshot") for t in told[1:])


def running_of(told: WatchResponse, running: int) -> bool:
    """Say whether a message shows a replica with *running* requests."""
    statuses = (*told.snapshot.replicas, *told.delta.replicas)
    return any(status.report.state.running == running for status in statuses)


@dataclass
class Clock:
    """A clock that the test moves."""

    now_s: float = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def finished(requests: int) -> TaskStats:
    """Make the totals of coding requests that each took the same time to their first token."""
    ttft = LatencySketch(buckets=[100], counts=[requests], sum=Duration(seconds=requests))
    return TaskStats(kind=TaskKind.TASK_KIND_CODE, requests_total=requests, ttft=ttft)


async def test_history_is_told_for_a_window(place: Place) -> None:
    """Points and latency of the last seconds only, thinned as asked."""
    clock = Clock()
    servicer = TelemetryServicer(PATIENT, clock=clock, wall=clock)
    async with (
        telemetry_at(place("past"), servicer),
        open_channel(place("past"), Server()) as channel,
    ):
        stub = TelemetryServiceStub(channel)
        for i in range(20):
            clock.now_s = 100.0 + i
            request = report(seq=i + 1, running=i)
            request.report.state.tasks.append(finished(10 * i))
            await send(stub, request)
        everything = await stub.QueryHistory(QueryHistoryRequest())
        window = QueryHistoryRequest(
            replica="m-0", window=Duration(seconds=10), step=Duration(seconds=3)
        )
        recent = await stub.QueryHistory(window)

    assert [p.running for p in everything.replicas[0].points] == list(range(20))
    assert everything.replicas[0].tasks[0].requests_total == 190
    assert [p.running for p in recent.replicas[0].points] == [10, 13, 16, 19]
    assert [p.time.seconds for p in recent.replicas[0].points] == [110, 113, 116, 119]
    assert not recent.replicas[0].points[0].HasField("process")
    assert not recent.replicas[0].points[0].HasField("gpu_utilization_ratio")
    # Snapshots lie 5 s apart: the window of 10 s begins with the one at its start or before.
    assert 100 <= recent.replicas[0].tasks[0].requests_total <= 150
    assert list(recent.replicas[0].tasks[0].ttft.buckets) == [100]


def spoilt(**changes: object) -> ReportRequest:
    """Make a report with one thing wrong."""
    request = report()
    request.report.MergeFrom(ReplicaReport(**changes))  # type: ignore[arg-type]
    return request


BROKEN = TaskStats(ttft=LatencySketch(buckets=[3, 2], counts=[1, 1]))
ETERNAL = TaskStats(ttft=LatencySketch(sum=Duration(seconds=2**62)))
NONSENSE = {
    "no report": (ReportRequest(), "report"),
    "no name": (ReportRequest(report=ReplicaReport(seq=1, alive=True)), "report.replica"),
    "a name that is none": (spoilt(replica="M 0\n"), "report.replica"),
    "a long name": (spoilt(replica="m" * 5000), "report.replica"),
    "no number": (ReportRequest(report=ReplicaReport(replica="m-0")), "report.seq"),
    "huge": (spoilt(address="x" * 1_000_000), "report"),
    "not a number": (spoilt(rates=Rates(busy_ratio=math.nan)), "report.rates.busy_ratio"),
    "negative": (spoilt(process=ProcessUse(cpu_ratio=-1)), "report.process.cpu_ratio"),
    "too many bytes": (spoilt(process=ProcessUse(rss_bytes=2**64 - 1)), "report.process.rss_bytes"),
    "no duration": (spoilt(state=ModelState(tasks=[ETERNAL])), "report.state.tasks[0].ttft"),
    "a broken gpu": (spoilt(gpus=[GpuUse(power_w=math.inf)]), "report.gpus[0].power_w"),
    "a broken sketch": (spoilt(state=ModelState(tasks=[BROKEN])), "report.state.tasks[0].ttft"),
}


@pytest.mark.parametrize("name", NONSENSE)
async def test_nonsense_is_refused_and_the_service_goes_on(stub: Stub, name: str) -> None:
    """The field is named, nothing of the report is kept, and the next good one is taken."""
    request, field_name = NONSENSE[name]

    error = await refusal(send(stub, request))

    assert isinstance(error, InvalidRequestError)
    assert [violation.field for violation in error.violations] == [field_name]
    assert (await stub.QueryHistory(QueryHistoryRequest())).replicas == []
    assert await send(stub, report()) == [1]


NEGATIVE = Duration(seconds=-1)


@pytest.mark.parametrize(
    ("request_", "field_name"),
    [
        (QueryHistoryRequest(window=NEGATIVE), "window"),
        (QueryHistoryRequest(step=NEGATIVE), "step"),
        (QueryHistoryRequest(replica="nobody"), "replica"),
        (QueryHistoryRequest(replica="\0" * 10_000), "replica"),
    ],
)
async def test_history_refuses_what_cannot_be(
    stub: Stub, request_: QueryHistoryRequest, field_name: str
) -> None:
    """Negative times and unknown replicas are named."""

    async def ask() -> None:
        await stub.QueryHistory(request_)

    error = await refusal(ask())

    assert isinstance(error, InvalidRequestError)
    assert [violation.field for violation in error.violations] == [field_name]


async def test_watch_refuses_a_negative_interval(stub: Stub) -> None:
    """The field is named."""

    async def ask() -> None:
        await next_of(stub.Watch(WatchRequest(min_interval=NEGATIVE)))

    error = await refusal(ask())

    assert [violation.field for violation in error.violations] == ["min_interval"]


async def test_a_full_fleet_takes_nobody_more(stub: Stub) -> None:
    """The bound on memory holds against agents with ever new names, and known ones go on."""
    await send(stub, *(report(f"m-{i}") for i in range(1024)))

    error = await refusal(send(stub, report("one-more")))

    assert isinstance(error, OverloadedError)
    assert await send(stub, report("m-0", seq=2)) == [2]


async def test_an_unchanged_replica_is_reported_as_a_sign_of_life_only(
    place: Place, telemetry: str, stub: Stub
) -> None:
    """Samples without news are not sent until the sign of life is due, which is seldom."""
    del telemetry
    clock = Clock()
    async with open_channel(place("telemetry"), Server()) as channel:
        reporter = Reporter(channel, heartbeat_s=1.0, read_every_s=0.1, clock=clock, wall=clock)
        running = asyncio.create_task(reporter.run())
        for _ in range(10):
            reporter.offer(report(running=1).report)
        async with asyncio.timeout(20):
            await reporter.held.wait()
        for _ in range(9):
            clock.now_s += 0.5
            reporter.offer(report(running=1).report)
            await asyncio.sleep(0)
        clock.now_s += 0.5
        reporter.offer(report(running=1).report)
        view = await watched(stub, lambda v: v["m-0"].report.seq == 2)
        reporter.offer(report(running=2).report)
        await watched(stub, lambda v: v["m-0"].report.seq == 3)
        await aio.cancelled(running)

    assert view["m-0"].report.state.running == 1


async def test_a_sign_of_life_comes_at_the_beat_without_a_reading(
    place: Place, telemetry: str, stub: Stub
) -> None:
    """Agents read at moments of their own; their signs of life come together all the same."""
    del telemetry
    wall = Clock(now_s=104.99)
    async with open_channel(place("telemetry"), Server()) as channel:
        reporter = Reporter(channel, heartbeat_s=60.0, read_every_s=0.1, clock=wall, wall=wall)
        running = asyncio.create_task(reporter.run())
        reporter.offer(report(running=1).report)
        async with asyncio.timeout(20):
            await reporter.held.wait()
        wall.now_s = 105.0
        view = await watched(stub, lambda v: v["m-0"].report.seq == 2)
        await aio.cancelled(running)

    assert view["m-0"].report.state.running == 1


def promised(seq: int = 1, *, running: int = 0) -> ReportRequest:
    """Make a report of an agent that tells of every change."""
    request = report(seq=seq, running=running)
    request.report.read_every.FromMilliseconds(100)
    return request


async def test_a_report_holds_for_as_long_as_its_stream(place: Place) -> None:
    """Without another word it is as young as promised; when the stream breaks, it ages.

    A watcher is told now and then that nothing changed.
    """
    hasty = Telemetry(silent_after_s=0.3, gone_after_s=40.0)
    async with (
        telemetry_at(place("holding"), TelemetryServicer(hasty)),
        open_channel(place("holding"), Server()) as channel,
    ):
        stub = TelemetryServiceStub(channel)
        reporting = stub.Report()
        await reporting.write(promised())
        assert await acked_by(reporting) == 1
        watching = stub.Watch(WatchRequest())
        first = await next_of(watching)
        quiet = [await next_of(watching) for _ in range(3)]  # half a second each
        reporting.cancel()
        broken = await next_of(watching)
        view = await watched(stub, lambda v: health_of(v) == {"m-0": SILENT})
        watching.cancel()

    status = first.snapshot.replicas[0]
    assert (status.held, status.age.ToNanoseconds() <= 1e8) == (True, True)
    assert [(told.seq, told.delta) for told in quiet] == [(first.seq, FleetDelta())] * 3
    assert [s.held for s in broken.delta.replicas] == [False]
    assert broken.seq > first.seq
    assert not view["m-0"].held


async def test_a_sign_of_life_wakes_nobody(stub: Stub) -> None:
    """It travels with the next news, so that a quiet fleet costs its watchers nothing."""
    reporting = stub.Report()
    await reporting.write(promised(1))
    await acked_by(reporting)
    await next_of(watching := stub.Watch(WatchRequest()))
    sign = promised(2)
    sign.unchanged = True
    await reporting.write(sign)
    await reporting.write(promised(3, running=1))
    told = await next_of(watching)
    reporting.cancel()
    watching.cancel()

    assert [(s.report.seq, s.held) for s in told.delta.replicas] == [(3, True)]


async def test_a_quiet_replica_has_a_past(place: Place) -> None:
    """History goes on at its step where an agent has nothing to report."""
    clock = Clock()
    servicer = TelemetryServicer(PATIENT, clock=clock, wall=clock)
    async with (
        listening(partial(add_TelemetryServiceServicer_to_server, servicer), place("quiet")),
        open_channel(place("quiet"), Server()) as channel,
    ):
        stub = TelemetryServiceStub(channel)
        reporting = stub.Report()
        await reporting.write(promised(1, running=5))
        await acked_by(reporting)
        for _ in range(3):
            clock.now_s += 1.0
            servicer.sweep()
        past = await stub.QueryHistory(QueryHistoryRequest())
        reporting.cancel()

    points = [(p.time.seconds, p.running) for p in past.replicas[0].points]
    assert points == [(100, 5), (101, 5), (102, 5), (103, 5)]


async def test_gpus_travel_to_watchers(place: Place, stub: Stub, model: FakeModel) -> None:
    """What the reading thread found is in the reports."""
    machine = ThisMachine(gpus=Gpus(FakeNvml(held=(holder(os.getppid(), 5),))))
    async with (
        listening(model.add, place("model")),
        agent_of(place("model"), place("telemetry"), machine=machine),
    ):
        view = await watched(stub, lambda v: "m-0" in v and len(v["m-0"].report.gpus) == 2)

    gpu = view["m-0"].report.gpus[0]
    assert (gpu.uuid, gpu.nvlinks, gpu.power_w) == ("GPU-0", 3, 70.5)


async def test_stopping_ends_every_stream_with_its_reason(place: Place) -> None:
    """Agents and watchers learn at once that they are to look for telemetry again."""
    servicer = TelemetryServicer(PATIENT)
    async with (
        telemetry_at(place("ending"), servicer),
        open_channel(place("ending"), Server()) as channel,
    ):
        stub = TelemetryServiceStub(channel)
        await (reporting := stub.Report()).write(report())
        await acked_by(reporting)
        await next_of(watching := stub.Watch(WatchRequest()))
        await next_of(paused := stub.Watch(WatchRequest(min_interval=Duration(seconds=3600))))
        await servicer.close()
        errors = [
            await refusal(acked_by(reporting)),
            await refusal(next_of(watching)),
            await refusal(next_of(paused)),
        ]

    assert all(isinstance(error, DrainingError) for error in errors)
    assert all(error.retry_after_s == 1.0 for error in errors)


async def test_the_metrics_page_shows_the_fleet(place: Place) -> None:
    """A scrape from another thread reads the state as it is on the loop."""
    servicer, registry = TelemetryServicer(PATIENT), CollectorRegistry()
    async with (
        telemetry_at(place("shown"), servicer),
        open_channel(place("shown"), Server()) as channel,
    ):
        await send(TelemetryServiceStub(channel), report(running=7))
        registry.register(FleetCollector(servicer.shown, asyncio.get_running_loop()))
        page = (await asyncio.to_thread(generate_latest, registry)).decode()

    assert 'zeta_replica_running{model="m",replica="m-0"} 7.0' in page
    assert 'zeta_replica_report_age_seconds{model="m",replica="m-0"}' in page


def health_of(view: View) -> dict[str, int]:
    """Return each replica's health."""
    return {name: status.health for name, status in view.items()}


async def next_of(call: WatchCall) -> WatchResponse:
    """Take the next message."""
    async with asyncio.timeout(20):
        told = await call.read()
    assert isinstance(told, WatchResponse), "the watch ended"
    return told


async def acked_by(call: ReportCall) -> int:
    """Take the next acknowledgement."""
    async with asyncio.timeout(20):
        response = await call.read()
    assert isinstance(response, ReportResponse), "the stream ended"
    return response.acked_seq


async def refusal(call: Coroutine[None, None, object]) -> ZetaError:
    """Return the error that a call ends in."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return zeta_error(failed.value)
