"""What is done to a fleet: kill -9, SIGTERM, SIGSTOP and SIGCONT, drains, and a bad network.

Whatever is stopped or slowed goes on by itself after a while, and all of it at the end.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from time import monotonic

import grpc
import numpy as np
import psutil
from zeta.model.v1.model_control_service_pb2 import DrainRequest
from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceStub

from tests.bench.chaos.world import World
from tests.proxy import Proxy

ACTS = ("kill", "restart", "stop", "hang", "drain", "cut", "slow", "block")
_CHANCES = (0.2, 0.12, 0.14, 0.06, 0.08, 0.2, 0.1, 0.1)
_LONGEST_S = 6.0


class Mischief:
    """Breaks things in *world*; *rng* decides what and for how long."""

    def __init__(self, world: World, rng: np.random.Generator) -> None:
        self.done: Counter[str] = Counter()
        self._world, self._rng = world, rng
        self._later: set[asyncio.Task[None]] = set()
        models = [model.name for model in world.fleet.config.models]
        self._models = tuple(models)
        self._processes = (
            *(("services.model", model) for model in models),
            *(("telemetry_svc.agent", model) for model in models),
            ("telemetry_svc",),
            ("services.embedding",),
            ("router_svc",),
        )

    async def make(self, every_s: float, until_s: float, acts: Sequence[str] = ()) -> None:
        """Do *acts* in order, *every_s* apart; without any, what chance says, until *until_s*."""
        for kind in acts:
            await asyncio.sleep(every_s)
            await self.act(kind)
        if acts:
            return
        while (pause_s := float(self._rng.exponential(every_s))) + monotonic() < until_s:
            await asyncio.sleep(pause_s)
            await self.act(str(self._rng.choice(ACTS, p=_CHANCES)))

    async def act(self, kind: str) -> None:
        """Do one thing of *kind*."""
        self.done[kind] += 1
        await getattr(self, kind)()

    @asynccontextmanager
    async def ending(self) -> AsyncIterator[None]:
        """Undo at the end whatever would last."""
        try:
            yield
        finally:
            for task in list(self._later):
                task.cancel()
            await asyncio.gather(*self._later, return_exceptions=True)

    async def kill(self) -> None:
        """Kill -9 a process."""
        if process := self._any():
            with suppress(psutil.NoSuchProcess):  # it has just ended by itself
                process.kill()

    async def restart(self) -> None:
        """Tell a process to end; its supervisor starts it again."""
        if process := self._any():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)

    async def stop(self) -> None:
        """Stop a process for a while."""
        if process := self._any():
            self._for_a_while(self._stopped_for([process]))

    async def hang(self) -> None:
        """Stop a model and its agent, as a machine that hangs does."""
        model = str(self._rng.choice(self._models))
        find = self._world.fleet.process
        both = [find("services.model", model), find("telemetry_svc.agent", model)]
        self._for_a_while(self._stopped_for([process for process in both if process]))

    async def drain(self) -> None:
        """Drain a model, and then tell it to end, as a rolling restart does."""
        model = str(self._rng.choice(self._models))
        self._for_a_while(self._drained(model))

    async def cut(self) -> None:
        """Reset the connections of a link."""
        self._any_link().cut()

    async def slow(self) -> None:
        """Slow a link down."""
        self._for_a_while(self._slowed())

    async def block(self) -> None:
        """Let nothing pass a link, whose connections stay."""
        self._for_a_while(self._blocked())

    def _any(self) -> psutil.Process | None:
        words = self._processes[int(self._rng.integers(len(self._processes)))]
        return self._world.fleet.process(*words)

    def _any_link(self) -> Proxy:
        links = self._world.links
        return links[str(self._rng.choice(sorted(links)))]

    def _for_a_while(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    def _while_s(self) -> float:
        return float(self._rng.uniform(0.5, _LONGEST_S))

    async def _stopped_for(self, processes: list[psutil.Process]) -> None:
        with suppress(psutil.NoSuchProcess):
            for process in processes:
                process.suspend()
        try:
            await asyncio.sleep(self._while_s())
        finally:
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    async def _drained(self, model: str) -> None:
        fleet = self._world.fleet
        try:
            async with fleet.channel(fleet.model(model)) as channel:
                with suppress(grpc.aio.AioRpcError):
                    await ModelControlServiceStub(channel).Drain(DrainRequest(), timeout=10.0)
        finally:
            # Whoever drains has to be restarted, also at the end of the run: it takes nothing new.
            with suppress(psutil.NoSuchProcess):
                if process := fleet.process("services.model", model):
                    process.send_signal(signal.SIGTERM)

    async def _slowed(self) -> None:
        link = self._any_link()
        link.delay_s = float(self._rng.uniform(0.01, 0.2))
        link.bytes_per_s = float(self._rng.uniform(2_000.0, 50_000.0))
        try:
            await asyncio.sleep(self._while_s())
        finally:
            link.delay_s = link.bytes_per_s = 0.0

    async def _blocked(self) -> None:
        link = self._any_link()
        link.flowing.clear()
        try:
            await asyncio.sleep(self._while_s())
        finally:
            link.flowing.set()
