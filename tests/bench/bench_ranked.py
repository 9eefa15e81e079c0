"""Choosing tokens from whole rows, and from candidates: python -m tests.bench.bench_ranked."""

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np

from services.model.backends.base import Ids, Logits
from services.model.engine import ranked, sampler
from services.model.engine.types import Request, Sampling, Sequence

ROWS, VOCABULARY, CANDIDATES, RUNS = 16, 151_936, 64, 15
SETTINGS = {
    "greedy": Sampling(),
    "top-k 20, top-p 0.8": Sampling(temperature=0.7, top_k=20, top_p=0.8),
    "temperature alone": Sampling(temperature=1.0),
}


@dataclass(frozen=True)
class Ranked:
    """What a device hands over: a `base.Ranked`."""

    ids: Ids
    logits: Logits
    normaliser: Logits
    everything: Logits

    def whole(self, rows: Ids) -> Logits:
        """As `base.Ranked.whole`, without the bus."""
        return self.everything[rows]


def main() -> None:
    """Print the median of some runs of each."""
    noise = np.random.default_rng(0).normal(size=(ROWS, VOCABULARY))
    logits = (2 * noise).astype(np.float32)
    ids = np.argsort(-logits, axis=1)[:, :CANDIDATES]
    few = Ranked(ids, np.take_along_axis(logits, ids, axis=1), sampler.log_sum_exp(logits), logits)
    print(f"{'':22} {'whole':>9} {'candidates':>11}")
    for name, sampling in SETTINGS.items():
        sequences = [
            Sequence(request=Request(id=i, tokens=np.array([1]), max_tokens=1, sampling=sampling))
            for i in range(ROWS)
        ]
        whole_s = timed(lambda s=sequences: sampler.choose(logits, s))  # type: ignore[misc]
        few_s = timed(lambda s=sequences: ranked.choose(few, s))  # type: ignore[misc]
        print(f"{name:22} {whole_s * 1e3:6.2f} ms {few_s * 1e3:8.2f} ms")


def timed(work: Callable[[], object]) -> float:
    """Return the median seconds of *work*."""
    took = []
    for _ in range(RUNS):
        began = perf_counter()
        work()
        took.append(perf_counter() - began)
    return median(took)


if __name__ == "__main__":
    main()
