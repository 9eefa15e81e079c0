"""`zeta up`: run a fleet until told to stop."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import MofNCompleteColumn, SpinnerColumn
from rich.text import Text

from services.kit import log as kit_log
from services.kit.config import FleetConfig
from services.kit.config import state_dir as state_dir_of
from zeta_client.cli import shell
from zeta_client.fleet.local import fleet
from zeta_client.fleet.processes import in_state_dir, on_free_ports, processes_of
from zeta_client.fleet.supervise import Supervisor

StateDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Journals, learned state and logs")
]


def up(
    *,
    config: shell.ConfigFile = None,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Use ports that are free instead of the file's")
    ] = False,
    state_dir: StateDir = None,
    as_json: shell.Json = False,
) -> None:
    """Start the fleet of the configuration; Ctrl-C or SIGTERM drains and stops it."""
    settings = shell.load(config)
    if free_ports:
        settings = on_free_ports(settings)
    if state_dir:
        settings = in_state_dir(settings, state_dir)
    kit_log.configure("supervisor", settings.fleet.log_level)
    shell.run(_up(settings, as_json=as_json))


async def _up(config: FleetConfig, *, as_json: bool) -> None:
    async with started(config) as supervisor:
        folder = state_dir_of(config)
        shell.notes().print(f"configuration {folder / 'fleet.toml'}, logs {folder / 'logs'}/")
        if as_json:
            shell.emit({"event": "ready", "router": config.router.listen})
        else:
            shell.say(f"ready router={config.router.listen}")
        with suppress(asyncio.CancelledError):  # being told to stop is how this ends well
            await supervisor.ended()


@asynccontextmanager
async def started(config: FleetConfig) -> AsyncIterator[Supervisor]:
    """Run the fleet of *config*, with a progress bar on stderr until it is ready."""
    with ExitStack() as shown:
        on_serving = shown.enter_context(_bar(config))
        async with fleet(config, on_serving=on_serving) as supervisor:
            shown.close()
            try:
                yield supervisor
            finally:
                shown.enter_context(shell.notes().status(Text(f"stopping {config.fleet.name}")))


@contextmanager
def state_in(folder: Path | None, prefix: str) -> Iterator[Path]:
    """Yield *folder*, else a new one that goes again unless an error needs its logs."""
    if folder is not None:
        yield folder
        return
    made, failed = Path(tempfile.mkdtemp(prefix=prefix)), False
    try:
        yield made
    except typer.Exit as end:
        failed = end.exit_code == 1
        raise
    finally:
        if not failed:
            shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _bar(config: FleetConfig) -> Iterator[Callable[[str], None]]:
    servers = sum(1 for p in processes_of(config, Path()) if p.address)
    with shell.progress(MofNCompleteColumn(), SpinnerColumn()) as progress:
        task = progress.add_task(f"starting {config.fleet.name}", total=servers)

        def serving(name: str) -> None:
            progress.update(task, advance=1, description=f"{name} serves")

        yield serving
