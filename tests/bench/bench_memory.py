"""What learning takes, warm and with many outcomes: `python -m tests.bench.bench_memory`.

Sixteen models, started from a table of 2,000 prompts (random vectors), then 5,000 outcomes one by
one from 300 sources. What is learned has a fixed size, so a million outcomes take the same. Times
are those of this thread on the CPU: set OMP_NUM_THREADS=1.
"""

import resource
from dataclasses import replace
from time import thread_time

import numpy as np

from router_svc.core.features import EMBEDDING_SIZE, Features, lexical_profile
from router_svc.core.judge import Judge, Verdict
from router_svc.core.quality import Quality

MODELS, ROWS, OUTCOMES, SOURCES = 16, 2_000, 5_000, 300


def main() -> None:
    """Print sizes and times."""
    rng = np.random.default_rng(0)
    names = tuple(f"m{i}" for i in range(MODELS))
    quality = Quality(names, {})
    prompts = [prompt(rng) for _ in range(ROWS)]
    quality.learn_table(prompts, rng.integers(0, 2, (ROWS, MODELS)).astype(np.float64))
    judge = Judge(quality)
    predict_s, learn_s = np.zeros(OUTCOMES), np.zeros(OUTCOMES)
    for n in range(OUTCOMES):
        features = prompts[n % ROWS]
        began_s = thread_time()
        judge.judge(features)
        predicted_s = thread_time()
        verdict = Verdict(
            model=names[n % MODELS], score=float(n % 2), source=f"s{n % SOURCES}", decided_s=n
        )
        judge.learn(features, verdict)
        predict_s[n], learn_s[n] = predicted_s - began_s, thread_time() - predicted_s
        if n + 1 in (OUTCOMES // 10, OUTCOMES):
            state = {**quality.to_arrays(), **judge.to_arrays()}
            size = sum(array.nbytes for array in state.values()) / 1e6
            print(f"state after {n + 1:6} outcomes   {size:8.1f} MB")
    for name, times in (("predict", predict_s), ("learn", learn_s)):
        p50, p99 = np.quantile(times, [0.5, 0.99]) * 1e3
        print(f"{name:8} p50 {p50:7.3f} ms   p99 {p99:7.3f} ms")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    print(f"largest resident set, table of {ROWS} prompts included   {peak:.0f} MB")


def prompt(rng: np.random.Generator) -> Features:
    """Return a prompt about anything."""
    vector = rng.standard_normal(EMBEDDING_SIZE)
    plain = lexical_profile(f"What is {rng.integers(99)} + {rng.integers(99)}?")
    return replace(
        plain, embedding=vector / np.linalg.norm(vector), tasks=rng.dirichlet(np.ones(4))
    )


if __name__ == "__main__":
    main()
