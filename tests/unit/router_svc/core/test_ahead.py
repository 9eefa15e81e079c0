"""A small fleet in steps of time: where requests go as prices follow what is foreseen.

Requests are decided by `decide`, hold a slot for their work and leave; routers see each other's
requests only in reports. Time is a number.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from router_svc.core.ahead import Ahead
from router_svc.core.decide import decide
from router_svc.core.forecast import STEP_S
from router_svc.core.plan import models_of
from router_svc.core.shadow import congestion
from router_svc.core.types import Candidates, Floats, Policy, Priority, Replicas
from tests.unit.router_svc.fixtures import ask, candidates, loaded, replicas

MODELS = ("a", "b", "c")
"""The general model, the coder, the reasoner."""
POLICY = Policy(explore_ratio=0.0, max_calls=1)
SLOTS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Requests that are alike."""

    quality: tuple[float, float, float]
    work_s: tuple[float, float, float] = (0.5, 0.5, 0.5)
    rate: Callable[[float], float] = lambda _: 0.0
    """Requests per second at a time."""


EASY = Kind(quality=(0.70, 0.75, 0.40))
HARD = Kind(quality=(0.30, 0.75, 0.40))
HALF = Kind(quality=(0.40, 0.75, 0.65))
"""What the reasoner does nearly as well as the coder."""


@dataclass(slots=True)
class SmallFleet:
    """Three models of `SLOTS` slots behind some routers. Mutable, one owner."""

    routers: int = 1
    report_every_s: float = 0.1
    seed: int = 0
    priced: bool = True
    regular: bool = False
    """Whether requests come as evenly as their rate has it, not by chance."""
    now_s: float = 0.0
    sent: list[tuple[float, int, str]] = field(default_factory=list)
    """When, of which kind, to which model."""
    used: list[Floats] = field(default_factory=list)
    """Slots that were wanted of each model after each step (3,)."""
    prices: list[Floats] = field(default_factory=list)
    """Of the first router."""
    ahead: list[Ahead] = field(default_factory=list)
    _work: list[tuple[int, int, float]] = field(default_factory=list)
    """In flight: router, model, when it ends."""
    _due: dict[int, float] = field(default_factory=dict)
    _reported: Floats = field(default_factory=lambda: np.zeros((1, 3)))
    """By each router's own count when reports were last read (routers, 3)."""

    def run(self, kinds: list[Kind], for_s: float) -> "SmallFleet":
        """Let requests come for a while."""
        rng = np.random.default_rng(self.seed)
        self.ahead = self.ahead or [Ahead(MODELS, target=0.9) for _ in range(self.routers)]
        tick_s, steps = 0.05, round(for_s / 0.05)
        each = round(STEP_S / tick_s)
        for step in range(steps):
            self.now_s += tick_s
            self._work = [work for work in self._work if work[2] > self.now_s]
            if step % max(round(self.report_every_s / tick_s), 1) == 0:
                self._reported = self._own()
            for k, kind in enumerate(kinds):
                for _ in range(self._coming(k, kind.rate(self.now_s) * tick_s, rng)):
                    self._decide(k, kind, int(rng.integers(self.routers)), rng)
            self.used.append(self._own().sum(axis=0))
            self.prices.append(self.ahead[0].prices.copy())
            for r, ahead in enumerate(self.ahead):
                # Routers' clocks are not aligned.
                if (step + r) % each == 0:
                    ahead.step(self.seen_by(r), self.now_s)
        return self

    def share(self, model: str, kind: int, since_s: float = 0.0) -> float:
        """Share of a kind's requests that went to *model*."""
        mine = [where for at_s, k, where in self.sent if k == kind and at_s >= since_s]
        return mine.count(model) / max(len(mine), 1)

    def seen_by(self, router: int) -> Replicas:
        """What a router knows: its own requests now, others' as last reported."""
        own = self._own()[router]
        others = self._reported.sum(axis=0) - self._reported[router]
        fleet, there = replicas(dict.fromkeys(MODELS, 1)), own + others
        running = np.minimum(there, SLOTS)
        return loaded(
            fleet,
            running=running,
            waiting=there - running,
            max_running=np.full(3, float(SLOTS)),
            own=own,
        )

    def _coming(self, k: int, expected: float, rng: np.random.Generator) -> int:
        if not self.regular:
            return int(rng.poisson(expected))
        self._due[k] = self._due.get(k, 0.0) + expected
        whole = int(self._due[k])
        self._due[k] -= whole
        return whole

    def _own(self) -> Floats:
        counts = np.zeros((self.routers, 3))
        for router, model, _ in self._work:
            counts[router, model] += 1.0
        return counts

    def _decide(self, k: int, kind: Kind, router: int, rng: np.random.Generator) -> None:
        found = self._candidates(kind, router, rng)
        decision = decide(ask(), found, POLICY, rng, gains={})
        self.ahead[router].decided(decision, ask(), self.now_s)
        (model,) = models_of(decision.plan)
        place = MODELS.index(model)
        wait_s = max(self._own()[:, place].sum() - SLOTS, 0.0) * kind.work_s[place] / SLOTS
        self._work.append((router, place, self.now_s + wait_s + kind.work_s[place]))
        self.sent.append((self.now_s, k, model))

    def _candidates(self, kind: Kind, router: int, rng: np.random.Generator) -> Candidates:
        """No two requests are equally hard."""
        quality = np.clip(np.array(kind.quality) + rng.normal(0.0, 0.03, 3), 0.0, 1.0)
        work_s = np.array(kind.work_s)
        loads = self.seen_by(router).loads
        price = np.array([congestion(*loads.use_of(i)) for i in range(3)])
        if self.priced:
            price = price + self.ahead[router].prices * work_s
        found = candidates(quality.tolist(), total_s=list(kind.work_s))
        return replace(found, work_s=work_s.tolist(), capacity_price=price.tolist())


