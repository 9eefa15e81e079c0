"""Workers of one router, by their values."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from router_svc.workers import Worker, supervise, worker_of
from services.kit.config import Fleet as FleetSettings
from services.kit.config import FleetConfig, Model, Replica, Router
from services.kit.errors import ConfigError

TWO = [Worker(number=n, count=2, folder=Path("at")) for n in range(2)]


def config(folder: Path, listen: str) -> FleetConfig:
    """A fleet whose router has two workers."""
    return FleetConfig(
        fleet=FleetSettings(state_dir=str(folder)),
        router=Router(listen=listen, workers=2),
        models=(Model(name="m", dir=".", replicas=(Replica(listen="127.0.0.1:1"),)),),
    )


def test_an_id_says_whose_it_is() -> None:
    """To every worker; what no worker made is one's own to refuse."""
    for worker in TWO:
        assert [other.owner(worker.new_id()) for other in TWO] == [worker.number] * 2
        assert [worker.owner(strange) for strange in ("", "x", "-1", "ff", "0")] == [
            *[worker.number] * 4,
            0,
        ]
    assert len({Worker().new_id() for _ in range(100)}) == 100


def test_the_room_and_the_ports_are_shared_out() -> None:
    """Rounded up; one worker has all of it."""
    settings = Router(max_in_flight=5, max_queued=8, metrics="127.0.0.1:9000")
    shares = [worker.share(settings) for worker in TWO]
    assert [(s.max_in_flight, s.max_queued) for s in shares] == [(3, 4)] * 2
    assert [s.metrics for s in shares] == ["127.0.0.1:9000", "127.0.0.1:9001"]
    assert Worker().share(settings) == settings
    assert Worker().address(0) == ""


def test_the_command_line_says_who_one_is(tmp_path: Path) -> None:
    """Number and folder of the sockets."""
    assert worker_of("", config(tmp_path, "127.0.0.1:7")) == Worker()
    found = worker_of("1:/run/x", config(tmp_path, "127.0.0.1:7"))
    assert found == Worker(number=1, count=2, folder=Path("/run/x"))
    assert found.address(0) == "unix:/run/x/0"


async def test_a_taken_port_is_refused(tmp_path: Path) -> None:
    """Workers would share it with whoever has it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ConfigError, match="cannot listen"):
            await supervise(config(tmp_path, listen), ("false",))


async def test_workers_are_started_again_and_stopped_together(tmp_path: Path) -> None:
    """One that ends is; being told to stop, all are told, and nobody is left."""
    heard: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        pid, said = (await reader.readline()).decode().split()
        writer.close()
        heard.put_nowait((int(pid), said.partition(":")[0]))

    async with await asyncio.start_server(hear, "127.0.0.1", 0) as told, asyncio.timeout(60.0):
        script = (
            "import os, socket, sys, time\n"
            f"s = socket.create_connection({told.sockets[0].getsockname()!r})\n"
            "s.sendall(f'{os.getpid()} {sys.argv[1]}\\n'.encode())\n"
            "time.sleep(600)\n"
        )
        command = (sys.executable, "-c", script)
        running = asyncio.create_task(supervise(config(tmp_path, "127.0.0.1:0"), command))
        started = [await heard.get() for _ in range(2)]
        os.kill(started[0][0], signal.SIGKILL)
        started.append(await heard.get())
        assert started[2][1] == started[0][1] != started[1][1]
        os.kill(os.getpid(), signal.SIGTERM)
        await running
    for pid, _ in started:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


async def test_a_worker_that_cannot_start_ends_all(tmp_path: Path) -> None:
    """A mistake in the configuration is not tried again."""
    with pytest.raises(ConfigError, match="cannot start"):
        await supervise(config(tmp_path, "127.0.0.1:0"), (sys.executable, "-c", "exit(2)"))
