"""Times of the router's predictors: `python -m tests.bench.bench_quality [--json]`."""

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from timeit import repeat

import numpy as np

from router_svc.core.confidence import Confidence
from router_svc.core.features import EMBEDDING_SIZE, Features, lexical, lexical_profile
from router_svc.core.judge import Judge, Verdict
from router_svc.core.latency import Latency
from router_svc.core.length import Length
from router_svc.core.loads import loads_of
from router_svc.core.neighbours import KEPT
from router_svc.core.quality import Quality

SHORT = "What is 31 + 7 * (12 - 5)? Answer with the number alone."
LONG = "Explain, step by step, what this function returns and why. " * 60


def main() -> None:
    """Print each figure, in microseconds: the best of seven runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = {name: _microseconds(run) for name, run in cases()}
    if arguments.json:
        print(json.dumps(figures))
        return
    for name, figure in figures.items():
        print(f"{name:40} {figure:9.1f} us")


def cases() -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield what is timed."""
    yield f"lexical, {len(SHORT)} characters", lambda: lexical(SHORT)
    yield f"lexical, {len(LONG)} characters", lambda: lexical(LONG)
    features = lexical_profile(SHORT)
    yield "regressors", lambda: replace(features)
    for count in (3, 16):
        names = [f"m{i}" for i in range(count)]
        quality, length = Quality(names, {}), Length(names)
        yield f"quality, predict {count} models", partial(quality.predict, features)
        yield f"quality, learn, {count} models", partial(quality.learn, "m0", features, 1.0)
        judge = Judge(quality)
        verdict = Verdict(model="m0", score=1.0, source="a")
        yield f"judge, predict {count} models", partial(judge.judge, features)
        yield f"judge, learn, {count} models", partial(judge.learn, features, verdict)
        yield f"length, predict {count} models", partial(length.predict, features)
    yield "quality, predict 16 models from a table", _from_table(features)
    confidence = Confidence(["a"])
    yield "confidence, predict", lambda: confidence.predict("a", -0.1, 0.6)
    yield "confidence, learn", lambda: confidence.learn("a", -0.1, 0.6, 1.0)
    yield "confidence, spread", lambda: confidence.spread([0], [0.6])
    for rows in (3, 12, 64):
        yield f"latency, predict {rows} replicas", _latency(rows)


def _from_table(features: Features) -> Callable[[], object]:
    """Start from as many random prompts as are kept of a table."""
    rng, models = np.random.default_rng(0), 16
    vectors = rng.normal(size=(KEPT, EMBEDDING_SIZE))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    prompts = [replace(features, embedding=vector) for vector in vectors]
    quality = Quality([f"m{i}" for i in range(models)], {})
    quality.learn_table(prompts, rng.integers(0, 2, (KEPT, models)).astype(np.float64))
    return partial(quality.predict, prompts[0])


def _latency(rows: int) -> Callable[[], object]:
    latency = Latency(["a"], replicas=[f"a-{i}" for i in range(rows)])
    load = np.full(rows, 3.0)
    loads = loads_of(
        replica=np.arange(rows),
        model=np.zeros(rows, dtype=np.int64),
        running=load,
        waiting=load,
        waiting_prompt_tokens=load,
        remaining_tokens=load,
        max_running=load,
        age_s=load,
    )
    return lambda: latency.predict(loads, 20, load)


def _microseconds(run: Callable[[], object]) -> float:
    return min(repeat(run, number=200, repeat=7)) / 200 * 1e6


if __name__ == "__main__":
    main()
