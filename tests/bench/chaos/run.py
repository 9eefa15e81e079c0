"""One run: callers and mischief side by side, then quiet, then what is left is looked at."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic

import grpc
import numpy as np
import psutil
from zeta.model.v1.model_control_service_pb2 import GetStateRequest
from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceStub

from services.kit.aio import all_of
from services.kit.channel import open_channel
from services.kit.config import Server
from services.kit.errors import ZetaError
from services.kit.probe import SERVING, health
from tests.bench.chaos.answers import Known, Stream, ends, faults
from tests.bench.chaos.callers import Callers
from tests.bench.chaos.mischief import Mischief
from tests.bench.chaos.world import World, world
from tests.system.fleet import Fleet, eventually
from zeta_client import AsyncClient

NEAR = 0.05
"""How far memory may be from its plateau."""
SOME_FILES = 16
"""How many more descriptors than on the plateau may be open."""
_NOT_LOST = frozenset({"OK", "CANCELLED", "DEADLINE_PASSED"})
"""Callers come back by themselves, and hurried ones do not wait."""
_QUIET_S = 60.0
_EVERY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to happen, and for how long."""

    seconds: float
    per_s: float
    """Requests a second."""
    every_s: float
    """Between two acts of mischief, on average."""
    seed: int
    acts: tuple[str, ...] = ()
    """What is done, in order; empty: whatever comes by chance."""


@dataclass(slots=True, kw_only=True)
class Found:
    """What happened."""

    streams: list[Stream] = field(default_factory=list)
    acts: Counter[str] = field(default_factory=Counter)
    known: Known = field(default_factory=dict)
    accepted: Counter[str] = field(default_factory=Counter)
    """What became of every request that the router took on, by its own journal."""
    memory_mb: list[float] = field(default_factory=list)
    """Of the router that lives, every second."""
    files: list[int] = field(default_factory=list)

    @property
    def ends(self) -> Counter[str]:
        """How streams ended."""
        return ends(self.streams)

    def faults(self) -> Iterator[str]:
        """Yield every law that was broken, and by which stream."""
        for stream in self.streams:
            for fault in faults(stream, self.known):
                yield f"{stream.name}: {fault}"
        ids = [s.events[0].started.decision_id for s in self.streams if s.events]
        if len(set(ids)) < len(ids):
            yield f"{len(ids) - len(set(ids))} decisions answered two callers"

    def broken(self) -> list[Stream]:
        """Answers that had begun at the router that lives, and were not brought to their end."""
        return [
            s for s in self.streams if s.begun and s.error and not s.late and s.path != "mortal"
        ]

    def lost(self) -> int:
        """Count requests that the router took on and neither answered nor saw its caller leave."""
        return sum(n for status, n in self.accepted.items() if status not in _NOT_LOST)

    def thirds(self, values: list[float] | list[int]) -> tuple[float, float]:
        """Return the medians of the second third of the time and of the last one."""
        third = len(values) // 3
        return median(values[third : 2 * third]), median(values[2 * third :])


async def run(folder: Path, plan: Plan) -> Found:
    """Break things for as long as *plan* says.

    AssertionError where the fleet does not recover, or anything takes longer than it may; the
    message says what.
    """
    found = Found()
    async with world(folder) as all_of_it, AsyncExitStack() as stack:
        direct = await stack.enter_async_context(open_channel(all_of_it.address, Server()))
        clients = {
            path: await stack.enter_async_context(AsyncClient(link.address))
            for path, link in all_of_it.links.items()
            if path in {"router", "mortal"}
        }
        clients = {"network": clients["router"], "mortal": clients["mortal"]}
        models = tuple(model.name for model in all_of_it.fleet.config.models)
        load_rng, mischief_rng = np.random.default_rng(plan.seed).spawn(2)
        callers = Callers(direct, clients, models, load_rng)
        async with asyncio.timeout(_QUIET_S):
            found.known, found.streams = await callers.known(), callers.streams
        mischief = Mischief(all_of_it, mischief_rng)
        found.acts = mischief.done
        watching = asyncio.create_task(_watch(all_of_it.router, found))
        until_s = monotonic() + plan.seconds
        async with mischief.ending():
            await all_of(
                callers.come(plan.per_s, until_s), mischief.make(plan.every_s, until_s, plan.acts)
            )
        watching.cancel()
        await _recovered(all_of_it, callers, found.known)
    found.accepted = _statuses(folder / "router" / "router.sqlite3")
    return found


async def _watch(router: psutil.Process, found: Found) -> None:
    while True:
        found.memory_mb.append(router.memory_full_info().uss / 1e6)
        found.files.append(router.num_fds())
        if len(found.files) % 60 == 0:
            mb, files = found.memory_mb[-1], found.files[-1]
            ends, acts = dict(found.ends), dict(found.acts)
            print(f"{len(found.files) / 60:4.0f} min {mb:6.1f} MB {files} files {ends} {acts}")
        await asyncio.sleep(_EVERY_S)


async def _recovered(everything: World, callers: Callers, known: Known) -> None:
    """See that all serve again, that nothing is left running, and that answers are as before."""
    fleet = everything.fleet
    for address in _servers(fleet):
        await eventually(partial(_serves, address), _QUIET_S, f"{address} serving again")
    for model in fleet.config.models:
        await eventually(partial(_idle, fleet, model.name), _QUIET_S, f"{model.name} idle")
    again: Known = {}

    async def answers() -> bool:
        nonlocal again
        try:
            again = await asyncio.wait_for(callers.known(), _QUIET_S)
        except (grpc.aio.AioRpcError, ZetaError, TimeoutError):
            return False
        return True

    await eventually(answers, _QUIET_S, "every model asked through the router")
    assert again == known, "answers changed"


def _statuses(journal: Path) -> Counter[str]:
    with closing(sqlite3.connect(journal)) as opened:
        return Counter(dict(opened.execute("SELECT status, COUNT(*) FROM outcomes GROUP BY 1")))


def _servers(fleet: Fleet) -> list[str]:
    models = [replica.listen for model in fleet.config.models for replica in model.replicas]
    return [fleet.router, fleet.telemetry, fleet.embedding, *models]


async def _serves(address: str) -> bool:
    return await health(address, "", Server(), 1.0) == SERVING


async def _idle(fleet: Fleet, model: str) -> bool:
    async with fleet.channel(fleet.model(model)) as channel:
        try:
            answer = await ModelControlServiceStub(channel).GetState(GetStateRequest(), timeout=2.0)
        except grpc.aio.AioRpcError:
            return False
    state = answer.state
    return not (state.running or state.waiting or state.kv_used_tokens)
