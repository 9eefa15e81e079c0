"""Which processes a configuration asks for."""

import os
from pathlib import Path

import pytest

from services.kit.config import FleetConfig, addresses, dump, load
from services.kit.errors import ConfigError
from zeta_client.cli.shell import default_config
from zeta_client.fleet.local import fleet, held
from zeta_client.fleet.processes import in_state_dir, on_free_ports, processes_of


@pytest.fixture
def pocket() -> FleetConfig:
    """Return the configuration that ships in the box."""
    return load(default_config())


def test_the_pocket_fleet_is_nine_processes(pocket: FleetConfig) -> None:
    """One agent goes with each model replica, and only agents have no server."""
    found = {p.name: p for p in processes_of(pocket, Path("fleet.toml"))}

    models = {"general-4b-0", "coder-7b-0", "reasoner-14b-0"}
    agents = {f"agent-{name}" for name in models}
    assert found.keys() == {"telemetry", "router", "embedding-0", *models, *agents}
    assert {name for name, p in found.items() if not p.address} == agents


def test_the_router_stops_first_and_telemetry_last(pocket: FleetConfig) -> None:
    """Work stops coming before anybody stops doing it; reports are heard to the end."""
    turns = {p.name: p.stopped_in for p in processes_of(pocket, Path("fleet.toml"))}
    router, telemetry = turns.pop("router"), turns.pop("telemetry")

    assert router < min(turns.values())
    assert telemetry > max(turns.values())


def test_commands_name_their_replica(pocket: FleetConfig) -> None:
    """A model process learns its model and replica from its command line."""
    found = {p.name: p.command for p in processes_of(pocket, Path("fleet.toml"))}

    assert found["coder-7b-0"][-7:] == (
        *("services.model", "--config", "fleet.toml"),
        *("--model", "coder-7b", "--replica", "0"),
    )


def test_free_ports_are_all_different(pocket: FleetConfig, tmp_path: Path) -> None:
    """Every address moves to a port of its own, and the result is a valid configuration."""
    moved = on_free_ports(pocket)
    before, after = list(addresses(pocket)), list(addresses(moved))

    assert len(set(after)) == len(before)
    assert not set(after) & set(before)
    file = tmp_path / "fleet.toml"
    file.write_bytes(dump(moved))
    assert load(file) == moved


def test_addresses_that_are_off_stay_off(pocket: FleetConfig, tmp_path: Path) -> None:
    """A process without a metrics port is not given one."""
    text = dump(pocket).decode().replace('metrics = "127.0.0.1:9071"', 'metrics = ""')
    file = tmp_path / "fleet.toml"
    file.write_text(text)

    assert on_free_ports(load(file)).telemetry.metrics == ""


async def test_one_state_directory_serves_one_fleet(pocket: FleetConfig, tmp_path: Path) -> None:
    """A second fleet on the same state is refused, with what to do about it."""
    with held(tmp_path), pytest.raises(ConfigError, match=rf"process {os.getpid()} .*--state-dir"):
        await fleet(in_state_dir(pocket, tmp_path)).__aenter__()
