"""The fleet on the metrics page, read when it is scraped.

Names are OpenTelemetry's where it has one (hw.gpu.*, process.*, system.*), `zeta_replica_*`
elsewhere.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.telemetry.v1.telemetry_service_pb2 import ReplicaReport

from telemetry_svc import gpu_metrics, wire
from telemetry_svc.core.fleet import Health
from telemetry_svc.core.sketch import Sketch, Tasks

QUANTILES = (0.5, 0.95, 0.99)
SCRAPE_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One replica and its latency over the last while."""

    report: ReplicaReport
    age_s: float
    health: Health
    tasks: Tasks


Figure = Callable[[Shown], float]

_GAUGES: dict[str, tuple[str, Figure]] = {
    "zeta_replica_report_age_seconds": ("Age of the last report.", lambda s: s.age_s),
    "zeta_replica_up": (
        "1 where the replica serves.",
        lambda s: float(s.health is Health.SERVING),
    ),
    "zeta_replica_running": (
        "Requests in the running batch.",
        lambda s: s.report.state.running,
    ),
    "zeta_replica_waiting": (
        "Requests admitted but not running yet.",
        lambda s: s.report.state.waiting,
    ),
    "zeta_replica_kv_usage_ratio": (
        "Cache tokens held over cache tokens there are.",
        lambda s: wire.kv_ratio(s.report.state),
    ),
    "zeta_replica_completion_tokens_per_second": (
        "Tokens generated per second.",
        lambda s: s.report.rates.completion_tokens_per_s,
    ),
    "zeta_replica_prompt_tokens_per_second": (
        "Prompt tokens fed per second.",
        lambda s: s.report.rates.prompt_tokens_per_s,
    ),
    "zeta_replica_busy_ratio": (
        "Share of the time spent inside model steps.",
        lambda s: s.report.rates.busy_ratio,
    ),
}

_TOTALS: dict[str, tuple[str, Figure]] = {
    "zeta_replica_requests": ("Requests finished.", lambda s: s.report.state.requests_total),
    "zeta_replica_errors": (
        "Requests that ended in an error.",
        lambda s: s.report.state.errors_total,
    ),
    "zeta_replica_completion_tokens": (
        "Tokens generated.",
        lambda s: s.report.state.completion_tokens_total,
    ),
}

_PROCESS: dict[str, tuple[str, Figure]] = {
    "process_cpu_utilization_ratio": (
        "CPU of the model process; 1 is one core.",
        lambda s: s.report.process.cpu_ratio,
    ),
    "process_memory_usage_bytes": (
        "Resident memory of the model process.",
        lambda s: s.report.process.rss_bytes,
    ),
    "process_thread_count": (
        "Threads of the model process.",
        lambda s: s.report.process.threads,
    ),
    "system_cpu_utilization_ratio": (
        "CPU of the replica's machine in use.",
        lambda s: s.report.process.host_cpu_ratio,
    ),
    "system_memory_utilization_ratio": (
        "Memory of the replica's machine in use.",
        lambda s: s.report.process.host_memory_ratio,
    ),
}

_LATENCY: dict[str, tuple[str, Callable[[Tasks, int], Sketch]]] = {
    "zeta_replica_ttft_seconds": (
        "Quantiles of the time to first token over the last minute.",
        lambda tasks, kind: tasks[kind].ttft,
    ),
    "zeta_replica_tpot_seconds": (
        "Quantiles of the time per output token over the last minute.",
        lambda tasks, kind: tasks[kind].tpot,
    ),
}

_LABELS = ("model", "replica")


def families(fleet: Iterable[Shown]) -> Iterator[Metric]:
    """Yield the metrics of *fleet*; what a replica does not know is left out."""
    replicas = list(fleet)
    for name, (text, figure) in _GAUGES.items():
        yield _gauge(name, text, replicas, figure)
    for name, (text, figure) in _TOTALS.items():
        counter = CounterMetricFamily(name, text, labels=_LABELS)
        for shown in replicas:
            counter.add_metric(_labels(shown), figure(shown))
        yield counter
    measured = [shown for shown in replicas if shown.report.HasField("process")]
    for name, (text, figure) in _PROCESS.items():
        yield _gauge(name, text, measured, figure)
    yield from gpu_metrics.families((_labels(s), gpu) for s in replicas for gpu in s.report.gpus)
    for name, (text, sketch_of) in _LATENCY.items():
        yield _latency(name, text, replicas, sketch_of)


def _gauge(name: str, text: str, replicas: Iterable[Shown], figure: Figure) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=_LABELS)
    for shown in replicas:
        gauge.add_metric(_labels(shown), figure(shown))
    return gauge


def _latency(
    name: str, text: str, replicas: Iterable[Shown], sketch_of: Callable[[Tasks, int], Sketch]
) -> Metric:
    gauge = GaugeMetricFamily(name, text, labels=(*_LABELS, "task", "quantile"))
    for shown in replicas:
        for kind in shown.tasks:
            for q in QUANTILES:
                value = sketch_of(shown.tasks, kind).quantile_s(q)
                if value is not None:
                    gauge.add_metric((*_labels(shown), _task(kind), str(q)), value)
    return gauge


def _labels(shown: Shown) -> tuple[str, str]:
    return shown.report.state.model, shown.report.replica


def _task(kind: int) -> str:
    known = kind in TaskKind.values()
    return TaskKind.Name(kind).removeprefix("TASK_KIND_").lower() if known else str(kind)  # type: ignore[arg-type]


class FleetCollector(Collector):
    """Reads the fleet on its event loop, because scrapes come from another thread."""

    def __init__(self, read: Callable[[], list[Shown]], loop: asyncio.AbstractEventLoop) -> None:
        self._read, self._loop = read, loop

    def collect(self) -> Iterator[Metric]:
        """Yield what `families` makes of the fleet at this moment."""
        reading = asyncio.run_coroutine_threadsafe(self._on_loop(), self._loop)
        yield from families(reading.result(SCRAPE_TIMEOUT_S))

    def describe(self) -> list[Metric]:
        """Nothing: registering must not wait for the loop that it happens on."""
        return []

    async def _on_loop(self) -> list[Shown]:
        return self._read()


def expose(read: Callable[[], list[Shown]]) -> None:
    """Put what *read* returns on this process's metrics page; call it on the event loop."""
    REGISTRY.register(FleetCollector(read, asyncio.get_running_loop()))
