"""What arrives in a scenario. Pure: everything is drawn beforehand from the seed.

So every way of one seed meets the same requests, each as long, and as hard for each model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator

from zeta_client.load.arrivals import Arrival
from zeta_client.load.options import KINDS, arrivals_of
from zeta_client.sim.scenario import Scenario

_WARM_SHARE: Final = 4
"""One in so many requests comes while a fleet warms up."""
_LONGEST: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One request as it was drawn; M models."""

    arrival: Arrival
    kind: str
    prompt_tokens: int
    output_tokens: Sequence[int]
    """(M,) Of each model's answer."""
    right: Sequence[bool]
    """(M,) Whether each model would answer it right."""


def draw(scenario: Scenario, seed: int) -> list[Drawn]:
    """Draw all requests of a scenario, the same for the same seed. Raises ConfigError."""
    rng = np.random.default_rng(seed)
    arrivals = arrivals_of(
        scenario.rate, scenario.warm_s + scenario.duration_s, scenario.burst, scenario.traces, seed
    )
    cold = [a for a in arrivals if a.at_s < scenario.warm_s]
    arrivals = [*cold[::_WARM_SHARE], *arrivals[len(cold) :]]
    weights = np.array([dict(scenario.mix).get(kind, 0.0) for kind in KINDS])
    kinds = rng.choice(len(KINDS), size=len(arrivals), p=weights / weights.sum())
    return [
        _drawn(scenario, arrival, arrival.kind or KINDS[kind], rng)
        for arrival, kind in zip(arrivals, kinds.tolist(), strict=True)
    ]


def _drawn(scenario: Scenario, arrival: Arrival, kind: str, rng: Generator) -> Drawn:
    long, wide, hard = rng.normal(size=2), rng.normal(size=len(scenario.models)), rng.random()
    ratio = scenario.length_ratio
    if ratio and arrival.prompt_tokens is not None and arrival.output_tokens is not None:
        prompt = max(round(arrival.prompt_tokens * ratio), 1)
        output = [max(round(arrival.output_tokens * ratio), 1)] * len(scenario.models)
    else:
        prompt = _length(scenario.prompt_tokens, scenario.spread * long[0])
        means = [dict(m.output_tokens).get(kind, 32.0) for m in scenario.models]  # type: ignore[call-overload] # literals
        mixed = scenario.spread * (0.8 * long[1] + 0.6 * wide)  # models agree on what is long
        output = [_length(mean, z) for mean, z in zip(means, mixed.tolist(), strict=True)]
    quality = [dict(m.quality).get(kind, 0.5) for m in scenario.models]  # type: ignore[call-overload] # literals
    return Drawn(
        arrival=arrival,
        kind=kind,
        prompt_tokens=prompt,
        output_tokens=output,
        right=[bool(hard < q) for q in quality],
    )


def _length(mean: float, z: float) -> int:
    return int(min(max(round(mean * float(np.exp(z))), 1), _LONGEST))
