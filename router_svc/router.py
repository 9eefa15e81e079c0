"""The router itself: admit → profile → decide → dispatch → learn → journal."""

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Final
from uuid import uuid4

import numpy as np
import structlog

from router_svc import metrics, records, wire
from router_svc.admission import Admission
from router_svc.core.affinity import Affinity
from router_svc.core.breaker import RetryBudget
from router_svc.core.decide import (
    DeadlineError,
    Decision,
    NoCandidateError,
    QualityError,
    decide,
    weighed,
)
from router_svc.core.features import Features
from router_svc.core.filters import rejections
from router_svc.core.hedging import HedgeBudget
from router_svc.core.plan import kind_of, line, models_of
from router_svc.core.predict import candidates, prompt_tokens, with_hint
from router_svc.core.types import Ask, Reason, Rejection
from router_svc.dispatch import Dispatch
from router_svc.fleet import Fleet
from router_svc.journal import Journal
from router_svc.learner import Learner, Remembered, packed, unpacked
from router_svc.policies import Policies
from router_svc.profiler import Profiled, Profiler
from router_svc.run import Run, Scores, Upstream
from router_svc.trails import Trails
from router_svc.watchers import Watchers
from router_svc.wire import DecisionMessage, Event
from services.kit.config import Router as Settings
from services.kit.errors import (
    ContextTooLongError,
    PredictedDeadlineMissError,
    QualityUnreachableError,
    StreamBrokenError,
    UnavailableError,
    UnknownDecisionError,
    UnknownModelError,
    ZetaError,
)
from services.kit.metrics import REQUEST_DURATION, TIME_TO_FIRST_TOKEN

log = structlog.get_logger()

