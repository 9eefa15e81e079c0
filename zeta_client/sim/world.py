"""Run a scenario one way: requests arrive, are decided, served, lost and sent again.

Discrete events in order of time; what happens at the same time, in the order in which it was
foreseen. What arrives was drawn beforehand.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Final

from router_svc.core.forecast import STEP_S
from router_svc.core.types import Priority
from zeta_client.load.send import OK, Result
from zeta_client.load.ways import Way
from zeta_client.sim.decider import Decider, Question, Refused, Sent
from zeta_client.sim.draw import Drawn
from zeta_client.sim.plain import Plain
from zeta_client.sim.routed import Routed
from zeta_client.sim.scenario import Scenario, fleet_of
from zeta_client.sim.server import Job, Server

_RETRIES: Final = 3
_PARTS: Final = 10
"""Replicas report one part after the other, so that not all reports are equally old."""


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """A request on its way."""

    number: int
    drawn: Drawn
    router: int
    sent: Sent | None = None
    job: Job | None = None
    failed: frozenset[int] = frozenset()
    first_s: float | None = None
    since_s: float = 0.0
    """When it came, or came back."""
    returns: int = 0


class World:
    """One run. Mutable, one owner; its time passes only in `run`."""

    def __init__(self, scenario: Scenario, way: Way, drawn: Sequence[Drawn], seed: int) -> None:
        self._scenario, self._drawn = scenario, drawn
        self._now_s, self._order = 0.0, count()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._model_of = [
            m for m, model in enumerate(scenario.models) for _ in range(model.replicas)
        ]
        self._servers = [
            Server(model.costs, model.max_running, model.slowdowns[i % len(model.slowdowns)])
            for model in scenario.models
            if model.costs is not None
            for i in range(model.replicas)
        ]
        self._up = [True] * len(self._servers)
        self._calls: dict[int, Call] = {}
        self._results: dict[int, Result] = {}
        config = fleet_of(scenario)
        self._routers: list[Decider] = [
            Plain(config, way, self._time)
            if way.direct
            else Routed(config, way, self._time, seed + r)
            for r in range(scenario.routers)
        ]

    def run(self, done: Callable[[], object] = lambda: None) -> list[Result]:
        """Run until every request has its end."""
        self._begin()
        while len(self._results) < len(self._drawn):
            before = len(self._results)
            self._now_s, _, happens = heappop(self._events)
            happens()
            for _ in range(len(self._results) - before):
                done()
        warm_s = self._scenario.warm_s
        found = (self._results[n] for n in range(len(self._drawn)))
        return [replace(r, at_s=r.at_s - warm_s) for r in found if r.at_s >= warm_s]

    def _begin(self) -> None:
        """Have everything come that comes of itself: requests, reports, steps, failures."""
        for number, each in enumerate(self._drawn):
            router, at_s = number % len(self._routers), each.arrival.at_s
            call = Call(number=number, drawn=each, router=router, since_s=at_s)
            self._at(at_s, partial(self._arrive, call))
        for part in range(_PARTS):
            delay_s = self._scenario.report_interval_s * part / _PARTS
            self._at(delay_s, partial(self._report, part))
        self._at(STEP_S, self._look_ahead)
        for failure in self._scenario.failures:
            replica = self._number(failure.model, failure.replica)
            self._at(failure.at_s, partial(self._down, replica))
            self._at(failure.at_s + failure.for_s, partial(self._back, replica))

    def _time(self) -> float:
        return self._now_s

    def _at(self, at_s: float, happens: Callable[[], None]) -> None:
        heappush(self._events, (at_s, next(self._order), happens))

    def _arrive(self, call: Call) -> None:
        """Decide about a request, new or lost, and send it on its way."""
        limit_s, passed_s = self._limit_s(call), self._now_s - call.since_s
        left_s = None if limit_s is None else limit_s - passed_s
        if left_s is not None and left_s <= 0.0:
            self._finish(call, "DEADLINE_PASSED")
            return
        question = Question(
            number=call.number,
            kind=call.drawn.kind,
            priority=Priority.STANDARD,
            tenant="",
            prompt_tokens=call.drawn.prompt_tokens,
            due_s=inf if left_s is None else self._now_s + left_s,
        )
        sent = self._routers[call.router].begin(question, call.failed)
        if sent is None:
            self._calls[call.number] = call
        else:
            self._go(call, sent)
        self._pump(call.router)

    def _pump(self, router: int) -> None:
        """Let those go who waited for what is free now."""
        for number, sent in self._routers[router].settled():
            self._go(self._calls.pop(number), sent)

    def _go(self, call: Call, sent: Sent | Refused) -> None:
        """Send a request where it was decided to go."""
        if isinstance(sent, Refused):
            self._refused(call, sent)
            return
        limit_s = self._limit_s(call)
        left_s = limit_s and limit_s - (self._now_s - call.since_s)
        model = self._model_of[sent.replica]
        call.sent = sent
        call.job = Job(
            number=call.number,
            prompt_tokens=call.drawn.prompt_tokens,
            output_tokens=call.drawn.output_tokens[model],
            began_s=self._now_s,
        )
        self._calls[call.number] = call
        if left_s is not None:
            self._at(self._now_s + left_s, partial(self._expire, call, call.job))
        self._at(
            self._now_s + self._servers[sent.replica].costs.overhead_s,
            partial(self._reach, call, call.job),
        )

    def _refused(self, call: Call, refused: Refused) -> None:
        """Have its caller come back, as a new request, when it is told to; or give up."""
        if refused.retry_after_s is None or call.returns >= self._scenario.returns:
            self._finish(call, refused.reason)
            return
        call.returns += 1
        call.since_s = self._now_s + refused.retry_after_s
        self._at(call.since_s, partial(self._arrive, call))

    def _reach(self, call: Call, job: Job | None) -> None:
        if call.job is not job or job is None or call.sent is None:
            return
        i = call.sent.replica
        if not self._up[i]:
            self._lost(call)
            return
        self._servers[i].add(job, self._now_s)
        self._foresee(i)

    def _expire(self, call: Call, job: Job) -> None:
        """Stop working on what is late, as the model does."""
        if call.job is not job or self._calls.pop(call.number, None) is None:
            return
        assert call.sent is not None
        call.job = None
        self._servers[call.sent.replica].cancel(job, self._now_s)
        self._foresee(call.sent.replica)
        self._routers[call.router].end(call.sent, job, ended="late")
        self._finish(call, "DEADLINE_PASSED")
        self._pump(call.router)

    def _foresee(self, i: int) -> None:
        server = self._servers[i]
        version, at_s = server.version, server.next_s()
        if at_s < float("inf"):
            self._at(at_s, partial(self._fire, i, version))

    def _fire(self, i: int, version: int) -> None:
        server = self._servers[i]
        if server.version != version:
            return
        first, ended = server.fire(self._now_s)
        for job in first:
            call = self._calls[job.number]
            job.first_s = self._now_s
            call.first_s = call.first_s or self._now_s
            assert call.sent is not None
            self._routers[call.router].first(call.sent)
        for job in ended:
            call = self._calls.pop(job.number)
            assert call.sent is not None
            self._routers[call.router].end(call.sent, job, ended="well")
            self._finish(call, OK)
            self._pump(call.router)
        self._foresee(i)

    def _report(self, part: int) -> None:
        for i in range(part, len(self._servers), _PARTS):
            if self._up[i]:
                server = self._servers[i]
                for decider in self._routers:
                    decider.reported(i, server.requests, server.unfed_tokens, server.max_running)
        for router in range(len(self._routers)):
            self._pump(router)
        self._at(self._now_s + self._scenario.report_interval_s, partial(self._report, part))

    def _look_ahead(self) -> None:
        for decider in self._routers:
            for i, slots in decider.look_ahead().items():
                self._servers[i].allocate(slots, self._now_s)
                self._foresee(i)
        self._at(self._now_s + STEP_S, self._look_ahead)

    def _down(self, i: int) -> None:
        self._up[i] = False
        for decider in self._routers:
            decider.healthy(i, serving=False)
        for job in self._servers[i].drop(self._now_s):
            self._lost(self._calls[job.number])
        for router in range(len(self._routers)):
            self._pump(router)

    def _back(self, i: int) -> None:
        self._up[i] = True
        for router, decider in enumerate(self._routers):
            decider.healthy(i, serving=True)
            self._pump(router)

    def _lost(self, call: Call) -> None:
        """Send a request whose replica died elsewhere, from its beginning."""
        assert call.sent is not None
        assert call.job is not None
        self._calls.pop(call.number, None)
        self._routers[call.router].end(call.sent, call.job, ended="lost")
        call.failed |= {call.sent.replica}
        call.job = None
        if len(call.failed) > _RETRIES:
            self._finish(call, "STREAM_BROKEN")
        else:
            self._arrive(call)

    def _finish(self, call: Call, status: str) -> None:
        at_s = call.drawn.arrival.at_s
        model = -1 if call.sent is None else self._model_of[call.sent.replica]
        limit_s, total_s = self._limit_s(call), self._now_s - call.since_s
        if status == OK and limit_s is not None and total_s > limit_s:
            status = "DEADLINE_PASSED"
        answered = status == OK
        self._results[call.number] = Result(
            at_s=at_s,
            kind=call.drawn.kind,
            priority="standard",
            status=status,
            ttft_s=(call.first_s or self._now_s) - call.since_s,
            total_s=total_s,
            tokens=call.drawn.output_tokens[model] if answered else 0,
            model=self._scenario.models[model].name if model >= 0 else "",
            plan=call.sent.plan if call.sent else "",
            returns=call.returns,
            right=call.drawn.right[model] if answered else False,
            late_s=0.0,
            decision_id="",
        )

    def _limit_s(self, call: Call) -> float | None:
        warm = call.drawn.arrival.at_s >= self._scenario.warm_s
        return self._scenario.deadline_s if warm else None

    def _number(self, model: str, replica: int) -> int:
        names = [m.name for m in self._scenario.models]
        return self._model_of.index(names.index(model)) + replica
