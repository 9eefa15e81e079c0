"""What telemetry costs and how old its figures are: `python -m tests.bench.bench_telemetry`.

Real processes: the telemetry service, and one agent next to a faked model. The other
replicas are streams from this process. Busy replicas have news in each report, at 10 Hz;
idle ones send signs of life as agents do. Figures are per core, from the processes' own CPU
time; ages are those that one watcher holds, sampled while it watches.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import grpc
import numpy as np
import psutil
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.model.v1.model_control_service_pb2 import (
    Allocation,
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
from zeta.telemetry.v1.telemetry_service_pb2 import (
    ProcessUse,
    Rates,
    ReplicaReport,
    ReportRequest,
    ReportResponse,
    WatchRequest,
)
from zeta.telemetry.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from services.kit import config
from services.kit.config import FleetConfig
from services.kit.rpc import Context
from telemetry_svc.agent.report import heartbeat_s

REPLICAS = 100
INTERVAL_S = 0.1
WATCH_INTERVAL_S = 0.05
KINDS = (TaskKind.TASK_KIND_CODE, TaskKind.TASK_KIND_REASONING, TaskKind.TASK_KIND_GENERAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Telemetry with many replicas and one watcher."""

    replicas: int
    reports_per_s: float
    service_cpu_percent: float
    """Of one core."""
    age_p50_ms: float
    """Of the figures that the watcher holds, at any moment."""
    age_p99_ms: float
    delivery_p50_ms: float
    """From a report's making to the watcher."""
    delivery_p99_ms: float


def model_state(i: int, *, busy: bool) -> ModelState:
    """Make the state of a replica with *i* requests behind it, its sketches as wide as in life."""
    buckets = range(90, 120)
    sketch = LatencySketch(buckets=buckets, counts=[i + 1] * len(buckets), sum=Duration(seconds=i))
    tasks = [
        TaskStats(
            kind=k, requests_total=i, completion_tokens_total=20 * i, ttft=sketch, tpot=sketch
        )
        for k in KINDS
    ]
    return ModelState(
        model="m",
        pid=os.getpid(),
        running=8 if busy else 0,
        waiting=i % 7 if busy else 0,
        allocation=Allocation(max_running=16, kv_tokens=32_768, weight=1.0),
        kv_used_tokens=4000 if busy else 0,
        requests_total=i,
        completion_tokens_total=20 * i,
        prompt_tokens_total=200 * i,
        steps_total=20 * i,
        tasks=tasks,
    )


async def replica(target: str, name: str, *, busy: bool, sent: list[int]) -> None:
    """Report as one agent does, on a connection of its own."""
    own = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, own) as channel:
        call = TelemetryServiceStub(channel).Report()
        acks = asyncio.create_task(_drain(call))
        interval_s = INTERVAL_S if busy else heartbeat_s(2.0)
        await asyncio.sleep(interval_s * (hash(name) % 97) / 97)
        seq, next_s = 0, time.monotonic()
        try:
            while True:
                seq, next_s = seq + 1, next_s + interval_s
                await call.write(ReportRequest(report=_report(name, seq, busy=busy)))
                sent[0] += 1
                await asyncio.sleep(max(0.0, next_s - time.monotonic()))
        finally:
            call.cancel()
            acks.cancel()


async def _drain(call: "grpc.aio.StreamStreamCall[ReportRequest, ReportResponse]") -> None:
    async for _ in call:
        pass


def _report(name: str, seq: int, *, busy: bool) -> ReplicaReport:
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    return ReplicaReport(
        replica=name,
        address="127.0.0.1:7080",
        seq=seq,
        time=now,
        alive=True,
        state=model_state(seq if busy else 5, busy=busy),
        process=ProcessUse(cpu_ratio=0.5, rss_bytes=10**9, threads=20),
        rates=Rates(completion_tokens_per_s=200.0 if busy else 0.0),
    )


@dataclass(slots=True)
class Watched:
    """What the watcher holds: when each replica's figures were true, by its own clock."""

    true_at_s: dict[str, float]
    delivery_s: list[float]
    complete: asyncio.Event
    """Set when every replica was seen."""


async def watch(target: str, view: Watched) -> None:
    """Keep *view* as the stream says."""
    interval = Duration(nanos=int(WATCH_INTERVAL_S * 1e9))
    async with grpc.aio.insecure_channel(target) as channel:
        async for told in TelemetryServiceStub(channel).Watch(WatchRequest(min_interval=interval)):
            now_s, wall_s = time.monotonic(), time.time()
            for status in (*told.snapshot.replicas, *told.delta.replicas):
                view.true_at_s[status.report.replica] = now_s - status.age.ToNanoseconds() / 1e9
                view.delivery_s.append(wall_s - status.report.time.ToNanoseconds() / 1e9)
            if len(view.true_at_s) == REPLICAS:
                view.complete.set()


