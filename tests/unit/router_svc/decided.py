"""Decide at random, many times, and print a digest of all that came of it.

A process of its own, so that one can run compiled and another not: `python -m` this.
"""

from hashlib import blake2b

import numpy as np
from numpy.random import Generator

from router_svc import compiled
from router_svc.core.balance import BALANCERS, View, best_per_model
from router_svc.core.decide import decide
from router_svc.core.latency import Latency
from router_svc.core.load import Load
from router_svc.core.recent import Recent
from router_svc.core.shadow import congestion, slot_s
from router_svc.core.types import Ask, Candidates, Policy, Priority, Replicas

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


def foreseen(seed: int) -> str:
    """What is predicted of every replica of a busy fleet, and who is chosen by each balancer."""
    rng = np.random.default_rng(seed)
    model = np.sort(rng.integers(0, 3, 12))
    load, recent, yes = Load(model, [4.0] * 12), Recent(12), np.ones(12, dtype=np.bool_)
    latency = Latency("abc", replicas=[f"r{i}" for i in range(12)])
    said: list[object] = []
    for turn in range(40):
        i, now_s = int(rng.integers(12)), 0.1 * turn
        load.began(i, float(rng.uniform(1.0, 99.0)), float(rng.uniform(1.0, 99.0)), now_s=now_s)
        recent.began(i)
        j, requests, prompt = int(rng.integers(12)), rng.uniform(0.0, 9.0), rng.uniform(0.0, 99.0)
        load.reported(
            j, requests=requests, prompt_tokens=prompt, max_running=5.0, read_at_s=now_s - 0.05
        )
        recent.took(j, float(rng.lognormal()), now_s)
        first_s, more_s = rng.lognormal(-2.0, 0.5, 2).tolist()
        row, times = load.row(i, now_s), {"ttft_s": first_s, "total_s": first_s + more_s}
        latency.learn("abc"[model[i]], row, prompt_tokens=50, output_tokens=20, **times)
        loads = load.loads(now_s)
        when = latency.predict(loads, 20.0, rng.uniform(1.0, 99.0, 3).take(model))
        fleet = Replicas(
            models=("a", "b", "c"),
            names=latency.replicas,
            model=model,
            healthy=yes,
            draining=~yes,
            circuit_closed=yes,
            can_generate=yes,
            context_tokens=np.full(12, np.inf),
            loads=loads,
            last_turn=recent.last_turn,
            peaks=recent.peaks,
        )
        view = View(replicas=fleet, able=rng.random(12) < 0.8, total_s=when.total_s, rotation=turn)
        said += [best_per_model(fleet, view.able, key(view)) for key in BALANCERS.values()]
        for k in range(12):
            one = latency.quantiles(when, k)
            figures = (one.ttft_p50_s, one.ttft_p90_s, one.total_p50_s, one.total_p90_s)
            said.append((*figures, slot_s(one), congestion(*loads.use_of(k))))
    return repr(said)


if __name__ == "__main__":
    all_of_it = "\n".join([decided(seed) for seed in range(DECISIONS)] + [foreseen(1), foreseen(2)])
    kind = "compiled" if compiled.used() else "plain"
    print(kind, blake2b(all_of_it.encode()).hexdigest(), all_of_it.count("Error"))  # noqa: T201
