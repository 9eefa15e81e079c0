"""Protobuf to values and back, and the refusal of reports that make no sense."""

import re
from collections.abc import Iterable, Sequence
from math import isfinite, isnan, nan

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from zeta.model.v1.model_control_service_pb2 import LatencySketch, ModelState, TaskStats
from zeta.telemetry.v1.telemetry_service_pb2 import (
    FleetDelta,
    FleetSnapshot,
    GpuUse,
    HistoryPoint,
    ProcessUse,
    Rates,
    ReplicaHealth,
    ReplicaHistory,
    ReplicaReport,
    ReplicaStatus,
    WatchResponse,
)

from services.kit.errors import invalid
from telemetry_svc.core.fleet import Entry, Health, News
from telemetry_svc.core.sketch import Sketch, Tasks, TaskTotals, sketch
from telemetry_svc.core.window import Point

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,127}")
MAX_REPORT_BYTES = 256 * 1024
MAX_FIGURE = 2.0**63
"""Nothing real comes near; what does would not survive the way through NumPy's float64."""
MAX_DURATION_S = 315_576_000_000
"""What protobuf allows: ten thousand years."""

_HEALTH = {
    Health.SERVING: ReplicaHealth.REPLICA_HEALTH_SERVING,
    Health.DRAINING: ReplicaHealth.REPLICA_HEALTH_DRAINING,
    Health.DEAD: ReplicaHealth.REPLICA_HEALTH_DEAD,
    Health.SILENT: ReplicaHealth.REPLICA_HEALTH_SILENT,
}


def check(report: ReplicaReport) -> None:
    """Raise InvalidRequestError for a report that nobody should act on."""
    size = report.ByteSize()
    if size == 0:
        raise invalid("report", "must be given")
    if size > MAX_REPORT_BYTES:
        raise invalid("report", f"at most {MAX_REPORT_BYTES} bytes, got {size}")
    if not NAME.fullmatch(report.replica):
        raise invalid("report.replica", f"must match {NAME.pattern}, got {report.replica[:200]!r}")
    if report.seq == 0:
        raise invalid("report.seq", "counts from 1, got 0")
    _check_figures("report.rates", report.rates)
    _check_figures("report.process", report.process)
    for i, gpu in enumerate(report.gpus):
        _check_figures(f"report.gpus[{i}]", gpu)


def _check_figures(field: str, message: Message) -> None:
    for descriptor, value in message.ListFields():
        name = f"{field}.{descriptor.name}"
        if isinstance(value, int | float):
            if not 0 <= value < MAX_FIGURE:
                raise invalid(name, f"must be in [0, 2^63), got {value}")
        elif isinstance(value, Message):
            _check_figures(name, value)
        elif descriptor.message_type:
            for i, inner in enumerate(value):
                _check_figures(f"{name}[{i}]", inner)


def seconds(field: str, duration: Duration) -> float:
    """Read a duration. Raises InvalidRequestError for one that is negative or none."""
    value = duration.seconds + duration.nanos / 1e9
    if not 0 <= value <= MAX_DURATION_S:
        raise invalid(field, f"must be in [0, {MAX_DURATION_S}] s, got {value} s")
    return value


def duration(value_s: float) -> Duration:
    """Write seconds, at least 0."""
    written = Duration()
    written.FromNanoseconds(int(value_s * 1e9))
    return written


def timestamp(unix_s: float) -> Timestamp:
    """Write a Unix time."""
    written = Timestamp()
    written.FromNanoseconds(int(unix_s * 1e9))
    return written


def health(report: ReplicaReport) -> Health:
    """Return what the report says of its replica."""
    if not report.alive:
        return Health.DEAD
    return Health.DRAINING if report.state.draining else Health.SERVING


def promise_s(report: ReplicaReport) -> float | None:
    """Return how often the agent says that it reads the replica; None where it does not say.

    Raises InvalidRequestError for a time that is none.
    """
    if not report.HasField("read_every"):
        return None
    return seconds("report.read_every", report.read_every)


def kv_ratio(state: ModelState) -> float:
    """Cache in use, in [0, 1]."""
    total = state.allocation.kv_tokens
    return min(1.0, state.kv_used_tokens / total) if total else 0.0


