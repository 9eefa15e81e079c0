"""Who takes a call that failed: laws of who is asked, waited for, and given up."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from router_svc.core.breaker import RetryBudget
from router_svc.core.decide import Decision, decide
from router_svc.core.patience import MOST_DEATHS, MOST_S
from router_svc.core.types import Policy
from router_svc.elsewhere import Elsewhere
from router_svc.fleet import Fleet
from router_svc.run import Call, HungError, LostError, NobodyError, Run, no_scores, not_here
from services.kit.config import Router
from services.kit.errors import (
    DeadlinePassedError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    PreemptedError,
    UnavailableError,
    ZetaError,
)
from tests.unit.router_svc.fixtures import ManualClock, ask, candidates, features, models

GONE = UnavailableError("it is there, and fails")


class Stage:
    """Replicas a-0 and b-0 of two models, and one request that may use both, or *only* one."""

    def __init__(self, *, burst: float = 10.0, only: str = "") -> None:
        self.only, self.clock = only, ManualClock()
        self.looked = asyncio.Event()
        """Set when nobody was found, or a replica was asked whether it answers."""
        self.fleet = Fleet(models({"a": 1, "b": 1}), Router(), self.clock)
        self.fleet.ask = self._asked
        for name in self.fleet.names:
            self.fleet.health(name, serving=True)
        budget = RetryBudget(ratio=0.0, burst=burst)
        self.elsewhere = Elsewhere(self.fleet, budget, self.clock)
        self.call = Call(model="a", replica="a-0", part="single")
        found = self.decide(frozenset(), "")
        self.run = Run(
            id="d-1",
            ask=ask(),
            features=features(),
            decision=found,
            upstream=not_here,
            scores=no_scores,
            replan=self.decide,
            explain=lambda: None,
            arrived_s=self.clock(),
            deadline_at_s=None,
        )

    def decide(self, failed: frozenset[str], _model: str) -> Decision:
        """Decide for the first that is there and has not failed."""
        allowed = [name for name in "ab" if self.only in ("", name)]
        there = [name for name in allowed if self.fleet.able(f"{name}-0")]
        if not (left := [name for name in there if f"{name}-0" not in failed]):
            self.looked.set()
            raise NobodyError("nobody", away=there != allowed)
        keep = candidates([0.5] * len(left))
        keep = replace(keep, models=tuple(left), replicas=tuple(f"{name}-0" for name in left))
        policy = Policy(explore_ratio=0.0, max_calls=1)
        return decide(ask(), keep, policy, np.random.default_rng(1), gains={})

    async def _asked(self, _replica: str) -> None:
        self.looked.set()

    async def fails(self, error: ZetaError, *, taken: bool = False) -> str:
        """Have the call fail; return where it goes then. Raises ZetaError."""
        self.call.taken = taken
        self.elsewhere.failed(self.run, self.call, error)
        await self.elsewhere.find(self.run, self.call, error)
        return self.call.replica

    def goes(self, replica: str) -> None:
        """Have *replica* end."""
        self.fleet.health(replica, serving=False)

    def comes(self, replica: str) -> None:
        """Have *replica* serve again."""
        self.fleet.health(replica, serving=True)


@pytest.mark.parametrize("error", [GONE, LostError("cut"), OverloadedError("full")])
async def test_another_that_is_there_is_asked_at_once(error: ZetaError) -> None:
    """Whatever kept the first from answering."""
    assert await Stage().fails(error) == "b-0"


async def test_a_wrong_request_goes_nowhere() -> None:
    """It is wrong everywhere."""
    with pytest.raises(InvalidRequestError):
        await Stage().fails(InvalidRequestError("no"))


async def test_nobody_is_waited_for_where_all_are_there_and_fail() -> None:
    """The caller is told when to come again."""
    stage = Stage()
    assert await stage.fails(GONE) == "b-0"
    with pytest.raises(UnavailableError) as refused:
        await stage.fails(GONE)
    assert refused.value.retry_after_s == 1.0


async def test_who_is_away_is_waited_for_though_another_fails() -> None:
    """And the one that is there and fails is not asked again."""
    stage = Stage()
    stage.goes("b-0")
    waiting = asyncio.create_task(stage.fails(GONE))
    await stage.looked.wait()
    stage.comes("b-0")
    assert await waiting == "b-0"


async def test_who_failed_and_restarted_is_another() -> None:
    """It is asked again, though who was waited for is still away."""
    stage = Stage()
    stage.goes("b-0")
    waiting = asyncio.create_task(stage.fails(GONE))
    await stage.looked.wait()
    stage.looked.clear()
    stage.goes("a-0")
    await stage.looked.wait()
    stage.comes("a-0")
    assert await waiting == "a-0"


async def test_who_fails_as_it_goes_is_waited_for() -> None:
    """Its last words are no refusal."""
    stage = Stage(only="a")
    stage.goes("a-0")
    waiting = asyncio.create_task(stage.fails(GONE))
    await stage.looked.wait()
    stage.comes("a-0")
    assert await waiting == "a-0"


@pytest.mark.parametrize("error", [LostError("cut"), HungError("silent")])
async def test_the_only_one_is_asked_again_after_it_was_lost(error: ZetaError) -> None:
    """A connection may break that is there again at once."""
    stage = Stage(only="a")
    waiting = asyncio.create_task(stage.fails(error))
    await stage.looked.wait()
    stage.comes("b-0")  # any news, and no pause has to pass
    stage.goes("b-0")
    assert await waiting == "a-0"


@pytest.mark.parametrize("kind", [OverloadedError, PreemptedError, UnavailableError])
async def test_the_only_one_is_asked_again_when_it_said(kind: type[ZetaError]) -> None:
    """Who was let in here is not refused for want of room there."""
    assert await Stage(only="a").fails(kind("later", retry_after_s=0.001)) == "a-0"


async def test_who_drains_is_waited_for_until_it_serves_again() -> None:
    """However soon it says that it may be asked again: it takes nothing new by then."""
    stage = Stage(only="a")
    stage.fleet.drains("a-0")
    waiting = asyncio.create_task(stage.fails(DrainingError("bye", retry_after_s=0.001)))
    await stage.looked.wait()
    stage.goes("a-0")
    stage.comes("a-0")
    assert await waiting == "a-0"


@pytest.mark.parametrize("error", [LostError("cut"), GONE])
async def test_a_deadline_that_passes_meanwhile_is_told_as_such(error: ZetaError) -> None:
    """Not as a lack of replicas: nothing was refused."""
    stage = Stage()
    stage.goes("a-0")
    stage.goes("b-0")
    stage.run.deadline_at_s = stage.clock() + 0.001
    with pytest.raises(DeadlinePassedError, match="was waited for"):
        await stage.fails(error)


async def test_nobody_waits_for_ever() -> None:
    """All waits together are bounded; the caller is then told when to come again."""
    stage = Stage(only="a")
    stage.goes("a-0")
    stage.run.patience.failed(stage.clock(), fatal=False)
    stage.clock.now_s += MOST_S
    with pytest.raises(UnavailableError) as refused:
        await stage.fails(LostError("cut"))
    assert refused.value.retry_after_s == 1.0


async def test_a_request_that_ends_replica_after_replica_is_given_up() -> None:
    """It is not given to one more, though that is there."""
    stage = Stage()
    for _ in range(MOST_DEATHS - 1):
        stage.run.patience.failed(stage.clock(), fatal=True)
    with pytest.raises(UnavailableError, match="cut"):
        await stage.fails(LostError("cut"), taken=True)


@pytest.mark.parametrize(
    ("error", "taken"), [(LostError("refused"), False), (HungError("silent"), True)]
)
async def test_what_no_request_can_be_blamed_for_does_not_count(
    error: ZetaError, *, taken: bool
) -> None:
    """A connection that was not to be had, a call that was given up for its silence."""
    stage = Stage()
    for _ in range(2 * MOST_DEATHS):
        stage.call.replica = "a-0"
        assert await stage.fails(error, taken=taken) == "b-0"


async def test_an_empty_budget_lets_who_was_lost_wait() -> None:
    """It is not sent on at once, and it is not refused."""
    stage = Stage(burst=0.0)
    waiting = asyncio.create_task(stage.fails(LostError("cut")))
    await stage.looked.wait()
    stage.goes("a-0")
    assert await waiting == "b-0"
    with pytest.raises(UnavailableError, match="fails"):
        await stage.fails(GONE)
