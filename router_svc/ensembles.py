"""Plans of more than one call, each a stream of events over `Calls`, which `dispatch` implements.

What one call of a plan cannot do, the rest of it does: only when all have failed is anybody
else asked. Text that was shown is final, so a plan shows nothing that it might yet replace.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing
from typing import Final, Protocol, Self

from router_svc.core.merge import decided, tally
from router_svc.core.plan import BestOf, Cascade, Hedge, Refine, Vote
from router_svc.core.reward import agreement
from router_svc.core.twist import AS_ASKED, Twist
from router_svc.core.voting import vote_weight
from router_svc.run import Call, Run, call_of
from router_svc.wire import Event
from services.kit.aio import cancelled
from services.kit.errors import ZetaError

_SHOWN_BY_S: Final = 0.1
"""Share of the time left that is kept to show an answer that was held back."""


class Calls(Protocol):
    """What a plan may do with its calls."""

    def stream(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Yield the deltas of *call*; a failure before the first moves it elsewhere."""
        ...

    async def collect(self, run: Run, call: Call) -> bool:
        """Run *call* without showing it; False where it failed and others may still answer."""
        ...

    def attempt(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Yield the deltas of *call*, asked once. Raises ZetaError."""
        ...

    def show(
        self,
        run: Run,
        call: Call,
        deltas: AsyncGenerator[Event, None],
        before_end: Callable[[], None] = ...,
    ) -> AsyncGenerator[Event, None]:
        """Show *deltas* as the answer, from its beginning to its end."""
        ...

    async def hand_over(self, run: Run, call: Call, error: ZetaError) -> Event:
        """Have *call* go on elsewhere. Raises StreamBrokenError where it cannot."""
        ...

    def begun(self, run: Run, call: Call) -> Iterator[Event]:
        """Yield what was held back of *call*, which is shown from now on."""
        ...

    def replay(self, run: Run, call: Call) -> AsyncGenerator[Event, None]:
        """Show what was held back of *call*."""
        ...

    def everybody_failed(self, run: Run, calls: Sequence[Call]) -> AsyncGenerator[Event, None]:
        """Ask what is left of the fleet. Raises ZetaError."""
        ...

    def sureness(self, run: Run, call: Call) -> float:
        """Return how likely an answer is right by its own log-probability."""
        ...

    def sure_so_far(self, run: Run, call: Call) -> float:
        """Return how likely an unfinished answer is right if its rest goes badly."""
        ...

    async def judged(self, run: Run, scorer: str, answers: Sequence[Call]) -> list[float]:
        """Return how good *scorer* takes each of *answers* to be, in [0, 1]."""
        ...

    def may_go_elsewhere(self, error: ZetaError) -> bool:
        """Whether another replica or model may well do what failed with *error*."""
        ...

    def may_hedge(self) -> bool:
        """Whether the extra load of one more backup is paid for."""
        ...

    def left_s(self, run: Run) -> float | None:
        """Return the seconds that the caller still waits, None for ever."""
        ...


async def cascade(calls: Calls, run: Run, plan: Cascade) -> AsyncGenerator[Event, None]:
    """Show the first answer where it is sure enough, else the second as it comes.

    The first answer is shown from the moment on at which even an unsure rest would leave it
    acceptable; what was shown stands, however the rest turns out.
    """
    first = call_of(run.decision, plan.first, "first", twist=Twist(logprobs=True))
    async with aclosing(_shown_when_sure(calls, run, first, plan.accept_from)) as events:
        async for event in events:
            yield event
    if run.started:
        return
    then, text = call_of(run.decision, plan.then, "then"), list[str]()
    async with aclosing(_read(calls.stream(run, then), text)) as deltas:
        async for event in calls.show(run, then, deltas, before_end=lambda: _disagree(first, text)):
            yield event


async def vote(calls: Calls, run: Run, plan: Vote) -> AsyncGenerator[Event, None]:
    """Ask all at once; show the heaviest answer as soon as the rest cannot change it.

    An answer weighs by how sure its model turned out to be, one to come by how sure it may be.
    """
    voters = [call_of(run.decision, model, "voter") for model in plan.models]
    candidates = run.decision.candidates
    index = [candidates.models.index(call.model) for call in voters]
    weights = [vote_weight(max(candidates.confidence[i])) for i in index]

    def enough(found: dict[int, str], rest: list[int]) -> bool:
        for voter in found:
            call = voters[voter]
            expected = candidates.quality[index[voter]]
            sure = expected if call.mean_logprob is None else calls.sureness(run, call)
            weights[voter] = vote_weight(sure)
        return decided(found, weights, rest)

    answers = await gathered(calls, run, voters, enough)
    if not answers:
        async with aclosing(calls.everybody_failed(run, voters)) as events:
            async for event in events:
                yield event
        return
    winner = voters[next(iter(tally(answers, weights).values()))[0]]
    compared(voters, winner)
    async for event in calls.replay(run, winner):
        yield event


async def best_of(calls: Calls, run: Run, plan: BestOf) -> AsyncGenerator[Event, None]:
    """Draw all at once; show the answer that scores best."""
    names = plan.models
    samples = [
        call_of(run.decision, names[k % len(names)], "sample", twist=Twist(sample=k // len(names)))
        for k in range(plan.n)
    ]
    answers = await gathered(calls, run, samples, lambda _found, rest: not rest)
    if not answers:
        async with aclosing(calls.everybody_failed(run, samples)) as events:
            async for event in events:
                yield event
        return
    found = [samples[i] for i in sorted(answers)]
    scores = await calls.judged(run, plan.scorer, found) if len(found) > 1 else [1.0]
    # Equals are told apart by how sure each model was.
    ranks = [
        (score, calls.sureness(run, c), -i)
        for i, (score, c) in enumerate(zip(scores, found, strict=True))
    ]
    winner = found[-max(ranks)[2]]
    compared(samples, winner)
    async for event in calls.replay(run, winner):
        yield event


async def refine(calls: Calls, run: Run, plan: Refine) -> AsyncGenerator[Event, None]:
    """Draft unseen, then stream the review; without a draft the reviewer just answers.

    Where the reviewer cannot begin, the draft is better than nothing.
    """
    draft = call_of(run.decision, plan.draft, "draft")
    drafted = await calls.collect(run, draft) and draft.answer.strip() != ""
    seen = Twist(draft=draft.answer) if drafted else AS_ASKED
    review, text = call_of(run.decision, plan.review, "review", twist=seen), list[str]()
    try:
        async with aclosing(_read(calls.stream(run, review), text)) as deltas:
            async for event in calls.show(
                run, review, deltas, before_end=lambda: _disagree(draft, text)
            ):
                yield event
    except ZetaError:
        if run.started or not drafted:
            raise
        async for event in calls.replay(run, draft):
            yield event


async def hedge(calls: Calls, run: Run, plan: Hedge) -> AsyncGenerator[Event, None]:
    """Ask the backup too where the primary is late; show whoever begins, and stop the other.

    Every `Generate` is idempotent by contract, which is the licence to ask twice.
    """
    async with AsyncExitStack() as lanes:
        first = _Lane(calls, run, call_of(run.decision, plan.primary, "primary"))
        racing = [await lanes.enter_async_context(first)]
        if not await first.begins_within(plan.after_s) and calls.may_hedge():
            spare = plan.backup == plan.primary
            backup = call_of(run.decision, plan.backup, "backup", spare=spare)
            racing.append(await lanes.enter_async_context(_Lane(calls, run, backup)))
        winner = await _first_of(racing)
        for loser in racing:
            if loser is not winner:
                await loser.stop()
        async for event in calls.show(run, winner.call, winner.deltas()):
            yield event


async def _shown_when_sure(
    calls: Calls, run: Run, call: Call, accept_from: float
) -> AsyncGenerator[Event, None]:
    """Show *call* from where it is sure enough on; show nothing where it never is, or fails."""
    run.calls.append(call)
    while call.last is None:
        try:
            async with aclosing(calls.attempt(run, call)) as deltas:
                async for event in deltas:
                    call.text.append(event.delta.text)
                    call.deltas.append(event)
                    if run.started or calls.sure_so_far(run, call) >= accept_from:
                        run.shown_by.add(call.model)
                        for held in calls.begun(run, call):
                            yield held
        except ZetaError as error:
            if run.shown:
                yield await calls.hand_over(run, call, error)
            elif calls.may_go_elsewhere(error):
                return
            else:
                raise
    if run.started or calls.sureness(run, call) >= accept_from:
        async for event in calls.replay(run, call):
            yield event


async def _read(
    deltas: AsyncGenerator[Event, None], text: list[str]
) -> AsyncGenerator[Event, None]:
    """Pass *deltas* on, and keep their text."""
    async with aclosing(deltas):
        async for event in deltas:
            text.append(event.delta.text)
            yield event


def _disagree(other: Call, text: Sequence[str]) -> None:
    """Note whether *other* said the same as what was shown."""
    if other.last is not None:
        other.agrees = agreement(other.answer, "".join(text))


async def gathered(
    calls: Calls, run: Run, wanted: Sequence[Call], enough: "Enough"
) -> dict[int, str]:
    """Run all of *wanted* at once, hidden; return the answers by index.

    The rest is stopped once *enough* says so, or once the time left is needed to show what
    there is. Raises what would fail everywhere.
    """
    tasks = {asyncio.create_task(calls.collect(run, c)): i for i, c in enumerate(wanted)}
    answers: dict[int, str] = {}
    pending = set(tasks)
    left_s = calls.left_s(run)
    ends_s = None if left_s is None else asyncio.get_running_loop().time() + left_s
    try:
        while pending:
            wait_s = None
            if ends_s is not None and left_s is not None and answers:
                wait_s = ends_s - _SHOWN_BY_S * left_s - asyncio.get_running_loop().time()
            over, pending = await asyncio.wait(
                pending,
                timeout=None if wait_s is None else max(wait_s, 0.0),
                return_when=asyncio.FIRST_COMPLETED,
            )
            answers |= {tasks[t]: wanted[tasks[t]].answer for t in over if t.result()}
            if not over or enough(answers, [tasks[t] for t in pending]):
                break
    finally:
        for task in pending:
            await cancelled(task)
    return answers


def compared(calls: Sequence[Call], chosen: Call) -> None:
    """Note which of *calls* say the same as *chosen*."""
    for call in calls:
        if call is not chosen and call.last is not None:
            call.agrees = agreement(call.answer, chosen.answer)


class Enough(Protocol):
    """Says whether the answers found make those pending needless."""

    def __call__(self, found: dict[int, str], pending: list[int], /) -> bool:
        """Whether it is enough."""
        ...


class _Lane:
    """One call of a race: begun, watched for its first event, then read or stopped."""

    def __init__(self, calls: Calls, run: Run, call: Call) -> None:
        self.call = call
        self._events = calls.stream(run, call)
        self.begun = asyncio.create_task(self._first())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def begins_within(self, limit_s: float) -> bool:
        """Whether something comes, be it an error, within *limit_s*."""
        done, _ = await asyncio.wait({self.begun}, timeout=limit_s)
        return bool(done)

    async def deltas(self) -> AsyncGenerator[Event, None]:
        """Yield all events."""
        first = await self.begun
        if first is not None:
            yield first
        async for event in self._events:
            yield event

    async def stop(self) -> None:
        """Stop the call, unless it is over."""
        await cancelled(self.begun)
        await self._events.aclose()

    async def _first(self) -> Event | None:
        """Return the first event, None where an answer has none."""
        return await anext(self._events, None)


async def _first_of(lanes: Sequence[_Lane]) -> _Lane:
    """Return the lane that begins first. Raises what the last of them failed with."""
    waiting = {lane.begun: lane for lane in lanes}
    error: BaseException | None = None
    while waiting:
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=lambda t: lanes.index(waiting[t])):
            lane = waiting.pop(task)
            error = task.exception()
            if error is None:
                return lane
    assert isinstance(error, ZetaError), error
    raise error
