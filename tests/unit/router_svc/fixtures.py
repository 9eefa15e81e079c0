"""Fleets, requests and clocks of plain values."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from router_svc.core.features import EMBEDDING_SIZE, Features, lexical
from router_svc.core.load import Load
from router_svc.core.loads import loads_of
from router_svc.core.pieces import pieces
from router_svc.core.recent import Recent
from router_svc.core.spread import centred
from router_svc.core.types import Ask, Candidates, Floats, Replicas
from services.kit.config import Model, Replica


class ManualClock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now_s


def ask(text: str = "what is 2 + 2?", **fields: object) -> Ask:
    """A request."""
    return replace(Ask(text=text, characters=len(text)), **fields)  # type: ignore[arg-type] # tests vary them


def features(text: str = "what is 2 + 2?", *, output_tokens: float = 10.0) -> Features:
    """A profile that calls everything a general question."""
    return Features(
        embedding=np.zeros(EMBEDDING_SIZE),
        tasks=np.array([0.0, 0.0, 1.0, 0.0]),
        difficulty=0.5,
        expected_output_tokens=output_tokens,
        prompt_tokens=5,
        lexical=lexical(text),
        pieces=pieces(text),
        source="test",
    )


def candidates(
    quality: Sequence[float],
    *,
    total_s: Sequence[float] | None = None,
    cost_usd: Sequence[float] | None = None,
    spread: float = 1.5,
    sharpness: float = 0.0,
    stddev: Sequence[float] | None = None,
    spares: Sequence[str] | None = None,
) -> Candidates:
    """Candidates a, b, c … with these figures."""
    count = len(quality)
    total = [*(total_s or [1.0] * count)]
    return Candidates(
        models=tuple("abcdefghijkl"[:count]),
        replicas=tuple(f"{name}-0" for name in "abcdefghijkl"[:count]),
        quality=[*quality],
        quality_stddev=[*(stddev or [0.1] * count)],
        ttft_p50_s=[t / 2.0 for t in total],
        ttft_p90_s=[t / 2.0 * spread for t in total],
        total_p50_s=total,
        total_p90_s=[t * spread for t in total],
        cost_usd=[*(cost_usd or [0.0] * count)],
        output_tokens=[10.0] * count,
        report_age_s=[0.0] * count,
        capacity_price=[0.0] * count,
        spares=tuple(spares or [""] * count),
        stall_ratio=0.001,
        confidence=[_confidence(q, sharpness) for q in quality],
        agreement=(np.full((count, count), 0.5) + 0.2 * np.eye(count)).tolist(),
    )


def _confidence(quality: float, sharpness: float) -> list[float]:
    """Spread confidences about *quality*; *sharpness* is their standard deviation in log-odds."""
    z = np.array([-1.86, -1.1, -0.58, -0.19, 0.19, 0.58, 1.1, 1.86])
    odds = np.log(np.clip(quality, 0.01, 0.99) / np.clip(1.0 - quality, 0.01, 0.99))
    return centred((1.0 / (1.0 + np.exp(-(odds + sharpness * z)))).tolist(), quality)


def replicas(layout: Mapping[str, int]) -> Replicas:
    """Healthy, idle replicas: model to how many of it."""
    model = np.array([m for m, n in enumerate(layout.values()) for _ in range(n)], dtype=np.intp)
    count = len(model)
    load = Load(model, [4] * count)
    yes = np.ones(count, dtype=np.bool_)
    return Replicas(
        models=tuple(layout),
        names=tuple(f"{name}-{i}" for name, n in layout.items() for i in range(n)),
        model=model,
        healthy=yes,
        draining=~yes,
        circuit_closed=yes,
        can_generate=yes,
        context_tokens=np.full(count, 512.0),
        loads=load.loads(0.0),
        last_turn=np.zeros(count),
        peaks=Recent(count).peaks,
    )


def loaded(fleet: Replicas, **figures: Floats) -> Replicas:
    """The same fleet with other *figures* (R,) of load, as `loads_of` names them."""
    known = {
        name: getattr(fleet.loads, name)
        for name in (
            *("replica", "model", "running", "waiting", "waiting_prompt_tokens"),
            *("remaining_tokens", "max_running", "age_s", "own"),
        )
    }
    return replace(fleet, loads=loads_of(**{**known, **figures}))


def models(layout: Mapping[str, int]) -> tuple[Model, ...]:
    """Configured models."""
    return tuple(
        Model(
            name=name,
            dir=".",
            max_running=4,
            replicas=tuple(Replica(listen=f"{name}:{i}") for i in range(count)),
        )
        for name, count in layout.items()
    )
