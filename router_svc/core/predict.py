"""From a profiled request and the fleet's load to candidates with figures.

R = replicas, M = models, N = candidates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np

from router_svc.core.agreement import Agreement
from router_svc.core.balance import BALANCERS, View, best_per_model
from router_svc.core.confidence import Confidence
from router_svc.core.features import TASKS, Features
from router_svc.core.filters import admitted
from router_svc.core.hedging import Stalls
from router_svc.core.judge import Judge
from router_svc.core.latency import Latency, LatencyQuantiles
from router_svc.core.length import Length
from router_svc.core.quality import Quality
from router_svc.core.shadow import congestion, slot_s
from router_svc.core.types import Ask, Bools, Candidates, Floats, Ints, Places, Policy, Replicas

_GAIN_PRIOR_OUTCOMES: Final = 30.0
_DEVICE_PRICE_PER_S: Final = 0.05
"""Quality that a second of a device is worth which a lost prefix cache costs."""
_WAIT_P90: Final = 1.3
"""How much longer than expected the wait for a place takes in one case of ten."""


@dataclass(slots=True)
class Gains:
    """How far what ensembles add to their best model differs from their price's assumptions.

    Of one request both are known, or nearly: so this is learned from pairs, which says more than
    a comparison with requests that went to single models. Mutable, one owner.
    """

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)

    def learn(self, kind: str, expected: float, proved: float) -> None:
        """Take in what a plan of *kind* was *expected* to add, and *proved* to; old ones fade.

        The expectation had the gain of the time in it, which is about that of now.
        """
        missed = proved - (expected - self.by_kind().get(kind, 0.0))
        self.sums[kind] = 0.995 * self.sums.get(kind, 0.0) + missed
        self.counts[kind] = 0.995 * self.counts.get(kind, 0.0) + 1.0

    def by_kind(self) -> Mapping[str, float]:
        """Return what to add to each kind's expected quality."""
        return {k: s / (self.counts[k] + _GAIN_PRIOR_OUTCOMES) for k, s in self.sums.items()}


@dataclass(slots=True, kw_only=True)
class Predictors:
    """Everything that is learned. Mutable, one owner."""

    judge: Judge
    confidence: Confidence
    latency: Latency
    length: Length
    gains: Gains
    stalls: Stalls
    agreement: Agreement

    @property
    def quality(self) -> Quality:
        """The learner of quality alone, without what changes and trust make of it."""
        return self.judge.quality


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What tokens cost, per model; arrays (M,)."""

    usd_per_prompt_token: Floats
    usd_per_completion_token: Floats
    default_max_tokens: Floats

    def cost_usd(self, model: int, prompt_tokens: float, completion_tokens: float) -> float:
        """Price one call of model number *model*."""
        return float(
            self.usd_per_prompt_token[model] * prompt_tokens
            + self.usd_per_completion_token[model] * completion_tokens
        )


def prompt_tokens(ask: Ask, features: Features) -> float:
    """Estimate the tokens of the whole input from those of the text that was profiled."""
    return features.prompt_tokens * ask.characters / max(len(ask.text), 1)


def with_hint(features: Features, ask: Ask) -> Features:
    """Mix the caller's task hint in as a prior: three times as likely as without it."""
    if ask.task_hint is None:
        return features
    odds: Floats = features.tasks * np.where(np.arange(len(TASKS)) == ask.task_hint, 3.0, 1.0)
    return replace(features, tasks=odds / odds.sum())


