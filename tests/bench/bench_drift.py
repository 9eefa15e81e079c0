"""How soon changes are followed and what lies cost: `python -m tests.bench.bench_drift`.

On outcomes recorded from the pocket fleet, learned from nothing, text features alone, 2 %
exploration.
"""

import numpy as np

from tests.laws.test_learning import CODE, CODER, REASONER, REASONING, poisoned
from tests.recorded import routed, table

SEEDS, BAD, GOOD, REQUESTS = 5, 700, 1300, 2300
WINDOW = 20


def main() -> None:
    """Print requests of the task until a model is left and found, and points lost to a liar."""
    print("requests of its task until it is left, found (end of 20 in a row)")
    for model, task in ((CODER, CODE), (REASONER, REASONING)):
        for seed in range(SEEDS):
            left, found = followed(model, task, seed)
            print(f"{table().models[model]:14} seed {seed}   {left:4} {found:4}")
    print("points of quality that others lose to a tenant with 5 % of the feedback, all inverted")
    for kind in ("scattered", "in one go"):
        lost = [poisoned(kind, s, evil=False) - poisoned(kind, s, evil=True) for s in range(SEEDS)]
        shown = "  ".join(f"{100 * each:+.1f}" for each in lost)
        print(f"{kind:12} {shown}   mean {100 * np.mean(lost):+.2f}")


def followed(model: int, task: int, seed: int) -> tuple[int, int]:
    """Return how many requests of *task* pass until *model* is left, and found again."""
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(len(table().features)) for _ in range(2)])[:REQUESTS]

    def truth(n: int, i: int, m: int, score: float) -> float:
        return 0.0 if BAD <= n < GOOD and m == model and table().tasks[i] == task else score

    found = routed(order, seed=seed, truth=truth)
    own = np.flatnonzero(found.tasks == task)
    taken = (found.models[own] == model).astype(np.float64)
    share = np.convolve(taken, np.ones(WINDOW) / WINDOW, "valid")
    bad, good = np.searchsorted(own, BAD), np.searchsorted(own, GOOD)
    left, again = np.argmax(share[bad:] < 0.5), np.argmax(share[good:] > 0.5)
    return int(left) + WINDOW, int(again) + WINDOW


if __name__ == "__main__":
    main()
