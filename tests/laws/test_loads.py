"""The laws of load: what is kept and worked out anew row by row is what it would be from scratch.

To the last bit, whatever happened in whatever order, and whenever somebody asked in between.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from router_svc.core.latency import Latency, LatencyPrior
from router_svc.core.load import Load
from router_svc.core.loads import ROWS, ReplicaLoads, loads_of
from router_svc.core.types import Floats, Priority

MODEL = np.array([0, 0, 1, 1, 1], dtype=np.intp)
REPLICAS = len(MODEL)
STEPS = 120
NAMES = [f"r{i}" for i in range(REPLICAS)]


@dataclass(kw_only=True)
class History:
    """All that happened, and what follows from it by the definitions alone."""

    own: list[tuple[float, int, int, float, float]] = field(default_factory=list)
    """Seconds, replica, requests, prompt tokens and output tokens that came, or went."""
    most: Floats = field(default_factory=lambda: np.full(REPLICAS, 4.0))
    reports: dict[int, tuple[float, float, float, float, float]] = field(default_factory=dict)
    """By replica: read when, true until when, for how long it holds, requests, prompt tokens."""
    told_s: float = -np.inf

    def loads(self, now_s: float) -> ReplicaLoads:
        """Estimate the load from the beginning."""
        known_s = now_s if now_s - self.told_s < 1.5 else self.told_s
        requests, prompt, output = (
            np.array([sum(e[k] for e in self.own if e[1] == i) for i in range(REPLICAS)])
            for k in (2, 3, 4)
        )
        ages = np.full(REPLICAS, np.inf)
        there, feeding = requests.astype(np.float64), prompt.astype(np.float64)
        for i, (read_s, true_s, held_s, reported, tokens) in self.reports.items():
            ages[i] = max(now_s - max(true_s, known_s - held_s), 0.0)
            if ages[i] < 5.0:
                since = [e for e in self.own if e[1] == i and e[0] > read_s]
                there[i] = max(there[i], reported + sum(e[2] for e in since))
                feeding[i] = max(feeding[i], tokens + sum(e[3] for e in since))
        running = np.minimum(there, self.most)
        return loads_of(
            replica=np.arange(REPLICAS),
            model=MODEL,
            running=running,
            waiting=there - running,
            waiting_prompt_tokens=np.maximum(feeding, 0.0) * (there > 0.0),
            remaining_tokens=np.maximum(0.5 * output / np.maximum(requests, 1.0), 0.0),
            max_running=self.most.copy(),
            age_s=ages,
            own=requests.astype(np.float64),
        )


class World:
    """A load, its history and chance. Whole numbers throughout, so that no sum is rounded."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.load, self.history = Load(MODEL, [4.0] * REPLICAS), History()
        self.now_s = 100.0
        self.read_s = [0.0] * REPLICAS
        self.flying: list[tuple[int, int, float, float, bool, bool]] = []

    def step(self) -> None:
        """Let some time pass, and something happen."""
        self.now_s += float(self.rng.choice([1.0, 4.0, 16.0, 256.0])) / 256.0
        happens: list[Callable[[], None]] = [self._began, self._fed, self._ended, self._reported]
        happens += [self._allocated, self._told, self._forgot, self._untold]
        chances = [0.3, 0.15, 0.2, 0.2, 0.05, 0.06, 0.02, 0.02]
        happens[self.rng.choice(len(happens), p=chances)]()

    def _any(self) -> int:
        return int(self.rng.integers(REPLICAS))

    def _began(self) -> None:
        i, count = self._any(), int(self.rng.integers(1, 4))
        prompt, output = float(self.rng.integers(1, 300)), float(self.rng.integers(1, 300))
        critical = bool(self.rng.random() < 0.3)
        self.load.began(i, prompt, output, count, now_s=self.now_s, critical=critical)
        self.history.own.append((self.now_s, i, count, prompt, output))
        self.flying.append((i, count, prompt, output, critical, False))

    def _fed(self) -> None:
        for k, (i, count, prompt, output, critical, fed) in enumerate(self.flying):
            if not fed:
                self.load.fed(i, prompt, now_s=self.now_s)
                self.history.own.append((self.now_s, i, 0, -prompt, 0.0))
                self.flying[k] = i, count, prompt, output, critical, True
                return

    def _ended(self) -> None:
        for k, (i, count, _, output, critical, fed) in enumerate(self.flying):
            if fed:
                self.load.ended(i, output, count, now_s=self.now_s, critical=critical)
                self.history.own.append((self.now_s, i, -count, 0.0, -output))
                del self.flying[k]
                return

    def _reported(self) -> None:
        # In the order in which they are read, if late.
        i, read_s = self._any(), self.now_s - float(self.rng.integers(0, 512)) / 256.0
        self.read_s[i] = read_s = max(read_s, self.read_s[i])
        requests, prompt = float(self.rng.integers(0, 9)), float(self.rng.integers(0, 500))
        held_s = float(self.rng.choice([0.125, 2.0, 4.0, 9.0, np.inf]))
        self.load.reported(
            i,
            requests=requests,
            prompt_tokens=prompt,
            max_running=0.0,
            read_at_s=read_s,
            held_s=held_s,
        )
        self.history.reports[i] = read_s, read_s, held_s, requests, prompt

    def _allocated(self) -> None:
        i, most = self._any(), float(self.rng.integers(1, 9))
        self.load.allocated(i, most)
        self.history.most[i] = most

    def _told(self) -> None:
        self.load.told(self.now_s)
        self.history.told_s = self.now_s

    def _forgot(self) -> None:
        i = self._any()
        self.load.forget(i)
        self.history.reports.pop(i, None)

    def _untold(self) -> None:
        self.load.untold()
        for i, (read_s, true_s, held_s, *said) in self.history.reports.items():
            until_s = max(true_s, self.history.told_s - held_s)
            self.history.reports[i] = read_s, until_s, np.inf, said[0], said[1]


