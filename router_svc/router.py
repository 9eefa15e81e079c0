"""The router itself: admit → profile → decide → dispatch → learn → journal."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    aclosing,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import structlog

from router_svc import ids, metrics, records, wire
from router_svc.admission import Admission
from router_svc.core.affinity import Affinity
from router_svc.core.ahead import Ahead
from router_svc.core.breaker import RetryBudget
from router_svc.core.decide import (
    DeadlineError,
    Decision,
    NoCandidateError,
    QualityError,
    choice_of,
    decide,
    keeping,
    weighed,
    worth_promising,
)
from router_svc.core.features import Features
from router_svc.core.filters import rejections
from router_svc.core.gate import Choice, nothing_in_the_way
from router_svc.core.hedging import HedgeBudget
from router_svc.core.plan import begun_by, kind_of, line, models_of
from router_svc.core.predict import candidates, prompt_tokens, with_hint
from router_svc.core.refusal import refused
from router_svc.core.turn import as_decided
from router_svc.core.types import Ask, Places, Reason, Rejection
from router_svc.dispatch import Dispatch
from router_svc.fleet import Fleet
from router_svc.journal import Journal
from router_svc.learner import Learner
from router_svc.policies import Policies
from router_svc.profiler import Profiled, Profiler
from router_svc.run import NobodyError, Run, Scores, Upstream, no_scores, not_here
from router_svc.trails import Told, Trails
from router_svc.verdicts import Verdicts
from router_svc.watchers import Watchers
from router_svc.wire import DecisionMessage, Event
from services.kit.aio import Later
from services.kit.config import Router as Settings
from services.kit.errors import (
    ContextTooLongError,
    OverloadedError,
    PredictedDeadlineMissError,
    QualityUnreachableError,
    StreamBrokenError,
    UnknownModelError,
    ZetaError,
)
from services.kit.metrics import REQUEST_DURATION, TIME_TO_FIRST_TOKEN, of

log = structlog.get_logger()

_AWAY: Final = frozenset({Reason.UNHEALTHY, Reason.DRAINING, Reason.CIRCUIT_OPEN})
"""Reasons that pass."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A decision, and when it was made."""

    ask: Ask
    """With the time that was left then."""
    decision: Decision
    decided_s: float
    took_s: float
    begun: Decision
    """The same with the times that it has from its turn on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A decision that is carried out."""

    id: str
    at_s: float
    """Seconds since 1970."""
    made: Made
    profiled: Profiled


