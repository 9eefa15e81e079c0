"""Bring a whole fleet up on this machine, and down again."""

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

from services.kit.config import FleetConfig, dump, state_dir
from services.kit.errors import ConfigError
from zeta_client.fleet.health import until_routed, until_serving
from zeta_client.fleet.processes import processes_of
from zeta_client.fleet.supervise import Supervisor

READY_TIMEOUT_S = 120.0
_STOP_MARGIN_S = 5.0


@asynccontextmanager
async def fleet(
    config: FleetConfig, *, on_serving: Callable[[str], None] | None = None
) -> AsyncIterator[Supervisor]:
    """Run the fleet of *config*; inside the context every server of it serves.

    Writes the configuration as it was resolved to `fleet.toml` in the state directory, where
    `logs/` lies too. Raises StartFailedError, and ConfigError where the state is in use.
    """
    folder = state_dir(config)
    with held(folder):
        file = folder / "fleet.toml"
        file.write_bytes(dump(config))
        supervisor = Supervisor(
            processes_of(config, file),
            logs=folder / "logs",
            until_serving=partial(_until_useful, config),
            grace_s=config.server.drain_grace_s + _STOP_MARGIN_S,
        )
        async with supervisor:
            await supervisor.ready(timeout_s=READY_TIMEOUT_S, on_serving=on_serving)
            yield supervisor


async def _until_useful(config: FleetConfig, address: str) -> None:
    """A router that serves may not have found everybody yet; ready means that it has."""
    await until_serving(address, config.server)
    if address == config.router.listen:
        await until_routed(config)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the state directory, since two fleets would write into each other's journal."""
    with (folder / "fleet.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise ConfigError(
                f"process {lock.read().strip()} runs a fleet with its state in {folder}: "
                "stop it, or give another --state-dir"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
