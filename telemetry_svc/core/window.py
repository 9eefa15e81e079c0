"""One replica's recent past, in memory that is set aside once and never grows.

Figures lie in a ring, one point per step. Latency lies in snapshots of ever-growing totals:
the latency inside a window is the difference of two of them.
"""

from collections import deque
from dataclasses import dataclass, fields
from math import floor, inf, nan
from operator import attrgetter

import numpy as np

from telemetry_svc.core.sketch import Tasks, joined, since

SNAPSHOTS = 120
"""Snapshots of latency per history: a window's old end is exact to 1/120 of what is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One moment. NaN: not known."""

    time_s: float
    """Unix time."""
    running: float
    waiting: float
    kv_ratio: float
    completion_tokens_per_s: float
    prompt_tokens_per_s: float
    requests_per_s: float
    busy_ratio: float
    cpu_ratio: float = nan
    rss_bytes: float = nan
    host_memory_ratio: float = nan
    host_cpu_ratio: float = nan
    threads: float = nan
    gpu_utilization_ratio: float = nan
    """Mean over the GPUs."""


NAMES = tuple(field.name for field in fields(Point))
_row = attrgetter(*NAMES)


class Ring:
    """The last *capacity* points."""

    def __init__(self, capacity: int) -> None:
        self._at_s = np.full(capacity, -inf)
        self._rows = np.empty((capacity, len(NAMES)))
        self._count = 0

    def append(self, point: Point, at_s: float) -> None:
        """Keep *point*, taken at the monotonic moment *at_s*, over the oldest one."""
        place = self._count % len(self._at_s)
        self._at_s[place], self._rows[place] = at_s, _row(point)
        self._count += 1

    def repeat(self, time_s: float, at_s: float) -> None:
        """Keep the newest point once more, as of *time_s* by Unix time."""
        place, newest = (i % len(self._at_s) for i in (self._count, self._count - 1))
        self._at_s[place], self._rows[place] = at_s, self._rows[newest]
        self._rows[place, 0] = time_s
        self._count += 1

    def points(self, *, from_s: float, step_s: float) -> list[Point]:
        """Return the points at or after *from_s*, oldest first, at least *step_s* apart.

        The newest is always among them.
        """
        chosen, next_s = [], inf
        for back in range(min(self._count, len(self._at_s))):
            place = (self._count - 1 - back) % len(self._at_s)
            if self._at_s[place] < from_s:
                break
            if self._at_s[place] <= next_s:
                chosen.append(place)
                next_s = self._at_s[place] - step_s
        rows = (self._rows[place].tolist() for place in reversed(chosen))
        return [Point(**dict(zip(NAMES, row, strict=True))) for row in rows]


class History:
    """The last *history_s* seconds: a point every *step_s*, latency in snapshots."""

    def __init__(self, *, history_s: float, step_s: float) -> None:
        self._history_s, self._step_s = history_s, step_s
        self._snapshot_step_s = max(step_s, history_s / SNAPSHOTS)
        self._ring = Ring(max(1, floor(history_s / step_s)))
        self._snapshots: deque[tuple[float, Tasks]] = deque(maxlen=SNAPSHOTS + 1)
        self._process: float | None = None
        self._before: Tasks = {}
        self._now: Tasks = {}
        self._last_s = -inf

    def due(self, at_s: float) -> bool:
        """Say whether a new step has begun since the last point; steps lie on a fixed grid."""
        return self._last_s == -inf or at_s // self._step_s > self._last_s // self._step_s

    def record(self, point: Point, tasks: Tasks | None, *, process: float, at_s: float) -> None:
        """Keep a point and the replica's totals; None: they are as they were.

        Totals start again where *process*, anything that tells one process of the replica
        from the next, differs from the last; what was counted before is added to them.
        """
        self._ring.append(point, at_s)
        self._last_s = at_s
        if process != self._process:
            self._process, self._before = process, self._now
        if tasks is not None:
            self._now = joined(self._before, tasks) if self._before else tasks
        self._snapshot(at_s)

    def hold(self, time_s: float, *, at_s: float) -> None:
        """Keep the last point once more: nothing changed until *time_s*."""
        self._ring.repeat(time_s, at_s)
        self._last_s = at_s
        self._snapshot(at_s)

    def _snapshot(self, at_s: float) -> None:
        if not self._snapshots or at_s - self._snapshots[-1][0] >= self._snapshot_step_s:
            self._snapshots.append((at_s, self._now))

    def points(self, *, now_s: float, window_s: float = inf, step_s: float = 0.0) -> list[Point]:
        """Return points of the last *window_s* seconds, oldest first, *step_s* apart."""
        return self._ring.points(from_s=now_s - min(window_s, self._history_s), step_s=step_s)

    def tasks(self, *, now_s: float, window_s: float = inf) -> Tasks:
        """Return what was done in the last *window_s* seconds, per kind of task.

        Counted from the last snapshot before the window, so a little more than the window;
        from the first one kept where the window is longer.
        """
        from_s = now_s - min(window_s, self._history_s)
        if self._last_s < from_s or not self._snapshots:
            return {}
        before = [totals for at_s, totals in self._snapshots if at_s <= from_s]
        return since(self._now, before[-1] if before else self._snapshots[0][1])