@asynccontextmanager
async def process(*arguments: str) -> AsyncIterator[Process]:
    """Run `python -m` *arguments*."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield running
    finally:
        running.terminate()
        await running.wait()


async def cpu_percent(pid: int, for_s: float) -> float:
    """Return the CPU that a process uses over the next seconds, of one core."""
    measured = psutil.Process(pid)
    measured.cpu_percent()
    await asyncio.sleep(for_s)
    return float(measured.cpu_percent())


async def fleet_cost(fleet: Path, target: str, *, busy: bool, for_s: float) -> Cost:
    """Measure the service with all replicas busy, or all idle."""
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(process("telemetry_svc", "--config", str(fleet)))
        await _ready(target)
        sent, view = [0], Watched(true_at_s={}, delivery_s=[], complete=asyncio.Event())
        tasks = [
            asyncio.create_task(replica(target, f"m-{i}", busy=busy, sent=sent))
            for i in range(REPLICAS)
        ]
        tasks.append(asyncio.create_task(watch(target, view)))
        await asyncio.wait_for(view.complete.wait(), 30)
        await asyncio.sleep(2.0)
        sent[0] = 0
        view.delivery_s.clear()
        ages_s: list[float] = []
        sampling = asyncio.create_task(_sample_ages(view, ages_s))
        cpu = await cpu_percent(service.pid, for_s)
        for task in (*tasks, sampling):
            task.cancel()
        await asyncio.gather(*tasks, sampling, return_exceptions=True)
    age, delivery = np.percentile(ages_s, (50, 99)), np.percentile(view.delivery_s, (50, 99))
    return Cost(
        replicas=REPLICAS,
        reports_per_s=sent[0] / for_s,
        service_cpu_percent=cpu,
        age_p50_ms=float(age[0]) * 1e3,
        age_p99_ms=float(age[1]) * 1e3,
        delivery_p50_ms=float(delivery[0]) * 1e3,
        delivery_p99_ms=float(delivery[1]) * 1e3,
    )


async def _sample_ages(view: Watched, ages_s: list[float]) -> None:
    while True:
        now_s = time.monotonic()
        ages_s.extend(now_s - true_s for true_s in view.true_at_s.values())
        await asyncio.sleep(0.037)


async def _ready(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)


class FakeModel(ModelControlServiceServicer):
    """A model process that only counts."""

    def __init__(self, *, busy: bool) -> None:
        self._busy, self._asked = busy, 0

    async def GetState(  # noqa: N802 - gRPC's name
        self, request: GetStateRequest, context: Context
    ) -> GetStateResponse:
        """Answer with news, or always the same."""
        del request, context
        self._asked += self._busy
        return GetStateResponse(state=model_state(self._asked, busy=self._busy))

    SetAllocation = Drain = None  # type: ignore[assignment]  # agents do not ask for them


async def agent_cost(fleet: Path, settings: FleetConfig, *, busy: bool, for_s: float) -> float:
    """Measure one agent, of one core, telemetry and the model in other processes."""
    server = grpc.aio.server()
    add_ModelControlServiceServicer_to_server(FakeModel(busy=busy), server)
    server.add_insecure_port(settings.models[0].replicas[0].listen)
    await server.start()
    agent_arguments = ("--config", str(fleet), "--model", "m", "--replica", "0")
    try:
        async with (
            process("telemetry_svc", "--config", str(fleet)),
            process("telemetry_svc.agent", *agent_arguments) as agent,
        ):
            await _ready(settings.telemetry.listen)
            await asyncio.sleep(2.0)
            return await cpu_percent(agent.pid, for_s)
    finally:
        await server.stop(0)


def fleet_of(folder: Path) -> FleetConfig:
    """Describe a fleet of one replica on unix sockets."""
    return FleetConfig(
        telemetry=config.Telemetry(listen=f"unix:{folder}/telemetry", report_interval_s=INTERVAL_S),
        models=(
            config.Model(
                name="m", dir=".", replicas=(config.Replica(listen=f"unix:{folder}/model"),)
            ),
        ),
    )


async def measure(for_s: float) -> dict[str, object]:
    """Measure everything, one thing after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings, fleet = fleet_of(folder), folder / "fleet.toml"
        fleet.write_bytes(config.dump(settings))
        cost = partial(fleet_cost, fleet, settings.telemetry.listen, for_s=for_s)
        agent = partial(agent_cost, fleet, settings, for_s=for_s)
        return {
            "busy": asdict(await cost(busy=True)),
            "idle": asdict(await cost(busy=False)),
            "agent_cpu_percent_busy": await agent(busy=True),
            "agent_cpu_percent_idle": await agent(busy=False),
        }


def main() -> None:
    """Print the figures, as JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.bench_telemetry")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--seconds", type=float, default=10.0, help="per measurement")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.seconds))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        for key, figure in value.items() if isinstance(value, dict) else (("", value),):
            print(f"{f'{name} {key}'.strip():28} {figure:10.2f}")


if __name__ == "__main__":
    main()
