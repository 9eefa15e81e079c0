"""Choose between the replicas of one model: the replica with the lowest key wins.

Laws, held by `tests/laws/test_balancers.py`: a balancer maps R replicas to finite keys (R,), looks
at nothing but its arguments, starves no replica among equals, and passes by whoever is overloaded
unless it takes turns; with their chance their own, two routers that know the same do not go the
same way together.

Chance comes from the rotation, which counts decisions from a random start of each router.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import ONE, ZERO, constant
from router_svc.core.types import Bools, Floats, Replicas

_LAST: Final = 1e9
"""Added to the keys of replicas that were not drawn."""
_TIE: Final = 0.02
"""Predictions closer than this share of each other are equal."""
_SHARE: Final = constant(_TIE)
_POOL: Final = 16
_HOT_QUANTILE: Final = 0.84
"""Pool size and quantile as in the Prequal paper."""
_ROUNDS: Final = (
    (np.array(30, np.uint64), np.array(0xBF58476D1CE4E5B9, np.uint64)),
    (np.array(27, np.uint64), np.array(0x94D049BB133111EB, np.uint64)),
)
_LAST_SHIFT: Final = np.array(31, np.uint64)
_MANTISSA: Final = np.array(11, np.uint64)
_SPACING: Final = constant(2.0**-53)
_TURNS: Final = 32
"""Rotations whose draws are made together."""
_WORD: Final = 0xFFFFFFFFFFFFFFFF
"""SplitMix64: what is shifted and multiplied by in each round, and the bits of a double."""


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a balancer may look at."""

    replicas: Replicas
    able: Bools
    """Who may be chosen at all (R,)."""
    total_s: Floats
    """How long this request is predicted to take on each (R,)."""
    rotation: int

    @property
    def requests(self) -> Floats:
        """Requests in flight on each, as far as is known (R,)."""
        return self.replicas.loads.requests


Balancer: TypeAlias = Callable[[View], Floats]


def predicted_latency(view: View) -> Floats:
    """Prefer the replica that is predicted to finish first."""
    if len(view.replicas.names) == len(view.replicas.models):
        return view.total_s
    draw, apart = _turn(view.rotation, len(view.able))
    return _among(view, draw, _wide(view), view.total_s * apart)


def least_request(view: View) -> Floats:
    """Prefer the replica with the fewest requests; equals by predicted latency."""
    draw = draws(view.rotation, len(view.able))
    latency = view.total_s * (1.0 + _TIE * draw)
    return _among(view, draw, _wide(view), view.requests + 0.5 * latency / (1.0 + latency))


def round_robin(view: View) -> Floats:
    """Take each in turn: whoever was chosen longest ago."""
    return view.replicas.last_turn + 0.5 * draws(view.rotation, len(view.able))


def p2c(view: View) -> Floats:
    """Draw two, prefer the one with fewer requests (Mitzenmacher, 2001)."""
    draw = draws(view.rotation, len(view.able))
    return _among(view, draw, 2.0, view.requests + 0.5 * draw)


def peak_ewma(view: View) -> Floats:
    """Draw two, prefer the lower of decayed peak latency x (requests + 1), as Finagle does.

    Whoever has requests and never answered yet is presumed slow, so that it gets one to begin with.
    """
    draw = draws(view.rotation, len(view.able))
    peak, requests = view.replicas.peak_s, view.requests
    cost = peak * (requests + 1.0)
    unknown = np.where(requests > 0.0, 0.5 * _LAST + requests, 0.0)
    return _among(view, draw, 2.0, np.where(peak > 0.0, cost, unknown) + 1e-6 * draw)


def prequal(view: View) -> Floats:
    """Among up to 16, prefer the fastest that is not hot; where all are, the least loaded.

    Hot is who has more requests in flight than the 84 % quantile of them all has
    (Wydrowski et al., "Load is not what you should balance: Introducing Prequal", NSDI 2024).
    Reports take the place of probes; old ones, like few probes, leave fewer to choose among.
    """
    draw = draws(view.rotation, len(view.able))
    requests, hot = view.requests, np.zeros(len(view.able), dtype=np.bool_)
    for model in range(len(view.replicas.models)):
        mine = view.able & (view.replicas.model == model)
        if mine.any():
            hot |= mine & (requests > np.quantile(requests[mine], _HOT_QUANTILE))
    latency = view.total_s * (1.0 + _TIE * draw)
    cold = latency / (1.0 + latency)
    pool = np.minimum(_wide(view), _POOL)
    return _among(view, draw, pool, np.where(hot, 1.0 + requests + 0.5 * draw, cold))


