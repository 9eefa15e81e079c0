"""Two routers: on one fleet, and one before the other."""

from pathlib import Path

import msgspec
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.config import Fleet as FleetSection
from services.kit.config import FleetConfig, Model, Replica
from services.kit.probe import SERVING, health
from tests.bench.routers import REPLICAS, compare
from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import Fleet, another_router, eventually, free_address


async def test_two_routers_do_not_herd(tmp_path: Path) -> None:
    """They know nothing of each other but the reports, and spread the work about as one does.

    Routers that herd send what comes between two reports to one replica: a spread near 1.
    """
    found = await compare(tmp_path, interval_s=0.5, seconds=6.0, rate=14.0, seed=3)
    one, two = found["one router"], found["two routers"]

    assert one.requests == two.requests > 50
    assert len(two.shares) == REPLICAS
    assert all(0.1 < share < 0.4 for share in two.shares.values()), two.shares
    assert two.spread < one.spread + 0.2


async def test_a_router_takes_another_fleet_for_a_model(fleet: Fleet, tmp_path: Path) -> None:
    """Named after the fleet, whose own router then chooses; the first one only passes it on."""
    site = Model(
        name=fleet.config.fleet.name, dir=str(tmp_path), replicas=(Replica(listen=fleet.router),)
    )
    first = before(fleet.config, site, tmp_path)
    with another_router(first, tmp_path):
        await eventually(lambda: serves(first), 30.0, "the first router")
        async with (
            fleet.channel(first.router.listen) as channel,
            fleet.channel(fleet.router) as own,
        ):
            through, straight = [
                await answer(InferenceServiceStub(stub).Generate(asked, timeout=TIMEOUT_S))
                for stub, asked in (
                    (channel, question()),
                    (own, question(model=site.name)),
                )
            ]

    assert through.text
    assert straight.text
    assert through.started.model == site.name
    assert straight.started.model in {model.name for model in fleet.config.models}
    assert through.started.decision_id != straight.started.decision_id


def before(inner: FleetConfig, site: Model, folder: Path) -> FleetConfig:
    """Configure a router before the fleet of *inner*, with a state of its own."""
    router = msgspec.structs.replace(inner.router, listen=free_address(), metrics="")
    own = FleetSection(name="sites", state_dir=str(folder / "state"))
    return msgspec.structs.replace(inner, fleet=own, router=router, models=(site,))


async def serves(config: FleetConfig) -> bool:
    """Whether the router of *config* serves."""
    return await health(config.router.listen, "", config.server, 1.0) == SERVING
