"""What the manual says about metrics holds for the fleet that runs."""

import asyncio
import re
import urllib.request
from typing import TYPE_CHECKING

from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import ROOT, Fleet

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

NEEDS_A_GPU = re.compile(r"hw_|zeta_replica_gpu_")


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


async def test_every_documented_metric_is_exported(
    router: "InferenceServiceAsyncStub", fleet: Fleet
) -> None:
    """Each name in the manual is on some page of a fleet that has answered, GPUs aside."""
    async with fleet.channel(fleet.model("coder-7b")) as channel:
        await answer(InferenceServiceStub(channel).Generate(question(), timeout=TIMEOUT_S))
    await answer(router.Generate(question(), timeout=TIMEOUT_S))
    found = await asyncio.gather(*(asyncio.to_thread(exported, page) for page in pages(fleet)))
    missing = documented() - set[str]().union(*found)

    assert len(documented()) > 30
    assert not {name for name in missing if not NEEDS_A_GPU.match(name)}
