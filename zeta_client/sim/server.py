"""One simulated replica: continuous batching, between the moments at which something changes.

As the real engine's schedule: prompts are fed one at a time in chunks, in the same steps in which
every running request gets a token; at most `max_running` hold a slot. A step takes

    step_s + step_s_per_running * running + prefill_s_per_token * chunk

Between two changes all steps are alike, so that progress is proportional to time, and a request
costs a few events however long its answer is. Times are seconds of the simulation.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final

import msgspec

_QUICKEST_S: Final = 1e-4
"""No step is quicker: times of day could not tell apart what is."""
_SOON_S: Final = 1e-8
"""What is due so soon is due now: an event loop's timers come up to a nanosecond early."""


class Costs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model's steps take on its hardware; see `fitted`."""

    step_s: float
    step_s_per_running: float = 0.0
    prefill_s_per_token: float = 0.0
    overhead_s: float = 0.0
    """Of a request besides: network, tokenizer, router."""
    chunk_tokens: int = 128


@dataclass(slots=True, eq=False)
class Job:
    """One request on its way."""

    number: int
    prompt_tokens: int
    output_tokens: int
    began_s: float
    """When it was sent to a replica."""
    first_s: float | None = None


@dataclass(slots=True)
class Server:
    """A replica. Mutable, owned by the simulation."""

    costs: Costs
    max_running: int
    slowdown: float = 1.0
    """Of this very machine."""
    version: int = 0
    """Changes whenever a foreseen event no longer holds."""
    _now_s: float = 0.0
    _progress: float = 0.0
    """Tokens that a request would have that had run from the beginning."""
    _queue: deque[Job] = field(default_factory=deque)
    _feeding: Job | None = None
    _unfed: float = 0.0
    _running: list[tuple[float, int, Job]] = field(default_factory=list)
    """By the progress at which each ends."""

    @property
    def requests(self) -> int:
        """Requests here, running or not."""
        return len(self._queue) + len(self._running) + (self._feeding is not None)

    @property
    def unfed_tokens(self) -> float:
        """Prompt tokens still to feed."""
        return self._unfed + sum(job.prompt_tokens for job in self._queue)

    def add(self, job: Job, now_s: float) -> None:
        """Queue *job*."""
        self._advance(now_s)
        self._queue.append(job)
        self._start()

    def allocate(self, max_running: int, now_s: float) -> None:
        """Run so many at once from now on; who runs already goes on."""
        self._advance(now_s)
        self.max_running = max_running
        self._start()

    def drop(self, now_s: float) -> list[Job]:
        """Lose everything, as a process that dies does."""
        self._advance(now_s)
        lost = [*self._queue, *(job for _, _, job in self._running)]
        lost += [self._feeding] if self._feeding else []
        self._queue.clear()
        self._running.clear()
        self._feeding, self._unfed = None, 0.0
        self.version += 1
        return sorted(lost, key=lambda job: job.number)

    def cancel(self, job: Job, now_s: float) -> None:
        """Stop working on *job*, as the engine does when a deadline passes."""
        self._advance(now_s)
        if job in self._queue:
            self._queue.remove(job)
        elif job is self._feeding:
            self._feeding, self._unfed = None, 0.0
        else:
            self._running = [entry for entry in self._running if entry[2] is not job]
            heapify(self._running)
        self._start()

    def next_s(self) -> float:
        """When something changes of itself; infinite where nothing is to do."""
        step_s = self._step_s()
        fed = self._unfed / self._chunk() * step_s if self._feeding else inf
        ended = (self._running[0][0] - self._progress) * step_s if self._running else inf
        return self._now_s + max(min(fed, ended), 0.0)

    def fire(self, now_s: float) -> tuple[list[Job], list[Job]]:
        """Move on to *now_s*; return who has its first token now, and who has ended."""
        self._advance(now_s)
        first, ended, step_s = [], [], self._step_s()
        if self._feeding and self._unfed / self._chunk() * step_s <= _SOON_S:
            job, self._feeding, self._unfed = self._feeding, None, 0.0
            first.append(job)
            mark = self._progress + max(job.output_tokens - 1, 0)
            heappush(self._running, (mark, job.number, job))
        while self._running and (self._running[0][0] - self._progress) * step_s <= _SOON_S:
            ended.append(heappop(self._running)[2])
        self._start()
        return first, ended

    def _advance(self, now_s: float) -> None:
        if self._feeding or self._running:
            steps = (now_s - self._now_s) / self._step_s()
            self._progress += steps if self._running else 0.0
            if self._feeding:
                self._unfed = max(self._unfed - steps * self._chunk(), 0.0)
        self._now_s = now_s

    def _start(self) -> None:
        self.version += 1
        if self._feeding is None and self._queue and len(self._running) < self.max_running:
            self._feeding = self._queue.popleft()
            self._unfed = float(self._feeding.prompt_tokens)

    def _chunk(self) -> float:
        """Prompt tokens of a step."""
        assert self._feeding is not None
        return float(min(max(self._feeding.prompt_tokens, 1), self.costs.chunk_tokens))

    def _step_s(self) -> float:
        running, fed = len(self._running), self._chunk() if self._feeding else 0.0
        decoding_s = self.costs.step_s + self.costs.step_s_per_running * running if running else 0.0
        feeding_s = self.costs.prefill_s_per_token * fed
        return max((decoding_s + feeding_s) * self.slowdown, _QUICKEST_S)


def fitted(speeds: list[tuple[int, float, float]]) -> Costs:
    """Fit costs to (batch, prefill tokens/s, decode tokens/s), as `zeta model bench` measures them.

    Least squares of the step's time over the batch; no cost is negative.
    """
    batches = [float(batch) for batch, _, _ in speeds]
    steps = [batch / decode for batch, _, decode in speeds]
    mean_b, mean_s = sum(batches) / len(speeds), sum(steps) / len(speeds)
    spread = sum((b - mean_b) ** 2 for b in batches)
    slope = sum((b - mean_b) * (s - mean_s) for b, s in zip(batches, steps, strict=True))
    each = max(slope / spread, 0.0) if spread else 0.0
    prefill = max(prefill for _, prefill, _ in speeds)
    return Costs(
        step_s=max(mean_s - each * mean_b, 0.0),
        step_s_per_running=each,
        prefill_s_per_token=1.0 / prefill,
    )