class ZetaDynamicRouter:
    """Decides which models answer a request, has them answer it, and learns from it.

    Owned by the event loop. *clock* is monotonic seconds.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        fleet: Fleet,
        learner: Learner,
        profiler: Profiler,
        policies: Policies,
        journal: Journal,
        rng: np.random.Generator,
        clock: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = ids.new_id,
    ) -> None:
        self.fleet = fleet
        self.learner = learner
        self.policies = policies
        self.watchers: Watchers[DecisionMessage] = Watchers()
        self._profiler = profiler
        self._journal = journal
        self._rng = rng
        self._clock = clock
        self._new_id = new_id
        self._rotation = int(rng.integers(1 << 32))
        self._affinity = Affinity(len(fleet.names))
        self.ahead = Ahead(fleet.models, target=settings.target_utilisation)
        self.verdicts = Verdicts(learner, journal)
        self.admission = Admission(fleet, settings.max_in_flight, settings.max_queued, clock)
        self._kept = nothing_in_the_way(fleet.model_of, len(fleet.models))
        """What stands before whom a place is kept for: nothing."""
        self._trails = Trails(settings.resume_keep_s, clock)
        self._later = Later()
        self._dispatch = Dispatch(
            fleet,
            learner,
            # As many at once as can be in flight: whatever one lost replica had not begun.
            RetryBudget(ratio=settings.retry_ratio, burst=float(settings.max_in_flight)),
            HedgeBudget(settings.max_extra_load),
            cost_usd=learner.cost_usd,
            clock=clock,
            done=self._finished,
            later=self._later,
        )

    async def generate(
        self, ask: Ask, upstream: Callable[[Features], Upstream], scores: Scores
    ) -> AsyncGenerator[Event, None]:
        """Stream the answer. Raises ZetaError."""
        async with self._admitted(ask, upstream, scores) as run:
            with self._followed(run) as ending:
                async with aclosing(self._dispatch.run(run)) as events:
                    async for event in events:
                        ending.last = event
                        yield event

    def elsewhere(self, ask: Ask) -> AbstractAsyncContextManager[Run]:
        """Hold a place for a call of one model that the caller will make itself.

        Its text is never seen here, so that nothing of it is kept. Raises ZetaError.
        """
        ask = replace(ask, elsewhere=True, explain=True, kept_prompt="")
        return self._admitted(ask, lambda _: not_here, no_scores)

    def ended_elsewhere(self, run: Run, status: str) -> None:
        """Take in how such a run ended: "OK", or why it has no whole answer."""
        if status == "OK":
            self._finished(run)
        self._record(run, status)

    @asynccontextmanager
    async def _admitted(
        self, ask: Ask, upstream: Callable[[Features], Upstream], scores: Scores
    ) -> AsyncIterator[Run]:
        """Hold a place for *ask*, and decide what becomes of it. Raises ZetaError."""
        arrived_s = self._clock()
        self._check(ask)
        self.admission.check(ask)
        profiled = await self._profiler.profile(ask.text)
        features = with_hint(profiled.features, ask)
        if features is not profiled.features:
            profiled = replace(profiled, features=features)
        tokens = prompt_tokens(ask, features) + features.expected_output_tokens * ask.samples

        # What comes is noted once, however often it is decided about or comes back.
        come = iter([not self.admission.returns(ask)])

        before: Choice[Made | ZetaError] | None = None

        def choose(places: Places | None) -> Choice[Made | ZetaError]:
            nonlocal before
            if before is not None and (again := self._as_before(before, places)) is not None:
                return again
            before = self._choose(ask, features, arrived_s, places, first=next(come, False))
            return before

        async with self.admission.place(
            ask, choose, tokens=tokens, difficulty=features.difficulty
        ) as made:
            yield self._begin(made, profiled, upstream, scores, arrived_s)

    async def resume(
        self, decision_id: str, after_seq: int, *, tenant: str, deadline_s: float | None
    ) -> AsyncGenerator[Event, None]:
        """Stream an earlier answer's events behind delta *after_seq*. Raises ZetaError."""
        arrived_s = self._clock()
        answer = await self._trails.take(decision_id, tenant, after_seq)
        if isinstance(answer, Told):
            again = Ask(text="", characters=0, tenant=tenant, priority=answer.priority)
            async with self.admission.slot(replace(again, deadline_s=deadline_s)):
                for event in answer.behind(after_seq):
                    yield event
            return
        run, followed = answer, False
        run.deadline_at_s = None if deadline_s is None else arrived_s + deadline_s
        try:
            async with self.admission.slot(replace(run.ask, deadline_s=deadline_s)):
                followed = True
                with self._followed(run) as ending:
                    async with aclosing(self._rest(run, after_seq)) as events:
                        async for event in events:
                            ending.last = event
                            yield event
        finally:
            if not followed:  # refused, or gone again while it waited: it may still come back
                self._trails.end(run, None)

    async def _rest(self, run: Run, after_seq: int) -> AsyncGenerator[Event, None]:
        if run.first is not None:
            yield run.first
        for event in run.behind(after_seq):
            yield event
        async with aclosing(self._dispatch.go_on(run)) as events:
            async for event in events:
                yield event

    @contextmanager
    def _followed(self, run: Run) -> Iterator["_Ending"]:
        """Write down how the answer ends, and keep it for who comes back."""
        status, ending = "CANCELLED", _Ending()
        self._trails.begin(run)
        try:
            yield ending
            status = "OK"
        except ZetaError as error:
            status = error.reason
            log.warning("not answered", **_history(run, error))
            raise
        except asyncio.CancelledError:
            if not self._trails.taken(run):
                raise
            raise StreamBrokenError("the answer goes on in a call that resumed it") from None
        finally:
            self._record(run, status)
            self._trails.end(run, ending.finished)

    async def route(self, ask: Ask) -> DecisionMessage:
        """Decide without running: no learning, no journal. Raises ZetaError."""
        self._check(ask)
        profiled = await self._profiler.profile(ask.text)
        features = with_hint(profiled.features, ask)
        began_s = self._clock()
        try:
            decision = self._decide(ask, features, places=self.admission.places(ask))
        except DeadlineError as late:
            raise _too_late(ask, late) from late
        return wire.decision_pb_of(
            self._explained(decision, ask, features),
            decision_id=self._new_id(),
            at_s=time.time(),
            took_s=self._clock() - began_s,
            features=features,
            source=profiled.source,
        )

    def learn(self) -> None:
        """Have noted and learned what the latest answers teach, before it is saved or shown."""
        self._later.now()

    def look_ahead(self) -> None:
        """Forecast and price capacity anew; to be called every `forecast.STEP_S`."""
        self.ahead.step(self.fleet.replicas(), self._clock(), time.time())
        metrics.show_outlooks(self.ahead.outlooks())
        metrics.show_beliefs(belief for belief, *_ in self.learner.beliefs())

    def known(self, model: str) -> str:
        """Return *model*, for an empty name the first that generates. Raises UnknownModelError."""
        if model and model not in self.fleet.models:
            known = ", ".join(self.fleet.models)
            raise UnknownModelError(f"no model {model!r}; there are: {known}")
        return model or self.fleet.first_generator()

    def _check(self, ask: Ask) -> None:
        self.policies.named(ask.policy)
        for model in {ask.model, *ask.allowed_models} - {""}:
            self.known(model)

    def _choose(
        self,
        ask: Ask,
        features: Features,
        arrived_s: float,
        places: Places | None,
        *,
        first: bool,
    ) -> Choice[Made | ZetaError]:
        """Decide what a request would do now; what stands in the way is the choice's value."""
        now_s, asked = self._clock(), ask
        if ask.deadline_s is not None:
            ask = replace(ask, deadline_s=arrived_s + ask.deadline_s - now_s)
        try:
            decision = self._decide(ask, features, places=places)
        except ZetaError as error:
            return Choice(value=error)
        except DeadlineError as late:
            if first:
                policy = weighed(self.policies.named(ask.policy), ask)
                self.ahead.refused(ask, late.candidates, policy, now_s)
            found = refused(
                late,
                lambda: self._decide(asked, features, places=self._kept, promising=True),
                self.fleet.models,
            )
            told = _too_late(ask, found.why)
            return Choice(value=told, wanted=found.model, service_s=found.service_s)
        if first:
            self.ahead.decided(decision, ask, now_s)
        choice = choice_of(decision, self.fleet.models)
        took_s = self._clock() - now_s
        made = Made(ask=ask, decision=decision, decided_s=now_s, took_s=took_s, begun=decision)
        takes = [decision.replica_of(model) for model in begun_by(decision.plan)] * ask.samples
        return Choice(
            value=made, model=choice.model, service_s=choice.service_s, takes=tuple(takes)
        )

    def _as_before(
        self, before: Choice[Made | ZetaError], places: Places | None
    ) -> Choice[Made | ZetaError] | None:
        """Return what was chosen *before*, where that can be had now that it is its turn."""
        made, takes = before.value, before.takes
        if not isinstance(made, Made) or not all(self.fleet.trusted(each) for each in takes):
            return None
        waited_s, full = self._clock() - made.decided_s, None if places is None else places.full
        begun = as_decided(made.decision, waited_s, full, self.fleet.index(takes[0]))
        return None if begun is None else Choice(value=replace(made, begun=begun), takes=takes)

    def _begin(
        self,
        made: Made,
        profiled: Profiled,
        upstream: Callable[[Features], Upstream],
        scores: Scores,
        arrived_s: float,
    ) -> Run:
        ask, features = made.ask, profiled.features
        begun = Begun(id=self._new_id(), at_s=time.time(), made=made, profiled=profiled)
        self._journal.add(
            records.decision(begun.id, begun.at_s, made=made.decision, ask=ask, profiled=profiled)
        )
        self._later.do(partial(_note, begun))
        if self.watchers:
            self.watchers.show(partial(self._explain, begun))
        return Run(
            id=begun.id,
            ask=ask,
            features=features,
            decision=made.begun,
            upstream=upstream(features),
            scores=scores,
            replan=partial(self._replan, ask, features),
            explain=partial(self._explain, begun) if ask.explain else _unexplained,
            arrived_s=arrived_s,
            deadline_at_s=None if ask.deadline_s is None else made.decided_s + ask.deadline_s,
            decided_s=begun.at_s,
            queue_s=self._clock() - arrived_s,
        )

    def _explain(self, begun: Begun) -> DecisionMessage:
        made, features = begun.made, begun.profiled.features
        return wire.decision_pb_of(
            self._explained(made.decision, made.ask, features),
            decision_id=begun.id,
            at_s=begun.at_s,
            took_s=made.took_s,
            features=features,
            source=begun.profiled.source,
        )

    def _decide(
        self,
        ask: Ask,
        features: Features,
        *,
        places: Places | None = None,
        promising: bool = False,
        singles: bool = False,
    ) -> Decision:
        """Decide, and turn what stands in the way, but for time, into the caller's error."""
        policy = weighed(self.policies.named(ask.policy), ask)
        policy = worth_promising(policy) if promising else keeping(policy, places)
        if self._affinity.in_session(ask):
            # A conversation is not the place to try what else there is.
            policy = replace(policy, explore_ratio=0.0)
        if singles:
            policy = replace(policy, max_calls=1, explore_ratio=0.0)
        elif ask.samples > 1 or ask.elsewhere:
            # Cascades judge one answer and votes count one of each model.
            policy = replace(policy, max_calls=1)
        self._rotation += 1
        replicas = self.fleet.replicas()
        found = candidates(
            ask,
            features,
            replicas,
            predictors=self.learner.predictors,
            prices=self.learner.prices,
            policy=policy,
            rotation=self._rotation,
            cached_tokens=self._affinity.cached(ask, prompt_tokens(ask, features)),
            slot_prices=self.ahead.prices if policy.forecast else None,
            places=places,
        )
        try:
            return decide(
                ask, found, policy, self._rng, gains=self.learner.predictors.gains.by_kind()
            )
        except NoCandidateError as none:
            raise _nobody(rejections(ask, prompt_tokens(ask, features), replicas)) from none
        except QualityError as low:
            raise QualityUnreachableError(
                f"preference.min_quality: {ask.min_quality:g} is asked, "
                f"the best plan is expected to reach {low.best:.3f}"
            ) from low

    def _replan(self, ask: Ask, features: Features, failed: frozenset[str], model: str) -> Decision:
        """Decide for a single model without the replicas that failed. Raises NobodyError.

        An answer goes on best with the *model* that began it, where another replica has it.
        """
        again = replace(ask, failed=failed, deadline_s=None, min_quality=0.0)
        if model:
            with suppress(NobodyError):
                return self._decide(replace(again, model=model), features, singles=True)
        return self._decide(again, features, singles=True)

    def _explained(self, decision: Decision, ask: Ask, features: Features) -> Decision:
        """Add why the others were rejected, which only explanation needs."""
        refused = rejections(ask, prompt_tokens(ask, features), self.fleet.replicas())
        return decision.explained(refused)

    def _finished(self, run: Run) -> None:
        """Remember what feedback will need, before the caller can have the last event."""
        self.verdicts.answered(run)
        for call in run.calls:
            if call.last is not None:
                self._affinity.answered(
                    run.ask,
                    self.fleet.index(call.replica),
                    prompt_tokens=call.prompt_tokens,
                    completion_tokens=call.completion_tokens,
                    cached_tokens=call.cached_tokens,
                )

    def _record(self, run: Run, status: str) -> None:
        """Write down how an answer ended."""
        total_s = run.total_s or self._clock() - run.arrived_s
        self._journal.add(records.outcome(run, at_s=time.time(), status=status, total_s=total_s))
        if run.ask.kept_prompt and status == "OK":
            self._journal.add(records.texts(run.id, run.ask.kept_prompt, _shown(run)))
        self._later.do(partial(_count, run, total_s))


