"""What every engine of bench_peers is asked, and how it reports: NumPy alone, for any interpreter.

An engine is a module with a class that is called with the model's directory, the processor threads
and the tokens that one sequence may have. Its process says on stdout, as one line of JSON, what it
is and what it did.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

PROMPT_TOKENS, STEPS, RUNS = 128, 64, 3
REQUESTS, EVERY_S = 16, 0.25
CONTEXT_TOKENS = 512
VOCABULARY = 150_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request of the second case."""

    at_s: float
    tokens: NDArray[np.int64]
    max_tokens: int


@dataclass(slots=True, kw_only=True)
class Served:
    """When a request, counted from its arrival, had its first and its last token."""

    first_s: float = 0.0
    last_s: float = 0.0
    tokens: int = 0


class Peer(Protocol):
    """An engine that is measured."""

    versions: str

    def decode(self, prompt: NDArray[np.int64], steps: int) -> float:
        """Return the seconds of *steps* tokens after the first one."""
        ...

    def serve(self, arrivals: Sequence[Arrival], clock: "Clock") -> list[Served]:
        """Answer each request in full, none before it arrives."""
        ...


class Clock:
    """Seconds since the case began."""

    def __init__(self) -> None:
        self._start = perf_counter()

    def now_s(self) -> float:
        """Return the time."""
        return perf_counter() - self._start


def prompt(seed: int, count: int = PROMPT_TOKENS) -> NDArray[np.int64]:
    """Return random token ids (T,)."""
    return np.random.default_rng(seed).integers(0, VOCABULARY, count)


def arrivals() -> list[Arrival]:
    """Return requests at random times (a Poisson process), of random lengths."""
    rng = np.random.default_rng(11)
    at = np.cumsum(rng.exponential(EVERY_S, REQUESTS))
    return [
        Arrival(
            at_s=float(at[i] - at[0]),
            tokens=prompt(100 + i, int(rng.integers(32, 257))),
            max_tokens=int(rng.integers(16, 129)),
        )
        for i in range(REQUESTS)
    ]


def main(make: Callable[[Path, int, int], Peer]) -> None:
    """Do the case that the command line names, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("case", choices=["decode", "serve"])
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    peer = make(arguments.model, arguments.threads, CONTEXT_TOKENS)
    found = decoded(peer) if arguments.case == "decode" else served(peer)
    print(json.dumps({"versions": peer.versions, **found}))


def decoded(peer: Peer) -> dict[str, float]:
    """Return tokens per second of one sequence, median of a few; the first run only warms up."""
    peer.decode(prompt(0), 4)
    runs = [peer.decode(prompt(1 + i), STEPS) for i in range(RUNS)]
    return {"tokens_per_s": STEPS / median(runs)}


def served(peer: Peer) -> dict[str, object]:
    """Return tokens per second over all requests, and when each had its first token."""
    peer.decode(prompt(0), 4)
    asked = arrivals()
    found = peer.serve(asked, Clock())
    assert [f.tokens for f in found] == [a.max_tokens for a in asked], "an answer was cut short"
    ended_s = max(a.at_s + f.last_s for a, f in zip(asked, found, strict=True))
    return {
        "tokens_per_s": sum(f.tokens for f in found) / ended_s,
        "ttft_p50_s": float(np.percentile([f.first_s for f in found], 50)),
        "ttft_p99_s": float(np.percentile([f.first_s for f in found], 99)),
        "requests": [asdict(f) for f in found],
    }