def point(report: ReplicaReport, time_s: float) -> Point:
    """Return the report as one moment of its replica's past."""
    state, rates, process = report.state, report.rates, report.process
    known = report.HasField("process")
    return Point(
        time_s=time_s,
        running=state.running,
        waiting=state.waiting,
        kv_ratio=kv_ratio(state),
        completion_tokens_per_s=rates.completion_tokens_per_s,
        prompt_tokens_per_s=rates.prompt_tokens_per_s,
        requests_per_s=rates.requests_per_s,
        busy_ratio=rates.busy_ratio,
        cpu_ratio=process.cpu_ratio if known else nan,
        rss_bytes=process.rss_bytes if known else nan,
        host_memory_ratio=process.host_memory_ratio if known else nan,
        host_cpu_ratio=process.host_cpu_ratio if known else nan,
        threads=process.threads if known else nan,
        gpu_utilization_ratio=_mean_utilization(report.gpus),
    )


def _mean_utilization(gpus: Iterable[GpuUse]) -> float:
    known = [gpu.utilization_ratio for gpu in gpus if gpu.HasField("utilization_ratio")]
    return sum(known) / len(known) if known else nan


def started_s(state: ModelState) -> float:
    """Unix time at which the model process started."""
    return state.started.seconds + state.started.nanos / 1e9


def tasks(stats: Sequence[TaskStats]) -> dict[int, TaskTotals]:
    """Read latency per kind of task. Raises InvalidRequestError for a broken sketch."""
    return {
        int(task.kind): TaskTotals(
            requests=task.requests_total,
            completion_tokens=task.completion_tokens_total,
            ttft=_sketch(f"report.state.tasks[{i}].ttft", task.ttft),
            tpot=_sketch(f"report.state.tasks[{i}].tpot", task.tpot),
        )
        for i, task in enumerate(stats)
    }


def _sketch(field: str, message: LatencySketch) -> Sketch:
    try:
        return sketch(message.buckets, message.counts, seconds(field, message.sum))
    except ValueError as error:
        raise invalid(field, str(error)) from error


def watch_response(news: News[ReplicaReport], now_s: float) -> WatchResponse:
    """Write what a watcher is told at the monotonic moment *now_s*."""
    replicas = [status(entry, now_s) for entry in news.entries]
    if news.complete:
        return WatchResponse(seq=news.change, snapshot=FleetSnapshot(replicas=replicas))
    delta = FleetDelta(replicas=replicas, removed=news.removed)
    return WatchResponse(seq=news.change, delta=delta)


def status(entry: Entry[ReplicaReport], now_s: float) -> ReplicaStatus:
    """Write one replica with its age at *now_s*."""
    return ReplicaStatus(
        report=entry.report,
        age=duration(entry.age_s(now_s)),
        health=_HEALTH[entry.health],
        held=entry.held_s is not None,
    )


def replica_history(name: str, points: Iterable[Point], done: Tasks) -> ReplicaHistory:
    """Write one replica's past."""
    return ReplicaHistory(replica=name, points=map(_history_point, points), tasks=_task_stats(done))


def _history_point(moment: Point) -> HistoryPoint:
    rates = Rates(
        completion_tokens_per_s=moment.completion_tokens_per_s,
        prompt_tokens_per_s=moment.prompt_tokens_per_s,
        requests_per_s=moment.requests_per_s,
        busy_ratio=moment.busy_ratio,
    )
    gpu = moment.gpu_utilization_ratio
    return HistoryPoint(
        time=timestamp(moment.time_s),
        running=int(moment.running),
        waiting=int(moment.waiting),
        kv_ratio=moment.kv_ratio,
        rates=rates,
        process=_process_use(moment),
        gpu_utilization_ratio=gpu if isfinite(gpu) else None,
    )


def _process_use(moment: Point) -> ProcessUse | None:
    if isnan(moment.cpu_ratio):
        return None
    return ProcessUse(
        cpu_ratio=moment.cpu_ratio,
        rss_bytes=int(moment.rss_bytes),
        host_memory_ratio=moment.host_memory_ratio,
        host_cpu_ratio=moment.host_cpu_ratio,
        threads=int(moment.threads),
    )


def _task_stats(done: Tasks) -> list[TaskStats]:
    return [
        TaskStats(
            kind=kind,  # type: ignore[arg-type]  # an open enum: any number is one
            requests_total=totals.requests,
            completion_tokens_total=totals.completion_tokens,
            ttft=_latency_sketch(totals.ttft),
            tpot=_latency_sketch(totals.tpot),
        )
        for kind, totals in sorted(done.items())
    ]


def _latency_sketch(value: Sketch) -> LatencySketch:
    return LatencySketch(
        buckets=value.buckets.tolist(),
        counts=value.counts.tolist(),
        sum=duration(value.sum_s),
    )
