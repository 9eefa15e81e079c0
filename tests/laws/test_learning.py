"""Learning under drift, delay and poison, on outcomes recorded from the pocket fleet."""

import numpy as np
import pytest

from router_svc.core.trust import Trust
from tests.recorded import routed, table

CODER, REASONER = 1, 2
CODE, REASONING = 0, 1
POISONED_FROM = 250


@pytest.mark.parametrize(("model", "task"), [(CODER, CODE), (REASONER, REASONING)])
def test_a_model_that_turns_bad_is_left_and_found_again(model: int, task: int) -> None:
    """Left within 50 requests of its task, and found again within 200 after it recovers."""
    rng, bad, good = np.random.default_rng(3), 700, 1300
    order = np.concatenate([rng.permutation(len(table().features)) for _ in range(2)])[:2300]

    def truth(n: int, i: int, m: int, score: float) -> float:
        return 0.0 if bad <= n < good and m == model and table().tasks[i] == task else score

    found = routed(order, seed=3, truth=truth)
    own = np.flatnonzero(found.tasks == task)
    left, again = own[np.searchsorted(own, bad) + 50], own[np.searchsorted(own, good) + 200]
    assert found.share(model, task, bad - 150, 40) > 0.9
    assert found.share(model, task, int(left), 100) < 0.2
    assert found.share(model, task, int(again), 50) > 0.9


def test_what_does_not_change_is_left_alone() -> None:
    """A fleet that stays as it is sounds few alarms, and is not probed for it."""
    found = routed(np.random.default_rng(0).permutation(len(table().features)), seed=0)
    assert np.isfinite(found.judge.drift._changed_s).sum() <= 1


def poisoned(kind: str, seed: int, *, evil: bool) -> float:
    """Route with a twentieth of all feedback from one tenant, which lies if *evil*.

    Return the quality that all others get.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(table().features))[:1200]
    if kind == "scattered":
        mine = rng.random(len(order)) < 0.05
    else:
        mine = np.zeros(len(order), dtype=np.bool_)
        code = np.flatnonzero(table().tasks[order] == CODE)
        mine[code[code >= POISONED_FROM][: len(order) // 20]] = True
    found = routed(
        order,
        seed=seed,
        told=lambda n, score: 1.0 - score if evil and mine[n] else score,
        source=lambda n: "one" if mine[n] else f"other {n % 5}",
    )
    return float(found.scores[~mine].mean())


def loss(kind: str, seeds: int) -> float:
    """Quality that the liar costs the others, averaged over passes."""
    return float(
        np.mean(
            [
                poisoned(kind, seed, evil=False) - poisoned(kind, seed, evil=True)
                for seed in range(seeds)
            ]
        )
    )


@pytest.mark.parametrize("kind", ["scattered", "in one go"])
def test_a_lying_tenant_costs_the_others_a_point_at_most(kind: str) -> None:
    """5 % adversarial feedback, here and there or all at once on one kind of task.

    Models are drawn, so that one changed choice changes later ones: single passes differ by more.
    """
    assert loss(kind, 8) <= 0.01


def test_believed_the_same_lies_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the test above holds off is an attack."""
    monkeypatch.setattr(Trust, "learn", lambda *_: 1.0)
    monkeypatch.setattr(Trust, "alone", lambda *_: True)
    assert loss("in one go", 2) > 0.02