BALANCERS: Final[Mapping[str, Balancer]] = {
    b.__name__: b for b in (predicted_latency, least_request, round_robin, p2c, peak_ewma, prequal)
}


def best_per_model(
    replicas: Replicas, able: Bools, keys: Floats
) -> tuple[list[int], tuple[str, ...]]:
    """Return the number of the best able replica of each model that has one, by model (N,).

    With it, the name of each model's second best, "" where there is none. Of equals, the first.
    """
    count = len(replicas.models)
    best, spare = [-1] * count, [-1] * count
    lowest, second = [inf] * count, [inf] * count
    models: list[int] = replicas.model.tolist()
    if np.count_nonzero(able) < len(keys):
        keys = np.where(able, keys, inf)
    among: list[float] = keys.tolist()
    for i, key in enumerate(among):
        model = models[i]
        if key < lowest[model]:
            best[model], spare[model] = i, best[model]
            lowest[model], second[model] = key, lowest[model]
        elif key < second[model]:
            spare[model], second[model] = i, key
    names = [
        replicas.names[s] if s >= 0 else "" for s, b in zip(spare, best, strict=True) if b >= 0
    ]
    return [b for b in best if b >= 0], tuple(names)


def draws(rotation: int, count: int) -> Floats:
    """Return numbers in [0, 1), the same for the same rotation: SplitMix64 of each place."""
    return _turn(rotation, count)[0]


def _turn(rotation: int, count: int) -> tuple[Floats, Floats]:
    """Return `draws`, and factors that set what is equal apart by them."""
    turn, place = divmod(rotation, _TURNS)
    drawn, apart = _drawn(turn, count)
    return drawn[place], apart[place]


@lru_cache(maxsize=16)
def _drawn(turn: int, count: int) -> tuple[Floats, Floats]:
    """Return what is drawn in `_TURNS` rotations, at once: one by one it takes ten times as long.

    Each (`_TURNS`, count), which no one may change.
    """
    starts = [(r * 0xD1342543DE82EF95) & _WORD for r in range(turn * _TURNS, (turn + 1) * _TURNS)]
    x = _places(count) + np.array(starts, np.uint64)[:, None]
    for shift, factor in _ROUNDS:
        x ^= x >> shift
        x *= factor
    x ^= x >> _LAST_SHIFT
    drawn: Floats = (x >> _MANTISSA).astype(np.float64) * _SPACING
    apart: Floats = ONE + _SHARE * drawn
    drawn.flags.writeable = apart.flags.writeable = False
    return drawn, apart


@lru_cache(maxsize=16)
def _places(count: int) -> NDArray[np.uint64]:
    """Return the states that SplitMix64 passes through from 0; (count,)."""
    return np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def _wide(view: View) -> Floats | float:
    """How many replicas of each model to choose from, as what is known grows old; (M,).

    Requests of other routers that began since the last reports are not in them, and all routers
    that see one best replica send it theirs. By Little's law about (requests of others) / latency
    x age of them have begun unseen: choosing among one in so many, drawn at random, spreads them.
    Two are always enough to do better than chance (Mitzenmacher, "How useful is old
    information?", 2000).
    """
    replicas, loads = view.replicas, view.replicas.loads
    if not np.count_nonzero(loads.requests > loads.own):
        return inf
    others = np.maximum(loads.requests - loads.own, ZERO) * view.able
    unseen = others * loads.age_s / np.maximum(view.total_s, 1e-3)
    models = len(replicas.models)
    sums = np.bincount(replicas.model, unseen, models)
    counts = np.bincount(replicas.model, view.able, models)
    wide: Floats = np.maximum(counts / np.maximum(sums, 1.0), 2.0)
    return wide


def _among(view: View, draw: Floats, wide: Floats | float, keys: Floats) -> Floats:
    """Put last whoever is not among the *wide* able replicas of its model with the lowest draw."""
    if (wide if isinstance(wide, float) else wide.min()) >= len(keys):
        return keys
    model = view.replicas.model
    order = np.lexsort((draw + ~view.able, model))
    sorted_ = model[order]
    place = np.empty(len(keys))
    place[order] = np.arange(len(keys)) - np.searchsorted(sorted_, sorted_)
    most = np.broadcast_to(wide, len(view.replicas.models))[model]
    return np.where(place < most, keys, keys + _LAST)
