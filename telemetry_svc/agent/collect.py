"""What an agent reads: the model's counters at every sample, the machine once a second.

The machine's figures cost system calls and move slowly; the counters are what is routed by.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import grpc
import psutil
from zeta.model.v1.model_control_service_pb2 import GetStateRequest, ModelState
from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceStub
from zeta.telemetry.v1 import telemetry_service_pb2 as wire_pb2
from zeta.telemetry.v1.telemetry_service_pb2 import ReplicaReport

from telemetry_svc import wire
from telemetry_svc.agent.gpu import Gpu, Gpus
from telemetry_svc.core.rates import Counters, Rates, rates

ANSWER_TIMEOUT_S = 1.0
"""A model process that takes longer counts as dead until it answers again."""
MACHINE_INTERVAL_S = 1.0
SAME_PROCESS_S = 60.0
"""A process says that it started at most so long after the system created it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a process uses, and how busy its machine is."""

    cpu_ratio: float
    rss_bytes: int
    host_memory_ratio: float
    host_cpu_ratio: float
    threads: int


class Machine(Protocol):
    """Reads one process and the machine around it."""

    def use(self, pid: int, started_s: float) -> Use | None:
        """Return what process *pid* uses, None where it cannot be read."""
        ...

    def gpus(self, pid: int) -> list[Gpu]:
        """Return every GPU."""
        ...


class ThisMachine:
    """The machine that the agent runs on."""

    def __init__(self) -> None:
        self._gpus = Gpus()
        self._process: psutil.Process | None = None

    def use(self, pid: int, started_s: float) -> Use | None:
        """Read *pid*, which started at the Unix time *started_s*, through psutil.

        Containers number their processes apart: what bears the number here may be another
        process, even the agent itself. Then there is nothing to read.
        """
        try:
            process = self._find(pid, started_s)
            return _use(process) if process else None
        except psutil.Error:
            self._process = None
            return None

    def gpus(self, pid: int) -> list[Gpu]:
        """Read every GPU through NVML."""
        return self._gpus.read(pid)

    def _find(self, pid: int, started_s: float) -> psutil.Process | None:
        """Keep the process from one reading to the next: its CPU is what it used between."""
        if self._process is None or self._process.pid != pid or not self._process.is_running():
            process = psutil.Process(pid)
            same = -SAME_PROCESS_S < started_s - process.create_time() < SAME_PROCESS_S
            self._process = process if same and pid != os.getpid() else None
        return self._process


def _use(process: psutil.Process) -> Use:
    with process.oneshot():
        return Use(
            cpu_ratio=process.cpu_percent() / 100,
            rss_bytes=process.memory_info().rss,
            host_memory_ratio=psutil.virtual_memory().percent / 100,
            host_cpu_ratio=psutil.cpu_percent() / 100,
            threads=process.num_threads(),
        )


class Sampler:
    """Makes reports of one replica. *clock* is monotonic, *wall* is Unix time."""

    def __init__(
        self,
        *,
        model: str,
        replica: str,
        address: str,
        channel: grpc.aio.Channel,
        machine: Machine,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._replica, self._address = replica, address
        self._control = ModelControlServiceStub(channel)
        self._machine, self._clock, self._wall = machine, clock, wall
        # What there is to say of a process that never answered.
        self._state = ModelState(model=model, replica=replica)
        self._counters: tuple[Counters, float] | None = None
        self._rates = Rates()
        self._use: Use | None = None
        self._gpus: list[Gpu] = []
        self._machine_read_s = float("-inf")

    async def sample(self) -> ReplicaReport:
        """Read everything that is due and report it; `seq` is left to who sends it."""
        alive = await self._ask()
        if self._clock() - self._machine_read_s >= MACHINE_INTERVAL_S:
            self._read_machine(alive=alive)
        return ReplicaReport(
            replica=self._replica,
            address=self._address,
            time=wire.timestamp(self._wall()),
            alive=alive,
            state=self._state,
            process=_process_use(self._use) if alive else None,
            gpus=map(_gpu_use, self._gpus),
            rates=_rates(self._rates),
        )

    async def _ask(self) -> bool:
        """Read the counters; say whether the model answered."""
        try:
            answer = await self._control.GetState(GetStateRequest(), timeout=ANSWER_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            self._counters, self._rates = None, Rates()
            return False
        self._state, now_s = answer.state, self._clock()
        counters = _counters(answer.state)
        if self._counters and now_s > self._counters[1]:
            self._rates = rates(self._counters[0], counters, now_s - self._counters[1])
        self._counters = counters, now_s
        return True

    def _read_machine(self, *, alive: bool) -> None:
        state = self._state
        self._use = self._machine.use(state.pid, wire.started_s(state)) if alive else None
        self._gpus = self._machine.gpus(state.pid)
        if alive:
            self._machine_read_s = self._clock()


def _counters(state: ModelState) -> Counters:
    return Counters(
        completion_tokens=state.completion_tokens_total,
        prompt_tokens=state.prompt_tokens_total,
        requests=state.requests_total,
        busy_s=state.busy_total.seconds + state.busy_total.nanos / 1e9,
    )


def _rates(value: Rates) -> wire_pb2.Rates:
    return wire_pb2.Rates(
        completion_tokens_per_s=value.completion_tokens_per_s,
        prompt_tokens_per_s=value.prompt_tokens_per_s,
        requests_per_s=value.requests_per_s,
        busy_ratio=value.busy_ratio,
    )


def _process_use(value: Use | None) -> wire_pb2.ProcessUse | None:
    if value is None:
        return None
    return wire_pb2.ProcessUse(
        cpu_ratio=value.cpu_ratio,
        rss_bytes=value.rss_bytes,
        host_memory_ratio=value.host_memory_ratio,
        host_cpu_ratio=value.host_cpu_ratio,
        threads=value.threads,
    )


def _gpu_use(value: Gpu) -> wire_pb2.GpuUse:
    return wire_pb2.GpuUse(
        uuid=value.uuid,
        name=value.name,
        utilization_ratio=value.utilization_ratio,
        memory_used_bytes=value.memory_used_bytes,
        memory_total_bytes=value.memory_total_bytes,
        power_w=value.power_w,
        temperature_c=value.temperature_c,
        process_memory_bytes=value.process_memory_bytes,
    )