def _note(begun: Begun) -> None:
    """Count a decision."""
    decision, source = begun.made.decision, begun.profiled.source
    log.debug("routed", decision=begun.id, plan=line(decision.plan), source=source)
    metrics.DECISION_SECONDS.observe(begun.made.took_s)
    kind, explored = kind_of(decision.plan), str(decision.explored).lower()
    of(metrics.DECISIONS, kind, models_of(decision.plan)[0], explored).inc()


def _count(run: Run, total_s: float) -> None:
    plan = run.decision.plan
    model = next((s.model for s in run.steps if s.chosen), models_of(plan)[0])
    labels = (model, "", kind_of(plan))
    if run.started:
        of(TIME_TO_FIRST_TOKEN, *labels).observe(run.ttft_s)
    of(REQUEST_DURATION, *labels).observe(total_s)


def _unexplained() -> None:
    """Stand in for the explanation that nobody asked for."""


@dataclass(slots=True)
class _Ending:
    """How far an answer got."""

    last: Event | None = None
    """Of its events."""

    @property
    def finished(self) -> Event | None:
        """Its end, None where it has none yet."""
        return self.last if self.last is not None and self.last.HasField("finished") else None


def _history(run: Run, error: ZetaError) -> dict[str, object]:
    """Say what was tried for a request that was accepted and has no whole answer."""
    return {
        "decision": run.id,
        "plan": line(run.decision.plan),
        "model": run.ask.model,
        "reason": error.reason,
        "message": str(error),
        "shown": len(run.shown),
        "failures": [
            *(f"{step.replica}: {step.error}" for step in run.broken),
            *(f"{call.replica}: {call.error}" for call in run.calls if call.error),
        ],
    }


def _shown(run: Run) -> str:
    return "".join(event.delta.text for event in run.shown)


def _too_late(ask: Ask, late: DeadlineError) -> ZetaError:
    """Build the error of a request that cannot be answered in time."""
    if late.wait_s > 0.0:
        return OverloadedError(
            f"{ask.deadline_s:.3f} s are left, and {late.model} has a place in about "
            f"{late.wait_s:.3f} s: too late",
            retry_after_s=late.wait_s,
        )
    return PredictedDeadlineMissError(
        f"{ask.deadline_s:.3f} s are left and the fastest plan is expected to take "
        f"{late.expected_s:.3f} s; it would be in time with probability {late.best:.3f}"
    )


def _nobody(refused: tuple[Rejection, ...]) -> ZetaError:
    """Build the error of a request that no replica can serve."""
    allowed = [r for r in refused if r.reason is not Reason.NOT_ALLOWED]
    text = "; ".join(f"{r.replica}: {r.detail}" for r in allowed[:8])
    if allowed and all(r.reason is Reason.CONTEXT for r in allowed):
        return ContextTooLongError(f"no model has room: {text}")
    away = any(r.reason in _AWAY for r in allowed)
    return NobodyError(f"no replica can serve: {text}", away=away)
