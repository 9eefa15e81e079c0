"""Every process refuses a wrong configuration in the same way."""

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
