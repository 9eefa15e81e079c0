"""What a router does in the background, for ever."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import grpc
import structlog
from zeta.router.v1 import router_service_pb2 as router_pb
from zeta.router.v1 import router_service_pb2_grpc as router_grpc

from router_svc import wire
from router_svc.core.forecast import STEP_S
from router_svc.history import History
from router_svc.journal import Journal
from router_svc.learner import Learner
from router_svc.records import forgetting
from router_svc.relay import Siblings
from router_svc.router import ZetaDynamicRouter
from router_svc.tickets import Tickets
from services.kit.config import FleetConfig

log = structlog.get_logger()

_SAVE_EVERY_S: Final = 15.0
_SAVE_SHARE: Final = 0.01
"""Share of the time that may go into saving, which is a thread's,"""
_SAVE_AT_LEAST_EVERY_S: Final = 300.0
"""unless that would be so seldom."""
_STUDY_EVERY_S: Final = 1.0
_EXPIRE_EVERY_S: Final = 0.25
_FOLLOW_EVERY_S: Final = 1.0
_FORGET_EVERY_S: Final = 600.0
_FORGOTTEN_AT_ONCE: Final = 1000
_DAY_S: Final = 86_400.0


def of_the_first(
    config: FleetConfig, router: ZetaDynamicRouter, journal: Journal, history: History
) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return what one worker does for all."""
    keep_s = config.router.journal_keep_days * _DAY_S
    return {
        "saving": partial(save, router, history),
        "lessons": partial(study_for_ever, router.learner),
        "forgetting": partial(forget, journal, keep_s),
    }


async def follow(router: ZetaDynamicRouter, siblings: Siblings) -> None:
    """Take over what the first worker has learned, and the policies that it was given."""
    stub = router_grpc.RouterServiceStub(siblings.channel(0))
    while True:
        await asyncio.sleep(_FOLLOW_EVERY_S)
        try:
            said = await stub.GetPolicy(router_pb.GetPolicyRequest(), timeout=_FOLLOW_EVERY_S)
            router.policies.follow(map(wire.policy_of, said.policies), said.default_policy)
            await router.verdicts.follow()
        except grpc.aio.AioRpcError as failed:
            log.warning("the first worker is away", status=failed.code().name)


async def save(router: ZetaDynamicRouter, history: History) -> None:
    """Write down what was learned, now and then."""
    took_s = 0.0
    while True:
        await asyncio.sleep(pause_s(took_s))
        began_s = time.monotonic()
        await router.verdicts.save()
        took_s = time.monotonic() - began_s
        await history.save()


def pause_s(took_s: float) -> float:
    """Return how long to wait with the next saving after one that *took_s*.

    What a table of outcomes taught is tens of megabytes; the journal has what came since.
    """
    return min(max(_SAVE_EVERY_S, took_s / _SAVE_SHARE), _SAVE_AT_LEAST_EVERY_S)


async def look_ahead(router: ZetaDynamicRouter) -> None:
    """Forecast step by step."""
    while True:
        await asyncio.sleep(STEP_S)
        router.look_ahead()


async def study_for_ever(learner: Learner) -> None:
    """Learn again from what is remembered whenever it is time to."""
    while True:
        await learner.study()
        await asyncio.sleep(_STUDY_EVERY_S)


async def expire(tickets: Tickets) -> None:
    """Let go of tickets whose time has passed."""
    while True:
        await asyncio.sleep(_EXPIRE_EVERY_S)
        await tickets.expire()


async def forget(journal: Journal, keep_s: float) -> None:
    """Keep the journal from growing without end; in small steps, so that writing goes on."""
    while True:
        try:
            while await journal.ask(forgetting(time.time() - keep_s, _FORGOTTEN_AT_ONCE)):
                pass
        except sqlite3.Error as error:
            log.warning("old decisions not forgotten", error=str(error))
        await asyncio.sleep(_FORGET_EVERY_S)


async def kept_up(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run *work*, which should never end, for ever; a mistake in it costs a second and a log."""
    while True:
        try:
            await work()
        except Exception:
            log.exception("background work broke", work=name)
        await asyncio.sleep(1.0)
