"""Send requests when they are due, whatever became of those before: an open loop.

Every time is counted from the moment a request was due, not from when it was sent: a generator
that falls behind, or a fleet that holds it up, cannot hide what callers would have waited
("coordinated omission").
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TypeAlias

from zeta.inference.v1.inference_service_pb2 import GenerateResponse

from services.kit.errors import ZetaError
from zeta_client.answer import Answer
from zeta_client.load.shots import Shot
from zeta_client.tasks import is_correct

Call: TypeAlias = Callable[[Shot, float | None], AsyncIterator[GenerateResponse]]
"""(what, seconds that are left) to the answer's events."""

OK = "OK"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one request; times from the moment it was due."""

    at_s: float
    kind: str
    priority: str
    status: str
    """OK, or the reason of the error that it ended with."""
    ttft_s: float
    total_s: float
    tokens: int
    model: str
    plan: str
    right: bool | None
    """None where nobody can say."""
    late_s: float
    """How long after it was due the generator sent it."""
    decision_id: str
    tenant: str = ""
    returns: int = 0
    """How often it was refused before and came back; times count from its last coming,"""
    back_after_s: float = 0.0
    """which was so long after its first."""


async def send(
    shots: Sequence[Shot],
    call: Call,
    *,
    deadline_s: float | None,
    returns: int = 0,
    done: Callable[[Result], object] = lambda _: None,
    clock: Callable[[], float] = perf_counter,
) -> list[Result]:
    """Send each of *shots* at its time; return what became of them, in their order.

    Who is refused and told when a retry is worth it comes back then, at most *returns* times.
    *clock* is seconds, the event loop's.
    """
    start_s = clock()
    tasks = []
    try:
        for shot in shots:
            due_s = start_s + shot.at_s
            if (pause_s := due_s - clock()) > 0.0:
                await asyncio.sleep(pause_s)
            begun = _one(shot, call, due_s, deadline_s=deadline_s, returns=returns, clock=clock)
            one = asyncio.create_task(begun)
            one.add_done_callback(lambda t: None if t.cancelled() else done(t.result()))
            tasks.append(one)
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def _one(
    shot: Shot,
    call: Call,
    due_s: float,
    *,
    deadline_s: float | None,
    returns: int,
    clock: Callable[[], float],
) -> Result:
    first_s, late_s, returned = due_s, clock() - due_s, 0
    while True:
        found, again_s = await _asked(shot, call, due_s, deadline_s, clock)
        if again_s is None or returned == returns:
            back_s = due_s - first_s
            return replace(found, late_s=late_s, returns=returned, back_after_s=back_s)
        returned += 1
        await asyncio.sleep(again_s)
        due_s = clock()


async def _asked(
    shot: Shot,
    call: Call,
    due_s: float,
    deadline_s: float | None,
    clock: Callable[[], float],
) -> tuple[Result, float | None]:
    """Ask once; return what came of it, and when to come back where that is said."""
    late_s, again_s = clock() - due_s, None
    left_s = None if deadline_s is None else max(deadline_s - late_s, 0.001)
    answer, status = Answer(), OK
    try:
        async with aclosing(call(shot, left_s)) as events:  # type: ignore[type-var] # a generator
            async for event in events:
                answer.add(event, clock() - due_s)
    except ZetaError as error:
        status, again_s = error.reason, error.retry_after_s
    ended = answer.finished
    right = shot.task and status == OK and is_correct(shot.task, answer.text)
    result = Result(
        at_s=shot.at_s,
        kind=shot.kind,
        priority=shot.priority,
        tenant=shot.tenant,
        status=status,
        ttft_s=answer.ttft_s or answer.total_s,
        total_s=clock() - due_s,
        tokens=ended.usage.completion_tokens if ended else 0,
        model=answer.model,
        plan=answer.plan,
        right=None if shot.task is None else bool(right),
        late_s=late_s,
        decision_id=answer.decision_id,
    )
    return result, again_s
