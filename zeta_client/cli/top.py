"""`zeta top`: the fleet as it is now."""

import asyncio
from collections.abc import Sequence
from functools import partial
from time import monotonic
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from zeta.router.v1.router_service_pb2 import Belief

from services.kit import aio
from services.kit.errors import UnavailableError
from zeta_client.async_client import AsyncClient
from zeta_client.cli import fleet_view, shell
from zeta_client.cli.fleet_view import FleetView

WINDOW_S = 60.0
"""Latency quantiles are those of the last minute."""
REFRESH_S = 0.5
LINE_EVERY_S = 1.0


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="One snapshot")] = False,
    telemetry: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Telemetry service; default: as configured"),
    ] = None,
    target: shell.Target = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Watch replicas, machines and what the router has learned; Ctrl-C ends it."""
    settings = shell.load(config)
    listen = telemetry or settings.telemetry.listen
    watched = partial(AsyncClient, listen, settings=settings.server)
    screen = _Screen(watched, shell.reach(config, target), as_json=as_json)
    watchable = as_json or shell.out().is_terminal
    shell.run(screen.once() if once or not watchable else screen.live())


class _Screen:
    """What is known of the fleet, and how it is shown."""

    def __init__(self, telemetry: shell.Reach, router: shell.Reach, *, as_json: bool) -> None:
        self._telemetry, self._router, self._as_json = telemetry, router, as_json
        self._view = FleetView()
        self._beliefs: Sequence[Belief] = ()
        self._troubles: dict[str, str] = {}

    async def once(self) -> None:
        """Show one snapshot. Raises UnavailableError without a telemetry service."""
        async with self._telemetry() as telemetry, self._router() as router:
            self._view.apply(await anext(telemetry.watch_fleet()), monotonic())
            await self._ask_around(telemetry, router)
        if self._as_json:
            shell.emit(self._json())
        else:
            console = shell.out()
            console.print(self._tables(console.width))

    async def live(self) -> None:
        """Show the fleet until interrupted; what is away for a while comes back."""
        async with self._telemetry() as telemetry, self._router() as router:
            await aio.all_of(self._follow(telemetry), self._draw(telemetry, router))

    async def _follow(self, telemetry: AsyncClient) -> None:
        while True:
            try:
                async for message in telemetry.watch_fleet(min_interval_s=REFRESH_S):
                    self._view.apply(message, monotonic())
                    self._troubles.pop("telemetry", None)
            except UnavailableError as error:
                self._troubles["telemetry"] = str(error)
            await asyncio.sleep(REFRESH_S)

    async def _draw(self, telemetry: AsyncClient, router: AsyncClient) -> None:
        if self._as_json:
            while True:
                await self._ask_around(telemetry, router)
                shell.emit(self._json())
                await asyncio.sleep(LINE_EVERY_S)
        with Live(console=shell.out(), screen=True, auto_refresh=False) as live:
            while True:
                await self._ask_around(telemetry, router)
                live.update(self._tables(live.console.width), refresh=True)
                await asyncio.sleep(REFRESH_S)

    async def _ask_around(self, telemetry: AsyncClient, router: AsyncClient) -> None:
        """Fetch what is not streamed; a service that is away leaves what was known."""
        try:
            histories = await telemetry.history(window_s=WINDOW_S)
            self._view.histories = {h.replica: h for h in histories}
        except UnavailableError as error:
            self._troubles["telemetry"] = str(error)
        try:
            said = await router.policies()
            self._beliefs = said.beliefs
            self._view.outlooks = {each.model: each for each in said.outlooks}
            self._troubles.pop("router", None)
        except UnavailableError as error:
            self._troubles["router"] = str(error)

    def _json(self) -> dict[str, object]:
        found = fleet_view.as_json(self._view.rows(monotonic()), self._beliefs)
        return {**found, "troubles": self._troubles}

    def _tables(self, width: int) -> Group:
        rows = self._view.rows(monotonic())
        parts = [fleet_view.fleet_table(rows, width)]
        if self._beliefs:
            parts.append(fleet_view.belief_table(self._beliefs))
        troubles = [f"[red]{who}: {what}[/red]" for who, what in self._troubles.items()]
        return Group(*parts, *troubles)