_RECENT: Final = 10_000
"""Decisions kept at hand for feedback; older ones are read from the journal."""
_REPLAYED: Final = 10_000
"""Feedback that a start learns again at most, newest kept: a second or two."""
_FEEDBACK_SINCE: Final = """
    SELECT f.score, f.source, f.other_decision_id,
        d.features, d.embedding, d.kind, d.expected_quality, d.tenant, d.time_s, o.steps,
        e.features, e.embedding, e.kind, e.expected_quality, e.tenant, e.time_s, p.steps
    FROM feedback f JOIN decisions d ON d.id = f.decision_id
    LEFT JOIN outcomes o ON o.id = d.id
    LEFT JOIN decisions e ON e.id = f.other_decision_id LEFT JOIN outcomes p ON p.id = e.id
    WHERE f.time_s > ? ORDER BY f.time_s DESC LIMIT ?
"""


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
    ) -> None:
        self.fleet = fleet
        self.learner = learner
        self.policies = policies
        self.watchers: Watchers[DecisionMessage] = Watchers()
        self._profiler = profiler
        self._journal = journal
        self._rng = rng
        self._clock = clock
        self._rotation = int(rng.integers(1 << 32))
        self._affinity = Affinity(len(fleet.names))
        self._recent: OrderedDict[str, Remembered] = OrderedDict()
        self.admission = Admission(settings.max_in_flight, settings.max_queued, clock)
        self._trails = Trails(settings.resume_keep_s, clock)
        self._dispatch = Dispatch(
            fleet,
            learner,
            # As many at once as can be in flight: whatever one lost replica had not begun.
            RetryBudget(ratio=settings.retry_ratio, burst=float(settings.max_in_flight)),
            HedgeBudget(settings.max_extra_load),
            cost_usd=learner.cost_usd,
            clock=clock,
            done=self._finished,
        )

    async def generate(
        self, ask: Ask, upstream: Callable[[Features], Upstream], scores: Scores
    ) -> AsyncGenerator[Event, None]:
        """Stream the answer. Raises ZetaError."""
        arrived_s = self._clock()
        self._check(ask)
        async with self.admission.slot(ask):
            profiled = await self._profiler.profile(ask.text)
            run = self._begin(ask, profiled, upstream, scores, arrived_s)
            async with aclosing(self._followed(run, self._dispatch.run(run))) as events:
                async for event in events:
                    yield event

    async def resume(
        self, decision_id: str, after_seq: int, *, tenant: str, deadline_s: float | None
    ) -> AsyncGenerator[Event, None]:
        """Stream an earlier answer's events behind delta *after_seq*. Raises ZetaError."""
        arrived_s = self._clock()
        trail = await self._trails.take(decision_id, tenant, after_seq)
        run = trail.run
        run.deadline_at_s = None if deadline_s is None else arrived_s + deadline_s
        async with self.admission.slot(replace(run.ask, deadline_s=deadline_s)):
            rest = self._rest(run, trail.finished, after_seq)
            async with aclosing(self._followed(run, rest)) as events:
                async for event in events:
                    yield event

    async def _rest(
        self, run: Run, finished: Event | None, after_seq: int
    ) -> AsyncGenerator[Event, None]:
        if run.first is not None:
            yield run.first
        for event in [event for event in run.shown if event.delta.seq > after_seq]:
            yield event
        if finished is not None:
            yield finished
            return
        async with aclosing(self._dispatch.go_on(run)) as events:
            async for event in events:
                yield event

    async def _followed(
        self, run: Run, events: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[Event, None]:
        """Pass *events* on, write down how they end, and keep them for who comes back."""
        status, last = "CANCELLED", None
        self._trails.begin(run)
        try:
            async with aclosing(events):
                async for event in events:
                    last = event
                    yield event
            status = "OK"
        except ZetaError as error:
            status = error.reason
            raise
        except asyncio.CancelledError:
            if not self._trails.taken(run):
                raise
            raise StreamBrokenError("the answer goes on in a call that resumed it") from None
        finally:
            self._record(run, status)
            self._trails.end(run, last if last and last.HasField("finished") else None)

    async def route(self, ask: Ask) -> DecisionMessage:
        """Decide without running: no learning, no journal. Raises ZetaError."""
        self._check(ask)
        profiled = await self._profiler.profile(ask.text)
        features = with_hint(profiled.features, ask)
        began_s = self._clock()
        decision = self._decide(ask, features)
        return wire.decision_pb_of(
            self._explained(decision, ask, features),
            decision_id=str(uuid4()),
            at_s=time.time(),
            took_s=self._clock() - began_s,
            features=features,
            source=profiled.source,
        )

    async def feedback(
        self, decision_id: str, score: float, *, feedback_id: str, source: str, other_id: str = ""
    ) -> bool:
        """Learn from an answer's *score* in [0, 1], or how far it is preferred to *other_id*'s.

        Returns False where *feedback_id* was counted before; without one, where *source* judged
        that answer before. Raises UnknownDecisionError.
        """
        about = await self._remember(decision_id)
        other = await self._remember(other_id) if other_id else None
        source = source or "user"
        row = (
            feedback_id or f"{decision_id}/{source}",
            decision_id,
            time.time(),
            score,
            source,
            other_id,
        )
        if not await self._counts(row):
            return False
        if other is None:
            self.learner.feedback(about, score, source)
        else:
            self.learner.preference(about, other, score, source)
        metrics.FEEDBACK.labels(source.partition(":")[0][:32]).inc()
        return True

    def known(self, model: str) -> str:
        """Return *model*, for an empty name the first that generates. Raises UnknownModelError."""
        if model and model not in self.fleet.models:
            known = ", ".join(self.fleet.models)
            raise UnknownModelError(f"no model {model!r}; there are: {known}")
        return model or self.fleet.first_generator()

    async def save(self) -> None:
        """Write what was learned to the journal, if there is anything new."""
        if not self.learner.dirty:
            return
        self.learner.dirty = False
        at_s, arrays = time.time(), self.learner.to_arrays()
        try:
            await self._journal.ask(
                lambda db: db.execute(
                    "INSERT OR REPLACE INTO state VALUES ('learned', ?, ?)",
                    (at_s, packed(arrays)),
                )
            )
        except sqlite3.Error as error:
            self.learner.dirty = True
            log.warning("learned state not saved", error=str(error))

    async def restore(self, first: Callable[[], None] = lambda: None) -> None:
        """Read back what was learned; what cannot be read is learned anew from the feedback.

        Where nothing was saved, *first* makes the beginning.
        """
        rows = await self._journal.ask(
            lambda db: db.execute(
                "SELECT time_s, data FROM state WHERE name = 'learned'"
            ).fetchall()
        )
        saved_s = 0.0
        for at_s, data in rows:
            try:
                self.learner.restore(unpacked(data))
            except (ValueError, KeyError) as error:
                log.warning("learned state not restored", error=str(error))
            else:
                saved_s = at_s
        if not saved_s:
            first()
        replayed = await self._replay(saved_s)
        log.info("learned state restored", saved=bool(saved_s), feedback_since=replayed)

    async def _replay(self, since_s: float) -> int:
        """Learn from the feedback that came after the last save: a router that was killed."""
        rows = await self._journal.ask(
            lambda db: db.execute(_FEEDBACK_SINCE, (since_s, _REPLAYED)).fetchall()
        )
        for score, source, other_id, *about in reversed(rows):
            if not other_id:
                self.learner.feedback(records.remembered(about[:7]), score, source)
            elif about[7] is not None:
                one, other = records.remembered(about[:7]), records.remembered(about[7:])
                self.learner.preference(one, other, score, source)
        return len(rows)

    def _check(self, ask: Ask) -> None:
        self.policies.named(ask.policy)
        for model in {ask.model, *ask.allowed_models} - {""}:
            self.known(model)

    def _begin(
        self,
        ask: Ask,
        profiled: Profiled,
        upstream: Callable[[Features], Upstream],
        scores: Scores,
        arrived_s: float,
    ) -> Run:
        now_s = self._clock()
        deadline_at_s = None if ask.deadline_s is None else arrived_s + ask.deadline_s
        if deadline_at_s is not None:
            ask = replace(ask, deadline_s=deadline_at_s - now_s)
        features = with_hint(profiled.features, ask)
        decision = self._decide(ask, features)
        took_s = self._clock() - now_s
        decision_id, at_s = str(uuid4()), time.time()

        def explain() -> DecisionMessage:
            return wire.decision_pb_of(
                self._explained(decision, ask, features),
                decision_id=decision_id,
                at_s=at_s,
                took_s=took_s,
                features=features,
                source=profiled.source,
            )

        log.debug("routed", decision=decision_id, plan=line(decision.plan), source=profiled.source)
        metrics.DECISION_SECONDS.observe(took_s)
        metrics.DECISIONS.labels(
            kind_of(decision.plan), models_of(decision.plan)[0], str(decision.explored).lower()
        ).inc()
        self._keep(
            decision_id,
            Remembered(
                features=features,
                kind=kind_of(decision.plan),
                expected_quality=decision.quality,
                tenant=ask.tenant,
                decided_s=at_s,
            ),
        )
        self._journal.add(
            records.decision(
                decision_id,
                at_s,
                made=decision,
                ask=ask,
                profiled=replace(profiled, features=features),
            )
        )
        self.watchers.show(explain)
        return Run(
            id=decision_id,
            ask=ask,
            features=features,
            decision=decision,
            upstream=upstream(features),
            scores=scores,
            replan=lambda failed, model: self._replan(ask, features, failed, model),
            explain=explain if ask.explain else lambda: None,
            arrived_s=arrived_s,
            deadline_at_s=deadline_at_s,
            queue_s=now_s - arrived_s,
        )

    def _decide(self, ask: Ask, features: Features, *, singles: bool = False) -> Decision:
        """Decide, and turn what stands in the way into the caller's error."""
        policy = weighed(self.policies.named(ask.policy), ask)
        if self._affinity.in_session(ask):
            # A conversation is not the place to try what else there is.
            policy = replace(policy, explore_ratio=0.0)
        if singles:
            policy = replace(policy, max_calls=1, explore_ratio=0.0)
        elif ask.samples > 1:
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
        except DeadlineError as late:
            raise PredictedDeadlineMissError(
                f"{ask.deadline_s:.3f} s are left and the fastest plan is expected to take "
                f"{late.expected_s:.3f} s; it would be in time with probability {late.best:.3f}"
            ) from late

    def _replan(self, ask: Ask, features: Features, failed: frozenset[str], model: str) -> Decision:
        """Decide for a single model without the replicas that failed. Raises ZetaError.

        An answer goes on best with the *model* that began it, where another replica has it.
        """
        again = replace(ask, failed=failed, deadline_s=None, min_quality=0.0)
        if model:
            try:
                return self._decide(replace(again, model=model), features, singles=True)
            except UnavailableError:
                pass
        return self._decide(again, features, singles=True)

    def _explained(self, decision: Decision, ask: Ask, features: Features) -> Decision:
        """Add why the others were rejected, which only explanation needs."""
        refused = rejections(ask, prompt_tokens(ask, features), self.fleet.replicas())
        return replace(decision, rejections=refused)

    def _keep(self, decision_id: str, about: Remembered) -> None:
        self._recent[decision_id] = about
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    def _finished(self, run: Run) -> None:
        """Remember what feedback will need, before the caller can have the last event."""
        if (about := self._recent.get(run.id)) is not None:
            self._recent[run.id] = replace(about, steps=run.steps)
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
        model = next((s.model for s in run.steps if s.chosen), models_of(run.decision.plan)[0])
        labels = (model, "", kind_of(run.decision.plan))
        if run.started:
            TIME_TO_FIRST_TOKEN.labels(*labels).observe(run.ttft_s)
        total_s = run.total_s or self._clock() - run.arrived_s
        REQUEST_DURATION.labels(*labels).observe(total_s)
        self._journal.add(records.outcome(run, at_s=time.time(), status=status, total_s=total_s))
        if run.ask.kept_prompt and status == "OK":
            self._journal.add(records.texts(run.id, run.ask.kept_prompt, _shown(run)))

    async def _remember(self, decision_id: str) -> Remembered:
        if (about := self._recent.get(decision_id)) is not None:
            return about
        query = (
            f"SELECT {records.REMEMBERED} FROM decisions "  # noqa: S608 - our own names
            "LEFT JOIN outcomes USING (id) WHERE decisions.id = ?"
        )
        try:
            rows = await self._journal.ask(lambda db: db.execute(query, (decision_id,)).fetchall())
        except sqlite3.Error as error:
            raise UnavailableError("the journal cannot be read", retry_after_s=5.0) from error
        if not rows:
            raise UnknownDecisionError(f"no decision {decision_id[:80]!r}")
        return records.remembered(rows[0])

    async def _counts(self, row: tuple[str, str, float, float, str, str]) -> bool:
        """Write the feedback down, unless its id is there already."""
        try:
            written = await self._journal.ask(
                lambda db: (
                    db.execute(
                        "INSERT OR IGNORE INTO feedback VALUES (?, ?, ?, ?, ?, ?)", row
                    ).rowcount
                )
            )
        except sqlite3.Error as error:
            # Without a journal nobody can say whether it was counted before.
            raise UnavailableError("the journal cannot be written", retry_after_s=5.0) from error
        return written == 1


def _shown(run: Run) -> str:
    return "".join(event.delta.text for event in run.shown)


def _nobody(refused: tuple[Rejection, ...]) -> ZetaError:
    """Build the error of a request that no replica can serve."""
    allowed = [r for r in refused if r.reason is not Reason.NOT_ALLOWED]
    text = "; ".join(f"{r.replica}: {r.detail}" for r in allowed[:8])
    if allowed and all(r.reason is Reason.CONTEXT for r in allowed):
        return ContextTooLongError(f"no model has room: {text}")
    return UnavailableError(f"no replica can serve: {text}", retry_after_s=1.0)
