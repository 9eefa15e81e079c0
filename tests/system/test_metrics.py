"""What the manual says about metrics holds for the fleet that runs."""

import asyncio
import re
import urllib.request
from typing import TYPE_CHECKING

from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from telemetry_svc import gpu_metrics
from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import ROOT, Fleet

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

NEEDS_A_GPU = re.compile(r"hw_|zeta_replica_gpu_")
OF_THE_CLIENT = re.compile(
    r"python_|process_(virtual|resident|start_time|cpu_seconds|open_fds|max_fds)|\w+_created$"
)
"""What prometheus_client itself puts on every page."""


def documented() -> set[str]:
    """Return the names in the manual's table of metrics."""
    manual = (ROOT / "docs" / "operations.md").read_text()
    section = manual.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


def pages(fleet: Fleet) -> list[str]:
    """Return the address of every metrics page."""
    replicas = [r for model in fleet.config.models for r in model.replicas]
    return [
        fleet.config.router.metrics,
        fleet.config.telemetry.metrics,
        *(replica.metrics for replica in fleet.config.embedding.replicas),
        *(replica.metrics for replica in replicas),
        *(replica.agent_metrics for replica in replicas),
    ]


def exported(address: str) -> set[str]:
    """Return the names that a page declares."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
        return set(re.findall(r"^# TYPE (\w+)", page.read().decode(), flags=re.MULTILINE))


async def test_metrics_and_manual_agree(router: "InferenceServiceAsyncStub", fleet: Fleet) -> None:
    """Each name in the manual is on some page of a fleet that has answered, and the reverse."""
    async with fleet.channel(fleet.model("coder-7b")) as channel:
        await answer(InferenceServiceStub(channel).Generate(question(), timeout=TIMEOUT_S))
    await answer(router.Generate(question(), timeout=TIMEOUT_S))
    found = await asyncio.gather(*(asyncio.to_thread(exported, page) for page in pages(fleet)))
    everything = set[str]().union(*found)
    missing = documented() - everything

    assert len(documented()) > 30
    assert not {name for name in missing if not NEEDS_A_GPU.match(name)}
    assert not {name for name in everything - documented() if not OF_THE_CLIENT.match(name)}


def test_every_metric_of_gpus_is_documented_and_none_besides() -> None:
    """There may be no GPU here: the names are those of the page's own tables."""
    named = {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in gpu_metrics.families([])
    }

    assert named == {name for name in documented() if NEEDS_A_GPU.match(name)}
