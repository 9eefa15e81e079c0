"""The laws of balancers, for every entry of BALANCERS, on a model of four replicas."""

from collections import deque
from dataclasses import replace
from typing import get_args, get_type_hints

import numpy as np
import pytest

from router_svc.core.balance import BALANCERS, View, best_per_model
from router_svc.core.load import Load
from router_svc.core.recent import Recent
from router_svc.core.types import Policy
from router_svc.wire.policies import policy_of, policy_pb
from services.kit.config import Policy as Settings
from tests.unit.router_svc.fixtures import replicas

LAYOUT = {"a": 4, "b": 2}
REPLICAS = 6
LATENCY_S = 1.0
SEEN = [name for name in BALANCERS if name != "round_robin"]
"""Those that look at load."""


class Router:
    """One router's knowledge of six replicas of two models, and its choices for the first."""

    def __init__(self, balancer: str, start: int) -> None:
        self._key, self._rotation = BALANCERS[balancer], start
        self.fleet = replicas(LAYOUT)
        self.load = Load(self.fleet.model, [4] * REPLICAS)
        self.recent = Recent(REPLICAS)
        self.able = np.ones(REPLICAS, dtype=np.bool_)

    def view(self, now_s: float = 0.0) -> View:
        """What the balancer sees; an answer takes a second for each request in flight."""
        loads = self.load.loads(now_s)
        fleet = replace(
            self.fleet,
            loads=loads,
            last_turn=self.recent.last_turn,
            peaks=self.recent.peaks,
        )
        total_s = LATENCY_S * (1.0 + loads.running + loads.waiting)
        return View(replicas=fleet, able=self.able, total_s=total_s, rotation=self._rotation)

    def choose(self, now_s: float = 0.0) -> int:
        """Choose a replica of the first model."""
        view = self.view(now_s)
        self._rotation += 1
        (best, *_), _ = best_per_model(view.replicas, view.able, self._key(view))
        return best

    def report(self, requests: list[float], now_s: float = 0.0) -> None:
        """Take in what the replicas of the first model say of themselves."""
        for i, each in enumerate(requests):
            self.load.reported(i, requests=each, prompt_tokens=0.0, max_running=4, read_at_s=now_s)
            self.recent.took(i, LATENCY_S, now_s)


def test_every_balancer_can_be_configured_and_named_on_the_wire() -> None:
    """Configuration and contract offer exactly the entries of BALANCERS."""
    assert set(get_args(get_type_hints(Settings)["balancer"])) == set(BALANCERS)
    for name in BALANCERS:
        assert policy_of(policy_pb(Policy(balancer=name))).balancer == name


@pytest.mark.parametrize("name", BALANCERS)
def test_a_balancer_gives_each_replica_a_finite_key(name: str) -> None:
    """One finite key each, the same for the same view, which stays as it was."""
    router = Router(name, 7)
    router.report([3.0, 1.0, 4.0, 1.0])
    view = router.view(0.5)
    before = repr(view)

    keys = BALANCERS[name](view)

    assert keys.shape == (REPLICAS,)
    assert np.isfinite(keys).all()
    assert (BALANCERS[name](view) == keys).all()
    assert repr(view) == before


@pytest.mark.parametrize("name", BALANCERS)
def test_no_replica_starves_among_equals(name: str) -> None:
    """With eight requests always in flight, each of four equal replicas gets its share."""
    router, flying, chosen = Router(name, 3), deque[int](), np.zeros(REPLICAS)
    for turn in range(400):
        i = router.choose(turn * 0.1)
        router.load.began(i, 1.0, 1.0, now_s=turn * 0.1)
        router.recent.began(i)
        chosen[i] += 1
        flying.append(i)
        if len(flying) > 8:
            over = flying.popleft()
            router.load.fed(over, 1.0, now_s=turn * 0.1)
            router.load.ended(over, 1.0, now_s=turn * 0.1)
            router.recent.took(over, LATENCY_S, turn * 0.1)

    assert chosen[4:].sum() == 0
    assert chosen[:4].min() >= 70, chosen


@pytest.mark.parametrize("name", BALANCERS)
def test_who_is_not_able_is_never_in_the_way(name: str) -> None:
    """The only able replica is chosen, however good the others look."""
    router = Router(name, 0)
    router.report([0.0, 0.0, 0.0, 9.0])
    router.able[:3] = False

    assert {router.choose() for _ in range(50)} == {3}


@pytest.mark.parametrize("name", SEEN)
def test_who_is_not_able_takes_nobodys_place(name: str) -> None:
    """Of two that are able the idle one is always found, though the others are idle too."""
    router = Router(name, 0)
    router.report([0.0, 0.0, 30.0, 0.0])
    router.recent.took(2, 30.0, 0.0)
    router.able[:2] = False

    assert {router.choose() for _ in range(50)} == {3}


def test_round_robin_takes_each_in_turn() -> None:
    """Every replica is chosen once before any is again, whatever went to other models between."""
    router, chosen = Router("round_robin", 1), []
    for turn in range(8):
        chosen.append(i := router.choose())
        router.recent.began(i)
        if turn % 3:
            router.recent.began(4)
            router.choose()

    assert sorted(chosen[:4]) == [0, 1, 2, 3]
    assert chosen[4:] == chosen[:4]


@pytest.mark.parametrize("name", SEEN)
def test_who_is_overloaded_is_passed_by(name: str) -> None:
    """A replica with a long queue gets nothing while others are idle, fresh report or stale."""
    for age_s in (0.0, 2.0):
        router = Router(name, 11)
        router.report([0.0, 30.0, 0.0, 0.0])
        router.recent.took(1, 30.0, 0.0)
        assert 1 not in {router.choose(age_s) for _ in range(50)}


@pytest.mark.parametrize("name", BALANCERS)
def test_two_routers_with_stale_reports_part(name: str) -> None:
    """Ten routers that know the same of busy replicas do not all choose the same one."""
    routers = [Router(name, 1000 * i + i * i) for i in range(10)]
    for router in routers:
        router.report([8.0, 9.0, 9.0, 10.0])

    chosen = {router.choose(1.0) for router in routers}

    assert len(chosen) >= 3, chosen


@pytest.mark.parametrize("name", ["predicted_latency", "least_request"])
def test_fresh_reports_leave_nothing_to_chance(name: str) -> None:
    """Where nothing can have happened unseen, the best is always found."""
    router = Router(name, 5)
    router.report([4.0, 3.0, 2.0, 3.0])

    assert {router.choose() for _ in range(50)} == {2}
