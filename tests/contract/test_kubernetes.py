"""The Kubernetes manifests and the configuration that they mount agree."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.kit import config

HERE = Path(__file__).parents[2] / "deploy" / "kubernetes"
FLEET = config.load(HERE / "fleet.toml")
KUSTOMIZATION: Mapping[str, Any] = yaml.safe_load((HERE / "kustomization.yaml").read_text())
Object = Mapping[str, Any]


def objects(kind: str) -> Iterator[Object]:
    """Yield every object of *kind* that the kustomization lists."""
    for file in KUSTOMIZATION["resources"]:
        found = yaml.safe_load_all((HERE / file).read_text())
        yield from (o for o in found if o["kind"] == kind)


SETS = {o["metadata"]["name"]: o for o in objects("StatefulSet")}
MODELS = [model.name for model in FLEET.models]


def pod(name: str) -> Object:
    spec: Object = SETS[name]["spec"]["template"]["spec"]
    return spec


def containers(name: str) -> list[Object]:
    return [*pod(name).get("initContainers", []), *pod(name)["containers"]]


def addresses_of(name: str) -> list[str]:
    """Return where the configuration says that the pods of *name* serve."""
    if name in MODELS:
        return [r.listen for r in config.model_named(FLEET, name).replicas]
    if name == "embedding":
        return [r.listen for r in FLEET.embedding.replicas]
    return [{"router": FLEET.router.listen, "telemetry": FLEET.telemetry.listen}[name]]


def test_every_process_has_its_pods() -> None:
    """Router, telemetry, embedding and each model are there, with all their replicas."""
    assert set(SETS) == {"router", "telemetry", "embedding", *MODELS}
    for name, one in SETS.items():
        assert one["spec"]["replicas"] == len(addresses_of(name))


@pytest.mark.parametrize("name", SETS)
def test_addresses_are_the_pods_own_names(name: str) -> None:
    """A pod listens on the stable name that its headless service gives it."""
    (service,) = [o for o in objects("Service") if o["metadata"]["name"] == name]
    spec = SETS[name]["spec"]
    assert spec["serviceName"] == name
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    domain = f"{name}.{KUSTOMIZATION['namespace']}.svc.cluster.local"
    port = service["spec"]["ports"][0]["port"]

    assert addresses_of(name) == [f"{name}-{i}.{domain}:{port}" for i in range(spec["replicas"])]
    assert service["spec"]["selector"].items() <= spec["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("name", SETS)
def test_ports_and_probes_are_those_of_the_configuration(name: str) -> None:
    """Every container's ports are what its process listens on, and the probes ask there."""
    port = int(addresses_of(name)[0].rpartition(":")[2])
    (main,) = pod(name)["containers"]

    assert main["ports"][0]["containerPort"] == port
    assert main["readinessProbe"]["grpc"]["port"] == main["startupProbe"]["grpc"]["port"] == port


@pytest.mark.parametrize("name", MODELS)
def test_every_model_has_its_sidecar(name: str) -> None:
    """The agent starts first, sees the model's process, and both know which replica they are."""
    (agent,), (model,) = pod(name)["initContainers"], pod(name)["containers"]

    assert pod(name)["shareProcessNamespace"] is True
    assert agent["restartPolicy"] == "Always"
    assert agent["args"][0] == "telemetry_svc.agent"
    assert model["args"][0] == "services.model"
    assert agent["args"][1:] == model["args"][1:]
    assert model["args"][-2:] == ["--replica", "$(REPLICA)"]
    assert model["resources"]["limits"]["nvidia.com/gpu"] == 1


@pytest.mark.parametrize("name", SETS)
def test_what_is_mounted_exists(name: str) -> None:
    """Mounts name volumes of the pod; the configuration is the generated one."""
    claimed = [c["metadata"]["name"] for c in SETS[name]["spec"].get("volumeClaimTemplates", [])]
    volumes = {v["name"] for v in pod(name)["volumes"]} | set(claimed)
    (fleet,) = [v for v in pod(name)["volumes"] if v["name"] == "fleet"]

    for container in containers(name):
        mounts = {m["mountPath"]: m["name"] for m in container["volumeMounts"]}
        assert set(mounts.values()) <= volumes
        assert mounts["/config"] == "fleet"
        assert container["args"][1:3] == ["--config", "/config/fleet.toml"]
    assert fleet["configMap"]["name"] == KUSTOMIZATION["configMapGenerator"][0]["name"]
    assert KUSTOMIZATION["configMapGenerator"][0]["files"] == ["fleet.toml"]


def test_the_journal_lasts() -> None:
    """What the router learns is on a claim of its own, under the state's folder."""
    (claim,) = SETS["router"]["spec"]["volumeClaimTemplates"]
    (main,) = pod("router")["containers"]
    mounts = {m["name"]: m["mountPath"] for m in main["volumeMounts"]}

    assert mounts[claim["metadata"]["name"]] == FLEET.fleet.state_dir


@pytest.mark.parametrize("name", SETS)
def test_pods_run_as_little_as_they_can(name: str) -> None:
    """Not root, read-only, without capabilities, and stopped after their drain."""
    assert pod(name)["securityContext"]["runAsNonRoot"] is True
    assert pod(name)["terminationGracePeriodSeconds"] > FLEET.server.drain_grace_s
    for container in containers(name):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


@pytest.mark.parametrize("name", ["router", *MODELS])
def test_a_secret_of_tickets_reaches_who_signs_and_who_checks(name: str) -> None:
    """Where it is, the router and the models have its keys; where it is not, they start as well."""
    (volume,) = [v for v in pod(name)["volumes"] if v["name"] == "tickets"]
    assert volume["secret"] == {"secretName": "tickets", "optional": True}
    (process,) = pod(name)["containers"]
    mounted = {m["name"]: m["mountPath"] for m in process["volumeMounts"]}
    said = (HERE / "fleet.toml").read_text()
    assert f'# keys = "{mounted["tickets"]}/tickets.keys"' in said
