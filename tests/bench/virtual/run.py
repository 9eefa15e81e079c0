"""One seed: the same load each way, and without load.

Each way, and the one without load, has a router of its own that first learns the same from prompts
with feedback: what one way taught the router would be to the next one's credit.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeAlias, TypeVar

import msgspec
import numpy as np
from zeta.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse

from services.kit import aio
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError
from tests.bench.virtual.bound import Known, known
from tests.bench.virtual.loop import VirtualLoop
from tests.bench.virtual.recorded import Row, halves
from tests.bench.virtual.world import World
from zeta_client.answer import Answer
from zeta_client.load.arrivals import Arrival
from zeta_client.load.send import OK, Result, send
from zeta_client.load.shots import Shot
from zeta_client.load.ways import Way

T = TypeVar("T")

_CALLERS, _ALONE = 4, 2
"""At once while learning, and without load."""
_FIRST: Final = 7777
_BACK: Final = 8888
"""What is learned on, what is asked, and who comes back are drawn independently."""
_UNRECORDED: Final = frozenset({"best_of", "refine"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is asked of every way, R requests."""

    arrivals: Sequence[Arrival]
    mix: Mapping[str, float]
    deadline_s: float | None
    returns: int
    """How often whoever is refused comes back when told to,"""
    returning: float
    """of this share of them; the others never do."""
    warm_up: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of it."""

    runs: dict[str, list[Result]]
    """By way; each R, in the order in which they came."""
    idle: list[bool]
    """(R,) Whether the router of the default policy is right when it has nothing else to do."""
    known: Known
    """How many can be in time for who knows all beforehand."""


Work: TypeAlias = Callable[[Load, World], Awaitable[T]]


def run(config: FleetConfig, rows: Sequence[Row], ways: Sequence[Way], load: Load) -> Found:
    """Run in virtual time; the same arguments give the same result.

    Raises ConfigError where a policy permits plans whose answers were not recorded.
    """
    config, ways = _prepared(config, ways)
    before, asked = halves(rows)
    drawn, runs = _drawn(asked, load), dict[str, list[Result]]()
    for way in ways:
        # Nobody behind a plain balancer learns.
        taught = [] if way.direct else before
        runs[way.name] = _alone(config, taught, load, partial(_loaded, drawn, way))
    idle = _alone(config, before, load, partial(_without_load, drawn))
    return Found(runs=runs, idle=idle, known=known(config, load.arrivals, drawn, load.deadline_s))


def _prepared(config: FleetConfig, ways: Sequence[Way]) -> tuple[FleetConfig, list[Way]]:
    """Give each way with a balancer of its own a policy of its own. Raises ConfigError."""
    default, policies = config.router.default_policy, dict(config.router.policies)
    found = []
    for way in ways:
        base = way.policy or default
        if way.balancer and not way.direct:
            name = f"bench-{base}-{way.balancer}"
            policies[name] = msgspec.structs.replace(policies[base], balancer=way.balancer)
            base = name
        found.append(replace(way, policy=base))
    for name in dict.fromkeys((default, *(way.policy for way in found))):
        unrecorded = sorted(_UNRECORDED & set(policies[name].plans or _UNRECORDED))
        if unrecorded:
            raise ConfigError(
                f"router.policies.{name}.plans permits {', '.join(unrecorded)}: only answers to "
                "the prompt alone are recorded; leave that out"
            )
    router = msgspec.structs.replace(config.router, policies=policies)
    return msgspec.structs.replace(config, router=router), found


def _alone(config: FleetConfig, taught: Sequence[Row], load: Load, work: Work[T]) -> T:
    """Return what *work* does with a fleet of its own, whose router was *taught* before."""

    async def main() -> T:
        world = World(config, load.seed)
        async with world.running():
            if taught:
                await _learn(world, taught, load)
            return await work(load, world)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main())


async def _learn(world: World, rows: Sequence[Row], load: Load) -> None:
    """Let the router learn from the verdict on prompts that no run will ask."""
    first = int(np.random.default_rng(load.seed + _FIRST).integers(len(rows)))
    waiting = iter([rows[(first + i) % len(rows)] for i in range(load.warm_up)])

    async def caller() -> None:
        for row in waiting:
            answer = await _answer(world, row)
            right = row.answers[answer.model].right
            await world.router.verdicts.feedback(
                answer.decision_id, float(right), feedback_id="", source="verifier:exact"
            )

    await aio.all_of(*(caller() for _ in range(_CALLERS)))


def _drawn(rows: Sequence[Row], load: Load) -> list[Row]:
    """Draw what each arrival asks: of its kind, or of one of the mix."""
    rng, weights = np.random.default_rng(load.seed), np.array(list(load.mix.values()))
    kinds = rng.choice(list(load.mix), size=len(load.arrivals), p=weights / weights.sum()).tolist()
    pools = {kind: [row for row in rows if row.kind == kind] for kind in {r.kind for r in rows}}
    found = []
    for arrival, kind in zip(load.arrivals, kinds, strict=True):
        pool = pools[arrival.kind or kind]
        found.append(pool[int(rng.integers(len(pool)))])
    return found


async def _loaded(rows: Sequence[Row], way: Way, load: Load, world: World) -> list[Result]:
    """Send *rows* when they are due."""
    asked = world.way(way)
    shots = [
        Shot(
            at_s=a.at_s,
            kind=row.kind,
            priority="standard",
            request=GenerateRequest(prompt=row.prompt),
            task=None,
        )
        for a, row in zip(load.arrivals, rows, strict=True)
    ]
    row_of = {row.prompt: row for row in rows}

    def call(shot: Shot, left_s: float | None) -> AsyncIterator[GenerateResponse]:
        return asked(row_of[shot.request.prompt], left_s)

    clock = asyncio.get_running_loop().time
    back = np.random.default_rng(load.seed + _BACK).random(len(shots)) < load.returning
    results: list[Result] = [None] * len(shots)  # type: ignore[list-item] # set below
    each = {0: np.flatnonzero(~back).tolist(), load.returns: np.flatnonzero(back).tolist()}

    async def some(returns: int, places: Sequence[int]) -> None:
        mine = [shots[i] for i in places]
        found = await send(mine, call, deadline_s=load.deadline_s, returns=returns, clock=clock)
        for i, result in zip(places, found, strict=True):
            results[i] = result

    await aio.all_of(*(some(returns, places) for returns, places in each.items()))
    return [_judged(result, row) for result, row in zip(results, rows, strict=True)]


async def _without_load(rows: Sequence[Row], _: Load, world: World) -> list[bool]:
    """Ask the same again, a few at a time and without a deadline; return which are right."""
    found: dict[int, bool] = {}
    waiting = iter(enumerate(rows))

    async def caller() -> None:
        for i, row in waiting:
            found[i] = row.answers[(await _answer(world, row)).model].right

    await aio.all_of(*(caller() for _ in range(_ALONE)))
    return [found[i] for i in range(len(rows))]


async def _answer(world: World, row: Row) -> Answer:
    answer = Answer()
    async for event in world.routed(row, None):
        answer.add(event, 0.0)
    return answer


def _judged(result: Result, row: Row) -> Result:
    return replace(result, right=result.status == OK and row.answers[result.model].right)
