"""Choose between the replicas of one model: the replica with the lowest key wins.

A balancer maps R replicas to keys (R,); the rotation counts decisions.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import numpy as np

from router_svc.core.types import Bools, Floats, Ints, Replicas

Balancer: TypeAlias = Callable[[Replicas, Floats, int], Floats]


def predicted_latency(replicas: Replicas, total_s: Floats, rotation: int) -> Floats:
    """Prefer the replica that is predicted to finish first."""
    del replicas, rotation
    return total_s


def least_request(replicas: Replicas, total_s: Floats, rotation: int) -> Floats:
    """Prefer the replica with the fewest requests; equals by predicted latency."""
    del rotation
    requests = replicas.loads.running + replicas.loads.waiting
    return requests + 0.5 * total_s / (1.0 + total_s)


def round_robin(replicas: Replicas, total_s: Floats, rotation: int) -> Floats:
    """Take each in turn."""
    del total_s
    count = len(replicas.names)
    return np.array((np.arange(count) - rotation) % count, dtype=np.float64)


BALANCERS: Final[Mapping[str, Balancer]] = {
    b.__name__: b for b in (predicted_latency, least_request, round_robin)
}


def best_per_model(replicas: Replicas, able: Bools, keys: Floats) -> Ints:
    """Return the index of the best able replica of each model that has one, by model; (N,)."""
    order = np.lexsort((keys, replicas.model))
    order = order[able[order]]
    model = replicas.model[order]
    first = np.ones(len(model), dtype=np.bool_)
    first[1:] = model[1:] != model[:-1]
    best: Ints = order[first]
    return best


def spare_per_model(replicas: Replicas, able: Bools, keys: Floats, best: Ints) -> tuple[str, ...]:
    """Name the second best able replica of each model of *best*, "" where there is none; (N,)."""
    if len(best) == np.count_nonzero(able):
        return ("",) * len(best)
    rest = able.copy()
    rest[best] = False
    seconds = best_per_model(replicas, rest, keys).tolist()
    found = {int(replicas.model[i]): replicas.names[i] for i in seconds}
    return tuple(found.get(int(m), "") for m in replicas.model[best])