def candidates(
    ask: Ask,
    features: Features,
    replicas: Replicas,
    *,
    predictors: Predictors,
    prices: Prices,
    policy: Policy,
    rotation: int = 0,
    cached_tokens: Floats | None = None,
    slot_prices: Floats | None = None,
    places: Places | None = None,
) -> Candidates:
    """Filter, predict and choose each model's best replica; *rotation* counts decisions.

    *cached_tokens* (R,) of the prompt need not be fed; None: all must be. *slot_prices* (M,) are
    the shadow prices of a second of a slot; None: capacity has the price of present use alone.
    *places* says where the request would have to wait; None: nowhere.
    """
    prompt = prompt_tokens(ask, features)
    able, wait_s = admitted(ask, prompt, replicas), None
    if places is not None:
        able, wait_s = _held(places, able, replicas)
    limit = prices.default_max_tokens if ask.max_tokens is None else ask.max_tokens
    output = np.minimum(predictors.length.predict(features), limit)
    loads = replicas.loads.beside(ask.samples - 1) if ask.samples > 1 else replicas.loads
    fed: Floats | float = max(prompt, 1.0)
    if cached_tokens is not None and np.count_nonzero(cached_tokens):
        fed = np.maximum(prompt - cached_tokens, 1.0)
    when = predictors.latency.predict(loads, fed, output.take(replicas.model))
    view = View(replicas=replicas, able=able, total_s=when.total_p50_s, rotation=rotation)
    chosen, spares = best_per_model(replicas, able, BALANCERS[policy.balancer](view))
    best = np.array(chosen, dtype=np.intp)
    model = replicas.model.take(best)
    work_s = slot_s(when).take(best)
    if ask.samples > 1:
        work_s = work_s * ask.samples
    capacity = congestion(replicas.loads).take(best)
    if not isinstance(fed, float):
        capacity = capacity + _lost(predictors.latency, replicas, fed, when).take(best)
    if slot_prices is not None:
        capacity = capacity + slot_prices[model] * work_s
    judged = predictors.judge.judge(features)
    tokens = output * ask.samples if ask.samples > 1 else output
    cost = prices.usd_per_prompt_token * prompt + prices.usd_per_completion_token * tokens
    of = _some_of(model, len(replicas.models))
    quality: list[float] = of(judged.quality)
    times_s = [when.ttft_p50_s, when.ttft_p90_s, when.total_p50_s, when.total_p90_s]
    times_s = [each.take(best) for each in times_s]
    waits_s = np.zeros(len(best))
    if wait_s is not None:
        waits_s = wait_s.take(best)
        longer = (1.0, _WAIT_P90, 1.0, _WAIT_P90)
        times_s = [each + by * waits_s for each, by in zip(times_s, longer, strict=True)]
    return Candidates(
        models=tuple([replicas.models[m] for m in model.tolist()]),
        replicas=tuple([replicas.names[r] for r in chosen]),
        quality=quality,
        quality_stddev=of(judged.stddev),
        ttft_p50_s=times_s[0].tolist(),
        ttft_p90_s=times_s[1].tolist(),
        total_p50_s=times_s[2].tolist(),
        total_p90_s=times_s[3].tolist(),
        cost_usd=of(cost),
        output_tokens=of(output),
        report_age_s=replicas.report_age_s.take(best).tolist(),
        capacity_price=capacity.tolist(),
        spares=spares,
        stall_ratio=predictors.stalls.ratio,
        confidence=predictors.confidence.spread(model.tolist(), quality),
        agreement=of(predictors.agreement.correlation(features.tasks).take(model, axis=1)),
        work_s=work_s.tolist(),
        probe_ratio=of(judged.probes),
        wait_s=waits_s.tolist(),
    )


def _some_of(model: Ints, models: int) -> Callable[[Floats], list[Any]]:
    """Return what lists those of each *model* (N,), in order, of an array (M, …): often all."""
    if len(model) == models:
        return lambda each: each.tolist()
    return lambda each: each.take(model, axis=0).tolist()


def _held(places: Places, able: Bools, replicas: Replicas) -> tuple[Bools, Floats]:
    """Return who of *able* is worth asking, and how long a request waits for each; both (R,).

    A replica that is full gives way to the model's others; where all are, one is waited for.
    """
    free = able & ~places.full[: len(able)]
    elsewhere = np.bincount(replicas.model, free, len(replicas.models)) > 0.0
    wait_s = np.where(free, 0.0, places.wait_s[replicas.model])
    return able & (free | ~elsewhere[replicas.model]), wait_s


def _lost(latency: Latency, replicas: Replicas, fed: Floats, when: LatencyQuantiles) -> Floats:
    """Price what each replica feeds again because the cache that has it is elsewhere; (R,).

    That is beside the caller's own wait, which the latency's price covers.
    """
    there = latency.predict(replicas.loads, fed.min(), np.ones(()))
    return _DEVICE_PRICE_PER_S * np.maximum(when.ttft_p50_s - there.ttft_p50_s, 0.0)
