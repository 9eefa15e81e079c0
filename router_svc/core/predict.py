"""From a profiled request and the fleet's load to candidates with figures.

R = replicas, M = models, N = candidates.
"""

from collections.abc import Callable, Mapping, Sequence
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
from router_svc.core.latency import Latency, Quantiles
from router_svc.core.length import Length
from router_svc.core.quality import Quality
from router_svc.core.shadow import congestion, slot_s
from router_svc.core.types import Ask, Bools, Candidates, Floats, Places, Policy, Replicas

_GAIN_PRIOR_OUTCOMES: Final = 30.0
_DEVICE_PRICE_PER_S: Final = 0.05
"""Quality that a second of a device is worth which a lost prefix cache costs."""
WAIT_P90: Final = 1.3
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
    latency = predictors.latency
    when = latency.predict(loads, fed, output.take(replicas.model))
    view = View(replicas=replicas, able=able, total_s=when.total_s, rotation=rotation)
    chosen, spares = best_per_model(replicas, able, BALANCERS[policy.balancer](view))
    models: list[int] = [replicas.model.item(i) for i in chosen]
    times = [latency.quantiles(when, i) for i in chosen]
    work_s = [ask.samples * slot_s(each) for each in times]
    capacity = [congestion(*replicas.loads.use_of(i)) for i in chosen]
    if not isinstance(fed, float):
        there_s = latency.predict(replicas.loads, fed.min(), np.ones(())).first_s.take(chosen)
        lost = [_lost(*each) for each in zip(times, there_s.tolist(), strict=True)]
        capacity = sums(capacity, lost)
    if slot_prices is not None:
        per_s: list[float] = slot_prices.take(models).tolist()
        taken = [price * work for price, work in zip(per_s, work_s, strict=True)]
        capacity = sums(capacity, taken)
    judged = predictors.judge.judge(features)
    of = _some_of(models, len(replicas.models))
    tokens = output * ask.samples if ask.samples > 1 else output
    cost = prices.usd_per_prompt_token * prompt + prices.usd_per_completion_token * tokens
    quality: list[float] = of(judged.quality)
    waits_s, waits_p90_s = [0.0] * len(chosen), [0.0] * len(chosen)
    if wait_s is not None:
        waits_s = wait_s.take(chosen).tolist()
        waits_p90_s = [WAIT_P90 * each for each in waits_s]
    return Candidates(
        models=tuple([replicas.models[m] for m in models]),
        replicas=tuple([replicas.names[i] for i in chosen]),
        quality=quality,
        quality_stddev=of(judged.stddev),
        ttft_p50_s=sums([each.ttft_p50_s for each in times], waits_s),
        ttft_p90_s=sums([each.ttft_p90_s for each in times], waits_p90_s),
        total_p50_s=sums([each.total_p50_s for each in times], waits_s),
        total_p90_s=sums([each.total_p90_s for each in times], waits_p90_s),
        cost_usd=of(cost),
        output_tokens=of(output),
        report_age_s=[replicas.loads.age_of(i) for i in chosen],
        capacity_price=capacity,
        spares=spares,
        stall_ratio=predictors.stalls.ratio,
        confidence=predictors.confidence.spread(models, quality),
        agreement=of(predictors.agreement.correlation(features.tasks).take(models, axis=1)),
        work_s=work_s,
        probe_ratio=of(judged.probes),
        wait_s=waits_s,
    )


def _some_of(models: Sequence[int], count: int) -> Callable[[Floats], list[Any]]:
    """Return what lists those of *models* (N,), in order, of an array (M, …): often all."""
    if len(models) == count:
        return lambda each: each.tolist()
    return lambda each: each.take(models, axis=0).tolist()


def sums(some: list[float], more: list[float]) -> list[float]:
    """Add two lists (N,)."""
    return [one + other for one, other in zip(some, more, strict=True)]


def _held(places: Places, able: Bools, replicas: Replicas) -> tuple[Bools, Floats]:
    """Return who of *able* is worth asking, and how long a request waits for each; both (R,).

    A replica that is full gives way to the model's others; where all are, one is waited for.
    """
    free = able & ~places.full[: len(able)]
    elsewhere = np.bincount(replicas.model, free, len(replicas.models)) > 0.0
    wait_s = np.where(free, 0.0, places.wait_s[replicas.model])
    return able & (free | ~elsewhere[replicas.model]), wait_s


def _lost(when: Quantiles, there_s: float) -> float:
    """Price what a replica feeds again because the cache that has it is elsewhere.

    *there_s* is how long a first token takes at the latter. That is beside the caller's own wait,
    which the latency's price covers.
    """
    return _DEVICE_PRICE_PER_S * max(when.ttft_p50_s - there_s, 0.0)
