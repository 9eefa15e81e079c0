"""A fleet with a network that breaks: `zeta up`, and a router of our own behind proxies.

The fleet's own router may be killed like everything else. The one under test is another process
of the same program; a proxy stands between it and every replica, encoder and the telemetry service.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import psutil

from services.kit import config
from services.kit.probe import SERVING, health
from tests.proxy import Proxy, proxied
from tests.system.fleet import (
    Fleet,
    Section,
    another_router,
    eventually,
    free_address,
    running,
)

STEP_S = 0.008
_READY_S, _STOPS_S = 60.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """All that can be broken, and the router that must not break."""

    fleet: Fleet
    router: psutil.Process
    address: str
    """Of that router."""
    links: dict[str, Proxy]
    """Proxies, by the name of what is behind them; "router" and "mortal" are the callers' own."""


@asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    """Run everything; fails where a process is left behind."""
    with running(folder / "fleet", slowed_down) as fleet:
        async with AsyncExitStack() as stack:

            async def link(target: str) -> Proxy:
                return await stack.enter_async_context(proxied(target))

            links = {f"replica {r}": await link(r) for r in _replicas(fleet.config)}
            links["telemetry"] = await link(fleet.telemetry)
            own = _behind(fleet.config, {p.target: p.address for p in links.values()}, folder)
            process = stack.enter_context(another_router(own, folder))
            await eventually(lambda: _serves(own), _READY_S, "the router behind proxies")
            links["router"] = await link(own.router.listen)
            links["mortal"] = await link(fleet.router)
            yield World(fleet=fleet, router=process, address=own.router.listen, links=links)


def slowed_down(fleet: config.FleetConfig) -> config.FleetConfig:
    """Make answers last as long as larger models' do, so that much breaks in the middle of one."""
    pace = config.Pace(step_s=STEP_S)
    models = tuple(msgspec.structs.replace(model, pace=pace) for model in fleet.models)
    return msgspec.structs.replace(fleet, models=models)


def _replicas(fleet: config.FleetConfig) -> list[str]:
    """Addresses of every model process and encoder."""
    models = [replica.listen for model in fleet.models for replica in model.replicas]
    return [*models, *(replica.listen for replica in fleet.embedding.replicas)]


def _behind(fleet: config.FleetConfig, moved: dict[str, str], folder: Path) -> config.FleetConfig:
    """Return the configuration of a router that reaches everybody at *moved* addresses."""
    replace = msgspec.structs.replace

    def at(section: Section) -> Section:
        return replace(section, listen=moved[str(getattr(section, "listen"))])  # noqa: B009

    return replace(
        fleet,
        fleet=replace(fleet.fleet, state_dir=str(folder / "router")),
        router=replace(fleet.router, listen=free_address(), metrics=free_address()),
        telemetry=replace(fleet.telemetry, listen=moved[fleet.telemetry.listen]),
        embedding=replace(fleet.embedding, replicas=tuple(at(r) for r in fleet.embedding.replicas)),
        models=tuple(
            replace(model, replicas=tuple(at(r) for r in model.replicas)) for model in fleet.models
        ),
    )


async def _serves(own: config.FleetConfig) -> bool:
    return await health(own.router.listen, "", own.server, 1.0) == SERVING
