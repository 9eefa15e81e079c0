"""When requests arrive: Poisson, in bursts, or as a trace has it. Pure; chance is an argument."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from services.kit.errors import ConfigError
from zeta_client.load.trace import Line

MOST: Final = 1_000_000
"""Requests of one run: each is a value in memory before the first is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """One request to come; a trace knows how long it is, and perhaps of what kind."""

    at_s: float
    kind: str = ""
    prompt_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Burst:
    """Arrivals come *factor* times as often for *for_s* of every *every_s*."""

    factor: float
    every_s: float
    for_s: float


def poisson(rate: float, duration_s: float, rng: Generator) -> list[Arrival]:
    """Draw *rate* independent arrivals per second for *duration_s*. Raises ConfigError."""
    if not rate * duration_s <= MOST:
        raise ConfigError(
            f"{rate:g} requests per second for {duration_s:g} s are more than {MOST:,}; "
            "lower the rate or the duration"
        )
    count = int(rng.poisson(rate * duration_s))
    return [Arrival(at_s=at_s) for at_s in np.sort(rng.random(count) * duration_s).tolist()]


def bursts(rate: float, duration_s: float, burst: Burst, rng: Generator) -> list[Arrival]:
    """Draw arrivals whose mean rate is *rate*, by thinning (Lewis and Shedler, 1979)."""
    share = burst.for_s / burst.every_s
    base = 1.0 / (1.0 - share + burst.factor * share)
    most = base * max(burst.factor, 1.0)
    kept = []
    for arrival in poisson(rate * most, duration_s, rng):
        inside = arrival.at_s % burst.every_s >= burst.every_s - burst.for_s
        if rng.random() * most < base * (burst.factor if inside else 1.0):
            kept.append(arrival)
    return kept


def replay(
    traces: Sequence[tuple[str, Sequence[Line]]], rate: float, duration_s: float, rng: Generator
) -> list[Arrival]:
    """Merge traces, each with its kind: all of them in *duration_s*, thinned to *rate*.

    So a short run has the ups and downs of the whole. Traces begin together, and go on as long as
    the shortest of them. Raises ConfigError where they are too short.
    """
    span_s = min(lines[-1].at_s - lines[0].at_s for _, lines in traces)
    if span_s <= 0.0:
        raise ConfigError("a trace of a single moment has no rate; give one that lasts")
    merged = [
        Arrival(
            at_s=(line.at_s - lines[0].at_s) * duration_s / span_s,
            kind=kind,
            prompt_tokens=line.prompt_tokens,
            output_tokens=line.output_tokens,
        )
        for kind, lines in traces
        for line in lines
        if line.at_s - lines[0].at_s <= span_s
    ]
    wanted = round(rate * duration_s)
    if wanted > len(merged):
        raise ConfigError(
            f"the traces hold {len(merged)} requests, {rate:g} per second for {duration_s:g} s "
            f"are {wanted}; lower --rate or --duration"
        )
    kept = rng.choice(len(merged), size=wanted, replace=False).tolist()
    return sorted((merged[i] for i in sorted(kept)), key=lambda a: a.at_s)
