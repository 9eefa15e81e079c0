"""What an agent reads: the model's counters at every sample, the machine once a second.

The machine's figures cost system calls and move slowly; the counters are what is routed by.
"""

import time
from collections.abc import Callable
from typing import Protocol

import grpc
from zeta.model.v1.model_control_service_pb2 import GetStateRequest, ModelState
from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceStub
from zeta.telemetry.v1.telemetry_service_pb2 import ReplicaReport

from telemetry_svc.agent import wire
from telemetry_svc.agent.board import Gpu
from telemetry_svc.agent.dcgm import Dcgm
from telemetry_svc.agent.gpu import Gpus
from telemetry_svc.agent.latest import Latest
from telemetry_svc.agent.use import Processes, Use
from telemetry_svc.core.rates import Counters, Rates, rates
from telemetry_svc.wire import started_s, timestamp

ANSWER_TIMEOUT_S = 1.0
"""A model process that takes longer counts as dead until it answers again."""
MACHINE_INTERVAL_S = 1.0
GPUS_MAX_AGE_S = 5.0
"""Figures of GPUs that are older are not reported: the driver hangs."""


class Machine(Protocol):
    """Reads one process and the machine around it, without waiting."""

    def use(self, pid: int, started_s: float) -> Use | None:
        """Return what process *pid* uses, None where it cannot be read."""
        ...

    def gpus(self, pid: int) -> list[Gpu]:
        """Return every GPU as it was last read, and what *pid* holds on it."""
        ...


class ThisMachine:
    """The machine that the agent runs on. *dcgm* is the address of its exporter, if any."""

    def __init__(self, *, dcgm: str = "", gpus: Gpus | None = None) -> None:
        self._processes, self._pid = Processes(), 0
        self._gpus, self._dcgm = gpus if gpus is not None else Gpus(), Dcgm(dcgm)
        self._latest = Latest(self._read, every_s=MACHINE_INTERVAL_S) if len(self._gpus) else None

    def use(self, pid: int, started_s: float) -> Use | None:
        """Read *pid*, which started at the Unix time *started_s*."""
        return self._processes.use(pid, started_s)

    def gpus(self, pid: int) -> list[Gpu]:
        """Return what the reading thread last found."""
        self._pid = pid
        return (self._latest.value(max_age_s=GPUS_MAX_AGE_S) if self._latest else None) or []

    def _read(self) -> list[Gpu]:
        return self._dcgm.profiled(self._gpus.read(self._pid))


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
            time=timestamp(self._wall()),
            alive=alive,
            state=self._state,
            process=wire.process_use(self._use) if alive else None,
            gpus=map(wire.gpu_use, self._gpus),
            rates=wire.rates(self._rates),
        )

    async def _ask(self) -> bool:
        """Read the counters; say whether the model answered."""
        try:
            answer = await self._control.GetState(GetStateRequest(), timeout=ANSWER_TIMEOUT_S)
        except grpc.aio.AioRpcError:
            self._counters, self._rates = None, Rates()
            return False
        self._state, now_s = answer.state, self._clock()
        counters = wire.counters(answer.state)
        if self._counters and now_s > self._counters[1]:
            self._rates = rates(self._counters[0], counters, now_s - self._counters[1])
        self._counters = counters, now_s
        return True

    def _read_machine(self, *, alive: bool) -> None:
        state = self._state
        self._use = self._machine.use(state.pid, started_s(state)) if alive else None
        self._gpus = self._machine.gpus(state.pid)
        if alive:
            self._machine_read_s = self._clock()
