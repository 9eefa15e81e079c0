"""docker-compose.yml, its image and its configuration agree, as far as files can show it."""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from services.kit import config
from zeta_client.fleet import processes

ROOT = Path(__file__).parents[2]
COMPOSE: Mapping[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
PROFILES = ("pocket", "h200")
"""Of the two fleets; pocket's services have none, and so are the default."""
IN_IMAGE = "/zeta/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One service of the compose file, its command taken apart."""

    name: str
    module: str
    options: Mapping[str, str]
    raw: Mapping[str, Any]

    @property
    def fleet(self) -> config.FleetConfig:
        """The configuration file that the command names."""
        return config.load(ROOT / self.options["--config"].removeprefix(IN_IMAGE))

    @property
    def probed(self) -> str:
        """The address that its health check asks."""
        test = self.raw["healthcheck"]["test"]
        assert test[:4] == ["CMD", "python", "-m", "services.kit.probe"]
        return str(test[4])

    @property
    def gpus(self) -> list[Any]:
        """Its GPU reservations."""
        resources = self.raw.get("deploy", {}).get("resources", {})
        return list(resources.get("reservations", {}).get("devices", []))


def services(profile: str) -> list[Service]:
    """Return the services of the fleet; pocket is the one without a profile."""
    return [
        Service(
            name=name,
            module=raw["command"][0],
            options=dict(zip(raw["command"][1::2], raw["command"][2::2], strict=True)),
            raw=raw,
        )
        for name, raw in COMPOSE["services"].items()
        if raw.get("profiles", ["pocket"]) == [profile]
    ]


def of_module(profile: str, module: str) -> list[Service]:
    return [s for s in services(profile) if s.module == module]


def replica_of(service: Service) -> tuple[str, int]:
    return service.options["--model"], int(service.options["--replica"])


def settings_of(service: Service) -> config.Replica:
    model, index = replica_of(service)
    return config.model_named(service.fleet, model).replicas[index]


def listen_of(service: Service) -> str:
    """Return where the configuration says that *service* answers its health check."""
    fleet = service.fleet
    match service.module:
        case "router_svc":
            return fleet.router.listen
        case "telemetry_svc":
            return fleet.telemetry.listen
        case "services.embedding":
            return fleet.embedding.replicas[int(service.options["--replica"])].listen
        case "services.model":
            return settings_of(service).listen
        case "telemetry_svc.agent":
            return f"http://{settings_of(service).agent_metrics}/metrics"
    raise AssertionError(service.module)


def test_the_specification_s_schema_accepts_it() -> None:
    """The compose specification's JSON schema, as check-jsonschema ships it, accepts the file."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    arguments = ["--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    done = subprocess.run(
        [checker, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_router_brings_its_fleet() -> None:
    """Starting a fleet's router starts all of that fleet and nothing of the other."""
    for profile in PROFILES:
        (router,) = of_module(profile, "router_svc")
        wanted, queue = set[str](), [router.name]
        while queue:
            name = queue.pop()
            wanted.add(name)
            queue += COMPOSE["services"][name].get("depends_on", ())

        assert wanted == {s.name for s in services(profile)}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_process_of_the_fleet_has_its_container(profile: str) -> None:
    """One router, one telemetry, every embedding replica, every model replica and its agent."""
    (router,) = of_module(profile, "router_svc")
    assert len(of_module(profile, "telemetry_svc")) == 1
    replicas = {(m.name, i) for m in router.fleet.models for i in range(len(m.replicas))}

    assert {replica_of(s) for s in of_module(profile, "services.model")} == replicas
    assert {replica_of(s) for s in of_module(profile, "telemetry_svc.agent")} == replicas
    assert len(of_module(profile, "services.embedding")) == len(router.fleet.embedding.replicas)
    assert len(services(profile)) == 2 * len(replicas) + len(router.fleet.embedding.replicas) + 2


@pytest.mark.parametrize("profile", PROFILES)
def test_one_configuration_per_profile(profile: str) -> None:
    """All containers of a profile read the same file, which is mounted and loads."""
    files = {s.options["--config"] for s in services(profile)}

    assert len(files) == 1
    assert all("./config:/zeta/config:ro" in s.raw["volumes"] for s in services(profile))
    assert files.pop().startswith(f"{IN_IMAGE}config/")


@pytest.mark.parametrize("profile", PROFILES)
def test_addresses_name_the_container_that_listens(profile: str) -> None:
    """A process listens on its own service name, and its health check asks there."""
    for service in services(profile):
        address = listen_of(service)
        host = address.removeprefix("http://").partition(":")[0]

        assert host == service.name
        assert service.probed == address


@pytest.mark.parametrize("profile", PROFILES)
def test_metrics_addresses_belong_to_the_same_container(profile: str) -> None:
    """No process serves its metrics under another container's name."""
    hosts = {s.name for s in services(profile)}
    fleet = services(profile)[0].fleet

    assert {a.rpartition(":")[0] for a in config.addresses(fleet)} == hosts
    for service in of_module(profile, "services.model"):
        assert settings_of(service).metrics.rpartition(":")[0] == service.name


@pytest.mark.parametrize("profile", PROFILES)
def test_agents_share_their_model_s_processes(profile: str) -> None:
    """An agent sees the process that its model reports by id."""
    models = {replica_of(s): s.name for s in of_module(profile, "services.model")}
    for agent in of_module(profile, "telemetry_svc.agent"):
        model = models[replica_of(agent)]

        assert agent.raw["pid"] == f"service:{model}"
        assert model in agent.raw["depends_on"]


def test_the_gpu_is_reserved_where_it_is_used() -> None:
    """Models and agents of the h200 profile reserve the GPU; nobody else does."""
    using = {"services.model", "telemetry_svc.agent"}
    for service in services("h200"):
        assert bool(service.gpus) == (service.module in using)
    assert not any(s.gpus for s in services("pocket"))
    for device in (d for s in services("h200") for d in s.gpus):
        assert device["driver"] == "nvidia"
        assert {"gpu", "utility"} <= set(device["capabilities"])


@pytest.mark.parametrize("profile", PROFILES)
def test_the_router_s_ports_are_published(profile: str) -> None:
    """Clients reach the router; Prometheus reaches its metrics from this machine only."""
    (router,) = of_module(profile, "router_svc")
    grpc_port, metrics_port = router.raw["ports"]

    assert grpc_port.endswith(f":{router.fleet.router.listen.rpartition(':')[2]}")
    assert metrics_port.endswith(f":{router.fleet.router.metrics.rpartition(':')[2]}")
    assert metrics_port.startswith("127.0.0.1:")
    assert published(profile).isdisjoint(*(published(p) for p in PROFILES if p != profile))
    assert not any("ports" in s.raw for s in services(profile) if s.name != router.name)


def published(profile: str) -> set[str]:
    """Return what *profile* publishes on this machine."""
    ports = [port for service in services(profile) for port in service.raw.get("ports", ())]
    return {port.rpartition(":")[0] for port in ports}


@pytest.mark.parametrize("profile", PROFILES)
def test_containers_run_as_little_as_they_can(profile: str) -> None:
    """Read-only, without privileges, restarted when they die, stopped after their drain."""
    for service in services(profile):
        assert service.raw["read_only"] is True
        assert service.raw["cap_drop"] == ["ALL"]
        assert service.raw["restart"] == "unless-stopped"
        grace_s = float(service.raw["stop_grace_period"].removesuffix("s"))
        assert grace_s > service.fleet.server.drain_grace_s


@pytest.mark.parametrize("profile", PROFILES)
def test_what_must_last_is_on_a_volume(profile: str) -> None:
    """Journal, encoder and plans are on declared volumes, weights are mounted read-only."""
    state = {"router_svc": f"{profile}-journal", "services.embedding": f"{profile}-cache"}
    for service in services(profile):
        if service.module in state:
            volume = state[service.module]
            assert f"{volume}:{service.fleet.fleet.state_dir}" in service.raw["volumes"]
            assert volume in COMPOSE["volumes"]
        if service.module == "services.model" and profile == "h200":
            assert any(v.endswith(":/models:ro") for v in service.raw["volumes"])
            assert f"{profile}-plans:{service.fleet.fleet.state_dir}" in service.raw["volumes"]
            assert f"{profile}-plans" in COMPOSE["volumes"]
            folder = config.model_named(service.fleet, service.options["--model"]).dir
            assert folder.startswith("/models/")


@pytest.mark.parametrize("module", sorted({s.module for s in services("pocket")}))
def test_commands_can_be_run(module: str) -> None:
    """What a container runs is a program, and knows the options that it is given."""
    told = subprocess.run(
        [sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True
    ).stdout

    for service in of_module("pocket", module):
        assert all(option in told for option in service.options)


def test_the_pocket_fleet_is_the_same_in_containers() -> None:
    """compose-pocket.toml differs from pocket.toml in addresses and the state's folder alone."""
    pocket, inside = (
        msgspec.to_builtins(config.load(ROOT / "config" / f"{name}.toml"))
        for name in ("pocket", "compose-pocket")
    )

    assert without_places(inside) == without_places(pocket)


def without_places(value: Any) -> Any:
    """Drop addresses and the state's folder, at any depth; paths are compared resolved."""
    if isinstance(value, dict):
        places = {"listen", "metrics", "agent_metrics", "state_dir"}
        return {k: without_places(v) for k, v in value.items() if k not in places}
    if isinstance(value, list | tuple):
        return [without_places(v) for v in value]
    return value


def test_the_image_holds_what_it_copies() -> None:
    """Every COPY source exists and passes .dockerignore; the user is not root."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    copied = [word for line in lines if line.startswith("COPY ") for word in line.split()[1:-1]]
    sources = [c for c in copied if not c.startswith(("--from", "/"))]
    users = [line.split()[1] for line in lines if line.startswith("USER ")]

    assert all((ROOT / s).exists() for s in sources)
    assert all(allowed(s) for s in sources)
    assert users
    assert not users[-1].startswith(("root", "0"))


def test_a_container_s_process_runs_as_one_of_zeta_up(tmp_path: Path) -> None:
    """With the same variables: a thread per core in every process would slow all of them."""
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    last = lines[[i for i, line in enumerate(lines) if line.startswith("FROM ")][-1] :]
    words = [word for line in last if line.startswith("ENV ") for word in line.split()[1:]]
    pocket = config.load(ROOT / "config" / "pocket.toml")
    started = processes.processes_of(pocket, tmp_path / "fleet.toml")

    assert started
    for process in started:
        assert {f"{name}={value}" for name, value in process.environment.items()} <= set(words)


def allowed(path: str) -> bool:
    """Whether .dockerignore lets *path* in: the last line that matches decides."""
    verdict = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#") and fnmatch(path, line.removeprefix("!")):
            verdict = line.startswith("!")
    return verdict