def steady(kind: Kind, rate: float) -> Kind:
    """*kind* at one rate."""
    return replace(kind, rate=lambda _: rate)


def test_easy_code_overflows_from_a_busy_coder_and_hard_code_stays() -> None:
    """Twice what the coder can do: easy tasks go to the general model, hard ones never do."""
    fleet = SmallFleet().run([steady(EASY, 12.0), steady(HARD, 8.0)], 30.0)

    assert fleet.share("b", 1, since_s=5.0) > 0.98
    assert 0.3 < fleet.share("a", 0, since_s=5.0) < 0.8
    assert fleet.ahead[0].prices[1] > 0.0
    assert fleet.ahead[0].prices[0] == 0.0


def test_at_leisure_the_coder_gets_all_code() -> None:
    """The same tasks at a rate that the coder can do alone."""
    fleet = SmallFleet().run([steady(EASY, 4.0), steady(HARD, 4.0)], 30.0)

    assert fleet.share("b", 0) > 0.8
    assert fleet.share("b", 1) == 1.0
    assert fleet.ahead[0].prices.tolist() == [0.0, 0.0, 0.0]


def test_an_idle_reasoner_takes_over_what_usually_goes_to_the_coder() -> None:
    """While the coder has too much to do, and gives it back afterwards."""
    fleet = SmallFleet().run([steady(HALF, 4.0)], 10.0)
    before = fleet.share("c", 0)
    fleet.run([steady(HALF, 24.0)], 20.0)
    during = fleet.share("c", 0, since_s=15.0)
    fleet.run([steady(HALF, 4.0)], 30.0)

    assert before < 0.15
    assert during > 0.3
    assert fleet.share("c", 0, since_s=40.0) < 0.1


def test_work_moves_before_there_is_a_queue() -> None:
    """On a ramp the first task that leaves does so while the coder still has free slots."""

    def ramp(now_s: float) -> float:
        return 4.0 + 1.0 * now_s

    fleet = SmallFleet(regular=True).run([replace(HALF, rate=ramp)], 20.0)
    first = int(np.argmax([price[1] > 0.02 for price in fleet.prices]))

    assert fleet.prices[first][1] > 0.02
    assert max(used[1] for used in fleet.used[: first + 1]) <= SLOTS
    late = SmallFleet(regular=True, priced=False).run([replace(HALF, rate=ramp)], 20.0)
    # With the price of present use alone more has to wait.
    waited = [sum(max(used[1] - SLOTS, 0.0) for used in f.used) for f in (fleet, late)]
    assert waited[0] < 0.7 * waited[1]


