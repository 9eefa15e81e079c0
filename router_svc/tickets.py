"""Answers that do not pass through the router: it decides, signs a ticket, and hears of the end.

A ticket's call counts as in flight, in the load and in admission, from its issue until its outcome
is reported. One that is not reported stops counting when nine of ten calls that began at the last
moment would be done; a report that comes even later is still learned from.
"""

import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from router_svc import metrics, wire
from router_svc.core.plan import Single
from router_svc.core.reward import Step
from router_svc.core.types import Ask, Priority
from router_svc.fleet import Lease
from router_svc.router import ZetaDynamicRouter
from router_svc.run import Call, Run, call_of
from services.kit.errors import UnknownDecisionError
from services.kit.tickets import Claims, Keyring, digest_of

_KEPT: Final = 10_000
"""Tickets that are remembered; older ones that count no more are forgotten."""


class _State(Enum):
    OPEN = auto()
    EXPIRED = auto()
    REPORTED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A ticket, and the decision that it is for."""

    decision: wire.DecisionMessage
    address: str
    replica: str
    token: str
    expires_s: float
    """Seconds since 1970."""


@dataclass(slots=True, kw_only=True)
class _Open:
    """A call that somebody else makes."""

    run: Run
    call: Call
    lease: Lease
    slot: AsyncExitStack
    fed_at_s: float
    """When its prompt should be through."""
    counts_until_s: float
    state: _State = _State.OPEN


class Tickets:
    """Makes tickets and hears what becomes of them. Owned by the event loop.

    *clock* is monotonic seconds, *wall* seconds since 1970.
    """

    def __init__(
        self,
        router: ZetaDynamicRouter,
        keyring: Keyring,
        life_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._router, self._keyring, self._life_s = router, keyring, life_s
        self._clock, self._wall = clock, wall
        self._tickets: OrderedDict[str, _Open] = OrderedDict()

    async def issue(self, ask: Ask, request: wire.Request) -> Issued:
        """Decide for one model, and allow the caller to ask it *request*. Raises ZetaError."""
        async with AsyncExitStack() as stack:
            run = await stack.enter_async_context(self._router.elsewhere(ask))
            made = self._begin(run, stack.pop_all())
        return self._sign(made, request)

    async def report(self, token: bytes, said: wire.Outcome) -> bool:
        """Take in how a ticket's call ended; False where that was reported before.

        Raises TicketInvalidError, UnknownDecisionError, InvalidRequestError.
        """
        claims = self._keyring.read(token.decode("ascii", "replace"))
        ticket = self._tickets.get(claims.decision_id)
        if ticket is None:
            raise UnknownDecisionError(
                f"no ticket for decision {claims.decision_id[:80]!r} is waited for here"
            )
        if ticket.state is _State.REPORTED:
            return False
        if said.finished is not None:
            wire.check_timings(said.finished, self._clock() - ticket.lease.began_s)
            if ticket.state is _State.OPEN:
                self._router.fleet.succeeded(ticket.lease)
        await self._end(ticket, _State.REPORTED)
        if said.finished is None:
            self._router.ended_elsewhere(ticket.run, said.status)
        else:
            self._answered(ticket, said.finished)
        metrics.TICKETS.labels(said.status.lower()).inc()
        return True

    async def expire(self) -> None:
        """Let go of tickets that nobody reported; to be called a few times a second."""
        now_s = self._clock()
        for ticket in [t for t in self._tickets.values() if t.state is _State.OPEN]:
            if now_s >= ticket.counts_until_s:
                await self._end(ticket, _State.EXPIRED)
                self._router.ended_elsewhere(ticket.run, "UNREPORTED")
                metrics.TICKETS.labels("unreported").inc()
            elif now_s >= ticket.fed_at_s:
                self._router.fleet.first_token(ticket.lease)
        while len(self._tickets) > _KEPT:
            oldest = next(iter(self._tickets.values()))
            if oldest.state is _State.OPEN:
                break
            del self._tickets[oldest.run.id]

    def _begin(self, run: Run, slot: AsyncExitStack) -> _Open:
        plan, now_s, samples = run.decision.plan, self._clock(), run.ask.samples
        assert isinstance(plan, Single), "a plan of one call has one model"
        call = call_of(run.decision, plan.model, "single")
        run.calls.append(call)
        made = self._tickets[run.id] = _Open(
            run=run,
            call=call,
            lease=self._router.fleet.begin(
                call.replica,
                run.features.prompt_tokens,
                call.output_tokens * samples,
                requests=samples,
                critical=run.ask.priority is Priority.CRITICAL,
            ),
            slot=slot,
            fed_at_s=now_s + call.ttft_p90_s,
            counts_until_s=now_s + self._life_s + call.total_p90_s,
        )
        return made

    def _sign(self, made: _Open, request: wire.Request) -> Issued:
        issued_s, replica = self._wall(), made.call.replica
        claims = Claims(
            replica=replica,
            issued_s=issued_s,
            expires_s=issued_s + self._life_s,
            decision_id=made.run.id,
            digest=digest_of(request),
        )
        decision = made.run.explain()
        assert decision is not None, "asked for by elsewhere"
        return Issued(
            decision=decision,
            address=self._router.fleet.addresses[made.lease.index],
            replica=replica,
            token=self._keyring.sign(claims),
            expires_s=claims.expires_s,
        )

    async def _end(self, ticket: _Open, state: _State) -> None:
        """Stop counting a ticket's call, if it still counts."""
        before, ticket.state = ticket.state, state
        if before is _State.OPEN:
            self._router.fleet.end(ticket.lease)
            await ticket.slot.aclose()

    def _answered(self, ticket: _Open, finished: wire.Finished) -> None:
        """Learn as from an answer that came through the router; the times are the replica's."""
        run, call, router = ticket.run, ticket.call, self._router
        call.last = wire.Event(finished=finished)
        call.prompt_tokens = finished.usage.prompt_tokens
        call.ttft_s, call.total_s = wire.times_of(finished)
        run.started, run.ttft_s, run.total_s = True, call.ttft_s, call.total_s
        prompt, completion = call.prompt_tokens, call.completion_tokens
        run.steps = (
            Step(
                model=call.model,
                replica=call.replica,
                prompt_tokens=prompt,
                completion_tokens=completion,
                cost_usd=router.learner.cost_usd(call.model, prompt, completion),
                ttft_s=call.ttft_s,
                total_s=call.total_s,
                mean_logprob=call.mean_logprob,
                chosen=True,
            ),
        )
        router.learner.answered(call, ticket.lease, run.features)
        router.ended_elsewhere(run, "OK")
