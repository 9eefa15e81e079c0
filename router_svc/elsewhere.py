"""Who takes a call that failed: another replica at once, or one that is waited for.

Who was accepted is answered, or its deadline passes, or its caller leaves. So a failure is the
caller's to see only where nobody who could answer is away: each that is there has failed for this
very request.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from router_svc import metrics
from router_svc.core.breaker import RetryBudget
from router_svc.core.decide import Decision
from router_svc.core.plan import Single
from router_svc.faults import may_go_elsewhere, passes, told
from router_svc.fleet import Fleet
from router_svc.run import PREDICTED, Call, HungError, LostError, NobodyError, Run, call_of
from services.kit.errors import DeadlinePassedError, UnavailableError, ZetaError

log = structlog.get_logger()

_LOOKS_AGAIN_S: Final = 0.5
"""A circuit closes without a word."""
_LONGEST_PAUSE_S: Final = 5.0


class Elsewhere:
    """Points calls at other replicas. *clock* is monotonic seconds."""

    def __init__(self, fleet: Fleet, budget: RetryBudget, clock: Callable[[], float]) -> None:
        self._fleet, self._budget, self._clock = fleet, budget, clock

    def failed(self, run: Run, call: Call, error: ZetaError) -> None:
        """Note that the call's replica could not, for now or not at all.

        With an answer that has begun, whoever is there may try again.
        """
        for_now = run.shown or passes(error) or not self._fleet.able(call.replica)
        (run.away if for_now else run.failed).add(call.replica)

    async def find(self, run: Run, call: Call, error: ZetaError) -> None:
        """Point *call*, which failed, at who can take it. Raises ZetaError where nobody comes."""
        if not may_go_elsewhere(error):
            raise error
        if any(event.delta.token_ids for event in run.shown[call.behind :]):
            run.patience.got_on()
        run.patience.failed(self._clock(), fatal=_fatal(run, call, error))
        if run.patience.suspect:
            raise told(error)
        if not self._moved(run, call, error):
            await self._wait(run, call, error)

    async def anyone(self, run: Run, call: Call) -> None:
        """Point *call* at who can take it, as if nobody had failed. Raises ZetaError."""
        run.failed.clear()
        if (decision := self._decided(run, call)) is not None:
            _point(call, decision)
        else:
            await self._wait(run, call, LostError("nobody serves"))

    async def _wait(self, run: Run, call: Call, error: ZetaError) -> None:
        """Wait for who can take *call*, as a process that died is started again.

        Raises DeadlinePassedError, and what the caller should see where nobody comes.
        """
        now_s = self._clock()
        deadline_s, patience_s = left_s(run, now_s), run.patience.left_s(now_s)
        in_time = deadline_s is None or deadline_s > patience_s
        try:
            async with asyncio.timeout(patience_s if in_time else deadline_s):
                await self._back(run, call, error)
        except TimeoutError:
            if in_time:
                raise told(error) from None
            raise DeadlinePassedError(
                f"the deadline passed while a replica was waited for: {error}"
            ) from None
        except NobodyError as nobody:
            raise (nobody if isinstance(error, UnavailableError) else error) from error

    async def _back(self, run: Run, call: Call, error: ZetaError) -> None:
        """Return once *call* is pointed at somebody. Raises NobodyError where nobody is away."""
        news = self._fleet.next_change()
        self._decided(run, call)
        if isinstance(error, LostError):
            # Its health stream may not have noticed yet.
            await self._fleet.ask(call.replica)
        pause_s = _LOOKS_AGAIN_S
        if self._fleet.able(call.replica) and error.retry_after_s is not None:
            pause_s = min(error.retry_after_s, _LONGEST_PAUSE_S)
        while True:
            await asyncio.wait({news}, timeout=pause_s)
            news, pause_s = self._fleet.next_change(), _LOOKS_AGAIN_S
            if (decision := self._decided(run, call)) is not None:
                _point(call, decision)
                return

    def _decided(self, run: Run, call: Call) -> Decision | None:
        """Decide without those that failed while they were there; None while others are away."""
        # Who goes away comes back another.
        run.away.clear()
        run.failed = {replica for replica in run.failed if self._fleet.able(replica)}
        try:
            return run.replan(frozenset(run.failed), call.model)
        except NobodyError as nobody:
            if not nobody.away:
                raise
            return None

    def _moved(self, run: Run, call: Call, error: ZetaError) -> bool:
        """Point *call* at another that is there; False where there is none, or no budget."""
        if not self._budget.take():
            if passes(error):
                return False
            raise error
        try:
            decision = run.replan(frozenset(run.failed | run.away), call.model if run.shown else "")
        except NobodyError:
            return False
        metrics.RETRIES.labels(call.replica).inc()
        lost = call.replica
        _point(call, decision)
        log.info("retried", failed=lost, error=str(error), model=call.model)
        return True


def left_s(run: Run, now_s: float) -> float | None:
    """Return the seconds that the caller still waits, None for ever."""
    return None if run.deadline_at_s is None else max(run.deadline_at_s - now_s, 0.001)


def _fatal(run: Run, call: Call, error: ZetaError) -> bool:
    """Whether *error* may well be the request's own doing."""
    if isinstance(error, LostError):
        return call.taken and not isinstance(error, HungError)
    return bool(run.shown) and not passes(error)


def _point(call: Call, decision: Decision) -> None:
    assert isinstance(decision.plan, Single)
    again = call_of(decision, decision.plan.model, call.part)
    call.model, call.replica = again.model, again.replica
    for name in PREDICTED:
        setattr(call, name, getattr(again, name))
    call.error = ""
