"""What `zeta top` makes of telemetry's messages."""

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from zeta.inference.v1.inference_service_pb2 import TASK_KIND_CODE
from zeta.model.v1.model_control_service_pb2 import Allocation, LatencySketch, ModelState, TaskStats
from zeta.router.v1.router_service_pb2 import Belief
from zeta.telemetry.v1.telemetry_service_pb2 import (
    CLOCK_REASON_HW_THERMAL,
    CLOCK_REASON_SYNC_BOOST,
    REPLICA_HEALTH_SERVING,
    FleetDelta,
    FleetSnapshot,
    GpuProfile,
    GpuUse,
    HistoryPoint,
    Rates,
    ReplicaHealth,
    ReplicaHistory,
    ReplicaReport,
    ReplicaStatus,
    WatchResponse,
)

from zeta_client.cli.fleet_view import FleetView, as_json


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


def test_latencies_come_from_history() -> None:
    """A row's latency is that of all its kinds of task inside the window."""
    view = FleetView()
    view.apply(snapshot(status("a")), 0.0)
    tasks = [TaskStats(kind=TASK_KIND_CODE, ttft=LatencySketch(buckets=[72], counts=[1]))]
    view.histories = {"a": ReplicaHistory(replica="a", tasks=tasks)}

    assert view.rows(0.0)[0].ttft_p99_s == pytest.approx(1e-3, rel=0.1)


def belief(model: str, quality: float, outcomes: float = 12) -> Belief:
    """Return what is believed of a model on code."""
    return Belief(model=model, task_kind=TASK_KIND_CODE, quality=quality, outcomes=outcomes)


def history(seconds: int, **tasks: int) -> ReplicaHistory:
    """Return a past of so many seconds in which so many coding requests were answered."""
    points = [HistoryPoint(time=Timestamp(seconds=100)), HistoryPoint()]
    points[1].time.seconds = 100 + seconds
    ttft, tpot = (LatencySketch(buckets=[b], counts=[1]) for b in (90, 40))
    stats = TaskStats(kind=TASK_KIND_CODE, ttft=ttft, tpot=tpot, **tasks)
    return ReplicaHistory(points=points, tasks=[stats])


def test_a_models_work_per_kind_of_task_is_that_of_its_replicas() -> None:
    """Throughput adds up, each replica's over its own time; latencies join."""
    view = FleetView()
    view.apply(snapshot(status("a"), status("b")), 0.0)
    view.histories = {
        "a": history(60, requests_total=60, completion_tokens_total=600),
        "b": history(10, requests_total=20, completion_tokens_total=100),
    }
    view.beliefs = [belief("m", 0.8)]
    row = next(row for row in view.tasks() if row.task_kind == "code")

    assert (row.model, row.quality, row.outcomes) == ("m", 0.8, 12)
    assert (row.requests_per_s, row.tokens_per_s) == (3.0, 20.0)
    assert row.ttft_p50_s == pytest.approx(1.1**90 * 1e-6)
    assert row.tpot_p50_s == pytest.approx(1.1**40 * 1e-6)


def test_the_best_model_of_a_kind_is_preferred() -> None:
    """One alone is; of two that are equal as far as it is shown, none."""
    view = FleetView(beliefs=[belief("a", 0.7), belief("b", 0.9), belief("c", 0.8)])
    assert [row.model for row in view.tasks() if row.preferred] == ["b"]

    view.beliefs = [belief("a", 0.7), belief("b", 0.701)]
    assert not any(row.preferred for row in view.tasks())


def test_a_kind_that_nobody_does_is_left_out() -> None:
    """Unless it was asked for or judged; the usual three are always there."""
    prior = [Belief(model="m", task_kind=kind, quality=0.5) for kind in (1, 2, 3, 4)]  # type: ignore[arg-type]
    view = FleetView(beliefs=prior)
    assert [row.task_kind for row in view.tasks()] == ["code", "reasoning", "general"]

    prior[3].outcomes = 0.01  # of a question of another kind
    assert [row.task_kind for row in view.tasks()] == ["code", "reasoning", "general"]
    prior[3].outcomes = 1.0
    assert [row.task_kind for row in view.tasks()][3:] == ["embedding"]


def test_a_gpu_that_several_replicas_report_is_one() -> None:
    """Its figures are there; what it does not give is not known."""
    view = FleetView()
    board = GpuUse(
        uuid="GPU-0",
        power_w=300.0,
        throttled=True,
        clock_reasons=[CLOCK_REASON_SYNC_BOOST, CLOCK_REASON_HW_THERMAL],
        ecc_uncorrected_total=1,
        xid_total=2,
        profile=GpuProfile(tensor_active_ratio=0.5),
    )
    view.apply(snapshot(status("a", board), status("b", board, GpuUse(uuid="GPU-1"))), 0.0)
    hot, quiet = view.gpus()

    assert (hot.power_w, hot.errors, hot.throttled_by) == (300.0, 3, ("heat",))
    assert (hot.tensor_active_ratio, hot.utilization_ratio) == (0.5, None)
    assert (quiet.errors, quiet.throttled_by) == (None, None)


def test_the_object_of_json_holds_all_of_it() -> None:
    """Replicas, kinds of task and GPUs, in units that their names say."""
    view = FleetView(beliefs=[belief("m", 0.75)])
    view.apply(snapshot(status("a", GpuUse(uuid="GPU-0"))), 0.0)
    found = as_json(view, 0.0)

    assert found["replicas"][0]["replica"] == "a"
    assert found["tasks"][0]["quality"] == 0.75
    assert found["gpus"][0]["uuid"] == "GPU-0"
