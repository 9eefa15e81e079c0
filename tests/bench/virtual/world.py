"""A router of the real code on a virtual loop, and the replicas before which it stands.

Left out: gRPC, the embedding service (prompts are profiled by their text alone), the disk, and all
that a machine's own speed would be seen in.
"""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import count
from typing import Final, TypeVar

import numpy as np
from zeta.inference.v1.inference_service_pb2 import GenerateResponse

from router_svc import chores
from router_svc.core.breaker import Breaker
from router_svc.core.features import Features
from router_svc.core.forecast import STEP_S
from router_svc.core.twist import AS_ASKED, Twist
from router_svc.core.types import Ask
from router_svc.fleet import Fleet, Lease
from router_svc.journal import Journal, Work, _connect
from router_svc.learner import Learner
from router_svc.policies import Policies
from router_svc.profiler import Profiler
from router_svc.router import ZetaDynamicRouter
from router_svc.run import Upstream, no_scores
from router_svc.wire import Continuation
from services.kit.aio import cancelled
from services.kit.config import FleetConfig, Model, replica_name
from services.kit.errors import DeadlinePassedError
from tests.bench.virtual.recorded import Row
from tests.bench.virtual.replica import Replica
from zeta_client.load.blind import Blind
from zeta_client.load.ways import Way

T = TypeVar("T")

Stream = AsyncGenerator[GenerateResponse, None]
Asked = Callable[[Row, float | None], Stream]
"""(what, seconds that are left) to the answer's events."""

_REPORT_S: Final = 0.1


class World:
    """A fleet. Mutable, owned by the loop that runs when it is made."""

    def __init__(self, config: FleetConfig, seed: int) -> None:
        clock = asyncio.get_running_loop().time
        self._models = [(m, i) for m in config.models for i in range(len(m.replicas))]
        self._replicas = {replica_name(m.name, i): Replica(m) for m, i in self._models}
        self._fleet = Fleet(config.models, config.router, clock)
        self._learner = Learner(config.models, config.router.half_life_outcomes)
        self._journal = _Memory()
        self.router = ZetaDynamicRouter(
            config.router,
            fleet=self._fleet,
            learner=self._learner,
            profiler=_by_text(config, clock),
            policies=Policies(config.router.policies, config.router.default_policy),
            journal=self._journal,
            rng=np.random.default_rng(seed),
            clock=clock,
            new_id=map(str, count(1)).__next__,
        )
        for name in self._replicas:
            self._fleet.health(name, serving=True)

    def way(self, way: Way) -> Asked:
        """Return what has a request answered that way."""
        if way.direct:
            return _Pool(self._models, self._replicas, way).generate

        def routed(row: Row, left_s: float | None) -> Stream:
            model = (way.model_of or {}).get(row.kind, "")
            return self.routed(row, left_s, policy=way.policy, model=model)

        return routed

    def routed(
        self, row: Row, left_s: float | None, *, policy: str = "", model: str = ""
    ) -> Stream:
        """Have the router answer."""
        ask = Ask(
            text=row.prompt,
            characters=len(row.prompt),
            deadline_s=left_s,
            policy=policy,
            model=model,
            may_draw=False,
        )
        return _within(self.router.generate(ask, lambda _: self._upstream(row), no_scores), left_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do meanwhile what a router and the fleet's agents do in the background."""
        works = (self._report(), self._look_ahead(), chores.study_for_ever(self._learner))
        tasks = [asyncio.create_task(work) for work in works]
        try:
            yield
        finally:
            for task in tasks:
                await cancelled(task)
            await self._journal.close()

    def _upstream(self, row: Row) -> Upstream:
        async def send(
            model: str,
            lease: Lease,
            timeout_s: float | None,  # noqa: ARG001 - whoever asked closes the stream by then
            behind: Continuation | None = None,
            twist: Twist = AS_ASKED,
        ) -> Stream:
            assert behind is None, "no replica is ever lost"
            assert not twist.sample, "there is one recorded answer"
            assert not twist.draft, "recorded are answers to the prompt alone"
            async with aclosing(self._replicas[lease.replica].generate(row.answers[model])) as own:
                async for event in own:
                    yield event

        return send

    async def _report(self) -> None:
        """Say how busy each replica is, as the agents do."""
        while True:
            for name, replica in self._replicas.items():
                self._fleet.reported(
                    name,
                    requests=float(replica.server.requests),
                    prompt_tokens=replica.server.unfed_tokens,
                    max_running=float(replica.server.max_running),
                    draining=False,
                    dead=False,
                    age_s=0.0,
                )
            await asyncio.sleep(_REPORT_S)

    async def _look_ahead(self) -> None:
        """Forecast step by step; the time of day is left out, since no two runs would share it."""
        while True:
            await asyncio.sleep(STEP_S)
            self.router.ahead.step(self._fleet.replicas(), asyncio.get_running_loop().time())


def _by_text(config: FleetConfig, clock: Callable[[], float]) -> Profiler:
    settings = config.router

    async def nobody(text: str) -> Features:
        raise AssertionError(f"there is no embedding service to ask about {text!r}")

    return Profiler(
        nobody,
        serves=lambda: False,
        timeout_s=settings.profile_timeout_s,
        cache_entries=settings.profile_cache_entries,
        breaker=Breaker(failures=settings.breaker_failures, open_s=settings.breaker_open_s),
        clock=clock,
    )


async def _within(events: Stream, left_s: float | None) -> Stream:
    """Yield *events* until the time is up. Raises DeadlinePassedError then."""
    try:
        async with asyncio.timeout(left_s), aclosing(events):
            async for event in events:
                yield event
    except TimeoutError:
        raise DeadlinePassedError("the deadline has passed") from None


class _Memory(Journal):
    """Keeps in memory which feedback has counted, and forgets the rest; there is no thread."""

    def __init__(self) -> None:
        self._database = _connect(":memory:")

    def add(self, work: Work) -> None:
        """Forget *work*: nobody will ask for it."""

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Return at once what *work* returns."""
        return work(self._database)

    async def close(self) -> None:
        """Let go of it all."""
        self._database.close()


class _Pool:
    """The replicas behind a plain balancer, without the router."""

    def __init__(
        self, models: Sequence[tuple[Model, int]], replicas: Mapping[str, Replica], way: Way
    ) -> None:
        self._models = [m.name for m, _ in models]
        self._replicas = [replicas[replica_name(m.name, i)] for m, i in models]
        self._blind = Blind(self._models, [m.max_running for m, _ in models], way.balancer)
        self._model_of = way.model_of or {}

    async def generate(self, row: Row, left_s: float | None) -> Stream:
        """Have the replica answer that the balancer prefers."""
        clock = asyncio.get_running_loop().time
        began_s = clock()
        i = self._blind.begin(began_s, self._model_of.get(row.kind, ""))
        own = self._replicas[i].generate(row.answers[self._models[i]])
        try:
            async with aclosing(_within(own, left_s)) as events:
                async for event in events:
                    yield event
        finally:
            self._blind.end(i, began_s, clock())
