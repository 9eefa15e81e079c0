"""The fleet as `zeta top` shows it: one row per replica, put together from what is streamed."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from rich import box
from rich.table import Table
from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.model.v1.model_control_service_pb2 import LatencySketch
from zeta.router.v1.router_service_pb2 import Belief, Outlook
from zeta.telemetry.v1.telemetry_service_pb2 import (
    GpuUse,
    ReplicaHealth,
    ReplicaHistory,
    ReplicaStatus,
    WatchResponse,
)

RATE_POINTS = 10
"""Tokens per second are the mean of so many points of history, which are a second apart."""
LINE_S = 1.5
"""Telemetry gives a sign of life every half second; after so long without, nothing holds."""
_GROWTH = 1.1
_NONE = "-"
_WIDE = 110
_TITLES = (
    *("replica", "health", "report\nage", "run", "wait", "KV\nuse", "tokens\n/s"),
    *("TTFT\np50", "TTFT\np99", "CPU", "memory", "GPU", "GPU\nmemory", "shadow\nprice"),
    "forecast",
)


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


@dataclass(slots=True)
class FleetView:
    """What a watcher knows; the watcher alone changes it."""

    statuses: dict[str, tuple[ReplicaStatus, float]] = field(default_factory=dict)
    """By replica: the last word, and when it came."""
    told_s: float = 0.0
    """When telemetry last said anything: what holds, held until then."""
    histories: Mapping[str, ReplicaHistory] = field(default_factory=dict)
    outlooks: Mapping[str, Outlook] = field(default_factory=dict)
    """By model: what the router foresees."""

    def apply(self, message: WatchResponse, now_s: float) -> None:
        """Take in a snapshot, or what changed since."""
        self.told_s = now_s
        if message.HasField("snapshot"):
            self.statuses.clear()
        change = message.delta if message.HasField("delta") else message.snapshot
        for status in change.replicas:
            self.statuses[status.report.replica] = (status, now_s)
        for name in message.delta.removed:
            self.statuses.pop(name, None)

    def rows(self, now_s: float) -> list[Row]:
        """Return a row per replica, by name."""
        ages_s = self.ages_s(now_s)
        return [
            self._foreseen(_row(status, ages_s[name], self._history(name)))
            for name, (status, _) in sorted(self.statuses.items())
        ]

    def ages_s(self, now_s: float) -> dict[str, float]:
        """Return how long ago each replica's figures were last known to be true."""
        return {name: self._age_s(*last, now_s) for name, last in self.statuses.items()}

    def _age_s(self, status: ReplicaStatus, came_s: float, now_s: float) -> float:
        """A report that holds is as old as its agent's readings, while telemetry is there."""
        age_s = status.age.ToNanoseconds() / 1e9 + now_s - came_s
        if not status.held:
            return age_s
        silence_s = now_s - self.told_s
        read_s = status.report.read_every.ToNanoseconds() / 1e9
        return min(age_s, read_s + (silence_s if silence_s > LINE_S else 0.0))

    def _history(self, name: str) -> ReplicaHistory:
        return self.histories.get(name, ReplicaHistory())

    def _foreseen(self, row: Row) -> Row:
        if (found := self.outlooks.get(row.model)) is None:
            return row
        price, rate = found.shadow_price, found.forecast_requests_per_s
        return replace(row, shadow_price=price, forecast_requests_per_s=rate)


def as_json(rows: Sequence[Row], beliefs: Iterable[Belief]) -> dict[str, Any]:
    """Return the object of `zeta top --json`."""
    learned = [
        {
            "model": b.model,
            "task_kind": kind_text(b.task_kind),
            "quality": b.quality,
            "quality_stddev": b.quality_stddev,
            "outcomes": b.outcomes,
        }
        for b in beliefs
    ]
    return {"replicas": [asdict(row) for row in rows], "beliefs": learned}


def fleet_table(rows: Sequence[Row], width: int) -> Table:
    """Tabulate the replicas; a narrow terminal is spared the columns that say nothing."""
    columns = list(zip(_TITLES, zip(*(_cells(r) for r in rows), strict=True), strict=False))
    wide = width >= _WIDE
    if not wide:
        columns = [c for c in columns if set(c[1]) != {_NONE}]
    table = Table(box=box.SIMPLE_HEAD, padding=(0, int(wide), 0, 0), pad_edge=False)
    for i, (title, _) in enumerate(columns):
        table.add_column(title, justify="right" if i else "left", no_wrap=True)
    for cells in zip(*(cells for _, cells in columns), strict=True):
        table.add_row(*cells)
    return table


def belief_table(beliefs: Iterable[Belief]) -> Table:
    """Tabulate expected quality, a row per model and a column per kind of task."""
    learned = {(b.model, b.task_kind): b for b in beliefs}
    kinds = sorted({kind for _, kind in learned})
    titles = ("expected quality", *(kind_text(kind) for kind in kinds))
    table = Table(*titles, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for model in sorted({name for name, _ in learned}):
        cells = [learned.get((model, kind)) for kind in kinds]
        table.add_row(model, *(_belief(b) if b else _NONE for b in cells))
    return table


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


def _row(status: ReplicaStatus, age_s: float, history: ReplicaHistory) -> Row:
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


def _cells(r: Row) -> Iterable[str]:
    colour = "green" if r.health == "serving" else "red"
    return (
        r.replica,
        f"[{colour}]{r.health}[/{colour}]",
        f"{r.age_s:.1f} s",
        f"{r.running}/{r.slots}",
        f"{r.waiting}",
        f"{r.kv_ratio:.0%}",
        f"{r.tokens_per_s:.0f}",
        _shown(r.ttft_p50_s, lambda v: f"{v * 1e3:.0f} ms"),
        _shown(r.ttft_p99_s, lambda v: f"{v * 1e3:.0f} ms"),
        f"{r.cpu_ratio:.0%}",
        _bytes(r.rss_bytes),
        _shown(r.gpu_ratio, lambda v: f"{v:.0%}"),
        _shown(r.gpu_memory_bytes, _bytes),
        _shown(r.shadow_price, lambda v: f"{v:.3f}"),
        _shown(r.forecast_requests_per_s, lambda v: f"{v:.1f}/s"),
    )


def _shown(value: float | None, text: Callable[[float], str]) -> str:
    return _NONE if value is None else text(value)


def _bytes(count: float) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


def _belief(b: Belief) -> str:
    return f"{b.quality:.2f} ± {b.quality_stddev:.2f} ({b.outcomes:.0f})"


def _has(gpu: GpuUse, name: str) -> bool:
    return gpu.HasField(name)  # type: ignore[arg-type] # the names are two constants above


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _total(values: Sequence[int]) -> int | None:
    return sum(values) if values else None
