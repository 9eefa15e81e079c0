"""What is to come and what capacity will be worth: decisions in, forecasts and prices out.

Streams are the models that requests would go to if capacity were free; the forecast of each stream
weighs the latest requests of that stream, and prices follow from where those would go.

Other routers on the same fleet are taken to have requests like ours and to follow the same prices,
as many more as they have in flight. So N routers act as one, without waiting to see what the others
did. Where that is wrong (other requests, ensembles, work that takes longer than thought), what
really runs is above or below what was expected, and that difference is learned slowly.
Time is an argument. M = models, K = requests.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from math import exp
from typing import Final

import numpy as np

from router_svc.core.decide import Decision
from router_svc.core.forecast import HORIZON_S, STEP_S, Forecast
from router_svc.core.plan import Plan, kind_of, models_of
from router_svc.core.seasons import SLOT_S, Seasons
from router_svc.core.shadow import MOST, Demand, ascended, usual_s, utilisation, would_take
from router_svc.core.types import Ask, Bools, Candidates, Floats, Ints, Policy, Priority, Replicas

_PENDING: Final = 4096
"""Decisions kept between two steps; at more the forecast is scaled."""
_SAMPLE: Final = 192
"""Requests that stand for those to come."""
_SAMPLE_S: Final = 30.0
_SHARE_S: Final = 5.0
"""Our share of the fleet's traffic is averaged over about so long."""
_LEAST_SHARE: Final = 0.05
_FULL: Final = 0.95
_LATER: Final[Mapping[str, float]] = {"cascade": 0.5, "hedge": 0.05}
"""How often a plan's later call is made, about, where it is not always."""
_HALVINGS: Final = 16
_ALLOCATION_AHEAD_S: Final = 60.0
"""Slots move for what usually comes a minute from now: they cannot move every second."""
_WHOLE: Final = 0.9
_SURPRISE_S: Final = 10.0
"""What expectations miss is averaged over about so long: prices do not chase their own effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is foreseen of one model."""

    model: str
    price: float
    """Utility that a call of the usual size pays."""
    requests_per_s: float
    """Forecast of the requests that this model is best for, if capacity were free."""
    utilisation: float
    """Forecast, at these prices: 1 is every slot, all of the time."""
    error: float
    """Mean absolute error of that forecast, in requests per second."""
    naive_error: float
    """The same if the last second were taken for the future."""


@dataclass(frozen=True, slots=True)
class _Seen:
    at_s: float
    candidates: Candidates
    policy: Policy
    deadline_s: float | None
    critical: bool
    plan: Plan | None
    """None for what was refused."""


