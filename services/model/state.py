"""A model process's counters, and durations in logarithmic buckets. Time is an argument."""

import math
from collections import Counter, deque
from dataclasses import dataclass, field

GROWTH = 1.1
_LOG_GROWTH = math.log(GROWTH)
_RECENT_S = 1.0


@dataclass(slots=True)
class LatencySketch:
    """Counts by bucket i = (1.1^(i-1), 1.1^i] microseconds, as zeta.model.v1.LatencySketch."""

    counts: Counter[int] = field(default_factory=Counter)
    sum_s: float = 0.0

    def observe(self, duration_s: float) -> None:
        """Count one duration; what is below a microsecond goes to bucket 0."""
        self.counts[bucket(duration_s)] += 1
        self.sum_s += duration_s


def bucket(duration_s: float) -> int:
    """Return the bucket of a duration."""
    micros = duration_s * 1e6
    # The small slack keeps exact powers in their own bucket despite rounding.
    return max(0, math.ceil(math.log(micros) / _LOG_GROWTH - 1e-9)) if micros > 1 else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """When an answered request got what, in seconds since its arrival."""

    began_s: float
    first_s: float
    last_s: float


@dataclass(slots=True)
class TaskStats:
    """Latency and throughput of one kind of task."""

    requests: int = 0
    completion_tokens: int = 0
    ttft: LatencySketch = field(default_factory=LatencySketch)
    tpot: LatencySketch = field(default_factory=LatencySketch)


@dataclass(slots=True)
class Totals:
    """Since the start of the process."""

    requests: int = 0
    errors: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    steps: int = 0
    busy_s: float = 0.0


@dataclass(slots=True)
class State:
    """Everything that `GetState` reports and the engine does not hold."""

    totals: Totals = field(default_factory=Totals)
    tasks: dict[int, TaskStats] = field(default_factory=dict)
    """By zeta.inference.v1.TaskKind."""
    _decode_steps: deque[tuple[float, float]] = field(default_factory=deque)
    _service_s: float = 0.0
    """Exponentially weighted mean of the time a request runs."""

    def stepped(self, *, prompt_tokens: int, generated: int, decoded: bool, took_s: float,
                now_s: float) -> None:  # fmt: skip
        """Count one model step."""
        self.totals.steps += 1
        self.totals.busy_s += took_s
        self.totals.prompt_tokens += prompt_tokens
        self.totals.completion_tokens += generated
        if decoded:
            self._decode_steps.append((now_s, took_s))
            self._forget(now_s)

    def step_time_s(self, now_s: float) -> float | None:
        """Mean time of the decode steps of the last second, None without any."""
        self._forget(now_s)
        steps = self._decode_steps
        return sum(took_s for _, took_s in steps) / len(steps) if steps else None

    def answered(
        self, kind: int, *, tokens: int, times: Times, longest_tokens: int | None = None
    ) -> None:
        """Count one answered request of a kind of task.

        *tokens* are those of all its answers, *longest_tokens* those of the longest, where it has
        several: they come side by side.
        """
        longest = tokens if longest_tokens is None else longest_tokens
        self.totals.requests += 1
        stats = self.tasks.setdefault(kind, TaskStats())
        stats.requests += 1
        stats.completion_tokens += tokens
        stats.ttft.observe(times.first_s)
        if longest > 1:
            stats.tpot.observe((times.last_s - times.first_s) / (longest - 1))
        service_s = times.last_s - times.began_s
        self._service_s += (service_s - self._service_s) * (0.1 if self._service_s else 1.0)

    def free_slot_in_s(self, running: int) -> float:
        """Expected time until one of *running* requests ends; a second while nothing is known."""
        if not self._service_s:
            return 1.0
        return min(max(self._service_s / max(running, 1), 0.01), 60.0)

    def _forget(self, now_s: float) -> None:
        while self._decode_steps and self._decode_steps[0][0] < now_s - _RECENT_S:
            self._decode_steps.popleft()