@pytest.mark.parametrize("routers", [1, 8])
def test_prices_do_not_oscillate_however_many_routers_there_are(routers: int) -> None:
    """Reports half a second old, twice the coder's capacity: its use stays near the target.

    Each router corrects its share of the overload, by where its own requests would go.
    """
    fleet = SmallFleet(routers=routers, report_every_s=0.5, seed=1)
    fleet.run([steady(HALF, 24.0)], 30.0)
    used = np.array(fleet.used)[200:, 1] / SLOTS
    prices = np.array(fleet.prices)[200:, 1]

    assert used.mean() == pytest.approx(0.9, abs=0.15)
    assert used.reshape(-1, 40).mean(axis=1).max() < 1.4
    # The price moves with chance arrivals, not from one bound to the other: following what
    # really runs, in place of what would go where, its deviation is 0.17 to 0.24.
    assert prices.std() < 0.1


def told(
    ahead: Ahead, found: Candidates, now_s: float, policy: Policy = POLICY, **fields: object
) -> None:
    """Have *ahead* see a request that *found* could serve."""
    asked = ask(**fields)  # type: ignore[arg-type] # tests vary them
    decision = decide(
        replace(asked, deadline_s=None), found, policy, np.random.default_rng(0), gains={}
    )
    ahead.decided(decision, asked, now_s)


def test_what_other_routers_send_counts() -> None:
    """A router whose own requests are few prices a coder that others keep busy, and it alone."""
    ahead = Ahead(MODELS, target=0.9)
    fleet = SmallFleet()
    fleet.ahead = [ahead]
    busy = fleet.seen_by(0)
    busy = loaded(busy, running=np.array([0.0, 8.0, 0.0]), own=np.array([0.0, 2.0, 0.0]))
    for step in range(40):
        told(ahead, replace(candidates([0.4, 0.75, 0.65]), work_s=[0.5] * 3), 0.25 * step)
        ahead.step(busy, 0.25 * (step + 1))

    assert ahead.outlooks()[1].price > 0.02
    assert ahead.outlooks()[0].price == 0.0


def test_what_cannot_go_elsewhere_is_not_expected_to() -> None:
    """Requests for one model, and those whose deadline no other model meets."""
    ahead = Ahead(MODELS, target=0.9)
    fleet = SmallFleet()
    fleet.ahead = [ahead]
    slow = replace(candidates([0.4, 0.75, 0.65]), work_s=[5.0, 5.0, 0.5])
    told(ahead, slow, 0.0, deadline_s=1.0)
    alone = replace(candidates([0.75]), models=("b",), work_s=[5.0])
    told(ahead, alone, 0.1)
    ahead.step(fleet.seen_by(0), 0.25)

    assert [round(o.requests_per_s, 2) for o in ahead.outlooks()] == [0.0, 4.0, 4.0]


def test_what_is_refused_came_as_well() -> None:
    """A forecast of what is let in would foresee less the more is refused."""
    ahead = Ahead(MODELS, target=0.9)
    fleet = SmallFleet()
    fleet.ahead = [ahead]
    found = replace(candidates([0.4, 0.75, 0.65]), work_s=[0.5] * 3)
    told(ahead, found, 0.0)
    for _ in range(3):
        ahead.refused(ask(), found, POLICY, 0.1)
    ahead.step(fleet.seen_by(0), 0.25)

    assert [round(o.requests_per_s, 2) for o in ahead.outlooks()] == [0.0, 16.0, 0.0]


def test_a_late_step_counts_for_the_time_that_passed() -> None:
    """Ten requests in two seconds are five a second, however seldom steps come."""
    ahead = Ahead(MODELS, target=0.9)
    fleet = SmallFleet()
    fleet.ahead = [ahead]
    found = replace(candidates([0.4, 0.75, 0.65]), work_s=[0.5] * 3)
    ahead.step(fleet.seen_by(0), 0.0)
    for now_s in (2.0, 4.0, 6.0, 8.0):
        for _ in range(10):
            told(ahead, found, now_s)
        ahead.step(fleet.seen_by(0), now_s)
        ahead.step(fleet.seen_by(0), now_s)

    assert ahead.outlooks()[1].requests_per_s == pytest.approx(5.0, rel=0.6)
    assert ahead.forecast.rates()[0] == 0.0