class Ahead:
    """Forecasts and prices of M models. Mutable, one owner."""

    def __init__(self, models: Sequence[str], *, target: float) -> None:
        """Aim at *target* of every model's slots being used, in (0, 1]."""
        count = len(models)
        self.seasons = Seasons(count)
        self._wall_s: float | None = None
        self._slot: tuple[int, Floats, float] | None = None
        """The present slot of the season: its number, what came in it, and in how long."""
        self._models, self._target = tuple(models), target
        self._index = {name: m for m, name in enumerate(models)}
        self._pending: deque[_Seen] = deque(maxlen=_PENDING)
        self._lost = 0
        self._values = np.empty((0, count))
        self._work_s = np.empty((0, count))
        self._critical = np.empty(0)
        self._at_s = np.empty(0)
        self._stepped_s: float | None = None
        self._own = self._all = 0.0
        self._surprise = np.zeros(count)
        """Slots in use above what was expected (M,)."""
        self._more = np.zeros(count)
        """Slots that plans of several calls take beyond their best one (M,)."""
        self._waiting = np.zeros(count)
        """Slots that it would take to serve in time what waits (M,)."""
        self._capacity = np.zeros(count)
        self._utilisation = np.zeros(count)
        self._usual_s = np.ones(count)
        self.forecast = Forecast(count)
        self.prices = np.zeros(count)
        """Utility per second of a slot (M,)."""

    def decided(self, decision: Decision, ask: Ask, now_s: float) -> None:
        """Note what a request could be served by, and what was chosen."""
        self._came(ask, decision.candidates, decision.policy, decision.plan, now_s)

    def refused(self, ask: Ask, candidates: Candidates, policy: Policy, now_s: float) -> None:
        """Note what a request could have been served by for which there was no time or room.

        What comes is what is to be foreseen, not what is let in. It is to be noted once, however
        often it comes back.
        """
        self._came(ask, candidates, policy, None, now_s)

    def _came(
        self,
        ask: Ask,
        candidates: Candidates,
        policy: Policy,
        plan: Plan | None,
        now_s: float,
    ) -> None:
        self._lost += len(self._pending) == _PENDING
        critical = ask.priority is Priority.CRITICAL
        self._pending.append(_Seen(now_s, candidates, policy, ask.deadline_s, critical, plan))

    def step(self, replicas: Replicas, now_s: float, wall_s: float | None = None) -> None:
        """Forecast and price anew, from what came since the last step and the fleet's load now.

        To be called every `STEP_S`; a step that comes late covers the longer time. *wall_s* is in
        seconds since 1970; without it there are no seasons.
        """
        last_s, self._stepped_s = self._stepped_s, now_s
        passed_s = STEP_S if last_s is None else now_s - last_s
        if passed_s <= 0.0:
            return
        counts = self._take_in(now_s, passed_s)
        self._live(counts, passed_s, wall_s)
        self.forecast.observe(counts / passed_s)
        demand = self._demand(replicas, passed_s)
        self.prices = ascended(demand, self.prices, self._target)
        self._usual_s = usual_s(demand)
        self._utilisation = utilisation(demand, self.prices)

    def outlooks(self) -> list[Outlook]:
        """Say what is foreseen of every model."""
        columns = (
            self.prices * self._usual_s,
            self.rates(),
            self._utilisation,
            self.forecast.error,
            self.forecast.naive_error,
        )
        rows = zip(self._models, *(c.tolist() for c in columns), strict=True)
        return [
            Outlook(
                model=model,
                price=price,
                requests_per_s=rate,
                utilisation=used,
                error=error,
                naive_error=naive,
            )
            for model, price, rate, used, error, naive in rows
        ]

    def need(self, models: Bools, slots: float) -> Floats:
        """Return the slots that each of *models* (M,) needs of a pool of so many *slots*; (M,).

        All slots of the pool have the same price, at which the work that would come fits. Critical
        requests count twice, and so their models have room for them.
        """
        demand = self._known(self._weights(_ALLOCATION_AHEAD_S) * (1.0 + self._critical))
        low, high = 0.0, MOST / float(self._usual_s[models].min(initial=1.0))
        fixed = self._surprise + self._more + self._waiting
        for _ in range(_HALVINGS):
            price = 0.5 * (low + high)
            taken = would_take(demand, np.where(models, price, self.prices)) + fixed
            fits = float(taken[models].sum()) <= self._target * slots
            low, high = (low, price) if fits else (price, high)
        free = would_take(demand, np.where(models, 0.0, self.prices)) + fixed
        taken = free if float(free[models].sum()) <= self._target * slots else taken
        needed: Floats = np.maximum(taken, 0.0) * models
        return needed

    def _take_in(self, now_s: float, passed_s: float) -> Floats:
        """Move what is pending into the sample; return how many came in each stream (M,)."""
        pending, scale = list(self._pending), 1.0 + self._lost / _PENDING
        self._pending.clear()
        self._lost = 0
        values, work_s = self._rows(pending)
        counts = np.bincount(values.argmax(axis=1), minlength=len(self._models)) * scale
        more = self._beyond_one(pending, values, work_s) * scale
        self._more += (1.0 - exp(-passed_s / _SHARE_S)) * (more / passed_s - self._more)
        critical = np.array([each.critical for each in pending], dtype=np.float64)
        keep = self._at_s > now_s - _SAMPLE_S
        # Of more than a sample in one step every n-th stands for the others.
        stride = max(len(pending) // _SAMPLE, 1)
        self._values = np.concatenate([self._values[keep], values[::stride]])[-_SAMPLE:]
        self._work_s = np.concatenate([self._work_s[keep], work_s[::stride]])[-_SAMPLE:]
        self._critical = np.concatenate([self._critical[keep], critical[::stride]])[-_SAMPLE:]
        at_s = np.array([each.at_s for each in pending[::stride]])
        self._at_s = np.concatenate([self._at_s[keep], at_s])[-_SAMPLE:]
        return counts.astype(np.float64)

    def _beyond_one(self, pending: Sequence[_Seen], values: Floats, work_s: Floats) -> Floats:
        """Return the work that plans ask for beyond the call that the sample counts (M,)."""
        more = np.zeros(len(self._models))
        for k, each in enumerate(pending):
            asked = () if each.plan is None else models_of(each.plan)
            if each.plan is not None and len(asked) > 1:
                places = [self._index[name] for name in asked if name in self._index]
                places.remove(max(places, key=lambda m, k=k: values[k, m]))  # type: ignore[misc] # bound now
                share = _LATER.get(kind_of(each.plan), 1.0)
                np.add.at(more, places, share * work_s[k, places])
        return more

    def _rows(self, pending: Iterable[_Seen]) -> tuple[Floats, Floats]:
        """Return values and work (K, M) of what is *pending*, in its order."""
        found = [np.empty((0, 2, len(self._models)))]
        for models, group in groupby(pending, key=lambda each: each.candidates.models):
            seen = list(group)
            place = [self._index[name] for name in models]
            rows = np.zeros((len(seen), 2, len(self._models)))
            rows[:, 0] = -np.inf
            rows[:, :, place] = _figures(seen)
            found.append(rows)
        joined = np.concatenate(found)
        return joined[:, 0], joined[:, 1]

    def _demand(self, replicas: Replicas, passed_s: float) -> Demand:
        able = replicas.healthy & ~replicas.draining & replicas.circuit_closed
        able &= replicas.can_generate
        loads, model, count = replicas.loads, replicas.model, len(self._models)
        self._notice_share(loads.requests, loads.own, passed_s)
        self._capacity = _sums(model, loads.max_running * able, count)
        self._waiting = _sums(model, loads.waiting, count) * self._usual_s / HORIZON_S
        demand = self._known(self._weights())
        self._notice_use(demand, _sums(model, loads.running, count), passed_s)
        return replace(demand, taken=self._surprise + self._more + self._waiting)

    def _known(self, rates: Floats) -> Demand:
        """Build the demand of the sample, at *rates* (K,) of our own requests."""
        return Demand(
            values=self._values,
            work_s=self._work_s,
            rates=rates / self._share,
            capacity=self._capacity,
            taken=np.zeros(len(self._models)),
        )

    def _notice_share(self, there: Floats, own: Floats, passed_s: float) -> None:
        mix = 1.0 - exp(-passed_s / _SHARE_S)
        self._own += mix * (float(own.sum()) - self._own)
        self._all += mix * (float(np.maximum(there, own).sum()) - self._all)

    def _notice_use(self, demand: Demand, running: Floats, passed_s: float) -> None:
        """Learn what expectations miss; of a model that is full nobody knows what else would run.

        What is taken at least cannot be less than nothing.
        """
        expected = would_take(demand, self.prices) + self._more
        missed = running - expected
        full = running >= _FULL * demand.capacity
        missed = np.where(full, np.maximum(missed, 0.0), missed)
        self._surprise += (1.0 - exp(-passed_s / _SURPRISE_S)) * (missed - self._surprise)
        self._surprise = np.clip(self._surprise, -expected, demand.capacity)

    @property
    def _share(self) -> float:
        """Of the fleet's traffic that is ours, in (0, 1]."""
        return max(self._own / self._all, _LEAST_SHARE) if self._all > _LEAST_SHARE else 1.0

    def rates(self, ahead_s: float = 0.5 * HORIZON_S) -> Floats:
        """Return each stream's rate that is expected in *ahead_s* seconds (M,)."""
        if self._wall_s is None:
            return self.forecast.rates()
        return self.forecast.rates() * self.seasons.ratio(self._wall_s, ahead_s)

    def _live(self, counts: Floats, passed_s: float, wall_s: float | None) -> None:
        """Live through the season: learn each slot that was seen whole, or nearly."""
        if wall_s is None:
            return
        usual = self.seasons.rates(wall_s)
        if self._wall_s is None and usual is not None:
            self.forecast.begin(usual)
        self._wall_s = wall_s
        number = int(wall_s // SLOT_S)
        if self._slot is None or self._slot[0] != number:
            if self._slot is not None and self._slot[2] >= _WHOLE * SLOT_S:
                self.seasons.learn(self._slot[0], self._slot[1] / self._slot[2])
            self._slot = number, np.zeros(len(self._models)), 0.0
        self._slot = number, self._slot[1] + counts, self._slot[2] + passed_s

    def _weights(self, ahead_s: float = 0.5 * HORIZON_S) -> Floats:
        """Spread each stream's forecast over its requests in the sample (K,)."""
        stream = self._values.argmax(axis=1)
        counts = np.bincount(stream, minlength=len(self._models))
        weights: Floats = (self.rates(ahead_s) / np.maximum(counts, 1.0))[stream]
        return weights


def _sums(model: Ints, values: Floats, count: int) -> Floats:
    """Add up *values* (R,) of each model's replicas; (M,)."""
    return np.bincount(model, values, count).astype(np.float64)


def _figures(seen: Sequence[_Seen]) -> Floats:
    """Return value and work of requests that could go to the same models (K, 2, N)."""
    work_s = np.array([each.candidates.work_s for each in seen])
    weights = np.array(
        [(e.policy.latency_weight_per_s, e.policy.cost_weight_per_usd) for e in seen]
    )
    cost = weights[:, 1:] * np.array([each.candidates.cost_usd for each in seen])
    value = np.array([each.candidates.quality for each in seen]) - weights[:, :1] * work_s - cost
    limit = np.array([np.inf if e.deadline_s is None else e.deadline_s for e in seen])
    # What no model does in time goes to the quickest all the same, as it does in a decision.
    late = work_s > np.maximum(limit, work_s.min(axis=1))[:, None]
    return np.stack([np.where(late, -np.inf, value), work_s], axis=1)
