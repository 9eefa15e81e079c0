"""The fleet as a watcher knows it, put together from what is streamed and what was asked.

`fleet_rows` makes its rows, `fleet_tables` draws them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.model.v1.model_control_service_pb2 import TaskStats
from zeta.router.v1.router_service_pb2 import Belief, Outlook
from zeta.telemetry.v1.telemetry_service_pb2 import (
    ReplicaHistory,
    ReplicaStatus,
    WatchResponse,
)

from zeta_client.cli.fleet_rows import (
    GpuRow,
    Row,
    TaskRow,
    believed,
    gpu_row,
    measured,
    replica_row,
    span_s,
    task_row,
)

_ALWAYS = frozenset(
    (TaskKind.TASK_KIND_CODE, TaskKind.TASK_KIND_REASONING, TaskKind.TASK_KIND_GENERAL)
)
_SHOWS_OUTCOMES, _SHOWS_QUALITY = 0.5, 0.005
"""Less than that is nothing in the digits that are shown."""
LINE_S = 1.5
"""Telemetry gives a sign of life every half second; after so long without, nothing holds."""


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
    beliefs: Sequence[Belief] = ()
    """What the router learned."""

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
            self._foreseen(replica_row(status, ages_s[name], self._history(name)))
            for name, (status, _) in sorted(self.statuses.items())
        ]

    def tasks(self) -> list[TaskRow]:
        """Return a row per model and kind of task that anything is known of."""
        found = {(b.model, b.task_kind): believed(b) for b in self.beliefs}
        for key in _preferred(self.beliefs):
            found[key] = replace(found[key], preferred=True)
        for key, done in self._done().items():
            found[key] = measured(found.get(key) or task_row(*key), done)
        # A kind of task that nobody was asked for and nobody judged says nothing.
        told = {
            kind
            for (_, kind), row in found.items()
            if (row.outcomes or 0.0) >= _SHOWS_OUTCOMES or row.ttft_p50_s
        }
        shown = (key for key in found if key[1] in told | _ALWAYS)
        return [found[key] for key in sorted(shown, key=lambda key: (key[1], key[0]))]

    def gpus(self) -> list[GpuRow]:
        """Return a row per GPU; several replicas may report the same one."""
        boards = {
            gpu.uuid or f"{name} {gpu.index}": gpu
            for name, (status, _) in sorted(self.statuses.items())
            for gpu in status.report.gpus
        }
        return [gpu_row(boards[key]) for key in sorted(boards)]

    def _done(self) -> dict[tuple[str, TaskKind.ValueType], list[tuple[TaskStats, float]]]:
        """Return what replicas did of late, each with the time it took, by model and kind."""
        done: dict[tuple[str, TaskKind.ValueType], list[tuple[TaskStats, float]]] = {}
        for name, (status, _) in self.statuses.items():
            history = self._history(name)
            for stats in history.tasks:
                key = status.report.state.model, stats.kind
                done.setdefault(key, []).append((stats, span_s(history)))
        return done

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


def as_json(view: FleetView, now_s: float) -> dict[str, Any]:
    """Return the object of `zeta top --json`."""
    return {
        "replicas": [asdict(row) for row in view.rows(now_s)],
        "tasks": [asdict(row) for row in view.tasks()],
        "gpus": [asdict(row) for row in view.gpus()],
    }


def _preferred(beliefs: Sequence[Belief]) -> Iterator[tuple[str, TaskKind.ValueType]]:
    """Yield the model that is expected to be best at each kind of task, where there is one."""
    for kind in {b.task_kind for b in beliefs}:
        first, *others = sorted((-b.quality, b.model) for b in beliefs if b.task_kind == kind)
        if not others or others[0][0] - first[0] >= _SHOWS_QUALITY:
            yield first[1], kind
