"""The fleet on the metrics page."""

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from zeta.model.v1.model_control_service_pb2 import Allocation, ModelState
from zeta.telemetry.v1.telemetry_service_pb2 import GpuUse, ProcessUse, Rates, ReplicaReport

from telemetry_svc.core.fleet import Health
from telemetry_svc.core.sketch import TaskTotals, sketch
from telemetry_svc.prometheus import Shown, families

STATE = ModelState(
    model="m",
    running=3,
    waiting=4,
    allocation=Allocation(kv_tokens=200),
    kv_used_tokens=50,
    requests_total=9,
)
FULL = ReplicaReport(
    replica="m-0",
    alive=True,
    state=STATE,
    process=ProcessUse(cpu_ratio=0.5, rss_bytes=1000, threads=4),
    gpus=[GpuUse(uuid="GPU-1", name="board", utilization_ratio=0.0, memory_used_bytes=7)],
    rates=Rates(completion_tokens_per_s=12.5),
)
REPLICA = {"model": "m", "replica": "m-0"}


class Page:
    """The metrics of some replicas, as a scrape reads them."""

    def __init__(self, *shown: Shown) -> None:
        self.registry = CollectorRegistry()
        self._shown = shown
        self.registry.register(self)

    def collect(self) -> list[Metric]:
        """Yield them anew at each scrape."""
        return list(families(self._shown))

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return one sample of the replica."""
        return self.registry.get_sample_value(name, REPLICA | labels)


def shown(report: ReplicaReport = FULL, health: Health = Health.SERVING) -> Shown:
    ttft = sketch([100], [4], 0.0)
    return Shown(report=report, age_s=0.25, health=health, tasks={1: TaskTotals(ttft=ttft)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("zeta_replica_running", 3),
        ("zeta_replica_waiting", 4),
        ("zeta_replica_kv_usage_ratio", 0.25),
        ("zeta_replica_completion_tokens_per_second", 12.5),
        ("zeta_replica_requests_total", 9),
        ("zeta_replica_report_age_seconds", 0.25),
        ("zeta_replica_up", 1),
        ("process_cpu_utilization_ratio", 0.5),
        ("process_memory_usage_bytes", 1000),
    ],
)
def test_shows_every_figure_per_replica(name: str, value: float) -> None:
    """Each is labelled with model and replica."""
    assert Page(shown())(name) == value


def test_shows_gpus_by_their_id_and_leaves_out_what_they_do_not_give() -> None:
    """A figure of zero is shown, one that is not given is not."""
    page, gpu = Page(shown()), {"hw_id": "GPU-1", "hw_name": "board"}

    assert page("hw_gpu_utilization_ratio", **gpu) == 0.0
    assert page("hw_gpu_memory_usage_bytes", **gpu) == 7
    assert page("hw_power_watts", **gpu) is None


def test_shows_quantiles_of_what_was_measured() -> None:
    """Time to first token has quantiles; with no token after the first, the other has none."""
    page, labels = Page(shown()), {"task": "code", "quantile": "0.5"}

    assert page("zeta_replica_ttft_seconds", **labels) == pytest.approx(1.1**100 * 2e-6 / 2.1)
    assert page("zeta_replica_tpot_seconds", **labels) is None


def test_a_replica_without_process_figures_shows_none() -> None:
    """Unreadable is left out, not zero."""
    bare = ReplicaReport(replica="m-0", state=ModelState(model="m"))
    page = Page(shown(bare, Health.SILENT))

    assert page("process_memory_usage_bytes") is None
    assert page("zeta_replica_up") == 0
