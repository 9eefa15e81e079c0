"""Time of one decision, profile excluded: filter, predict, plan, price, choose.

*cpu* is the mean processor time, which a busy machine stretches less than the clock.

python -m tests.bench.bench_decide [--json]
"""

import argparse
import json
import time

import numpy as np

from router_svc.core.decide import decide
from router_svc.core.features import lexical_profile
from router_svc.core.predict import candidates
from router_svc.core.types import Ask, Policy
from router_svc.fleet import Fleet
from router_svc.learner import Learner
from services.kit import log
from services.kit.config import Model, Replica, Router

LAYOUTS = ((3, 1), (3, 4), (6, 2), (12, 1), (8, 8))
"""(models, replicas of each)."""
TEXT = "Write a Python function that returns the 3 largest numbers of a list. Explain why."


def measure(models: int, replicas: int, rounds: int) -> dict[str, float]:
    """Decide *rounds* times for a warm fleet; times in milliseconds."""
    fleet_of = tuple(
        Model(
            name=f"m{m}",
            dir=".",
            replicas=tuple(Replica(listen=f"m{m}:{r}") for r in range(replicas)),
            usd_per_m_completion_tokens=0.1 * (m + 1),
        )
        for m in range(models)
    )
    fleet, learner = Fleet(fleet_of, Router(), time.monotonic), Learner(fleet_of, 2000.0)
    for name in fleet.names:
        fleet.health(name, serving=True)
    features, rng = lexical_profile(TEXT), np.random.default_rng(1)
    for i in range(200):
        learner.predictors.quality.learn(f"m{i % models}", features, float(rng.random() < 0.6))
    ask = Ask(text=TEXT, characters=len(TEXT), deadline_s=30.0)
    policy = Policy(latency_weight_per_s=0.05, cost_weight_per_usd=20.0)
    times = np.empty(rounds)
    cpu_s = time.thread_time()
    for i in range(rounds):
        began = time.perf_counter()
        found = candidates(
            ask,
            features,
            fleet.replicas(),
            predictors=learner.predictors,
            prices=learner.prices,
            policy=policy,
            rotation=i,
        )
        decide(ask, found, policy, rng, gains={})
        times[i] = time.perf_counter() - began
    cpu_s = time.thread_time() - cpu_s
    p50, p99 = np.percentile(times * 1e3, [50, 99])
    return {
        "replicas": models * replicas,
        "models": models,
        "p50_ms": float(p50),
        "p99_ms": float(p99),
        "cpu_ms": 1e3 * cpu_s / rounds,
    }


def main() -> None:
    """Measure every layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=3000)
    options = parser.parse_args()
    log.configure("bench", "error")
    rows = [measure(*layout, options.rounds) for layout in LAYOUTS]
    if options.json:
        print(json.dumps({"decide": rows}))
        return
    print(f"{'models':>6} {'replicas':>8} {'p50 ms':>8} {'p99 ms':>8} {'cpu ms':>8}")
    for row in rows:
        print(
            f"{row['models']:>6} {row['replicas']:>8} {row['p50_ms']:>8.3f} {row['p99_ms']:>8.3f} "
            f"{row['cpu_ms']:>8.3f}"
        )


if __name__ == "__main__":
    main()
