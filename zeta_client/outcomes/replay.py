"""Replay a table of outcomes: learned in folds with all scores, and online from feedback alone.

N = prompts, M = models.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import numpy as np

from router_svc.core import evaluate
from router_svc.core.decide import decide
from router_svc.core.evaluate import Floats, Ints
from router_svc.core.features import Features
from router_svc.core.plan import models_of
from router_svc.core.quality import Quality
from router_svc.core.types import Ask, Bools, Candidates, Policy
from zeta_client.outcomes.table import Outcomes

Advance = Callable[[int], None]
"""Told that so many more prompts are done."""

_ASK: Final = Ask(text="", characters=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Folded:
    """What was predicted of each prompt by what was learned from other folds."""

    predicted: Floats
    """(N, M)."""
    expected_cost: Floats
    """(N, M): the model's mean cost in the other folds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Online:
    """One pass in random order, in which only the chosen model's score is seen."""

    order: Ints
    """(N,) Prompts in the order in which they came."""
    models: Ints
    """(N,) What was chosen, in that order."""
    scores: Floats
    """(N,) What it scored, in that order."""
    decision_s: Floats
    """(N,) Time to predict and decide."""
    total_s: float
    """Of the whole pass, learning included."""


def folded(table: Outcomes, features: Sequence[Features], fold: Ints, advance: Advance) -> Folded:
    """Learn all but one of the folds (N,) and predict that one, each in turn."""
    predicted, expected_cost = np.zeros_like(table.scores), np.zeros_like(table.scores)
    for test in range(int(fold.max()) + 1):
        train, held = np.flatnonzero(fold != test), np.flatnonzero(fold == test)
        quality = Quality(table.models, {})
        quality.learn_table([features[i] for i in train.tolist()], table.scores[train])
        expected_cost[held] = table.costs[train].mean(axis=0)
        for i in held.tolist():
            predicted[i], _ = quality.predict(features[i])
        advance(len(held))
    return Folded(predicted=predicted, expected_cost=expected_cost)


def online(
    features: Sequence[Features],
    scores: Floats,
    quality: Quality,
    *,
    explore_ratio: float,
    rng: np.random.Generator,
    advance: Advance,
) -> Online:
    """Let the router decide prompt by prompt and learn from the chosen model's score alone."""
    policy = Policy(explore_ratio=explore_ratio, max_calls=1)
    order = rng.permutation(len(features))
    picked, decision_s = np.zeros(len(order), dtype=np.intp), np.zeros(len(order))
    began_s = perf_counter()
    for n, i in enumerate(order.tolist()):
        start_s = perf_counter()
        model = _decided(quality, features[i], ~np.isnan(scores[i]), policy, rng)
        decision_s[n] = perf_counter() - start_s
        picked[n] = quality.models.index(model)
        quality.learn(model, features[i], float(scores[i, picked[n]]))
        if lesson := quality.lesson():
            quality.adopt(lesson.learn())
        advance(1)
    return Online(
        order=order,
        models=picked,
        scores=evaluate.taken(scores[order], picked),
        decision_s=decision_s,
        total_s=perf_counter() - began_s,
    )


def _decided(
    quality: Quality,
    features: Features,
    available: Bools,
    policy: Policy,
    rng: np.random.Generator,
) -> str:
    """Choose one of the *available* (M,) models by quality alone, as the router would when idle."""
    mean, stddev = quality.predict(features)
    names = tuple(m for m, can in zip(quality.models, available.tolist(), strict=True) if can)
    nothing = [0.0] * len(names)
    found = Candidates(
        models=names,
        replicas=names,
        quality=mean[available].tolist(),
        quality_stddev=stddev[available].tolist(),
        ttft_p50_s=nothing,
        ttft_p90_s=nothing,
        total_p50_s=nothing,
        total_p90_s=nothing,
        cost_usd=nothing,
        output_tokens=nothing,
        report_age_s=nothing,
        capacity_price=nothing,
        spares=("",) * len(names),
        stall_ratio=0.0,
        confidence=mean[available][:, None].tolist(),
        agreement=np.eye(len(names)).tolist(),
    )
    return models_of(decide(_ASK, found, policy, rng, gains={}).plan)[0]
