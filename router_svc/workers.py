"""Several router processes behind one port, over which the kernel spreads connections.

Worker 0 is the one that learns, saves and forgets, and the one whom feedback, policies, tickets and
watchers reach, through whatever worker they come in (`relay`). The others take over what it has
learned and what policies it was given. Each has its own load, admission, forecast and retry
budget, as routers on machines of their own have. All write one journal.
"""

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import msgspec
import structlog

from router_svc import ids
from router_svc.journal import Journal
from services.kit import aio
from services.kit.config import FleetConfig, state_dir
from services.kit.config import Router as Settings
from services.kit.errors import ConfigError

log = structlog.get_logger()

MOST: Final = 64
_MISCONFIGURED: Final = 2
"""Exit code of a process that cannot start as it is configured."""
_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of *count* processes that are one router."""

    number: int = 0
    count: int = 1
    folder: Path = Path()
    """Where each has a socket for the others; nobody else may enter."""

    @property
    def first(self) -> bool:
        """Whether it is the one that learns."""
        return self.number == 0

    def new_id(self) -> str:
        """Make a decision's id; where there are several workers, it ends in whose it is."""
        made = ids.new_id()
        return made if self.count == 1 else f"{made[:-2]}{self.number:02x}"

    def owner(self, decision_id: str) -> int:
        """Say whose decision that is; an id that no worker made counts as one's own."""
        try:
            number = int(decision_id[-2:], 16)
        except ValueError:
            return self.number
        return number if 0 <= number < self.count else self.number

    def address(self, number: int) -> str:
        """Return where worker *number* listens for the others; empty where it is alone."""
        return f"unix:{self.folder / str(number)}" if self.count > 1 else ""

    def share(self, settings: Settings) -> Settings:
        """Return what one worker takes of the router's room, and the port of its own metrics."""
        host, _, port = settings.metrics.rpartition(":")
        return msgspec.structs.replace(
            settings,
            max_in_flight=-(-settings.max_in_flight // self.count),
            max_queued=-(-settings.max_queued // self.count),
            metrics=f"{host}:{int(port) + self.number}" if port else "",
        )


async def supervise(config: FleetConfig, command: Sequence[str]) -> None:
    """Run *command* as every worker of *config*, each again when it ends, until told to stop.

    Raises ConfigError where a worker cannot start as it is configured.
    """
    _check_free(config.router.listen)
    # Once, by one process: they would all create the tables at the same time.
    await Journal(state_dir(config) / config.router.journal).close()
    stopped = aio.stop_event()
    with TemporaryDirectory(prefix="zeta-router-") as folder:
        await aio.all_of(
            *(
                _kept_running(number, (*command, f"--worker={number}:{folder}"), stopped)
                for number in range(config.router.workers)
            )
        )


def worker_of(said: str, config: FleetConfig) -> Worker:
    """Read `--worker`'s value, NUMBER:FOLDER; empty is a router of one process."""
    number, _, folder = said.partition(":")
    if not said:
        return Worker()
    return Worker(number=int(number), count=config.router.workers, folder=Path(folder))


async def _kept_running(number: int, command: Sequence[str], stopped: asyncio.Event) -> None:
    environment = {**os.environ, "ZETA_SUPERVISOR": str(os.getpid())}
    told = asyncio.create_task(stopped.wait())
    try:
        while not stopped.is_set():
            process = await asyncio.create_subprocess_exec(*command, env=environment)
            ended = asyncio.create_task(process.wait())
            try:
                await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                if not ended.done():
                    process.terminate()
                code = await ended
            if code == _MISCONFIGURED:
                raise ConfigError(f"worker {number} of the router cannot start; it says why above")
            if not stopped.is_set():
                log.error("worker ended", worker=number, code=code)
                await asyncio.wait({told}, timeout=_AGAIN_S)
    finally:
        told.cancel()


def _check_free(listen: str) -> None:
    """Refuse a port that somebody has: workers share theirs, and would share it with anybody."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {listen!r}: {error.strerror}; choose another address"
            ) from error


def own_command() -> tuple[str, ...]:
    """Return the command line that this process was started with."""
    return (sys.executable, *sys.orig_argv[1:])
