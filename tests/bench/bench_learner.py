"""What learning takes of time and memory: `python -m tests.bench.bench_learner [--outcomes N]`.

The router's whole learner (quality with its memory and lessons, change detection, trust,
confidence, lengths, latency, agreement), sixteen models, fed with outcomes as the router feeds it,
on an event loop beside which lessons are learned as in the service. Prompts are real, their
vectors random about their family's. Memory is this process's own (RssAnon). *predict* is what a
decision asks of it, *update* all that an answer and its feedback teach; both as wall time, which
other work on the machine lengthens, and as time of this thread on the CPU. Set OMP_NUM_THREADS=1,
as `zeta up` does.
"""

import argparse
import asyncio
import ctypes
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Final

import numpy as np
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc.app import collect_seldom
from router_svc.chores import study_for_ever
from router_svc.core.features import EMBEDDING_SIZE, Features, lexical_profile
from router_svc.core.loads import loads_of
from router_svc.core.reward import Step
from router_svc.fleet import Lease
from router_svc.learner import Learner, Remembered
from router_svc.run import Call
from services.kit.aio import cancelled
from services.kit.config import Model, Replica
from zeta_client.tasks import generate

MODELS: Final = 16
PROMPTS: Final = 4_000
SOURCES: Final = 300
_LOAD: Final = loads_of(
    replica=np.zeros(1, dtype=np.int64),
    model=np.zeros(1, dtype=np.int64),
    running=np.array([2.0]),
    waiting=np.zeros(1),
    waiting_prompt_tokens=np.zeros(1),
    remaining_tokens=np.array([20.0]),
    max_running=np.array([16.0]),
    age_s=np.array([0.1]),
)