def test_a_flood_of_decisions_is_bounded_and_still_counted() -> None:
    """More than fit between two steps are counted, and a few of them remembered."""
    ahead = Ahead(MODELS, target=0.9)
    fleet = SmallFleet()
    fleet.ahead = [ahead]
    found = replace(candidates([0.4, 0.75, 0.65]), work_s=[0.5] * 3)
    for _ in range(6000):
        told(ahead, found, 0.1)
    ahead.step(fleet.seen_by(0), 0.25)

    assert ahead.outlooks()[1].requests_per_s == pytest.approx(6000 / 0.25)


BOTH = np.array([True, True, False])
POOL = 20.0


def needs(found: Candidates, per_step: int, running: tuple[float, ...], **fields: object) -> Ahead:
    """Foresight after ten seconds of such requests, while so many slots are in use."""
    ahead, fleet = Ahead(MODELS, target=0.9), SmallFleet()
    idle = fleet_of(ahead, fleet)
    busy = loaded(idle, running=np.array(running), own=np.array(running))
    for step in range(40):
        for _ in range(per_step):
            told(ahead, found, 0.25 * step, **fields)  # type: ignore[arg-type] # tests vary them
        ahead.step(busy, 0.25 * (step + 1))
    return ahead


def fleet_of(ahead: Ahead, fleet: SmallFleet) -> Replicas:
    """The idle fleet as its only router sees it."""
    fleet.ahead = [ahead]
    return fleet.seen_by(0)


CODE = replace(candidates([0.3, 0.75, 0.4]), work_s=[0.5] * 3)


def test_a_model_needs_what_its_work_takes() -> None:
    """Eight requests a second of half a second on the coder; what is not in the pool needs none."""
    elsewhere = replace(candidates([0.2, 0.3, 0.9]), work_s=[0.5] * 3)

    assert needs(CODE, 2, (0.0, 4.0, 0.0)).need(BOTH, POOL) == pytest.approx(
        [0.0, 4.0, 0.0], abs=0.2
    )
    assert needs(elsewhere, 2, (0.0, 0.0, 4.0)).need(BOTH, POOL).sum() == pytest.approx(
        0.0, abs=0.2
    )


def test_critical_requests_count_twice() -> None:
    """So that there is room for them."""
    usual = needs(CODE, 2, (0.0, 4.0, 0.0)).need(BOTH, POOL)
    critical = needs(CODE, 2, (0.0, 4.0, 0.0), priority=Priority.CRITICAL).need(BOTH, POOL)

    assert critical[1] == pytest.approx(2.0 * usual[1])


def test_who_takes_part_in_ensembles_needs_slots_for_it() -> None:
    """A vote of all three asks the general model, too, though the coder is the best."""
    found = replace(candidates([0.7, 0.75, 0.7]), work_s=[0.5] * 3)
    votes = Policy(explore_ratio=0.0, plans=frozenset({"vote"}))
    single = needs(found, 2, (0.0, 4.0, 0.0)).need(BOTH, POOL)
    voting = needs(found, 2, (4.0, 4.0, 4.0), policy=votes).need(BOTH, POOL)

    assert voting[0] - single[0] == pytest.approx(4.0, rel=0.3)
    assert voting[1] == pytest.approx(single[1], rel=0.1)


def test_a_pool_that_is_too_small_goes_to_who_makes_most_of_it() -> None:
    """Where not all work fits, what a quick model does nearly as well goes there."""
    ahead, fleet = Ahead(MODELS, target=0.9), SmallFleet()
    close = replace(candidates([0.70, 0.75, 0.1]), work_s=[0.25, 1.0, 1.0])
    apart = replace(candidates([0.30, 0.75, 0.1]), work_s=[0.25, 1.0, 1.0])
    idle = fleet_of(ahead, fleet)
    full = loaded(idle, running=np.array([0.0, 8.0, 0.0]), own=np.array([0.0, 8.0, 0.0]))
    for step in range(40):
        for found in (close, apart):
            told(ahead, found, 0.25 * step)
        ahead.step(full, 0.25 * (step + 1))
    roomy, scarce = ahead.need(BOTH, 40.0), ahead.need(BOTH, 6.0)

    assert roomy == pytest.approx([0.0, 8.0, 0.0], abs=0.7)
    assert scarce[0] == pytest.approx(1.0, abs=0.2)
    assert scarce.sum() == pytest.approx(0.9 * 6.0, abs=0.2)
