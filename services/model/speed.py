"""How fast a model runs here, and how much of what the memory allows that is.

A decode step reads every weight once, whatever the batch: memory bandwidth over the bytes of the
weights and the cache is the most steps per second that any program can do. The bandwidth is
measured on the spot, as the fastest of copying and reading an array much larger than caches.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from services.kit.errors import ConfigError
from services.model.backends.base import Backend
from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request
from services.model.graph import decoder, runnable
from services.model.graph.runnable import Runnable

BATCHES = (1, 2, 4, 8, 16)
PROMPT_TOKENS, STEPS = 128, 32
_RUNS = 3
_ARRAY_BYTES = 1 << 28
_TIMES = 5

Progress = Callable[[str, int, int], None]
"""Told the stage, what is done, and what there is to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What one batch size does; medians of a few runs."""

    batch: int
    prefill_tokens_per_s: float
    """Prompt tokens of all requests, over the time until each had its first token."""
    ttft_s: float
    """Median over requests that arrive together."""
    decode_tokens_per_s: float
    bandwidth_ratio: float
    """Decode steps per second, as a share of what memory bandwidth allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A model's speed on this machine."""

    precision: str
    parameters: int
    threads: int
    prompt_tokens: int
    decode_steps: int
    bandwidth_bytes_per_s: float
    step_bytes: int
    """Weights that a decode step reads."""
    speeds: Sequence[Speed]


def bench(
    folder: Path,
    *,
    batches: Sequence[int] = BATCHES,
    threads: int = 1,
    progress: Progress = lambda *_: None,
) -> Report:
    """Measure the model in *folder*. Raises ConfigError."""
    stored = runnable.load_generator(folder)
    prompt, steps = _lengths(stored, max(batches))
    context = prompt + steps + 2 * max(batches)
    backend = OrtBackend(
        stored.graph, stored.shape, slots=max(batches), context_tokens=context, threads=threads
    )
    progress("memory", 0, len(batches) + 1)
    bandwidth = bandwidth_bytes_per_s(threads)
    measured = partial(_speed, backend, stored, prompt=prompt, steps=steps, bandwidth=bandwidth)
    speeds = []
    for i, batch in enumerate(batches):
        progress(f"batch {batch}", i + 1, len(batches) + 1)
        speeds.append(measured(batch))
    return Report(
        precision=stored.precision,
        parameters=stored.parameters,
        threads=threads,
        prompt_tokens=prompt,
        decode_steps=steps,
        bandwidth_bytes_per_s=bandwidth,
        step_bytes=decoder.step_bytes(stored.shape, stored.precision),
        speeds=speeds,
    )


def bandwidth_bytes_per_s(threads: int) -> float:
    """Measure how fast *threads* move memory."""
    source = np.ones(_ARRAY_BYTES // 4, np.float32)
    target = np.empty_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:

        def rate(work: Callable[[tuple[NDArray[Any], NDArray[Any]]], object], moved: int) -> float:
            start = perf_counter()
            list(pool.map(work, parts))
            return moved / (perf_counter() - start)

        copies = [rate(lambda p: np.copyto(p[1], p[0]), 2 * _ARRAY_BYTES) for _ in range(_TIMES)]
        reads = [rate(lambda p: p[0].max(), _ARRAY_BYTES) for _ in range(_TIMES)]
    return max(*copies, *reads)


def _lengths(stored: Runnable, batch: int) -> tuple[int, int]:
    """Return the prompt's tokens and the decode steps that fit in the model's context."""
    room = stored.shape.context_tokens - 2 * batch
    prompt, steps = min(PROMPT_TOKENS, room // 2), min(STEPS, room // 4)
    if steps < 1:
        raise ConfigError(f"a context of {stored.shape.context_tokens} tokens is too short to time")
    return prompt, steps


def _speed(
    backend: Backend, stored: Runnable, batch: int, *, prompt: int, steps: int, bandwidth: float
) -> Speed:
    runs = [_run(backend, stored.shape.vocabulary, prompt, steps, batch) for _ in range(_RUNS)]
    prefill_s, ttft_s, decode_s = (median(column) for column in zip(*runs, strict=True))
    shape = stored.shape
    held = batch * (prompt + steps / 2)  # on average
    cache_bytes = held * shape.layers * shape.kv_heads * shape.head_dim * 2 * 4
    moved = steps * (decoder.step_bytes(shape, stored.precision) + cache_bytes)
    return Speed(
        batch=batch,
        prefill_tokens_per_s=round(batch * prompt / prefill_s, 1),
        ttft_s=round(ttft_s, 6),
        decode_tokens_per_s=round(batch * steps / decode_s, 1),
        bandwidth_ratio=round(moved / decode_s / bandwidth, 4),
    )


def _run(
    backend: Backend, vocabulary: int, prompt: int, steps: int, batch: int
) -> tuple[float, float, float]:
    """Return the seconds until all had their first token, the median of those, and of decoding."""
    limits = Limits(
        max_running=batch, kv_tokens=batch * backend.context_tokens, chunk_tokens=prompt
    )
    engine, rng = Engine(backend, limits), np.random.default_rng(0)
    room = backend.context_tokens - prompt
    for i in range(batch):
        tokens = rng.integers(0, vocabulary, prompt)
        engine.add(Request(id=i, tokens=tokens, max_tokens=room))
    first_s: dict[int, float] = {}
    start = perf_counter()
    while len(first_s) < batch:
        outputs = engine.step().outputs
        for out in outputs:
            if isinstance(out, Generated):
                first_s.setdefault(out.id, perf_counter() - start)
    begun = perf_counter()
    for _ in range(steps):
        engine.step()
    return begun - start, median(first_s.values()), perf_counter() - begun
