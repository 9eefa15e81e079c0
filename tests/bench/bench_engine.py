"""What the engine costs beside the model, and how fast a pocket model decodes.

    python -m tests.bench.bench_engine [--json] [--model DIRECTORY]

Overhead is the time of a decode step outside the backend, 16 rows of a vocabulary of 1,024, on a
backend that computes nothing. Speed is tokens per second of the whole engine by rows in the batch,
median of five runs. Time to first token is that of a system prompt of 512 tokens and a question of
16, when the system prompt is new and when it was there before, on a random model (8 layers of 512).
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from services.model.backends.base import Backend, Ids, Logits
from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Limits, Request, Sampling
from services.model.graph import checkpoint, decoder
from tests.unit.services.model import tiny

ROWS, VOCABULARY, CONTEXT_TOKENS = 16, 1024, 512
STEPS, RUNS = 200, 5
BATCHES = (1, 2, 4, 8, 16)
SYSTEM_TOKENS, QUESTION_TOKENS = 512, 16
MEDIUM = {
    "num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 1536,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
    "max_position_embeddings": 1024,
}  # fmt: skip
POCKET = Path("services/model/pocket/pocket-reasoner")
SAMPLINGS = {
    "greedy": lambda i: Sampling(),  # noqa: ARG005 - one form for all
    "temperature": lambda i: Sampling(temperature=1.0, seed=i),
    "top-k, top-p": lambda i: Sampling(temperature=1.0, top_k=50, top_p=0.9, seed=i),
    "penalties": lambda i: Sampling(
        temperature=1.0, repetition_penalty=1.1, frequency_penalty=0.1, seed=i
    ),
}


class Still:
    """A backend whose logits are ready, so that only the engine's own work is left."""

    def __init__(self) -> None:
        self.slots, self.context_tokens = ROWS, CONTEXT_TOKENS
        self._logits = np.random.default_rng(1).normal(0, 3, (ROWS, VOCABULARY)).astype(np.float32)

    def prefill(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """Return what is ready."""
        del slot, start, tokens
        return self._logits[:wanted]

    def decode(self, tokens: Ids, lengths: Ids) -> Logits:
        """Return what is ready."""
        del lengths
        return self._logits[: len(tokens)]

    def copy(self, source: int, target: int, length: int) -> None:
        """Do nothing."""

    def swap(self, one: int, other: int, length: int) -> None:
        """Do nothing."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", action="store_true", help="figures for a program")
    parser.add_argument("--model", type=Path, default=POCKET, help="a Hugging Face directory")
    arguments = parser.parse_args()
    figures = {
        "overhead_ms": {name: overhead_ms(make) for name, make in SAMPLINGS.items()},
        "model": arguments.model.name,
        "tokens_per_s": speeds(arguments.model),
        "ttft_ms": first_token_ms(),
    }
    print(json.dumps(figures) if arguments.json else _table(figures))


def overhead_ms(sampling: Callable[[int], Sampling]) -> float:
    """Return the median time of a decode step of 16 rows around the backend."""
    engine = _filled(Still(), ROWS, sampling, max_tokens=STEPS + 2)
    return round(median(_step_times(engine, STEPS)) * 1e3, 3)


def speeds(folder: Path) -> dict[int, float]:
    """Return tokens per second by batch size."""
    stored = checkpoint.load(folder)
    backend = OrtBackend(
        decoder.build(stored), stored.shape, slots=ROWS, context_tokens=CONTEXT_TOKENS, threads=1
    )
    return {rows: _speed(backend, rows) for rows in BATCHES}


def first_token_ms() -> dict[str, float]:
    """Return the median time to first token by whether the system prompt is new."""
    with tempfile.TemporaryDirectory() as folder:
        stored = checkpoint.load(tiny.write(Path(folder), changes=MEDIUM))
        backend = OrtBackend(
            decoder.build(stored), stored.shape, slots=4, context_tokens=1024, threads=1
        )
    limits = Limits(max_running=4, kv_tokens=4 * 1024, chunk_tokens=256)
    engine, rng = Engine(backend, limits), np.random.default_rng(2)
    new, repeated = [], []
    for _ in range(RUNS):
        system = rng.integers(0, 256, SYSTEM_TOKENS)
        new.append(_first_token_s(engine, system, rng))
        repeated.append(_first_token_s(engine, system, rng))
    return {
        "new": round(median(new) * 1e3, 2), "repeated": round(median(repeated) * 1e3, 2),
    }  # fmt: skip


def _first_token_s(engine: Engine, system: Ids, rng: np.random.Generator) -> float:
    tokens = np.concatenate([system, rng.integers(0, 256, QUESTION_TOKENS)])
    start = perf_counter()
    engine.add(Request(id=int(rng.integers(2**62)), tokens=tokens, max_tokens=1))
    while not engine.idle:
        engine.step()
    return perf_counter() - start


def _speed(backend: Backend, rows: int) -> float:
    runs = []
    for _ in range(RUNS):
        engine = _filled(backend, rows, SAMPLINGS["greedy"], max_tokens=STEPS + 2)
        runs.append(rows * STEPS / sum(_step_times(engine, STEPS)))
    return round(median(runs), 1)


def _filled(
    backend: Backend, rows: int, sampling: Callable[[int], Sampling], *, max_tokens: int
) -> Engine:
    """Return an engine that decodes *rows* sequences with prompts of 16 tokens."""
    limits = Limits(max_running=ROWS, kv_tokens=ROWS * CONTEXT_TOKENS, chunk_tokens=ROWS * 16)
    engine = Engine(backend, limits)
    for i in range(rows):
        prompt = np.arange(16, dtype=np.int64)
        engine.add(Request(id=i, tokens=prompt, max_tokens=max_tokens, sampling=sampling(i)))
    engine.step()
    return engine


def _step_times(engine: Engine, steps: int) -> list[float]:
    times = []
    for _ in range(steps):
        start = perf_counter()
        engine.step()
        times.append(perf_counter() - start)
    return times


def _table(figures: dict[str, object]) -> str:
    overhead, speed, first = (figures[k] for k in ("overhead_ms", "tokens_per_s", "ttft_ms"))
    assert isinstance(overhead, dict)
    assert isinstance(speed, dict)
    assert isinstance(first, dict)
    lines = [f"engine overhead per decode step, {ROWS} rows (ms)"]
    lines += [f"  {name:<14}{value:>8.3f}" for name, value in overhead.items()]
    lines += ["", f"{figures['model']}, decode (tokens/s)"]
    lines += [f"  {f'{rows} rows':<14}{value:>8.0f}" for rows, value in speed.items()]
    lines += ["", f"time to first token, system prompt of {SYSTEM_TOKENS} tokens (ms)"]
    lines += [f"  {name:<14}{value:>8.2f}" for name, value in first.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
