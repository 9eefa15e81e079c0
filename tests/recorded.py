"""Outcomes recorded from the pocket fleet, and routing replayed on them.

`pocket_outcomes.csv`: `zeta demo --prompts 1600 --seed 11 --record FILE`, each model alone on each
prompt. N = prompts, M = models, R = requests.
"""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from router_svc.core.agreement import Agreement
from router_svc.core.confidence import Confidence
from router_svc.core.decide import decide
from router_svc.core.features import Features, Floats, lexical_profile
from router_svc.core.judge import Judge, Verdict
from router_svc.core.plan import models_of
from router_svc.core.quality import Quality
from router_svc.core.types import Candidates, Ints, Policy
from tests.unit.router_svc.fixtures import ask

FILE = Path(__file__).parent / "data" / "pocket_outcomes.csv"
ASK, POLICY = ask(), Policy(explore_ratio=0.02, max_calls=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Prompts, what is known of them beforehand, and how each model did."""

    models: tuple[str, ...]
    features: tuple[Features, ...]
    tasks: Ints
    """(N,) The kind of task that each is taken for."""
    scores: Floats
    """(N, M)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What came of it, by request; arrays (R,)."""

    tasks: Ints
    models: Ints
    scores: Floats
    judge: Judge

    def share(self, model: int, task: int, since: int, count: int) -> float:
        """Share of *model* in *count* requests of *task*, from request number *since*."""
        mine = np.flatnonzero(self.tasks == task)
        mine = mine[mine >= since][:count]
        return float((self.models[mine] == model).mean())


@cache
def table() -> Table:
    """Read the recorded outcomes."""
    with FILE.open(encoding="utf-8", newline="") as opened:
        head, *rows = list(csv.reader(opened))
    features = tuple(lexical_profile(row[0]) for row in rows)
    return Table(
        models=tuple(name.removeprefix("score__") for name in head[1:]),
        features=features,
        tasks=np.array([f.tasks.argmax() for f in features]),
        scores=np.array([[float(cell) for cell in row[1:]] for row in rows]),
    )


def routed(
    order: Ints,
    *,
    seed: int,
    truth: Callable[[int, int, int, float], float] = lambda _n, _i, _m, score: score,
    told: Callable[[int, float], float] = lambda _n, score: score,
    source: Callable[[int], str] = lambda _n: "all",
) -> Pass:
    """Route the prompts of *order* (R,) and learn from the chosen model's score alone.

    *truth* (request, prompt, model, recorded score) is how good an answer is, *told* (request,
    score) what its *source* (request) says of it.
    """
    found, rng = table(), np.random.default_rng(seed)
    judge = Judge(Quality(found.models, {}))
    models, scores = np.zeros(len(order), dtype=np.intp), np.zeros(len(order))
    for n, i in enumerate(order.tolist()):
        features = found.features[i]
        plan = decide(ASK, _candidates(judge, features), POLICY, rng, gains={}).plan
        m = models[n] = found.models.index(models_of(plan)[0])
        scores[n] = truth(n, i, m, float(found.scores[i, m]))
        verdict = Verdict(
            model=found.models[m],
            score=told(n, scores[n]),
            source=source(n),
            decided_s=float(n),
        )
        judge.learn(features, verdict)
        if lesson := judge.quality.lesson():
            judge.quality.adopt(lesson.learn())
    return Pass(tasks=found.tasks[order], models=models, scores=scores, judge=judge)


def _candidates(judge: Judge, features: Features) -> Candidates:
    judged = judge.judge(features)
    nothing = [0.0] * len(judge.quality.models)
    return Candidates(
        models=judge.quality.models,
        replicas=judge.quality.models,
        quality=judged.quality.tolist(),
        quality_stddev=judged.stddev.tolist(),
        ttft_p50_s=nothing,
        ttft_p90_s=nothing,
        total_p50_s=nothing,
        total_p90_s=nothing,
        cost_usd=nothing,
        output_tokens=nothing,
        report_age_s=nothing,
        capacity_price=nothing,
        spares=("",) * len(nothing),
        stall_ratio=0.0,
        confidence=Confidence(judge.quality.models).spread(
            range(len(nothing)), judged.quality.tolist()
        ),
        agreement=Agreement(judge.quality.models).correlation(features.tasks).tolist(),
        probe_ratio=judged.probes.tolist(),
    )
