"""Decide at random, many times, and print a digest of all that came of it.

A process of its own, so that one can run compiled and another not: `python -m` this.
"""

from hashlib import blake2b

import numpy as np
from numpy.random import Generator

from router_svc import compiled
from router_svc.core.decide import decide
from router_svc.core.types import Ask, Candidates, Policy, Priority

DECISIONS = 400
SHIPPED = frozenset({"single", "cascade", "vote", "hedge"})


def candidates(rng: Generator) -> Candidates:
    """One to nine models, some of them late, dear, full or fallen."""
    count = int(rng.integers(1, 10))
    quality, total_s = rng.uniform(0.02, 0.98, count), rng.lognormal(0.0, 1.0, count)
    sure = np.clip(quality[:, None] + rng.normal(0.0, 0.25, (count, 16)), 0.0, 1.0)
    agreement = rng.uniform(-0.5, 0.98, (count, count))
    some = rng.random((4, count)) < np.array([[0.5], [0.5], [0.1], [0.2]])
    return Candidates(
        models=tuple(f"m{i}" for i in range(count)),
        replicas=tuple(f"r{i}" for i in range(count)),
        quality=quality.tolist(),
        quality_stddev=rng.uniform(0.0, 0.3, count).tolist(),
        ttft_p50_s=(total_s * 0.1).tolist(),
        ttft_p90_s=(total_s * 0.2).tolist(),
        total_p50_s=total_s.tolist(),
        total_p90_s=(total_s * rng.uniform(1.0, 3.0, count)).tolist(),
        cost_usd=rng.uniform(0.0, 0.01, count).tolist(),
        output_tokens=rng.uniform(1.0, 500.0, count).tolist(),
        report_age_s=[0.0] * count,
        capacity_price=(rng.uniform(0.0, 0.1, count) * some[0]).tolist(),
        spares=tuple("spare" if has else "" for has in some[1].tolist()),
        stall_ratio=0.001,
        confidence=np.sort(sure, axis=1).tolist(),
        agreement=((agreement + agreement.T) / 2.0).tolist(),
        wait_s=(rng.random(count) * some[2]).tolist(),
        probe_ratio=(0.05 * some[3] / count).tolist(),
    )


def decided(seed: int) -> str:
    """All of one decision, or why there is none, in words that give back every bit."""
    rng = np.random.default_rng(seed)
    policy = Policy(
        latency_weight_per_s=0.05,
        cost_weight_per_usd=20.0,
        max_calls=int(rng.integers(1, 6)),
        plans=SHIPPED if seed % 2 else frozenset(),
        verifier="v" if seed % 5 == 0 else "",
        may_draw=bool(seed % 3),
    )
    ask = Ask(
        text="",
        characters=0,
        deadline_s=None if seed % 4 == 0 else float(rng.uniform(0.5, 10.0)),
        min_quality=0.1 * (seed % 4),
        priority=Priority.CRITICAL if seed % 7 == 0 else Priority.STANDARD,
    )
    gains = {"vote": 0.02, "cascade": -0.01} if seed % 3 == 0 else {}
    try:
        made = decide(ask, candidates(rng), policy, rng, gains=gains)
    except LookupError as error:
        # By name: what is compiled has no `vars` on every version of Python.
        why = [getattr(error, name, None) for name in ("best", "expected_s", "wait_s", "model")]
        return repr((error, why))
    figures = [getattr(made.menu, name) for name in ("quality", "latency_s", "in_time", "utility")]
    found = (made.plan, made.propensity, made.explored, made.probabilities, figures, made.plans())
    return repr(found)


if __name__ == "__main__":
    all_of_it = "\n".join(decided(seed) for seed in range(DECISIONS))
    kind = "compiled" if compiled.used() else "plain"
    print(kind, blake2b(all_of_it.encode()).hexdigest(), all_of_it.count("Error"))  # noqa: T201
