"""A plain load balancer: replicas are alike to it, all of them or those of one model.

It is what the router is compared with. It knows its own requests and what became of them, no
reports. Time is an argument.
"""

from collections.abc import Sequence

import numpy as np

from router_svc.core.balance import BALANCERS, View, best_per_model
from router_svc.core.load import Load
from router_svc.core.recent import Recent
from router_svc.core.types import Bools, Replicas


class Blind:
    """One balancer over R replicas. Mutable, one owner."""

    def __init__(self, models: Sequence[str], max_running: Sequence[int], balancer: str) -> None:
        """Take the model of each replica, and how many requests it runs."""
        count = len(models)
        self.able: Bools = np.ones(count, dtype=np.bool_)
        """Who can be chosen (R,)."""
        self._key, self._rotation = BALANCERS[balancer], 0
        self._names = tuple(f"{model}-{i}" for i, model in enumerate(models))
        self._of = {name: np.array([m == name for m in models]) for name in set(models)}
        self._one = np.zeros(count, dtype=np.intp)
        self._load, self._recent = Load(self._one, max_running), Recent(count)

    def begin(self, now_s: float, model: str = "") -> int:
        """Choose a replica, of *model* if named, for a request; -1 where none is able."""
        replicas, able = self._replicas(now_s), self.able & self._of.get(model, self.able)
        view = View(replicas=replicas, able=able, total_s=replicas.peak_s, rotation=self._rotation)
        self._rotation += 1
        best, _ = best_per_model(replicas, able, self._key(view))
        if not best:
            return -1
        i = best[0]
        self._load.began(i, 1.0, 1.0, now_s=now_s)
        self._recent.began(i)
        return i

    def end(self, i: int, began_s: float, now_s: float) -> None:
        """Note that a request has ended."""
        self._recent.took(i, now_s - began_s, now_s)
        self._load.fed(i, 1.0, now_s=now_s)
        self._load.ended(i, 1.0, now_s=now_s)

    def _replicas(self, now_s: float) -> Replicas:
        count = len(self._names)
        return Replicas(
            models=("any",),
            names=self._names,
            model=self._one,
            healthy=self.able,
            draining=~self.able,
            circuit_closed=self.able,
            can_generate=self.able,
            context_tokens=np.full(count, np.inf),
            loads=self._load.loads(now_s),
            last_turn=self._recent.last_turn,
            peaks=self._recent.peaks,
        )