def estimates(loads: ReplicaLoads) -> dict[str, list[float]]:
    """All that a load says, ages too."""
    rows = {str(k): loads.figures[k].tolist() for k in range(ROWS - 2)}
    return {**rows, "ages": loads.report_age_s.tolist()}


@pytest.mark.parametrize("seed", range(40))
def test_what_is_kept_by_row_is_what_it_is_from_scratch(seed: int) -> None:
    """Asked after any event, or not for a while; as a whole, for one replica, and for its age."""
    world = World(seed)
    for _ in range(STEPS):
        world.step()
        if world.rng.random() < 0.5:
            continue
        i, full = int(world.rng.integers(REPLICAS)), world.load.full(Priority.BATCH, world.now_s)
        row = world.load.row(i, world.now_s)
        kept, anew = world.load.loads(world.now_s), world.history.loads(world.now_s)
        assert estimates(kept) == estimates(anew)
        assert estimates(row) == estimates(anew.row(i)) == estimates(kept.row(i))
        assert [kept.age_of(j) for j in range(REPLICAS)] == kept.report_age_s.tolist()
        spare = np.maximum(anew.max_running // 4, 1.0)
        assert full.tolist() == (anew.requests >= anew.max_running + spare).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_who_was_given_a_load_keeps_it(seed: int) -> None:
    """Whatever happens afterwards: it is what was known then."""
    world = World(seed)
    for _ in range(STEPS):
        given = world.load.loads(world.now_s)
        before = estimates(given)
        world.step()
        world.load.loads(world.now_s)
        assert estimates(given) == before


@pytest.mark.parametrize("seed", range(10))
def test_times_by_what_was_kept_are_those_from_scratch(seed: int) -> None:
    """Also after answers were learned: asked all the time, or for the first time."""
    world, prior = World(seed), LatencyPrior(step_s=0.004)
    one, other = (Latency(["a", "b"], {"a": prior}, replicas=NAMES) for _ in range(2))
    output = np.array([20.0, 300.0]).take(MODEL)
    for _ in range(STEPS):
        world.step()
        loads = world.load.loads(world.now_s)
        times = one.predict(loads, 17.0, output)
        if world.rng.random() < 0.3:
            i = int(world.rng.integers(REPLICAS))
            for latency in (one, other):
                latency.learn(
                    "ab"[MODEL[i]],
                    loads.row(i),
                    prompt_tokens=17,
                    output_tokens=20,
                    ttft_s=0.1,
                    total_s=0.1 + 0.1 * i,
                )
            times = one.predict(loads, 17.0, output)
        anew = Latency(["a", "b"], {"a": prior}, replicas=NAMES)
        anew.restore(other.to_arrays())
        again = anew.predict(world.history.loads(world.now_s), 17.0, output)
        assert times.total_s.tolist() == pytest.approx(again.total_s.tolist(), rel=1e-12)
        for i in range(REPLICAS):
            alone = one.predict(loads.row(i), 17.0, output[i : i + 1])
            assert alone.total_s[0] == times.total_s[i]
            here, there = one.quantiles(alone, 0), one.quantiles(times, i)
            assert (here.ttft_p90_s, here.total_p90_s) == (there.ttft_p90_s, there.total_p90_s)
