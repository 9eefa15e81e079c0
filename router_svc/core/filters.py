"""Filters say which replicas can serve a request at all, all at once.

Laws, held by `tests/laws/test_filters.py`: a filter returns one bool per replica, looks at
nothing but its arguments, and judges a replica alike wherever it stands in the list.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Final, TypeAlias

import numpy as np

from router_svc.core.types import Ask, Bools, Reason, Rejection, Replicas

Admits: TypeAlias = Callable[[Ask, float, Replicas], Bools]
"""(request, prompt tokens, replicas) to (R,)."""


@dataclass(frozen=True, slots=True)
class Filter:
    """One reason to refuse replicas."""

    admits: Admits
    detail: Callable[[Ask, float, Replicas, int], str]
    """Says in words why replica i was refused."""


def allowed(ask: Ask, _prompt_tokens: float, replicas: Replicas) -> Bools:
    """Admit what the request names or allows."""
    if ask.model:
        names = np.array([name == ask.model for name in replicas.models])
    elif ask.allowed_models:
        names = np.array([name in ask.allowed_models for name in replicas.models])
    else:
        return _everybody(len(replicas.names))
    return names[replicas.model]


def fits(_ask: Ask, prompt_tokens: float, replicas: Replicas) -> Bools:
    """Admit where prompt and one token fit; the model itself counts exactly and has the last word.

    The prompt's length is the profiler's estimate, hence the margin.
    """
    return 0.5 * prompt_tokens + 1 <= replicas.context_tokens


def not_failed(ask: Ask, _prompt_tokens: float, replicas: Replicas) -> Bools:
    """Admit what has not failed for this very request."""
    if not ask.failed:
        return _everybody(len(replicas.names))
    return np.array([name not in ask.failed for name in replicas.names])


OF_REQUEST: Final = (allowed, fits, not_failed)
"""The others depend on the fleet alone."""
FILTERS: Final[Mapping[Reason, Filter]] = {
    Reason.NOT_ALLOWED: Filter(allowed, lambda *_: "the request does not allow this model"),
    Reason.CAPABILITY: Filter(
        lambda _ask, _tokens, replicas: replicas.can_generate, lambda *_: "does not generate"
    ),
    Reason.CONTEXT: Filter(
        fits,
        lambda _ask, tokens, r, i: (
            f"about {tokens:.0f} prompt tokens for a context of {r.context_tokens[i]:.0f}"
        ),
    ),
    Reason.UNHEALTHY: Filter(
        lambda _ask, _tokens, replicas: replicas.healthy,
        lambda _ask, _tokens, r, i: f"does not serve; {_reported(r.loads.age_of(i))}",
    ),
    Reason.DRAINING: Filter(
        lambda _ask, _tokens, replicas: ~replicas.draining, lambda *_: "takes no new work"
    ),
    Reason.FAILED_BEFORE: Filter(not_failed, lambda *_: "failed for this very request"),
    Reason.CIRCUIT_OPEN: Filter(
        lambda _ask, _tokens, replicas: replicas.circuit_closed,
        lambda *_: (
            "failed several times in a row, or did much worse than its peers; left out for a while"
        ),
    ),
}


def serving(generates: Bools, healthy: Bools, draining: Bools, closed: Bools) -> Bools:
    """Apply the filters that ask nothing of the request, all (R,)."""
    return generates & healthy & ~draining & closed


def admitted(ask: Ask, prompt_tokens: float, replicas: Replicas) -> Bools:
    """Apply every filter; (R,), which no one may change."""
    able = replicas.serving
    if able is None:
        able = serving(
            replicas.can_generate, replicas.healthy, replicas.draining, replicas.circuit_closed
        )
    everybody = _everybody(len(replicas.names))
    for admits in OF_REQUEST:
        some = admits(ask, prompt_tokens, replicas)
        if some is not everybody:
            able = able & some
    return able


def rejections(ask: Ask, prompt_tokens: float, replicas: Replicas) -> tuple[Rejection, ...]:
    """Explain every refusal, each by the first filter that refused."""
    found: dict[int, Rejection] = {}
    for reason, each in FILTERS.items():
        for i in np.flatnonzero(~each.admits(ask, prompt_tokens, replicas)).tolist():
            found.setdefault(
                i,
                Rejection(
                    model=replicas.models[replicas.model[i]],
                    replica=replicas.names[i],
                    reason=reason,
                    detail=each.detail(ask, prompt_tokens, replicas, i),
                ),
            )
    return tuple(found[i] for i in sorted(found))


def _reported(age_s: float) -> str:
    return "no report of it" if age_s == inf else f"last report {age_s:.1f} s old"


@lru_cache(maxsize=16)
def _everybody(count: int) -> Bools:
    admitted = np.ones(count, dtype=np.bool_)
    admitted.flags.writeable = False
    return admitted
