"""Rows of what `zeta top` shows: replicas, models' kinds of task, GPUs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.model.v1.model_control_service_pb2 import LatencySketch, TaskStats
from zeta.router.v1.router_service_pb2 import Belief
from zeta.telemetry.v1.telemetry_service_pb2 import (
    ClockReason,
    GpuUse,
    ReplicaHealth,
    ReplicaHistory,
    ReplicaStatus,
)

RATE_POINTS = 10
"""Tokens per second are the mean of so many points of history, which are a second apart."""
_GROWTH = 1.1
_HELD_DOWN = {
    "SW_POWER_CAP": "power",
    "HW_SLOWDOWN": "slowdown",
    "SW_THERMAL": "heat",
    "HW_THERMAL": "heat",
    "HW_POWER_BRAKE": "power brake",
    "BOARD_LIMIT": "board",
    "RELIABILITY": "reliability",
}
"""Reasons that nobody chose, in a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One replica; None where nothing is known."""

    replica: str
    model: str
    health: str
    age_s: float
    running: int
    slots: int
    waiting: int
    kv_ratio: float
    tokens_per_s: float
    ttft_p50_s: float | None
    ttft_p99_s: float | None
    cpu_ratio: float
    rss_bytes: int
    gpu_ratio: float | None
    gpu_memory_bytes: int | None
    shadow_price: float | None = None
    """Of its model, as the next one."""
    forecast_requests_per_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """One model on one kind of task, over all its replicas; None where nothing is known."""

    model: str
    task_kind: str
    quality: float | None = None
    """Expected score of its answers, as the router learned it."""
    quality_stddev: float | None = None
    outcomes: float | None = None
    preferred: bool = False
    """Whether no other model is expected to be better here."""
    requests_per_s: float = 0.0
    """This and what follows is of the last minute."""
    tokens_per_s: float = 0.0
    ttft_p50_s: float | None = None
    ttft_p99_s: float | None = None
    tpot_p50_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuRow:
    """One GPU; None where nothing is known."""

    uuid: str
    name: str
    utilization_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    power_w: float | None
    power_limit_w: float | None
    temperature_c: float | None
    sm_clock_hz: float | None
    throttled_by: tuple[str, ...] | None
    """Empty: not throttled."""
    errors: int | None
    """That could not be corrected, and Xids."""
    tensor_active_ratio: float | None
    dram_active_ratio: float | None


def kind_text(kind: TaskKind.ValueType) -> str:
    """Return a kind of task in lower case: "code"."""
    return TaskKind.Name(kind).removeprefix("TASK_KIND_").lower()


def quantile_s(sketches: Iterable[LatencySketch], q: float) -> float | None:
    """Return the *q* quantile of all the sketches together, exact within 10 %; None of nothing."""
    counts: dict[int, int] = {}
    for sketch in sketches:
        for bucket, count in zip(sketch.buckets, sketch.counts, strict=True):
            counts[bucket] = counts.get(bucket, 0) + count
    left = q * sum(counts.values())
    for bucket in sorted(counts):
        left -= counts[bucket]
        if left <= 0:
            return _GROWTH**bucket * 1e-6
    return None


def replica_row(status: ReplicaStatus, age_s: float, history: ReplicaHistory) -> Row:
    """Put a replica's row together from its last word and its past."""
    report, state = status.report, status.report.state
    ttft = [task.ttft for task in history.tasks]
    rates = [point.rates.completion_tokens_per_s for point in history.points[-RATE_POINTS:]]
    return Row(
        replica=report.replica,
        model=state.model,
        health=ReplicaHealth.Name(status.health).removeprefix("REPLICA_HEALTH_").lower(),
        age_s=age_s,
        running=state.running,
        slots=state.allocation.max_running,
        waiting=state.waiting,
        kv_ratio=state.kv_used_tokens / max(state.allocation.kv_tokens, 1),
        tokens_per_s=sum(rates) / max(len(rates), 1),
        ttft_p50_s=quantile_s(ttft, 0.5),
        ttft_p99_s=quantile_s(ttft, 0.99),
        cpu_ratio=report.process.cpu_ratio,
        rss_bytes=report.process.rss_bytes,
        gpu_ratio=_mean([g.utilization_ratio for g in report.gpus if _has(g, "utilization_ratio")]),
        gpu_memory_bytes=_total(
            [g.memory_used_bytes for g in report.gpus if _has(g, "memory_used_bytes")]
        ),
    )


def span_s(history: ReplicaHistory) -> float:
    """Return the time that a history covers, at least a second."""
    if not history.points:
        return 1.0
    first, last = history.points[0].time, history.points[-1].time
    return max(1.0, (last.ToNanoseconds() - first.ToNanoseconds()) / 1e9)


def task_row(model: str, kind: TaskKind.ValueType) -> TaskRow:
    """Begin the row of a model on a kind of task."""
    return TaskRow(model=model, task_kind=kind_text(kind))


def believed(b: Belief) -> TaskRow:
    """Return the row of what the router learned."""
    return replace(
        task_row(b.model, b.task_kind),
        quality=b.quality,
        quality_stddev=b.quality_stddev,
        outcomes=b.outcomes,
    )


def measured(row: TaskRow, done: Sequence[tuple[TaskStats, float]]) -> TaskRow:
    """Add what replicas did, each in its own time."""
    ttft = [stats.ttft for stats, _ in done]
    return replace(
        row,
        requests_per_s=sum(stats.requests_total / span_s for stats, span_s in done),
        tokens_per_s=sum(stats.completion_tokens_total / span_s for stats, span_s in done),
        ttft_p50_s=quantile_s(ttft, 0.5),
        ttft_p99_s=quantile_s(ttft, 0.99),
        tpot_p50_s=quantile_s([stats.tpot for stats, _ in done], 0.5),
    )


def gpu_row(gpu: GpuUse) -> GpuRow:
    """Return a GPU's row."""
    known: dict[str, Any] = {field.name: value for field, value in gpu.ListFields()}
    inside: dict[str, Any] = {field.name: value for field, value in gpu.profile.ListFields()}
    errors = [known[name] for name in ("ecc_uncorrected_total", "xid_total") if name in known]
    names = [ClockReason.Name(r).removeprefix("CLOCK_REASON_") for r in gpu.clock_reasons]
    return GpuRow(
        uuid=gpu.uuid,
        name=gpu.name,
        utilization_ratio=known.get("utilization_ratio"),
        memory_used_bytes=known.get("memory_used_bytes"),
        memory_total_bytes=known.get("memory_total_bytes"),
        power_w=known.get("power_w"),
        power_limit_w=known.get("power_limit_w"),
        temperature_c=known.get("temperature_c"),
        sm_clock_hz=known.get("sm_clock_hz"),
        throttled_by=(
            tuple(_HELD_DOWN[name] for name in names if name in _HELD_DOWN)
            if "throttled" in known
            else None
        ),
        errors=sum(errors) if errors else None,
        tensor_active_ratio=inside.get("tensor_active_ratio"),
        dram_active_ratio=inside.get("dram_active_ratio"),
    )


def _has(gpu: GpuUse, name: str) -> bool:
    return gpu.HasField(name)  # type: ignore[arg-type] # the names are two constants above


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _total(values: Sequence[int]) -> int | None:
    return sum(values) if values else None
