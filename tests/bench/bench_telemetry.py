"""What telemetry costs and how old its figures are: `python -m tests.bench.bench_telemetry`.

Real processes: the telemetry service, and one agent next to a faked model. The other
replicas are agents' reporters in this process, each on a connection of its own, that are offered a
sample ten times a second. Busy replicas have news in each; idle ones have none. Figures are per
core, from the processes' own CPU time. Ages are those that one watcher holds, sampled while it
watches: how long ago each replica's figures were last known to be true. Whether that is so is
measured, too: idle replicas change one after the other, and the delay is from the change to the
watcher.
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
    WatchRequest,
)
from zeta.telemetry.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from services.kit import config
from services.kit import log as kit_log
from services.kit.config import FleetConfig
from services.kit.rpc import Context
from telemetry_svc.agent.report import REPORTS, Reporter, heartbeat_s
from zeta_client.cli.fleet_view import FleetView

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
    news_p50_ms: float
    """From a change in a replica to the watcher."""
    news_p99_ms: float


@dataclass(slots=True)
class Simulated:
    """A replica: its agent's reporter, and what there is to read."""

    name: str
    busy: bool
    turn: int = 0
    """Ascends with every change."""
    changed_s: float = 0.0

    async def run(self, target: str, offset_s: float) -> None:
        """Report as an agent does, on a connection of its own."""
        own = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(target, own) as channel:
            reporter = Reporter(channel, heartbeat_s=heartbeat_s(2.0), read_every_s=INTERVAL_S)
            async with asyncio.TaskGroup() as group:
                group.create_task(reporter.run())
                await asyncio.sleep(offset_s)
                next_s = time.monotonic()
                while True:
                    if self.busy:
                        self.change()
                    reporter.offer(_report(self))
                    next_s = max(next_s + INTERVAL_S, time.monotonic())
                    await asyncio.sleep(next_s - time.monotonic())

    def change(self) -> None:
        """Have news."""
        self.turn, self.changed_s = self.turn + 1, time.monotonic()


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


def _report(simulated: Simulated) -> ReplicaReport:
    now = Timestamp()
    now.FromNanoseconds(time.time_ns())
    state = model_state(simulated.turn, busy=True) if simulated.busy else _IDLE
    report = ReplicaReport(
        replica=simulated.name,
        address="127.0.0.1:7080",
        time=now,
        alive=True,
        state=state,
        process=ProcessUse(cpu_ratio=0.5, rss_bytes=10**9, threads=20),
        rates=Rates(completion_tokens_per_s=200.0 if simulated.busy else 0.0),
    )
    report.state.steps_total = simulated.turn
    return report


@dataclass(slots=True)
class Watched:
    """What the watcher holds, as `zeta top` does, and how long news took to it."""

    fleet: dict[str, Simulated]
    view: FleetView
    news_s: list[float]
    complete: asyncio.Event
    """Set when every replica was seen."""


async def watch(target: str, watched: Watched) -> None:
    """Keep the view as the stream says."""
    interval, turns = Duration(nanos=int(WATCH_INTERVAL_S * 1e9)), dict[str, int]()
    async with grpc.aio.insecure_channel(target) as channel:
        async for told in TelemetryServiceStub(channel).Watch(WatchRequest(min_interval=interval)):
            now_s = time.monotonic()
            watched.view.apply(told, now_s)
            for status in (*told.snapshot.replicas, *told.delta.replicas):
                simulated, turn = (
                    watched.fleet[status.report.replica],
                    status.report.state.steps_total,
                )
                if turn == simulated.turn != turns.get(simulated.name):
                    watched.news_s.append(now_s - simulated.changed_s)
                    turns[simulated.name] = turn
            if len(watched.view.statuses) == REPLICAS:
                watched.complete.set()


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
    names = [f"m-{i}" for i in range(REPLICAS)]
    watched = Watched(
        fleet={name: Simulated(name=name, busy=busy) for name in names},
        view=FleetView(),
        news_s=[],
        complete=asyncio.Event(),
    )
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(process("telemetry_svc", "--config", str(fleet)))
        await _ready(target)
        tasks = [
            asyncio.create_task(simulated.run(target, i / REPLICAS * INTERVAL_S))
            for i, simulated in enumerate(watched.fleet.values())
        ]
        tasks.append(asyncio.create_task(watch(target, watched)))
        await asyncio.wait_for(watched.complete.wait(), 30)
        await asyncio.sleep(2.0)
        watched.news_s.clear()
        ages_s: list[float] = []
        sampling = asyncio.create_task(_sample_ages(watched, ages_s))
        sent = _sent()
        cpu = await cpu_percent(service.pid, for_s)
        sent = _sent() - sent
        sampling.cancel()
        if not busy:
            await _change_one_by_one(watched, for_s)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, sampling, return_exceptions=True)
    age, news = np.percentile(ages_s, (50, 99)), np.percentile(watched.news_s, (50, 99))
    return Cost(
        replicas=REPLICAS,
        reports_per_s=sent / for_s,
        service_cpu_percent=cpu,
        age_p50_ms=float(age[0]) * 1e3,
        age_p99_ms=float(age[1]) * 1e3,
        news_p50_ms=float(news[0]) * 1e3,
        news_p99_ms=float(news[1]) * 1e3,
    )


def _sent() -> float:
    """Reports sent by all reporters of this process."""
    samples = (sample for metric in REPORTS.collect() for sample in metric.samples)
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


async def _sample_ages(watched: Watched, ages_s: list[float]) -> None:
    while True:
        ages_s.extend(watched.view.ages_s(time.monotonic()).values())
        await asyncio.sleep(0.037)


async def _change_one_by_one(watched: Watched, for_s: float) -> None:
    """Have idle replicas change at moments that know nothing of their agents'."""
    rng, until_s = np.random.default_rng(0), time.monotonic() + for_s
    while time.monotonic() < until_s:
        await asyncio.sleep(rng.exponential(0.05))
        list(watched.fleet.values())[rng.integers(REPLICAS)].change()


async def _ready(target: str) -> None:
    async with grpc.aio.insecure_channel(target) as channel:
        await asyncio.wait_for(channel.channel_ready(), 20)


_IDLE = model_state(5, busy=False)


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


async def measure(for_s: float, only: str | None) -> dict[str, object]:
    """Measure everything, one thing after the other."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings, fleet = fleet_of(folder), folder / "fleet.toml"
        fleet.write_bytes(config.dump(settings))
        cost = partial(fleet_cost, fleet, settings.telemetry.listen, for_s=for_s)
        agent = partial(agent_cost, fleet, settings, for_s=for_s)
        if only:
            return {only: asdict(await cost(busy=only == "busy"))}
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
    parser.add_argument("--only", choices=("busy", "idle"), help="one of the fleets, no agent")
    arguments = parser.parse_args()
    kit_log.configure("bench", "warning")
    figures = asyncio.run(measure(arguments.seconds, arguments.only))
    if arguments.json:
        print(json.dumps(figures, indent=2))
        return
    for name, value in figures.items():
        for key, figure in value.items() if isinstance(value, dict) else (("", value),):
            print(f"{f'{name} {key}'.strip():28} {figure:10.2f}")


if __name__ == "__main__":
    main()
