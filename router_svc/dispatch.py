"""Carry out a plan against live replicas: the one interpreter of plans.

Text is streamed through as it comes wherever the plan allows. A call that fails before its first
token is made elsewhere, within a budget. Whoever stops reading stops every call made for them.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import structlog

from router_svc import handover, metrics, wire
from router_svc.core.breaker import RetryBudget
from router_svc.core.decide import Decision
from router_svc.core.merge import decided, normalised, tally
from router_svc.core.plan import Cascade, Single, Vote, line
from router_svc.core.price import vote_weights
from router_svc.core.reward import Step, agreement
from router_svc.fleet import Fleet, Lease
from router_svc.run import Call, Observer, Run, call_of
from router_svc.wire import Event
from services.kit.aio import cancelled
from services.kit.errors import (
    ContextTooLongError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    PreemptedError,
    StreamBrokenError,
    UnavailableError,
    UnknownModelError,
    ZetaError,
)

log = structlog.get_logger()

_ELSEWHERE: Final = (
    UnavailableError,
    OverloadedError,
    PreemptedError,
    ContextTooLongError,
    UnknownModelError,
)
"""What another replica or model may well answer; a plain ZetaError (INTERNAL) counts as well."""
_COMES_BACK_S: Final = 15.0
"""How long an answer that was begun waits for somebody to go on with it."""
_LOOKS_AGAIN_S: Final = 0.5
_MOST_HANDOVERS: Final = 3
"""An answer that broke so often waits for nobody any more."""
_NOT_ITS_FAULT: Final = (DrainingError, OverloadedError, PreemptedError, InvalidRequestError)


class Dispatch:
    """Runs plans. *clock* is monotonic seconds; *done* hears of a run before its last event."""

    def __init__(
        self,
        fleet: Fleet,
        observer: Observer,
        budget: RetryBudget,
        *,
        cost_usd: Callable[[str, int, int], float],
        clock: Callable[[], float],
        done: Callable[[Run], None],
    ) -> None:
        self._fleet = fleet
        self._observer = observer
        self._budget = budget
        self._cost_usd = cost_usd
        self._clock = clock
        self._done = done

    async def run(self, run: Run) -> AsyncGenerator[Event, None]:
        """Stream the answer. Raises ZetaError."""
        self._budget.earned()
        async with aclosing(self._events(run)) as events:
            async for event in events:
                run.note(event)
                yield event

    async def go_on(self, run: Run) -> AsyncGenerator[Event, None]:
        """Stream the rest of an answer whose caller was gone for a while. Raises ZetaError."""
        if not run.shown:
            async with aclosing(self.run(run)) as events:
                async for event in events:
                    yield event
            return
        last = run.calls[-1]
        decision = run.replan(frozenset(), last.model)
        assert isinstance(decision.plan, Single)
        call, gone = call_of(decision, decision.plan.model), ZetaError("its caller was gone")
        run.broken.append(self._broken_off(run, last, gone))
        async with aclosing(self._single(run, call)) as events:
            async for event in events:
                run.note(event)
                yield event

    def _events(self, run: Run) -> AsyncGenerator[Event, None]:
        match run.decision.plan:
            case Single(model):
                return self._single(run, call_of(run.decision, model))
            case Cascade() as plan:
                return self._cascade(run, plan)
            case Vote() as plan:
                return self._vote(run, plan)

    async def _single(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        async with aclosing(self._stream(run, call)) as deltas:
            async for delta in deltas:
                if not run.started:
                    yield self._started(run, call)
                yield delta
        async for event in self._end(run, call):
            yield event

    async def _cascade(self, run: Run, plan: Cascade) -> AsyncGenerator[Event, None]:
        first = call_of(run.decision, plan.first)
        if await self._collect(run, first) and self._accepts(run, first, plan.accept_from):
            async for event in self._replay(run, first):
                yield event
            return
        run.failed |= {first.replica} if first.error else set()
        then, text = call_of(run.decision, plan.then), []
        async with aclosing(self._stream(run, then)) as events:
            async for event in events:
                if not run.started:
                    yield self._started(run, then)
                text.append(event.delta.text)
                yield event
        if not first.error:
            first.agrees = agreement(first.answer, "".join(text))
        async for event in self._end(run, then):
            yield event

    async def _vote(self, run: Run, plan: Vote) -> AsyncGenerator[Event, None]:
        calls = [call_of(run.decision, model) for model in plan.models]
        winner = await self._count(run, calls)
        if winner is None:
            # Everybody failed; what is left of the fleet may still answer.
            run.failed |= {call.replica for call in calls}
            lone = calls[0]
            self._move(run, lone, UnavailableError("every voter failed"))
            last = Call(model=lone.model, replica=lone.replica, expected_s=lone.expected_s)
            async with aclosing(self._single(run, last)) as events:
                async for event in events:
                    yield event
            return
        chosen = normalised(winner.answer)
        for call in calls:
            if call is not winner and call.last is not None:
                call.agrees = normalised(call.answer) == chosen
        async for event in self._replay(run, winner):
            yield event

    async def _count(self, run: Run, calls: list[Call]) -> Call | None:
        """Ask all at once; return who wins as soon as the rest cannot change it."""
        candidates = run.decision.candidates
        index = [candidates.models.index(call.model) for call in calls]
        weights = vote_weights(candidates.quality[index]).tolist()
        tasks = {asyncio.create_task(self._collect(run, c)): i for i, c in enumerate(calls)}
        answers: dict[int, str] = {}
        pending = set(tasks)
        try:
            while pending:
                over, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                answers |= {tasks[t]: calls[tasks[t]].answer for t in over if t.result()}
                if decided(answers, weights, [tasks[t] for t in pending]):
                    break
        finally:
            for task in pending:
                await cancelled(task)
        if not answers:
            return None
        return calls[next(iter(tally(answers, weights).values()))[0]]

    async def _collect(self, run: Run, call: Call) -> bool:
        """Run *call* without showing it; False where it failed and others may still answer."""
        run.calls.append(call)
        try:
            async with aclosing(self._attempt(run, call)) as events:
                async for event in events:
                    call.deltas.append(event)
                    call.text.append(event.delta.text)
        except ZetaError as error:
            if not _may_go_elsewhere(error):
                raise
            return False
        return True

    async def _stream(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Yield the deltas of *call*; a failure moves it elsewhere, behind what was shown."""
        run.calls.append(call)
        while True:
            try:
                async with aclosing(self._attempt(run, call)) as events:
                    async for event in events:
                        run.shown_by.add(call.model)
                        yield event
            except ZetaError as error:
                if run.shown:
                    yield await self._hand_over(run, call, error)
                else:
                    self._move(run, call, error)
            else:
                return

    async def _attempt(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Ask the call's replica once."""
        lease = self._fleet.begin(
            call.replica, run.features.prompt_tokens, run.features.expected_output_tokens
        )
        try:
            call.behind, seq = len(run.shown), run.last_seq
            behind, timeout_s = handover.continuation(run, call), self._left_s(run)
            async with aclosing(run.upstream(call.model, lease, timeout_s, behind)) as events:
                async for event in events:
                    kind = event.WhichOneof("event")
                    if kind == "finished":
                        call.last = event
                    elif kind == "started":
                        call.prompt_tokens = event.started.prompt_tokens
                    else:
                        if not lease.fed:
                            call.ttft_s = self._clock() - lease.began_s
                            self._fleet.first_token(lease)
                        lease.heard_s = self._clock()
                        if seq:
                            event.delta.seq += seq
                        yield event
            if call.last is None:
                raise UnavailableError(f"{call.replica} ended its stream without an end")
            self._answered(run, call, lease)
        except ZetaError as error:
            self._failed(call, lease, error)
            raise
        finally:
            self._fleet.end(lease)

    async def _replay(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Show what was held back of *call*."""
        for delta in call.deltas:
            if not run.started:
                yield self._started(run, call)
            yield delta
        async for event in self._end(run, call):
            yield event

    async def _end(self, run: Run, chosen: Call) -> AsyncGenerator[Event, None]:
        if not run.started:
            yield self._started(run, chosen)
        assert chosen.last is not None
        run.total_s = self._clock() - run.arrived_s
        steps = [
            self._step(call, chosen=call is chosen) for call in run.calls if call.last is not None
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

    def _accepts(self, run: Run, call: Call, accept_from: float) -> bool:
        if call.mean_logprob is None:
            return False
        candidates = run.decision.candidates
        quality = float(candidates.quality[candidates.models.index(call.model)])
        return self._observer.confidence(call.model, call.mean_logprob, quality) >= accept_from

    def _answered(self, run: Run, call: Call, lease: Lease) -> None:
        call.total_s = self._clock() - lease.began_s
        self._fleet.succeeded(lease)
        if call.behind:
            # The rest of an answer says little about the time and length of a whole one.
            return
        # The caller's last event goes first; learning can wait for a turn of the loop.
        loop = asyncio.get_running_loop()
        loop.call_soon(self._observer.answered, call, lease, run.features)

    def _failed(self, call: Call, lease: Lease, error: ZetaError) -> None:
        call.error, call.total_s = str(error), self._clock() - lease.began_s
        metrics.FAILURES.labels(call.replica, error.reason).inc()
        if _may_go_elsewhere(error) and not isinstance(error, _NOT_ITS_FAULT):
            self._fleet.failed(lease)

    async def _hand_over(self, run: Run, call: Call, error: ZetaError) -> Event:
        """Have the answer go on elsewhere. Raises StreamBrokenError where it cannot."""
        lost, part = call.replica, self._broken_off(run, call, error)
        try:
            try:
                self._move(run, call, error)
            except UnavailableError:
                if len(run.broken) >= _MOST_HANDOVERS:
                    raise
                await self._move_back(run, call)
        except (ZetaError, TimeoutError) as none_left:
            raise StreamBrokenError(
                f"{lost} was lost in the middle of the answer: {error}"
            ) from none_left
        run.broken.append(part)
        metrics.HANDOVERS.labels(lost).inc()
        return handover.event(run, lost, call, error)

    def _broken_off(self, run: Run, call: Call, error: ZetaError) -> Step:
        tokens = handover.shown_tokens(run, call.behind)
        cost_usd = self._cost_usd(call.model, call.prompt_tokens, tokens)
        return handover.broken_off(call, error, tokens=tokens, cost_usd=cost_usd)

    def _move(self, run: Run, call: Call, error: ZetaError) -> None:
        """Point *call* at another replica or model. Raises *error* where there is no other."""
        run.failed.add(call.replica)
        if not _may_go_elsewhere(error) or not self._budget.take():
            raise error
        try:
            decision = run.replan(frozenset(run.failed), call.model if run.shown else "")
        except UnavailableError as none_left:
            raise (none_left if isinstance(error, UnavailableError) else error) from error
        metrics.RETRIES.labels(call.replica).inc()
        lost = call.replica
        self._point(call, decision)
        log.info("retried", failed=lost, error=str(error), model=call.model)

    @staticmethod
    def _point(call: Call, decision: Decision) -> None:
        assert isinstance(decision.plan, Single)
        again = call_of(decision, decision.plan.model)
        call.model, call.replica, call.expected_s = again.model, again.replica, again.expected_s
        call.error = ""

    async def _move_back(self, run: Run, call: Call) -> None:
        """Wait for somebody who can go on: a process that died is started again.

        Raises TimeoutError where nobody comes in time, ZetaError where nobody ever could.
        """
        async with asyncio.timeout(self._left_s(run)), asyncio.timeout(_COMES_BACK_S):
            while True:
                # A circuit closes without a word.
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._fleet.next_change(), _LOOKS_AGAIN_S)
                run.failed.clear()
                with contextlib.suppress(UnavailableError):
                    self._point(call, run.replan(frozenset(), call.model))
                    return

    def _left_s(self, run: Run) -> float | None:
        """Seconds that the caller still waits, for the next hop."""
        if run.deadline_at_s is None:
            return None
        return max(run.deadline_at_s - self._clock(), 0.001)

    def _step(self, call: Call, *, chosen: bool) -> Step:
        prompt, completion = call.prompt_tokens, call.completion_tokens
        return Step(
            model=call.model,
            replica=call.replica,
            prompt_tokens=prompt,
            completion_tokens=completion,
            cost_usd=self._cost_usd(call.model, prompt, completion),
            ttft_s=call.ttft_s,
            total_s=call.total_s,
            mean_logprob=call.mean_logprob,
            chosen=chosen,
            agrees=call.agrees,
        )


def _may_go_elsewhere(error: ZetaError) -> bool:
    return isinstance(error, _ELSEWHERE) or type(error) is ZetaError