def main() -> None:
    """Print sizes and times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--outcomes", type=int, default=20_000)
    parser.add_argument("--table", type=int, default=0, help="prompts of a table to start from")
    parser.add_argument("--rate", type=float, default=0.0, help="outcomes per second; 0: no pause")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    found = asyncio.run(_learned(asked.outcomes, asked.table, asked.rate))
    if asked.json:
        print(json.dumps(found))
        return
    for name, figure in found.items():
        print(f"{name:42} {figure:12,.3f}")


async def _learned(outcomes: int, table: int, rate: float) -> Mapping[str, float]:
    """Feed *outcomes*, *rate* of them per second, and return the figures by name."""
    rng = np.random.default_rng(0)
    prompts = _prompts(max(PROMPTS, table), rng)
    learner = _learner()
    if table:
        scores = rng.integers(0, 2, (table, MODELS)).astype(np.float64)
        learner.predictors.quality.learn_table(prompts[:table], scores)
    collect_seldom()
    before_mb, most_mb = _settled_mb(), 0.0
    took_s = np.zeros((4, outcomes), dtype=np.float32)
    studying = np.zeros(outcomes, dtype=np.bool_)
    lessons, busy = _counted(learner)
    task = asyncio.create_task(study_for_ever(learner))
    began_s = perf_counter()
    for n in range(outcomes):
        # Lets the study begin, and keeps the pace.
        await asyncio.sleep(max(began_s + n / rate - perf_counter(), 0.0) if rate else 0.0)
        studying[n] = busy[0]
        took_s[:, n] = _one(learner, prompts[n % len(prompts)], n)
        if n % 512 == 0:
            most_mb = max(most_mb, _own_mb())
    elapsed_s = perf_counter() - began_s
    await cancelled(task)
    return {
        "outcomes": float(outcomes),
        "outcomes per second": outcomes / elapsed_s,
        "lessons": float(lessons[0]),
        "outcomes while a lesson is learned, share": float(studying.mean()),
        **_quantiles("predict, ms", took_s[0]),
        **_quantiles("update, ms", took_s[1]),
        **_quantiles("update while a lesson is learned, ms", took_s[1][studying]),
        **_quantiles("predict, CPU ms", took_s[2]),
        **_quantiles("update, CPU ms", took_s[3]),
        "memory before, MB": before_mb,
        "growth, MB": _settled_mb() - before_mb,
        "growth at most, MB": most_mb - before_mb,
        "saved state, MB": sum(a.nbytes for a in learner.to_arrays().values()) / 1e6,
    }


def _one(learner: Learner, features: Features, n: int) -> tuple[float, ...]:
    """Predict, then take in an answer and what is thought of it.

    Return what each took, by the clock and on the CPU.
    """
    name = f"m{n * 7 % MODELS}"
    began_s, began_cpu_s = perf_counter(), thread_time()
    predictors = learner.predictors
    judged = predictors.judge.judge(features)
    predictors.confidence.spread(range(len(judged.quality)), judged.quality.tolist())
    predictors.agreement.correlation(features.tasks)
    predicted_s, predicted_cpu_s = perf_counter(), thread_time()
    learner.answered(_call(name, n), _lease(n), features)
    steps = [Step(model=name, replica=name, mean_logprob=-0.1 - n % 7 / 20.0, chosen=True)]
    if n % 5 == 0:  # a vote, whose members may agree
        steps += [Step(model=f"m{(n + i) % MODELS}", replica="", agrees=i > 1) for i in (1, 2)]
    about = Remembered(
        features=features,
        kind="vote" if n % 5 == 0 else "single",
        expected_quality=0.6,
        tenant=f"tenant{n % SOURCES}",
        decided_s=float(n),
        steps=tuple(steps),
    )
    learner.feedback(about, float(hash((n, features.prompt_tokens)) % 3 > 0))
    updated_s, updated_cpu_s = perf_counter(), thread_time()
    return (
        *(predicted_s - began_s, updated_s - predicted_s),
        *(predicted_cpu_s - began_cpu_s, updated_cpu_s - predicted_cpu_s),
    )


def _learner() -> Learner:
    priors: Any = {"code": 0.6, "reasoning": 0.5, "general": 0.7}
    models = [
        Model(name=f"m{i}", dir=".", replicas=(Replica(listen="127.0.0.1:1"),), priors=priors)
        for i in range(MODELS)
    ]
    return Learner(models, half_life_outcomes=2000.0)


def _prompts(count: int, rng: np.random.Generator) -> Sequence[Features]:
    """Return profiles of real prompts; vectors of one family are near each other."""
    tasks = generate(count, split="train", seed=1)
    families = sorted({task.family for task in tasks})
    centres = rng.standard_normal((len(families), EMBEDDING_SIZE))
    found = []
    for task in tasks:
        vector = centres[families.index(task.family)] + rng.standard_normal(EMBEDDING_SIZE)
        profile = lexical_profile(task.prompt)
        found.append(replace(profile, embedding=vector / np.linalg.norm(vector)))
    return found


def _call(model: str, n: int) -> Call:
    usage = inference_pb.Usage(prompt_tokens=30, completion_tokens=10 + n % 40)
    last = inference_pb.GenerateResponse(finished=inference_pb.Finished(usage=usage))
    return Call(
        model=model,
        replica=model,
        part="single",
        expected_s=0.2,
        prompt_tokens=30,
        ttft_s=0.02 + n % 5 / 100.0,
        total_s=0.2 + n % 11 / 50.0,
        last=last,
    )


def _lease(n: int) -> Lease:
    # A second apart: the learner takes in every answer's time.
    return Lease(
        index=0, replica="", load=_LOAD, prompt_tokens=30.0, output_tokens=20.0, began_s=float(n)
    )


def _counted(learner: Learner) -> tuple[list[int], list[bool]]:
    """Count lessons as they end, and say whether one is being learned."""
    lessons, busy = [0], [False]
    quality = learner.predictors.quality
    begin, end = quality.lesson, quality.adopt

    def lesson() -> Any:
        found = begin()
        busy[0] = found is not None
        return found

    def adopt(learned: Any) -> None:
        busy[0] = False
        lessons[0] += 1
        end(learned)

    quality.lesson, quality.adopt = lesson, adopt  # type: ignore[method-assign]
    return lessons, busy


def _quantiles(name: str, took_s: Any) -> dict[str, float]:
    if not len(took_s):
        return {}
    levels = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    return {f"{name}, {k}": float(np.quantile(took_s, q)) * 1e3 for k, q in levels.items()}


def _settled_mb() -> float:
    """Return what is in use once the allocator has given back what it can."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return _own_mb()


def _own_mb() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1e3


if __name__ == "__main__":
    main()
