"""Carry out a plan against live replicas: the one interpreter of plans.

Text is streamed through as it comes wherever the plan allows. A call that fails before its first
token is made elsewhere, within a budget. Whoever stops reading stops every call made for them.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

from router_svc import ensembles, handover, metrics, wire
from router_svc.core.breaker import RetryBudget
from router_svc.core.confidence import UNSURE_LOGPROB
from router_svc.core.hedging import HedgeBudget
from router_svc.core.patience import Patience
from router_svc.core.plan import VERIFIER, BestOf, Cascade, Hedge, Refine, Single, Vote, line
from router_svc.core.reward import CANCELLED, Step
from router_svc.core.types import Priority
from router_svc.elsewhere import Elsewhere, left_s
from router_svc.faults import counts_against, lost_midway, may_go_elsewhere, several_broken
from router_svc.fleet import Fleet, Lease
from router_svc.run import Call, HungError, LostError, Observer, Run, call_of
from router_svc.verifiers import verify
from router_svc.wire import Event
from services.kit import aio
from services.kit.aio import Later
from services.kit.errors import (
    DeadlinePassedError,
    DrainingError,
    StreamBrokenError,
    UnavailableError,
    ZetaError,
)

T = TypeVar("T")

_LEAST_TOKENS: Final = 4
"""Fewer tokens say nothing about an answer."""


class Dispatch:
    """Runs plans. *clock* is monotonic seconds; *done* hears of a run before its last event.

    What answers teach is learned *later*: nobody waits for it.
    """

    def __init__(
        self,
        fleet: Fleet,
        observer: Observer,
        budget: RetryBudget,
        hedges: HedgeBudget,
        *,
        cost_usd: Callable[[str, int, int], float],
        clock: Callable[[], float],
        done: Callable[[Run], None],
        later: Later,
    ) -> None:
        self._fleet = fleet
        self._observer = observer
        self._budget, self._hedges = budget, hedges
        self._elsewhere = Elsewhere(fleet, budget, clock)
        self._cost_usd = cost_usd
        self._clock = clock
        self._done = done
        self._later = later

    def run(self, run: Run) -> AsyncGenerator[Event, None]:
        """Stream the answer. Raises ZetaError."""
        self._budget.earned()
        self._hedges.earned()
        return _noted(run, self._events(run))

    async def go_on(self, run: Run) -> AsyncGenerator[Event, None]:
        """Stream the rest of an answer whose caller was gone for a while. Raises ZetaError."""
        async with aclosing(await self._rest(run)) as events:
            async for event in events:
                yield event

    async def _rest(self, run: Run) -> AsyncGenerator[Event, None]:
        run.patience = Patience()
        if not run.shown:
            run.failed.clear()
            return self.run(run)
        if run.ask.samples > 1:
            raise several_broken(ZetaError("its caller was gone"))
        # Of several that were asked, the one whose text the caller has.
        shown = (call for call in reversed(run.calls) if call.model in run.shown_by)
        last = next(shown, run.calls[-1])
        run.broken.append(self._broken_off(run, last, ZetaError("its caller left")))
        call = Call(model=last.model, replica=last.replica, part="single")
        try:
            await self._elsewhere.anyone(run, call)
        except UnavailableError as nobody:
            raise StreamBrokenError(f"nobody can go on with the answer: {nobody}") from nobody
        return _noted(run, self._gone_on(run, call))

    async def _gone_on(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        if call.replica != run.told_replica:
            yield handover.event(run, run.told_replica, call, ZetaError("its caller was gone"))
        async with aclosing(self.single(run, call)) as events:
            async for event in events:
                yield event

    def _events(self, run: Run) -> AsyncGenerator[Event, None]:
        match run.decision.plan:
            case Single(model):
                return self.single(run, call_of(run.decision, model, "single"))
            case Cascade() as plan:
                return ensembles.cascade(self, run, plan)
            case Vote() as plan:
                return ensembles.vote(self, run, plan)
            case BestOf() as plan:
                return ensembles.best_of(self, run, plan)
            case Refine() as plan:
                return ensembles.refine(self, run, plan)
            case Hedge() as plan:
                return ensembles.hedge(self, run, plan)

    def single(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Stream one call, whole."""
        return self.show(run, call, self.stream(run, call))

    async def show(
        self,
        run: Run,
        call: Call,
        deltas: AsyncGenerator[Event, None],
        before_end: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[Event, None]:
        """Show what comes of *call* as the answer, from its beginning to its end."""
        async with aclosing(deltas):
            async for delta in deltas:
                if not run.started:
                    yield self._started(run, call)
                yield delta
        before_end()
        for event in self._end(run, call):
            yield event

    def begun(self, run: Run, call: Call) -> Iterator[Event]:
        """Yield what was held back of *call*, which is shown from now on."""
        if not run.started:
            yield self._started(run, call)
        yield from call.deltas
        call.deltas.clear()

    async def everybody_failed(
        self, run: Run, calls: Sequence[Call]
    ) -> AsyncGenerator[Event, None]:
        """Ask what is left of the fleet after all of *calls* failed. Raises ZetaError."""
        hopeful = next((call for call in calls if call.replica in run.away), None)
        kind = LostError if hopeful else UnavailableError
        last = replace(hopeful or calls[0], part="single", deltas=[], text=[], tokens=0)
        await self._elsewhere.find(run, last, kind("every model of the plan failed"))
        async with aclosing(self.single(run, last)) as events:
            async for event in events:
                yield event

    def may_go_elsewhere(self, error: ZetaError) -> bool:
        """Whether another replica or model may well do what failed with *error*."""
        return may_go_elsewhere(error)

    def may_hedge(self) -> bool:
        """Whether the extra load of one more backup is paid for."""
        return self._hedges.take()

    async def judged(self, run: Run, scorer: str, answers: Sequence[Call]) -> list[float]:
        """Return how good *scorer* takes each of *answers* to be, in [0, 1].

        Where it cannot say, how sure each model was of its own.
        """
        if scorer.startswith(VERIFIER):
            name = scorer.removeprefix(VERIFIER)
            each = (asyncio.to_thread(verify, name, a.answer) for a in answers)
            return await aio.all_of(*each)
        call = call_of(run.decision, scorer, "scorer")
        run.calls.append(call)
        lease = self._fleet.begin(call.replica, run.features.prompt_tokens, 0.0)
        try:
            texts = [a.answer or " " for a in answers]
            means = await _unless_lost(lease, run.scores(scorer, texts, self.left_s(run)))
            call.prompt_tokens = sum(run.features.prompt_tokens + a.tokens for a in answers)
        except ZetaError as error:
            self._failed(call, lease, error)
            return [self.sureness(run, a) for a in answers]
        finally:
            call.total_s, call.scored = self._clock() - lease.began_s, True
            self._fleet.end(lease)
        return [
            self._observer.confidence(scorer, mean, _quality(run, a.model))
            for a, mean in zip(answers, means, strict=True)
        ]

    def sureness(self, run: Run, call: Call) -> float:
        """Return how likely an answer is right by its own log-probability; 0 where it has none."""
        if call.mean_logprob is None:
            return 0.0
        return self._observer.confidence(call.model, call.mean_logprob, _quality(run, call.model))

    def sure_so_far(self, run: Run, call: Call) -> float:
        """Return how likely an unfinished answer is right if its rest goes badly.

        Text is final: a cascade may show its first answer only once even an unsure rest, each
        token as unlikely as in one answer of ten, would leave it acceptable.
        """
        if call.tokens < _LEAST_TOKENS:
            return 0.0
        i = run.decision.candidates.models.index(call.model)
        rest = max(run.decision.candidates.output_tokens[i] - call.tokens, 1.0)
        mean = (call.logprob + rest * UNSURE_LOGPROB) / (call.tokens + rest)
        return self._observer.confidence(call.model, mean, _quality(run, call.model))

    async def collect(self, run: Run, call: Call) -> bool:
        """Run *call* without showing it; False where it failed and others may still answer."""
        run.calls.append(call)
        try:
            async with aclosing(self.attempt(run, call)) as events:
                async for event in events:
                    call.deltas.append(event)
                    call.text.append(event.delta.text)
        except ZetaError as error:
            if not self.may_go_elsewhere(error):
                raise
            return False
        return True

    async def stream(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Yield the deltas of *call*; a failure moves it elsewhere, behind what was shown."""
        run.calls.append(call)
        while True:
            try:
                async with aclosing(self.attempt(run, call)) as events:
                    async for event in events:
                        run.shown_by.add(call.model)
                        yield event
            except ZetaError as error:
                if run.shown:
                    yield await self.hand_over(run, call, error)
                else:
                    await self._elsewhere.find(run, call, error)
            else:
                return

    async def attempt(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Ask the call's replica once."""
        samples = run.ask.samples
        lease = self._fleet.begin(
            call.replica,
            run.features.prompt_tokens,
            call.output_tokens * samples,
            requests=samples,
            critical=run.ask.priority is Priority.CRITICAL,
        )
        call.ttft_s, call.taken = 0.0, False
        try:
            call.behind, seq, twist = len(run.shown), run.last_seq, call.twist
            hidden = twist.logprobs and not run.ask.logprobs
            behind, timeout_s = handover.continuation(run, call), self.left_s(run)
            asked = run.upstream(call.model, lease, timeout_s, behind, twist)
            async with aclosing(asked) as events:
                async for event in events:
                    kind = event.WhichOneof("event")
                    if kind == "finished":
                        call.last = event
                    elif kind == "started":
                        call.prompt_tokens, call.taken = event.started.prompt_tokens, True
                    else:
                        if not lease.fed:
                            call.ttft_s = self._clock() - lease.began_s
                            self._fleet.first_token(lease)
                        delta = event.delta
                        call.got(event)
                        if hidden:
                            delta.ClearField("logprobs")
                        lease.heard_s = self._clock()
                        seq += 1
                        if delta.seq != seq:
                            # Behind another's deltas, or several of its own that were joined.
                            delta.seq = seq
                        yield event
            if call.last is None:
                raise LostError(f"{call.replica} ended its stream without an end")
            self._answered(run, call, lease)
        except ZetaError as error:
            self._failed(call, lease, error)
            self._elsewhere.failed(run, call, error)
            raise
        except (asyncio.CancelledError, GeneratorExit):
            call.error, call.total_s = CANCELLED, self._clock() - lease.began_s
            raise
        finally:
            begun, silent_s = lease.fed, call.ttft_s or self._clock() - lease.began_s
            self._observer.silent(call, silent_s, begun=begun)
            self._fleet.end(lease)

    async def replay(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Show what was held back of *call*."""
        async for event in self.show(run, call, _each(call.deltas)):
            yield event

    def _end(self, run: Run, chosen: Call) -> Iterator[Event]:
        if not run.started:
            yield self._started(run, chosen)
        assert chosen.last is not None
        run.total_s = self._clock() - run.arrived_s
        steps = [
            self._step(call, chosen=call is chosen)
            for call in run.calls
            if call.last is not None or call.error or call.scored
        ]
        run.steps = (*run.broken, *steps)
        self._done(run)
        yield wire.finished(
            chosen.last.finished,
            run.steps,
            queue_s=run.queue_s,
            ttft_s=run.ttft_s,
            total_s=run.total_s,
            tokens_before=handover.shown_tokens(run, until=chosen.behind),
            decision=run.explain(),
        )

    def _started(self, run: Run, call: Call) -> Event:
        """Build the first event; it waits for the first text, since until then all may change."""
        run.started = True
        run.ttft_s = self._clock() - run.arrived_s
        return wire.started(
            run.id, line(run.decision.plan), call.model, call.replica, call.prompt_tokens
        )

    def _answered(self, run: Run, call: Call, lease: Lease) -> None:
        call.total_s = self._clock() - lease.began_s
        if call.behind:
            # The rest of an answer says little about the time and length of a whole one.
            self._fleet.succeeded(lease)
            return
        self._fleet.succeeded(lease, call.total_s / call.expected_s if call.expected_s else 0.0)
        self._later.do(partial(self._observer.answered, call, lease, run.features))

    def _failed(self, call: Call, lease: Lease, error: ZetaError) -> None:
        call.error, call.total_s = str(error), self._clock() - lease.began_s
        metrics.FAILURES.labels(call.replica, error.reason).inc()
        if isinstance(error, DrainingError):
            self._fleet.drains(call.replica)
        if counts_against(error):
            self._fleet.failed(lease)

    async def hand_over(self, run: Run, call: Call, error: ZetaError) -> Event:
        """Have the answer go on elsewhere. Raises StreamBrokenError where it cannot."""
        if not self.may_go_elsewhere(error):
            raise error
        if run.ask.samples > 1:
            raise several_broken(error) from error
        lost, part = call.replica, self._broken_off(run, call, error)
        try:
            await self._elsewhere.find(run, call, error)
        except DeadlinePassedError:
            raise
        except ZetaError as none_left:
            raise lost_midway(lost, error) from none_left
        run.broken.append(part)
        metrics.HANDOVERS.labels(lost).inc()
        return handover.event(run, lost, call, error)

    def _broken_off(self, run: Run, call: Call, error: ZetaError) -> Step:
        tokens = handover.shown_tokens(run, call.behind)
        cost_usd = self._cost_usd(call.model, call.prompt_tokens, tokens)
        return handover.broken_off(call, error, tokens=tokens, cost_usd=cost_usd)

    def left_s(self, run: Run) -> float | None:
        """Return the seconds that the caller still waits, None for ever."""
        return left_s(run, self._clock())

    def _step(self, call: Call, *, chosen: bool) -> Step:
        prompt, completion = call.prompt_tokens, call.completion_tokens
        return Step(
            model=call.model,
            replica=call.replica,
            part=call.part,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_usd=self._cost_usd(call.model, prompt, completion),
            ttft_s=call.ttft_s,
            total_s=call.total_s,
            mean_logprob=call.mean_logprob,
            chosen=chosen,
            agrees=call.agrees,
            error=call.error,
        )


async def _noted(run: Run, events: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    async with aclosing(events):
        async for event in events:
            run.note(event)
            yield event


async def _unless_lost(lease: Lease, asked: Coroutine[Any, Any, T]) -> T:
    """Return what was *asked* of the leased replica. Raises HungError where that is given up."""
    task = asyncio.create_task(asked)
    lease.abort = task.cancel
    try:
        return await task
    except asyncio.CancelledError:
        if not lease.lost:
            raise
        raise HungError(f"{lease.replica} does not answer any more") from None


async def _each(events: Iterable[Event]) -> AsyncGenerator[Event, None]:
    for event in events:
        yield event


def _quality(run: Run, model: str) -> float:
    candidates = run.decision.candidates
    return candidates.quality[candidates.models.index(model)]
