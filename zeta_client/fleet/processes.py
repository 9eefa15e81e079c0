"""Which processes a fleet configuration asks for, and on which addresses; nothing starts here."""

import socket
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from services.kit.config import FleetConfig, addresses, replica_name

Section = TypeVar("Section", bound=msgspec.Struct)
# Who sends work stops before who does it, and who is reported to after who reports.
_STOPPED_IN = {"router": 0, "telemetry": 2}
_ADDRESS_KEYS = ("listen", "metrics", "agent_metrics")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process: how to start it, and how to see that it works."""

    name: str
    """Unique in the fleet; names its log."""
    command: tuple[str, ...]
    environment: Mapping[str, str]
    """Added to the supervisor's own."""
    address: str = ""
    """The gRPC server whose health says when it is ready; empty: it has none."""
    stopped_in: int = 1
    """Low numbers are stopped first."""


def processes_of(config: FleetConfig, file: Path) -> tuple[Process, ...]:
    """List the processes of *config*, which *file* holds, in no particular order."""

    def process(name: str, module: str, *options: str, threads: int = 1, address: str) -> Process:
        return Process(
            name=name,
            command=(sys.executable, "-P", "-m", module, "--config", str(file), *options),
            environment=_environment(threads),
            address=address,
            stopped_in=_STOPPED_IN.get(name, 1),
        )

    found = [
        process("telemetry", "telemetry_svc", address=config.telemetry.listen),
        process("router", "router_svc", address=config.router.listen),
    ]
    threads = config.embedding.threads
    for i, replica in enumerate(config.embedding.replicas):
        name, options = f"embedding-{i}", ("--replica", str(i))
        found.append(
            process(name, "services.embedding", *options, threads=threads, address=replica.listen)
        )
    for model in config.models:
        for i, served in enumerate(model.replicas):
            name, which = replica_name(model.name, i), ("--model", model.name, "--replica", str(i))
            found += (
                process(
                    name, "services.model", *which, threads=model.threads, address=served.listen
                ),
                process(f"agent-{name}", "telemetry_svc.agent", *which, address=""),
            )
    return tuple(found)


def on_free_ports(config: FleetConfig) -> FleetConfig:
    """Move every address of *config* to a port of 127.0.0.1 that is free right now."""
    with ExitStack() as held:
        ports = []
        for _ in addresses(config):
            one = held.enter_context(socket.socket())
            one.bind(("127.0.0.1", 0))
            ports.append(one.getsockname()[1])
    return _moved(config, lambda: f"127.0.0.1:{ports.pop()}")


def in_state_dir(config: FleetConfig, folder: Path) -> FleetConfig:
    """Let *config* keep its state in *folder*."""
    fleet = msgspec.structs.replace(config.fleet, state_dir=str(folder.resolve()))
    return msgspec.structs.replace(config, fleet=fleet)


def _moved(config: FleetConfig, address: Callable[[], str]) -> FleetConfig:
    replace = msgspec.structs.replace

    def moved(section: Section) -> Section:
        keys = [key for key in _ADDRESS_KEYS if getattr(section, key, "")]
        return replace(section, **{key: address() for key in keys})

    return replace(
        config,
        telemetry=moved(config.telemetry),
        router=moved(config.router),
        embedding=replace(
            config.embedding, replicas=tuple(moved(r) for r in config.embedding.replicas)
        ),
        models=tuple(
            replace(m, replicas=tuple(moved(r) for r in m.replicas)) for m in config.models
        ),
    )


def _environment(threads: int) -> dict[str, str]:
    """Keep numeric libraries from starting a thread per core in every process."""
    pools = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        **dict.fromkeys(pools, str(threads)),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
    }
