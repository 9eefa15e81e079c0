"""What is asked at each arrival: a task with a known answer, its class and its deadline. Pure.

A trace's lengths come in one of two ways. By default a request gets a task whose prompt is as
long among tasks of its kind as the request is among the trace's: right or wrong can be told. With
a *length ratio* it gets text of the trace's lengths times that ratio, which nobody judges.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Final

from numpy.random import Generator
from zeta.inference.v1.inference_service_pb2 import (
    PRIORITY_BATCH,
    PRIORITY_CRITICAL,
    PRIORITY_STANDARD,
    GenerateRequest,
    Priority,
    SamplingParams,
)

from zeta_client import wire
from zeta_client.load.arrivals import Arrival
from zeta_client.tasks import DEFAULT_WEIGHTS, FAMILIES, Task, generate

PRIORITIES: Final[Mapping[str, Priority.ValueType]] = {
    "batch": PRIORITY_BATCH,
    "standard": PRIORITY_STANDARD,
    "critical": PRIORITY_CRITICAL,
}
_WORD: Final = "and so on "
_POOL: Final = 500
"""Tasks of a kind to find one of the right length among."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shot:
    """One request, and when it is to be sent."""

    at_s: float
    kind: str
    priority: str
    tenant: str = ""
    request: GenerateRequest
    task: Task | None
    """What the answer is judged by; None where it is not."""


def shots(
    arrivals: Sequence[Arrival],
    *,
    mix: Mapping[str, float],
    priorities: Mapping[str, float],
    tenants: Mapping[str, float] | None = None,
    seed: int,
    rng: Generator,
    length_ratio: float = 0.0,
    tokens_per_word: float = 1.0,
) -> list[Shot]:
    """Give each arrival its question; the same for the same arguments.

    *mix* weighs the kinds of those that have none, *priorities* the classes, *tenants* who asks.
    """
    kinds = _drawn(mix, len(arrivals), rng)
    classes = _drawn(priorities, len(arrivals), rng)
    owners = _drawn(tenants or {"": 1.0}, len(arrivals), rng)
    kinds = [arrival.kind or kind for arrival, kind in zip(arrivals, kinds, strict=True)]
    tasks = _tasks(arrivals, kinds, seed)
    found = []
    each = zip(arrivals, kinds, classes, owners, tasks, strict=True)
    for arrival, kind, class_, tenant, task in each:
        if length_ratio and arrival.prompt_tokens is not None:
            request, judged = _text(arrival, length_ratio, tokens_per_word), None
        else:
            request, judged = wire.question(task.prompt, temperature=0.0), task
        request.priority, request.tenant = PRIORITIES[class_], tenant
        found.append(
            Shot(
                at_s=arrival.at_s,
                kind=kind,
                priority=class_,
                tenant=tenant,
                request=request,
                task=judged,
            )
        )
    return found


def words(count: int) -> str:
    """Return text of *count* words, to count its tokens or to fill a prompt."""
    return (_WORD * (count // 3 + 1)).strip()


def _text(arrival: Arrival, ratio: float, tokens_per_word: float) -> GenerateRequest:
    """Ask for exactly the scaled output: so small a penalty favours tokens that were seen.

    The end of an answer never was.
    """
    assert arrival.prompt_tokens is not None
    assert arrival.output_tokens is not None
    fed = max(round(arrival.prompt_tokens * ratio / tokens_per_word), 1)
    return GenerateRequest(
        prompt=words(fed),
        sampling=SamplingParams(temperature=0.0, repetition_penalty=0.05),
        max_tokens=max(round(arrival.output_tokens * ratio), 1),
    )


def _drawn(weights: Mapping[str, float], count: int, rng: Generator) -> list[str]:
    names, total = list(weights), sum(weights.values())
    chosen = rng.choice(len(names), size=count, p=[w / total for w in weights.values()])
    return [names[i] for i in chosen.tolist()]


def _tasks(arrivals: Sequence[Arrival], kinds: Sequence[str], seed: int) -> list[Task]:
    """Draw each arrival's task: of its kind, and as long among them as it is in the trace."""
    pools = {kind: _pool(kind, kinds.count(kind), seed) for kind in sorted(set(kinds))}
    ordered = {kind: sorted(pool, key=lambda t: len(t.prompt)) for kind, pool in pools.items()}
    turns = {kind: cycle(pool) for kind, pool in pools.items()}
    lengths = {
        kind: sorted(
            a.prompt_tokens
            for a, of in zip(arrivals, kinds, strict=True)
            if of == kind and a.prompt_tokens is not None
        )
        for kind in pools
    }
    found = []
    for arrival, kind in zip(arrivals, kinds, strict=True):
        if arrival.prompt_tokens is None:
            found.append(next(turns[kind]))
            continue
        place = bisect_left(lengths[kind], arrival.prompt_tokens) / len(lengths[kind])
        found.append(ordered[kind][int(place * len(ordered[kind]))])
    return found


def _pool(kind: str, count: int, seed: int) -> list[Task]:
    weights = {n: w for n, w in DEFAULT_WEIGHTS.items() if FAMILIES[n].kind == kind}
    return generate(max(count, _POOL), split="demo", seed=seed, weights=weights)
