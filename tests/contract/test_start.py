"""How every process starts: with gRPC quiet, and not at all with a wrong configuration."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WRONG = """
[fleet]
colour = "no such key"
[[models]]
name = "m"
dir = "nowhere"
[[models.replicas]]
listen = "127.0.0.1:1"
"""
ROUTER = """
[telemetry]
listen = "{telemetry}"
[fleet]
state_dir = "{folder}/state"
[router]
listen = "unix:{folder}/router"
[[models]]
name = "m"
dir = "nowhere"
[[models.replicas]]
listen = "unix:{folder}/model"
"""
IMPORTED_FIRST = """
import os, sys
import {package}
print(os.environ["GRPC_VERBOSITY"], "grpc" in sys.modules)
"""
PROCESSES = {
    "router_svc": (),
    "telemetry_svc": (),
    "telemetry_svc.agent": ("--model", "m", "--replica", "0"),
    "services.embedding": ("--replica", "0"),
    "services.model": ("--model", "m", "--replica", "0"),
}


@pytest.mark.parametrize("module", PROCESSES)
def test_a_wrong_key_stops_the_start(module: str, tmp_path: Path) -> None:
    """Exit code 2, the key's path and what is known there, and no traceback."""
    file = tmp_path / "wrong.toml"
    file.write_text(WRONG)
    command = [sys.executable, "-m", module, "--config", str(file), *PROCESSES[module]]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 2
    assert "fleet.colour: unknown key" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("package", ["router_svc", "telemetry_svc", "services.kit", "zeta_client"])
@pytest.mark.parametrize("said", ["", "INFO"])
def test_grpc_is_told_to_be_quiet_before_it_is_there(package: str, said: str) -> None:
    """It reads its verbosity when it is imported; what the user said stands."""
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_VERBOSITY"}
    if said:
        environment["GRPC_VERBOSITY"] = said
    shown = subprocess.run(
        [sys.executable, "-c", IMPORTED_FIRST.format(package=package)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )

    assert shown.stdout.split() == [said or "ERROR", "False"]


async def test_a_process_writes_its_own_events_alone(tmp_path: Path) -> None:
    """A router whose telemetry goes away asks again, and gRPC's core does not speak of it."""
    callers: list[asyncio.StreamWriter] = []
    again = asyncio.Event()

    async def go_away(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Greet with HTTP/2 SETTINGS; answer the call with GOAWAY for an INTERNAL_ERROR."""
        callers.append(writer)
        if len(callers) > 1:  # whoever comes back has read why
            again.set()
            return
        writer.write(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
        await reader.readuntil(b"/Watch")
        writer.write(bytes([0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]))

    server = await asyncio.start_server(go_away, "127.0.0.1")
    address = "{}:{}".format(*server.sockets[0].getsockname())
    file = tmp_path / "fleet.toml"
    file.write_text(ROUTER.format(telemetry=address, folder=tmp_path))
    environment = {k: v for k, v in os.environ.items() if k != "GRPC_VERBOSITY"}
    router = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "router_svc", "--config", str(file)),
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(30), server:
        await again.wait()
        router.terminate()
        _, said = await router.communicate()
        for caller in callers:
            caller.close()

    assert router.returncode == 0
    for line in said.splitlines():
        assert json.loads(line)["process"] == "router"
