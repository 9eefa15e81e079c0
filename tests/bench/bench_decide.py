"""Time of one decision, profile excluded: filter, predict, plan, price, choose.

Each decision is about a prompt that was not asked about before, by a router that remembers as many
outcomes as it ever does, and the chosen replica's load changes between two of them.
*shipped* plans are those of `config/pocket.toml`; the others are best-of and refine. *cpu* is the
mean processor time, which a busy machine stretches less than the clock.

python -m tests.bench.bench_decide [--json]
"""

import argparse
import json
import time
from collections import deque
from dataclasses import replace
from typing import Final

import numpy as np

from router_svc import compiled
from router_svc.app import collect_seldom
from router_svc.core.decide import Decision, decide
from router_svc.core.features import Features, lexical_profile
from router_svc.core.memory import SIZE
from router_svc.core.predict import candidates
from router_svc.core.types import Ask, Policy
from router_svc.fleet import Fleet, Lease
from router_svc.learner import Learner
from services.kit import log
from services.kit.config import Model, Replica, Router

LAYOUTS: Final = ((3, 1), (3, 4), (6, 2), (12, 1), (8, 8))
"""(models, replicas of each)."""
PLANS: Final = {
    "shipped": frozenset({"single", "cascade", "vote", "hedge"}),
    "all": frozenset[str](),
}
IN_FLIGHT: Final = 2
TEXT: Final = "Write a Python function that returns the {} largest numbers of a list. Explain why."
PROMPTS: Final = [lexical_profile(TEXT.format(i)) for i in range(64)]


class Deciding:
    """A warm fleet, and decisions about it."""

    def __init__(self, models: int, replicas: int, plans: frozenset[str]) -> None:
        fleet_of = tuple(
            Model(
                name=f"m{m}",
                dir=".",
                replicas=tuple(Replica(listen=f"m{m}:{r}") for r in range(replicas)),
                usd_per_m_completion_tokens=0.1 * (m + 1),
            )
            for m in range(models)
        )
        self._rng = np.random.default_rng(1)
        self.fleet = Fleet(fleet_of, Router(), time.monotonic)
        self._learner = Learner(fleet_of, 2000.0)
        for name in self.fleet.names:
            self.fleet.health(name, serving=True)
        quality = self._learner.predictors.quality
        for i in range(SIZE):
            score = float(self._rng.random() < 0.6)
            quality.learn(f"m{i % models}", PROMPTS[i % 64], score)
        lesson = quality.lesson()
        assert lesson is not None
        quality.adopt(lesson.learn())
        text = TEXT.format(1)
        self._ask = Ask(text=text, characters=len(text), deadline_s=30.0)
        self._policy = Policy(latency_weight_per_s=0.05, cost_weight_per_usd=20.0, plans=plans)

    def decision(self, features: Features, rotation: int) -> Decision:
        """Decide, as `router.ZetaDynamicRouter` does."""
        found = candidates(
            self._ask,
            features,
            self.fleet.replicas(),
            predictors=self._learner.predictors,
            prices=self._learner.prices,
            policy=self._policy,
            rotation=rotation,
        )
        return decide(self._ask, found, self._policy, self._rng, gains={})


def measure(models: int, replicas: int, plans: str, rounds: int) -> dict[str, float | str]:
    """Decide *rounds* times for a warm fleet; times in milliseconds."""
    router = Deciding(models, replicas, PLANS[plans])
    times, cpu = np.empty(rounds), np.empty(rounds)
    leases = deque[Lease]()
    for i in range(rounds):
        prompt = replace(PROMPTS[i % 64])  # alike, and new to what keeps the latest prompts
        cpu_s, began_s = time.thread_time(), time.perf_counter()
        made = router.decision(prompt, i)
        times[i], cpu[i] = time.perf_counter() - began_s, time.thread_time() - cpu_s
        leases.append(router.fleet.begin(made.candidates.replicas[0], 20.0, 30.0))
        if len(leases) > IN_FLIGHT:
            router.fleet.end(leases.popleft())
    p50, p99 = np.percentile(times * 1e3, [50, 99])
    return {
        "models": models,
        "replicas": models * replicas,
        "plans": plans,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_p50_ms": 1e3 * float(np.median(cpu)),
    }


def main() -> None:
    """Measure every layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3000)
    options = parser.parse_args()
    log.configure("bench", "error")
    collect_seldom()
    rows = [measure(*layout, plans, options.rounds) for plans in PLANS for layout in LAYOUTS]
    if options.json:
        print(json.dumps({"decide": rows}))
        return
    print("compiled" if compiled.used() else "plain Python")
    print(f"{'plans':>8} {'models':>6} {'replicas':>8} {'p50 ms':>8} {'p99 ms':>8} {'cpu p50':>8}")
    for row in rows:
        print(
            f"{row['plans']:>8} {row['models']:>6} {row['replicas']:>8} {row['p50_ms']:>8.3f} "
            f"{row['p99_ms']:>8.3f} {row['cpu_p50_ms']:>8.3f}"
        )


if __name__ == "__main__":
    main()
