"""`zeta top`: the fleet as it is now."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import Annotated

import typer
from rich.live import Live

from services.kit import aio
from services.kit.errors import DeadlinePassedError, UnavailableError, ZetaError
from zeta_client.async_client import AsyncClient
from zeta_client.cli import fleet_screen, fleet_view, shell
from zeta_client.cli.fleet_view import FleetView

WINDOW_S = 60.0
"""Figures per kind of task, and latency, are those of the last minute."""
REFRESH_S = 0.5
LINE_EVERY_S = 1.0
ANSWER_TIMEOUT_S = 2.0
"""A service that takes longer is in trouble, and what is known is shown without it."""

_NO_ANSWER = f"no answer for {ANSWER_TIMEOUT_S:.0f} s"
_ELSEWHERE = (
    "start a fleet with `zeta up`, "
    "or name a running one with --telemetry HOST:PORT or --config FILE"
)


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
    listen = shell.address(telemetry, settings.telemetry.listen)
    patient = partial(AsyncClient, settings=settings.server, timeout_s=ANSWER_TIMEOUT_S)
    router = shell.address(target, settings.router.listen)
    screen = _Screen(partial(patient, listen), partial(patient, router), as_json=as_json)
    watchable = as_json or shell.out().is_terminal
    shell.run(screen.once() if once or not watchable else screen.live())


class _Screen:
    """What is known of the fleet, and how it is shown."""

    def __init__(self, telemetry: shell.Reach, router: shell.Reach, *, as_json: bool) -> None:
        self._telemetry, self._router, self._as_json = telemetry, router, as_json
        self._view = FleetView()
        self._troubles: dict[str, str] = {}

    async def once(self) -> None:
        """Show one snapshot; without a telemetry service there is none."""
        async with self._telemetry() as telemetry, self._router() as router:
            # Asked first: a service that hangs is told by the call that has a deadline.
            try:
                await self._ask_telemetry(telemetry)
            except DeadlinePassedError:
                shell.fail(f"telemetry gives {_NO_ANSWER}; {_ELSEWHERE}")
            except UnavailableError as error:
                shell.fail(f"telemetry: {error}; {_ELSEWHERE}")
            self._view.apply(await anext(telemetry.watch_fleet()), monotonic())
            await self._tried("router", self._ask_router, router)
        if self._as_json:
            shell.emit(self._json())
        else:
            console = shell.out()
            console.print(
                fleet_screen.whole(self._view, self._troubles, console.width, monotonic())
            )

    async def live(self) -> None:
        """Show the fleet until interrupted; what is away for a while comes back."""
        async with self._telemetry() as telemetry, self._router() as router:
            await aio.all_of(
                self._again("telemetry", self._follow, telemetry),
                self._again("telemetry", self._ask_telemetry, telemetry),
                self._again("router", self._ask_router, router),
                self._draw(),
            )

    async def _again(
        self, who: str, ask: Callable[[AsyncClient], Awaitable[None]], client: AsyncClient
    ) -> None:
        """Ask for ever. Each service has its own turn: one that hangs keeps nobody waiting."""
        while True:
            await self._tried(who, ask, client)
            await asyncio.sleep(REFRESH_S)

    async def _tried(
        self, who: str, ask: Callable[[AsyncClient], Awaitable[None]], client: AsyncClient
    ) -> None:
        """Ask; trouble is noted, and leaves what was known."""
        try:
            await ask(client)
            self._troubles.pop(who, None)
        except DeadlinePassedError:
            self._troubles[who] = _NO_ANSWER
        except ZetaError as error:
            hint = f"; {_ELSEWHERE}" if who == "telemetry" and not self._view.told_s else ""
            self._troubles[who] = f"{error}{hint}"

    async def _follow(self, telemetry: AsyncClient) -> None:
        async for message in telemetry.watch_fleet(min_interval_s=REFRESH_S):
            self._view.apply(message, monotonic())

    async def _ask_telemetry(self, telemetry: AsyncClient) -> None:
        histories = await telemetry.history(window_s=WINDOW_S)
        self._view.histories = {h.replica: h for h in histories}

    async def _ask_router(self, router: AsyncClient) -> None:
        said = await router.policies()
        self._view.beliefs = said.beliefs
        self._view.outlooks = {each.model: each for each in said.outlooks}

    async def _draw(self) -> None:
        if self._as_json:
            while True:
                await asyncio.sleep(LINE_EVERY_S)
                shell.emit(self._json())
        with Live(console=shell.out(), screen=True, auto_refresh=False) as live:
            while True:
                shown = fleet_screen.fitting(self._view, self._troubles, live.console, monotonic())
                live.update(shown, refresh=True)
                await asyncio.sleep(REFRESH_S)

    def _json(self) -> dict[str, object]:
        return {**fleet_view.as_json(self._view, monotonic()), "troubles": self._troubles}
