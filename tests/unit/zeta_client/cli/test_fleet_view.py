"""What `zeta top` makes of telemetry's messages."""

import io

import pytest
from google.protobuf.duration_pb2 import Duration
from rich.console import Console
from zeta.inference.v1.inference_service_pb2 import TASK_KIND_CODE
from zeta.model.v1.model_control_service_pb2 import Allocation, LatencySketch, ModelState, TaskStats
from zeta.router.v1.router_service_pb2 import Belief, Outlook
from zeta.telemetry.v1.telemetry_service_pb2 import (
    REPLICA_HEALTH_SERVING,
    REPLICA_HEALTH_SILENT,
    FleetDelta,
    FleetSnapshot,
    GpuUse,
    HistoryPoint,
    Rates,
    ReplicaHealth,
    ReplicaHistory,
    ReplicaReport,
    ReplicaStatus,
    WatchResponse,
)

from zeta_client.cli.fleet_view import FleetView, as_json, belief_table, fleet_table, quantile_s


def status(
    name: str,
    *gpus: GpuUse,
    health: ReplicaHealth.ValueType = REPLICA_HEALTH_SERVING,
    running: int = 1,
) -> ReplicaStatus:
    """Return the status of a replica that holds a quarter of its cache."""
    state = ModelState(
        model="m",
        running=running,
        kv_used_tokens=250,
        allocation=Allocation(max_running=16, kv_tokens=1000),
    )
    report = ReplicaReport(replica=name, state=state, gpus=gpus)
    return ReplicaStatus(report=report, age=Duration(nanos=200_000_000), health=health)


def snapshot(*statuses: ReplicaStatus) -> WatchResponse:
    """Return a whole fleet."""
    return WatchResponse(snapshot=FleetSnapshot(replicas=statuses))


def text(renderable: object, width: int = 200) -> str:
    """Render as a terminal of *width* would show it."""
    console = Console(file=io.StringIO(), width=width)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_deltas_replace_what_they_name() -> None:
    """A delta changes its replicas, removes those that are gone and leaves the rest."""
    view = FleetView()
    view.apply(snapshot(status("a"), status("b"), status("c")), 0.0)
    view.apply(
        WatchResponse(delta=FleetDelta(replicas=[status("b", running=7)], removed=["c"])), 0.0
    )

    assert [(r.replica, r.running) for r in view.rows(0.0)] == [("a", 1), ("b", 7)]


def test_a_snapshot_replaces_all() -> None:
    """What a snapshot does not name is gone."""
    view = FleetView()
    view.apply(snapshot(status("a")), 0.0)
    view.apply(snapshot(status("b")), 0.0)

    assert [r.replica for r in view.rows(0.0)] == ["b"]


def test_reports_age() -> None:
    """A report's age is its age when sent, and the time since."""
    view = FleetView()
    view.apply(snapshot(status("a")), 10.0)

    assert view.rows(12.0)[0].age_s == pytest.approx(2.2)


def test_a_report_that_holds_is_as_old_as_its_agents_readings() -> None:
    """While telemetry gives signs of life; after that, as old as the last one."""
    held = status("a")
    held.held = True
    held.report.read_every.FromMilliseconds(100)
    view = FleetView()
    view.apply(snapshot(held), 10.0)
    view.apply(WatchResponse(delta=FleetDelta()), 19.0)

    assert view.rows(20.0)[0].age_s == pytest.approx(0.1)
    assert view.rows(22.0)[0].age_s == pytest.approx(3.1)


def test_figures_of_a_row() -> None:
    """Cache use is a ratio, speed a mean over history, GPUs a mean and a sum."""
    view = FleetView()
    gpus = [GpuUse(utilization_ratio=u, memory_used_bytes=100) for u in (0.2, 0.4)]
    view.apply(snapshot(status("a", *gpus)), 0.0)
    points = [HistoryPoint(rates=Rates(completion_tokens_per_s=v)) for v in (10, 30)]
    view.histories = {"a": ReplicaHistory(replica="a", points=points)}
    (row,) = view.rows(0.0)

    assert (row.kv_ratio, row.tokens_per_s) == (0.25, 20)
    assert row.gpu_ratio == pytest.approx(0.3)
    assert row.gpu_memory_bytes == 200
    assert row.ttft_p50_s is None


def test_quantiles_add_sketches_up() -> None:
    """The quantile of two sketches is that of all their counts, a bucket's width from exact."""
    early, late = (
        LatencySketch(buckets=[bucket], counts=[count]) for bucket, count in ((10, 98), (90, 2))
    )

    assert quantile_s([early, late], 0.5) == pytest.approx(1.1**10 * 1e-6)
    assert quantile_s([early, late], 0.99) == pytest.approx(1.1**90 * 1e-6)
    assert quantile_s([], 0.5) is None


def test_latencies_come_from_history() -> None:
    """A row's latency is that of all its kinds of task inside the window."""
    view = FleetView()
    view.apply(snapshot(status("a")), 0.0)
    tasks = [TaskStats(kind=TASK_KIND_CODE, ttft=LatencySketch(buckets=[72], counts=[1]))]
    view.histories = {"a": ReplicaHistory(replica="a", tasks=tasks)}

    assert view.rows(0.0)[0].ttft_p99_s == pytest.approx(1e-3, rel=0.1)


def test_a_wide_terminal_shows_what_is_not_known() -> None:
    """Unknown figures are dashes, and a silent replica is called silent."""
    view = FleetView()
    view.apply(snapshot(status("a", health=REPLICA_HEALTH_SILENT)), 0.0)

    shown = text(fleet_table(view.rows(0.0), 200))

    assert "silent" in shown
    assert "forecast" in shown


def test_a_narrow_terminal_is_not_overrun() -> None:
    """At 80 columns nothing is cut, and columns without a figure are left out."""
    view = FleetView()
    view.apply(snapshot(status("reasoner-14b-0")), 0.0)

    shown = text(fleet_table(view.rows(0.0), 80), width=80)

    assert "…" not in shown
    assert "forecast" not in shown


def test_beliefs() -> None:
    """Beliefs are a row per model, and a figure that is not there is a dash."""
    belief = Belief(model="m", task_kind=TASK_KIND_CODE, quality=0.75, outcomes=12)

    assert "0.75 ± 0.00 (12)" in text(belief_table([belief]))
    assert as_json([], [belief])["beliefs"][0]["task_kind"] == "code"


def test_what_the_router_foresees_stands_beside_its_model() -> None:
    """Price and forecast of the model, in the table and as JSON; none where the router is away."""
    view = FleetView()
    view.apply(snapshot(status("a")), 0.0)
    unknown = view.rows(0.0)
    view.outlooks = {"m": Outlook(model="m", shadow_price=0.125, forecast_requests_per_s=7.5)}
    rows = view.rows(0.0)

    assert unknown[0].shadow_price is None
    assert "0.125" in text(fleet_table(rows, 200))
    assert "7.5/s" in text(fleet_table(rows, 200))
    assert as_json(rows, [])["replicas"][0]["forecast_requests_per_s"] == 7.5
