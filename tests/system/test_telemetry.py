"""An agent that is gone without a word: real processes, one of them frozen."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
from zeta.model.v1.model_control_service_pb2 import ModelState
from zeta.model.v1.model_control_service_pb2_grpc import add_ModelControlServiceServicer_to_server
from zeta.telemetry.v1.telemetry_service_pb2 import ReplicaHealth, ReplicaStatus, WatchRequest
from zeta.telemetry.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from services.kit import config
from services.kit.channel import open_channel
from services.kit.config import FleetConfig, Model, Replica, Server, Telemetry
from tests.contract.test_telemetry_service import FakeModel

TIMEOUT_S = 30.0
SILENT_AFTER_S = 2.0


def fleet_of(folder: Path) -> FleetConfig:
    """Describe a fleet of one replica on unix sockets."""
    return FleetConfig(
        telemetry=Telemetry(listen=f"unix:{folder}/telemetry", silent_after_s=SILENT_AFTER_S),
        models=(Model(name="m", dir=".", replicas=(Replica(listen=f"unix:{folder}/model"),)),),
    )


@asynccontextmanager
async def running(*arguments: str) -> AsyncIterator[Process]:
    """Run `python -m` *arguments*; it ends with the context, frozen or not."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", *arguments)
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def a_quiet_fleet(folder: Path) -> AsyncIterator[tuple[str, Process]]:
    """Run telemetry and the agent of a model without work; yield the address and the agent."""
    fleet, file = fleet_of(folder), folder / "fleet.toml"
    file.write_bytes(config.dump(fleet))
    model = grpc.aio.server()
    add_ModelControlServiceServicer_to_server(FakeModel(state=ModelState(model="m")), model)
    model.add_insecure_port(fleet.models[0].replicas[0].listen)
    await model.start()
    agent = ("telemetry_svc.agent", "--config", str(file), "--model", "m", "--replica", "0")
    try:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running("telemetry_svc", "--config", str(file)))
            yield fleet.telemetry.listen, await stack.enter_async_context(running(*agent))
    finally:
        await model.stop(0)


async def seen(address: str) -> AsyncIterator[ReplicaStatus | None]:
    """Yield what a watcher knows of the replica after each message, with signs of life."""
    status: ReplicaStatus | None = None
    async with open_channel(address, Server()) as channel, asyncio.timeout(TIMEOUT_S):
        stub = TelemetryServiceStub(channel)
        async for told in stub.Watch(WatchRequest(), wait_for_ready=True):
            status = next(iter((*told.snapshot.replicas, *told.delta.replicas)), status)
            yield status


async def test_a_frozen_agent_is_found_out(tmp_path: Path) -> None:
    """While it lives its silence holds for longer than silence may last; frozen, it does not.

    Its connection stays open: telemetry's pings find out, in the time after which a replica
    counts as silent. When it goes on it is heard again.
    """
    now = asyncio.get_running_loop().time
    async with a_quiet_fleet(tmp_path) as (address, agent):
        watching = seen(address)
        async for status in watching:
            if status and status.held:
                break
        held_s = now()
        async for status in watching:
            assert status is not None
            assert status.held
            if now() - held_s > 1.5 * SILENT_AFTER_S:
                break
        os.kill(agent.pid, signal.SIGSTOP)
        frozen_s = now()
        async for status in watching:
            assert status is not None
            if status.health == ReplicaHealth.REPLICA_HEALTH_SILENT:
                break
        assert now() - frozen_s < 2 * SILENT_AFTER_S
        os.kill(agent.pid, signal.SIGCONT)
        async for status in watching:
            assert status is not None
            if status.health == ReplicaHealth.REPLICA_HEALTH_SERVING:
                break
