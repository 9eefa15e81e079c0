"""One device's slots go where the work is, in a running fleet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.model.v1.model_control_service_pb2 import GetStateRequest
from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceStub

from services.kit.config import Device, FleetConfig
from tests.system.calls import TIMEOUT_S, answer, endless
from tests.system.fleet import Fleet, eventually, running

SLOTS = 12
CALLERS = 16


def shared(config: FleetConfig) -> FleetConfig:
    """The pocket fleet as if one device could run twelve requests at once."""
    names = tuple(f"{model.name}-0" for model in config.models)
    device = Device(name="cpu", replicas=names, slots=SLOTS, change_every_s=1.0)
    return msgspec.structs.replace(config, devices=(device,))


async def slots(fleet: Fleet) -> dict[str, int]:
    """What every model has, by its own account."""
    found = {}
    for model in fleet.config.models:
        async with fleet.channel(fleet.model(model.name)) as channel:
            stub = ModelControlServiceStub(channel)
            state = (
                await stub.GetState(GetStateRequest(), timeout=30.0, wait_for_ready=True)
            ).state
            found[model.name] = state.allocation.max_running
    return found


@asynccontextmanager
async def asking(fleet: Fleet, model: str) -> AsyncIterator[None]:
    """Sixteen callers who ask *model* again as soon as they are answered."""

    async def for_ever() -> None:
        async with fleet.channel(fleet.router) as channel:
            while True:
                request = endless(model, max_tokens=100)
                await answer(InferenceServiceStub(channel).Generate(request, timeout=TIMEOUT_S))

    callers = [asyncio.create_task(for_ever()) for _ in range(CALLERS)]
    try:
        yield
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def most(fleet: Fleet, model: str, at_least: int) -> bool:
    """Whether *model* has so many slots, and all together what the device has."""
    now = await slots(fleet)
    return now[model] >= at_least and sum(now.values()) == SLOTS


@pytest.mark.timeout(120)
async def test_a_shift_of_the_mix_moves_slots_within_five_seconds(tmp_path: Path) -> None:
    """From the coder to the reasoner; a model that restarts gets its share again."""
    with running(tmp_path, shared) as fleet:
        async with asking(fleet, "coder-7b"):
            await eventually(partial(most, fleet, "coder-7b", 7), 20.0, "slots for the coder")
        async with asking(fleet, "reasoner-14b"):
            took_s = await eventually(
                partial(most, fleet, "reasoner-14b", 7), 5.0, "slots for the reasoner"
            )
        process = fleet.process("services.model", "reasoner-14b")
        assert process is not None
        process.kill()
        process.wait(10.0)
        # It comes back with the sixteen slots that its configuration says.
        await eventually(partial(most, fleet, "reasoner-14b", 1), 40.0, "shares after a restart")

    assert took_s < 5.0
