"""A real fleet for tests: `zeta up` on free ports, its state in a folder of its own."""

import asyncio
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import grpc
import msgspec
import psutil

from services.kit import config
from services.kit.channel import open_channel

ROOT = Path(__file__).parents[2]
ZETA = Path(sys.executable).with_name("zeta")
READY_WITHIN_S = 90.0
STOPPED_WITHIN_S = 30.0

Section = TypeVar("Section", bound=msgspec.Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """A fleet that runs."""

    supervisor: psutil.Process
    config: config.FleetConfig
    """As resolved, with the ports that it got."""
    ready_s: float
    """From the start of `zeta up` to its ready line."""

    @property
    def router(self) -> str:
        """Where clients call."""
        return self.config.router.listen

    @property
    def telemetry(self) -> str:
        """Where telemetry serves."""
        return self.config.telemetry.listen

    @property
    def embedding(self) -> str:
        """Where the first embedding process serves."""
        return self.config.embedding.replicas[0].listen

    def model(self, name: str) -> str:
        """Where the first replica of *name* serves."""
        return config.model_named(self.config, name).replicas[0].listen

    def channel(self, address: str) -> grpc.aio.Channel:
        """Open a channel as the fleet's own processes do."""
        return open_channel(address, self.config.server)

    def processes(self) -> list[psutil.Process]:
        """Every process of the fleet, the supervisor first."""
        return [self.supervisor, *self.supervisor.children(recursive=True)]

    def process(self, *words: str) -> psutil.Process | None:
        """Find the process with all of *words* on its command line."""
        for found in self.supervisor.children(recursive=True):
            try:
                if set(words) <= set(found.cmdline()):
                    return found
            except psutil.NoSuchProcess:
                continue
        return None


@contextmanager
def running(
    folder: Path,
    edit: Callable[[config.FleetConfig], config.FleetConfig] = lambda c: c,
    *,
    free_ports: bool = True,
) -> Iterator[Fleet]:
    """Run the pocket fleet with *edit* made to its configuration; its state stays in *folder*.

    Ends as a person would end it, and fails where that leaves a process behind.
    """
    file = written(folder, edit)
    start = time.monotonic()
    options = ["--free-ports"] if free_ports else []
    command: list[str | Path] = [ZETA, "up", "--config", file, "--state-dir", folder, *options]
    with (
        (folder / "up.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            await_ready(process, folder)
            fleet = Fleet(
                supervisor=psutil.Process(process.pid),
                config=config.load(folder / "fleet.toml"),
                ready_s=time.monotonic() - start,
            )
            yield fleet
        finally:
            left = stopped(process)
    assert not left, f"processes left behind: {left}"


def written(folder: Path, edit: Callable[[config.FleetConfig], config.FleetConfig]) -> Path:
    """Write the edited pocket configuration to *folder*."""
    file = folder / "edited.toml"
    file.write_bytes(config.dump(edit(config.load(ROOT / "config" / "pocket.toml"))))
    return file


def await_ready(process: subprocess.Popen[str], folder: Path) -> None:
    """Wait for the ready line; without one, fail with what the fleet said."""
    assert process.stdout
    readable, _, _ = select.select([process.stdout], [], [], READY_WITHIN_S)
    line = process.stdout.readline() if readable else ""
    assert line.startswith("ready router="), (folder / "up.log").read_text()[-4000:]


def stopped(process: subprocess.Popen[str]) -> list[str]:
    """Interrupt the fleet as Ctrl-C does; return the processes that outlived it, killed now."""
    if process.poll() is not None:
        return []
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOPPED_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
    _, left = psutil.wait_procs(family, timeout=2.0)
    names = [" ".join(p.cmdline()) for p in left]
    for survivor in left:
        survivor.kill()
    return names


def free_address() -> str:
    """Return an address of this machine that is free right now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


@contextmanager
def another_router(own: config.FleetConfig, folder: Path) -> Iterator[psutil.Process]:
    """Run one more router, on *own* configuration; stop it as a supervisor does."""
    file = folder / "router.toml"
    file.write_bytes(config.dump(own))
    command = (sys.executable, "-P", "-m", "router_svc", "--config", str(file))
    with (
        (folder / "router.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOPPED_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


def with_server(server: config.Server) -> Callable[[config.FleetConfig], config.FleetConfig]:
    """Return an edit that replaces the servers' settings."""
    return lambda fleet: msgspec.structs.replace(fleet, server=server)


def on_sockets(folder: Path) -> Callable[[config.FleetConfig], config.FleetConfig]:
    """Return an edit that moves every server to a Unix socket in *folder*, without metrics."""
    replace = msgspec.structs.replace

    def moved(section: Section, name: str) -> Section:
        keys = {f.name for f in msgspec.structs.fields(section)} & {"metrics", "agent_metrics"}
        return replace(section, listen=f"unix:{folder}/{name}", **dict.fromkeys(keys, ""))

    def edit(fleet: config.FleetConfig) -> config.FleetConfig:
        return replace(
            fleet,
            router=moved(fleet.router, "r"),
            telemetry=moved(fleet.telemetry, "t"),
            embedding=replace(fleet.embedding, replicas=(moved(fleet.embedding.replicas[0], "e"),)),
            models=tuple(
                replace(model, replicas=(moved(model.replicas[0], f"m{i}"),))
                for i, model in enumerate(fleet.models)
            ),
        )

    return edit


async def eventually(
    condition: Callable[[], Awaitable[bool]], within_s: float, what: str, every_s: float = 0.05
) -> float:
    """Poll *condition* until it holds, and return how long that took, in seconds."""
    start = time.monotonic()
    while not await condition():
        took_s = time.monotonic() - start
        assert took_s < within_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(every_s)
    return time.monotonic() - start
