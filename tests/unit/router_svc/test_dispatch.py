"""The interpreter of plans, with scripted models in place of the wire."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc.core.breaker import RetryBudget
from router_svc.core.decide import Decision, decide
from router_svc.core.features import Features
from router_svc.core.hedging import HedgeBudget
from router_svc.core.plan import BestOf, Cascade, Hedge, Plan, Refine, Single, Vote
from router_svc.core.twist import AS_ASKED, Twist
from router_svc.core.types import Policy
from router_svc.dispatch import Dispatch
from router_svc.fleet import Fleet, Lease
from router_svc.run import Call, LostError, NobodyError, Run
from router_svc.wire import Event
from services.kit.aio import Later
from services.kit.config import Router
from services.kit.errors import (
    ContextTooLongError,
    DeadlinePassedError,
    DrainingError,
    InvalidRequestError,
    OverloadedError,
    StreamBrokenError,
    UnavailableError,
    ZetaError,
)
from tests.unit.router_svc.fixtures import ManualClock, ask, candidates, features, models

QUALITY = {"a": 0.7, "b": 0.7, "c": 0.7}


@dataclass(frozen=True, slots=True, kw_only=True)
class Says:
    """What a model does when it is asked."""

    text: str = ""
    sure: float | None = -0.05
    error: ZetaError | None = None
    """Raised after the text."""
    hangs: bool = False
    """Says the text, then nothing until it is cancelled."""
    pauses_after: int = 0
    """Words after which it says nothing more until it is told to go; 0: none."""
    waits: bool = False
    """Says nothing until it is told to go."""


@dataclass(slots=True)
class Watched:
    """Learns nothing, believes log-probabilities above -1, and writes down what it hears."""

    answered_by: list[str] = field(default_factory=list)
    heard: asyncio.Event = field(default_factory=asyncio.Event)

    def answered(self, call: Call, lease: Lease, about: Features) -> None:
        """Write it down."""
        del lease, about
        self.answered_by.append(call.model)
        self.heard.set()

    def silent(self, call: Call, silent_s: float, *, begun: bool) -> None:
        """Pay no heed."""
        del call, silent_s, begun

    def confidence(self, model: str, mean_logprob: float, quality: float) -> float:
        """Believe or not."""
        del model, quality
        return 0.9 if mean_logprob > -1.0 else 0.1


class Stage:
    """Models a, b, c with a script for each, and a dispatch before them."""

    def __init__(
        self, script: Mapping[str, Says], *, burst: float = 10.0, hedges: float = 0.05
    ) -> None:
        self.script = dict(script)
        self.asked: list[str] = []
        self.twists: list[Twist] = []
        self.scored: dict[str, float] | None = {}
        """Answer to what a scoring model gives it; None: it cannot score."""
        self.behind: list[inference_pb.Continuation | None] = []
        self.cancelled: list[str] = []
        self.hanging, self.go = asyncio.Event(), asyncio.Event()
        self.done: list[Run] = []
        self.joined = 1
        """How many deltas a model's each delta stands for, by its number."""
        self.clock = clock = ManualClock()
        settings = Router(breaker_failures=2, breaker_open_s=5.0)
        self.fleet = Fleet(models({"a": 1, "b": 1, "c": 1}), settings, clock)
        for name in self.fleet.names:
            self.fleet.health(name, serving=True)
        self.watched, self.later = Watched(), Later()
        self.dispatch = Dispatch(
            self.fleet,
            self.watched,
            RetryBudget(ratio=0.0, burst=burst),
            HedgeBudget(hedges),
            cost_usd=lambda _model, prompt, completion: prompt + 2.0 * completion,
            clock=clock,
            done=self.done.append,
            later=self.later,
        )

    def run(self, plan: Plan) -> Run:
        """Make a run of *plan*."""
        found = candidates(list(QUALITY.values()))
        decision = _planned(plan)
        decision.candidates = found
        return Run(
            id="d-1",
            ask=ask(),
            features=features(),
            decision=decision,
            upstream=self._upstream,
            scores=self._scores,
            replan=_decided,
            explain=lambda: None,
            arrived_s=100.0,
            deadline_at_s=None,
        )

    async def play(self, plan: Plan) -> tuple[str, inference_pb.Finished]:
        """Run *plan* to its end; check the order of events, and that nothing stays in flight."""
        run = self.run(plan)
        events = [event async for event in self.dispatch.run(run)]
        await asyncio.sleep(0)
        self.later.now()
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["started", *["delta"] * (len(kinds) - 2), "finished"]
        self.check_idle()
        assert self.done == [run]
        return "".join(e.delta.text for e in events), events[-1].finished

    def check_idle(self) -> None:
        """Nobody is busy any more."""
        now = self.fleet.replicas()
        assert now.loads.running.tolist() == [0.0] * 3
        assert now.loads.waiting_prompt_tokens.tolist() == [0.0] * 3

    async def _scores(
        self, model: str, answers: Sequence[str], timeout_s: float | None
    ) -> list[float]:
        del model, timeout_s
        if self.scored is None:
            raise UnavailableError("cannot score")
        return [self.scored[answer.strip()] for answer in answers]

    async def _upstream(
        self,
        model: str,
        lease: Lease,
        timeout_s: float | None,
        behind: inference_pb.Continuation | None = None,
        twist: Twist = AS_ASKED,
    ) -> AsyncGenerator[Event, None]:
        del timeout_s
        self.asked.append(lease.replica)
        self.behind.append(behind)
        self.twists.append(twist)
        says = self.script[model]
        yield Event(started=inference_pb.Started(prompt_tokens=3))
        if says.waits:
            await self.go.wait()
        for i, word in enumerate(says.text.split()):
            seq = (i + 1) * self.joined
            delta = inference_pb.Delta(seq=seq, text=word + " ", token_ids=[i])
            if twist.logprobs and says.sure is not None:
                delta.logprobs.add(logprob=says.sure)
            yield Event(delta=delta)
            if says.pauses_after == i + 1:
                await self.go.wait()
        if says.hangs:
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.cancelled.append(model)
        if says.error:
            raise says.error
        usage = inference_pb.Usage(prompt_tokens=3, completion_tokens=2)
        finished = inference_pb.Finished(usage=usage)
        if says.sure is not None:
            finished.mean_logprob = says.sure
        yield Event(finished=finished)


def _decided(failed: frozenset[str], _model: str = "") -> Decision:
    """Decide for the best model none of whose replicas failed."""
    left = [name for name in QUALITY if f"{name}-0" not in failed]
    if not left:
        raise NobodyError("nobody is left", away=False)
    keep = candidates([QUALITY[name] for name in left])
    keep = replace(keep, models=tuple(left), replicas=tuple(f"{name}-0" for name in left))
    policy = Policy(explore_ratio=0.0, max_calls=1)
    return decide(ask(), keep, policy, np.random.default_rng(1), gains={})


def _planned(plan: Plan) -> Decision:
    """Decide for *plan*."""
    decision = _decided(frozenset())
    decision.plan = plan
    return decision


async def test_single_streams_one_models_answer() -> None:
    """With its usage, price and place."""
    stage = Stage({"b": Says(text="it is four")})
    text, finished = await stage.play(Single("b"))
    assert text == "it is four "
    assert finished.model == "b"
    assert finished.cost_usd == 3 + 2 * 2
    assert stage.watched.answered_by == ["b"]


async def test_what_an_answer_teaches_is_learned_soon() -> None:
    """Without being asked for, behind its last event."""
    stage = Stage({"b": Says(text="it is four")})
    async for _ in stage.dispatch.run(stage.run(Single("b"))):
        assert stage.watched.answered_by == []
    await stage.watched.heard.wait()
    assert stage.watched.answered_by == ["b"]


async def test_deltas_that_were_joined_on_the_way_are_numbered_without_a_gap() -> None:
    """From 1, whatever numbers the model's own deltas had."""
    stage = Stage({"b": Says(text="it is four")})
    stage.joined = 3
    _, *deltas, _ = [event async for event in stage.dispatch.run(stage.run(Single("b")))]
    assert [event.delta.seq for event in deltas] == [1, 2, 3]


@pytest.mark.parametrize(
    "error", [UnavailableError("gone"), OverloadedError("full"), ContextTooLongError("short")]
)
async def test_what_another_can_answer_is_asked_of_another(error: ZetaError) -> None:
    """Before the first token."""
    stage = Stage({"a": Says(error=error), "b": Says(text="four")})
    text, finished = await stage.play(Single("a"))
    assert text == "four "
    assert finished.model == "b"
    assert stage.asked == ["a-0", "b-0"]


async def test_a_wrong_request_is_not_repeated() -> None:
    """Nor does it count against the replica."""
    stage = Stage({"a": Says(error=InvalidRequestError("no"))})
    for _ in range(3):
        with pytest.raises(InvalidRequestError):
            await stage.play(Single("a"))
    assert stage.fleet.replicas().circuit_closed.all()
    stage.check_idle()


async def test_failures_open_the_circuit() -> None:
    """Two in a row are one too many here."""
    stage = Stage({"a": Says(error=UnavailableError("gone")), "b": Says(text="four")})
    for _ in range(2):
        stage.done.clear()
        await stage.play(Single("a"))
    assert stage.fleet.replicas().circuit_closed.tolist() == [False, True, True]


async def test_an_empty_budget_ends_the_retries() -> None:
    """The failure is the caller's to see."""
    stage = Stage({"a": Says(error=UnavailableError("gone")), "b": Says(text="four")}, burst=0.0)
    with pytest.raises(UnavailableError, match="gone"):
        await stage.play(Single("a"))
    stage.check_idle()


async def test_when_nobody_is_left_the_caller_is_told_when_to_retry() -> None:
    """After every model was tried once."""
    stage = Stage(dict.fromkeys("abc", Says(error=UnavailableError("gone"))))
    with pytest.raises(UnavailableError) as refused:
        await stage.play(Single("a"))
    assert refused.value.retry_after_s == 1.0
    assert sorted(stage.asked) == ["a-0", "b-0", "c-0"]


async def handed_over(stage: Stage, plan: Plan) -> list[Event]:
    """Run *plan* to its end."""
    events = [event async for event in stage.dispatch.run(stage.run(plan))]
    await asyncio.sleep(0)
    stage.check_idle()
    return events


@pytest.mark.parametrize("plan", [Single("a"), Cascade("c", "a", 0.5)])
async def test_a_broken_answer_goes_on_behind_what_was_shown(plan: Plan) -> None:
    """Another model is given the text; the caller sees no gap, no repeat, and who went on."""
    lost = Says(text="it is", error=UnavailableError("gone"))
    stage = Stage({"a": lost, "b": Says(text="four indeed"), "c": Says(text="no", sure=-9.0)})
    *events, last = await handed_over(stage, plan)
    assert [e.WhichOneof("event") for e in events] == [
        *("started", "delta", "delta", "handover", "delta", "delta")
    ]
    assert [e.delta.seq for e in events if e.HasField("delta")] == [1, 2, 3, 4]
    assert stage.behind[-1] == inference_pb.Continuation(text="it is ")
    handover = events[3].handover
    assert (handover.from_replica, handover.to_replica, handover.to_model) == ("a-0", "b-0", "b")
    assert handover.reason == inference_pb.HANDOVER_REASON_REPLICA_LOST
    assert handover.after_seq == 2
    assert last.finished.usage.completion_tokens == 2 + 2
    (run,) = stage.done
    part, rest = [step for step in run.steps if step.model in "ab"]
    assert (part.model, part.completion_tokens, part.chosen) == ("a", 2, False)
    assert part.error == "gone"
    assert (rest.model, rest.chosen) == ("b", True)
    assert last.finished.cost_usd == sum(step.cost_usd for step in run.steps)
    stage.later.now()
    assert "b" not in stage.watched.answered_by, "half an answer teaches nothing about whole ones"


async def test_the_same_model_goes_on_from_its_tokens() -> None:
    """Those that the lost replica made, whose text is held back included."""
    stage = Stage({"a": Says(text="it is", error=DrainingError("closing"))})
    run = stage.run(Single("a"))
    events = stage.dispatch.run(run)
    await anext(events)
    run.replan = lambda _failed, model: _planned(Single(model))
    stage.script["a"] = Says(text="it is")
    *_, handed, _third, _fourth, _last = [event async for event in events]
    assert handed.handover.reason == inference_pb.HANDOVER_REASON_DRAINING
    assert stage.behind[-1] == inference_pb.Continuation(text="it is ", token_ids=[0, 1])


async def test_an_answer_that_nobody_can_go_on_with_is_broken() -> None:
    """The caller is told that what it has is not whole."""
    gone = UnavailableError("gone")
    stage = Stage({"a": Says(text="it is", error=gone), **dict.fromkeys("bc", Says(error=gone))})
    with pytest.raises(StreamBrokenError, match="was lost in the middle"):
        await _all(stage.dispatch.run(stage.run(Single("a"))))
    assert sorted(stage.asked) == ["a-0", "b-0", "c-0"]
    stage.check_idle()


async def test_an_answer_whose_deadline_passes_is_not_broken() -> None:
    """Whoever notices first, the model or the router that waits for another one."""
    for error in (DeadlinePassedError("late"), LostError("gone")):
        stage = Stage({"a": Says(text="it is", error=error)})
        run = stage.run(Single("a"))
        run.deadline_at_s = 100.0
        run.replan = nobody
        with pytest.raises(DeadlinePassedError):
            await _all(stage.dispatch.run(run))
        stage.check_idle()


def nobody(_failed: frozenset[str], _model: str) -> Decision:
    """Everybody restarts."""
    raise NobodyError("nobody", away=True)


async def test_an_answer_waits_for_its_model_to_come_back() -> None:
    """Where nobody else can go on: processes that die are started again."""
    stage = Stage({"a": Says(text="it is", error=UnavailableError("gone"))})
    run, waits = stage.run(Single("a")), asyncio.Event()

    def replan(failed: frozenset[str], model: str) -> Decision:
        if failed or not waits.is_set():
            waits.set()
            raise NobodyError("nobody", away=True)
        return _planned(Single(model))

    run.replan = replan
    reading = asyncio.create_task(_all(stage.dispatch.run(run)))
    await waits.wait()
    stage.script["a"] = Says(text="four")
    stage.fleet.health("a-0", serving=False)
    stage.fleet.health("a-0", serving=True)
    events = await reading
    assert "".join(event.delta.text for event in events) == "it is four "
    assert stage.asked == ["a-0", "a-0"]


async def _all(events: AsyncGenerator[Event, None]) -> list[Event]:
    return [event async for event in events]


async def test_a_cascade_keeps_an_answer_that_is_sure() -> None:
    """The second model is not asked."""
    stage = Stage({"a": Says(text="four", sure=-0.1)})
    text, finished = await stage.play(Cascade("a", "b", 0.5))
    assert (text, finished.model) == ("four ", "a")
    assert stage.asked == ["a-0"]


@pytest.mark.parametrize("first", [Says(text="five", sure=-3.0), Says(text="five", sure=None)])
async def test_a_cascade_goes_on_where_the_first_is_not_sure(first: Says) -> None:
    """The second answer is streamed; the first one's text is never shown, and its cost is."""
    stage = Stage({"a": first, "b": Says(text="four")})
    text, finished = await stage.play(Cascade("a", "b", 0.5))
    assert (text, finished.model) == ("four ", "b")
    assert finished.cost_usd == 2 * (3 + 2 * 2)
    assert [(s.model, s.chosen) for s in finished.steps] == [("a", False), ("b", True)]
    assert [s.agrees for s in stage.done[0].steps] == [False, None]


async def test_a_cascade_outlives_its_first_model() -> None:
    """Even where that was lost in the middle: nothing had been shown."""
    stage = Stage({"a": Says(text="fi", error=UnavailableError("gone")), "b": Says(text="four")})
    text, finished = await stage.play(Cascade("a", "b", 0.5))
    assert (text, finished.model) == ("four ", "b")


async def test_a_vote_goes_to_the_heavier_answer() -> None:
    """Numbers count by value; who agreed is known afterwards."""
    stage = Stage({"a": Says(text="5"), "b": Says(text="4"), "c": Says(text="4.0")})
    _, finished = await stage.play(Vote(("a", "b", "c")))
    assert finished.model == "b"
    agreed = {s.model: s.agrees for s in stage.done[0].steps}
    assert agreed == {"a": False, "b": None, "c": True}


async def test_a_vote_heeds_how_sure_its_voters_are() -> None:
    """One that is sure outweighs one that is not, whoever is usually better."""
    for sure, winner in (({"a": -0.1, "b": -3.0}, "4 "), ({"a": -3.0, "b": -0.1}, "5 ")):
        said = {"a": Says(text="4", sure=sure["a"]), "b": Says(text="5", sure=sure["b"])}
        text, _ = await Stage(said).play(Vote(("a", "b")))
        assert text == winner


async def test_a_voter_that_does_not_say_how_sure_it_is_counts_as_expected() -> None:
    """It outweighs one that is unsure, and not one that is surer than it is good."""
    for sure, winner in ((-3.0, "4 "), (-0.1, "5 ")):
        said = {"a": Says(text="4", sure=None), "b": Says(text="5", sure=sure)}
        text, _ = await Stage(said).play(Vote(("a", "b")))
        assert text == winner


async def test_a_vote_stops_when_the_rest_cannot_matter() -> None:
    """The straggler is cancelled."""
    stage = Stage({"a": Says(text="4"), "b": Says(text="4"), "c": Says(hangs=True)})
    text, _ = await stage.play(Vote(("a", "b", "c")))
    assert text == "4 "
    assert stage.cancelled == ["c"]


async def test_a_vote_outlives_a_voter() -> None:
    """The others decide."""
    lost = Says(text="4", error=UnavailableError("gone"))
    stage = Stage({"a": lost, "b": Says(text="5"), "c": Says(text="5")})
    text, _ = await stage.play(Vote(("a", "b", "c")))
    assert text == "5 "


async def test_a_vote_in_which_everybody_fails_fails() -> None:
    """With nobody left to ask, the caller is told when to retry."""
    stage = Stage(dict.fromkeys("abc", Says(error=UnavailableError("gone"))))
    with pytest.raises(UnavailableError) as refused:
        await stage.play(Vote(("a", "b", "c")))
    assert refused.value.retry_after_s == 1.0
    stage.check_idle()


@pytest.mark.parametrize("plan", [Vote(("a", "b")), BestOf(("a", "b"), 2, "c")])
async def test_a_plan_in_which_everybody_is_lost_waits_for_one(plan: Plan) -> None:
    """Accepted is accepted, however many were to answer."""
    stage, waits = Stage(dict.fromkeys("ab", Says(error=LostError("gone")))), asyncio.Event()
    run, probed = stage.run(plan), list[str]()

    async def probe(replica: str) -> None:
        probed.append(replica)

    stage.fleet.ask = probe

    def replan(failed: frozenset[str], model: str) -> Decision:
        if failed or not waits.is_set():
            waits.set()
            raise NobodyError("nobody", away=True)
        return _decided(failed, model)

    run.replan = replan
    reading = asyncio.create_task(_all(stage.dispatch.run(run)))
    await waits.wait()
    stage.script["a"] = Says(text="four")
    stage.fleet.health("a-0", serving=False)
    stage.fleet.health("a-0", serving=True)
    events = await reading
    assert "".join(event.delta.text for event in events) == "four "
    assert probed == ["a-0"], "its health stream may not have noticed yet"
    stage.check_idle()


async def test_a_voters_refusal_of_the_request_is_everybodys() -> None:
    """And the other voters are stopped."""
    stage = Stage({"a": Says(error=InvalidRequestError("no")), **hanging("b", "c")})
    with pytest.raises(InvalidRequestError):
        await stage.play(Vote(("a", "b", "c")))
    assert sorted(stage.cancelled) == ["b", "c"]
    stage.check_idle()


async def test_a_prompt_primary_is_not_hedged() -> None:
    """The backup is not asked, and the streams are the primary's."""
    stage = Stage({"a": Says(text="it is four")})
    text, finished = await stage.play(Hedge("a", "b", 60.0))
    assert (text, finished.model) == ("it is four ", "a")
    assert stage.asked == ["a-0"]


async def test_a_silent_primary_is_overtaken_and_stopped() -> None:
    """Its call is reported as cancelled, with what it cost; this is what a hung replica gets."""
    stage = Stage({"a": Says(hangs=True), "b": Says(text="four")})
    text, finished = await stage.play(Hedge("a", "b", 0.0))
    assert (text, finished.model) == ("four ", "b")
    assert stage.cancelled == ["a"]
    ends = [(s.model, s.part, s.end, s.chosen, s.cost_usd) for s in finished.steps]
    assert ends == [
        ("a", inference_pb.PLAN_PART_PRIMARY, inference_pb.STEP_END_CANCELLED, False, 3.0),
        ("b", inference_pb.PLAN_PART_BACKUP, inference_pb.STEP_END_COMPLETE, True, 7.0),
    ]


async def test_the_primary_wins_where_it_begins_before_its_backup() -> None:
    """Then the backup is stopped."""
    stage = Stage({"a": Says(text="four", waits=True), "b": Says(hangs=True)})
    task = asyncio.create_task(stage.play(Hedge("a", "b", 0.0)))
    await stage.hanging.wait()
    stage.go.set()
    text, finished = await task
    assert (text, finished.model) == ("four ", "a")
    assert stage.cancelled == ["b"]


async def test_a_failed_backup_leaves_the_race_to_the_primary() -> None:
    """Nobody else is there to retry it with; the answer is the primary's."""
    stage = Stage(
        {"a": Says(text="four", waits=True), "b": Says(error=UnavailableError("gone"))}, burst=0.0
    )
    task = asyncio.create_task(stage.play(Hedge("a", "b", 0.0)))
    await until(lambda: "b-0" in stage.asked)
    stage.go.set()
    text, finished = await task
    assert (text, finished.model) == ("four ", "a")
    assert [s.end for s in finished.steps][1] == inference_pb.STEP_END_FAILED


async def test_hedges_are_budgeted() -> None:
    """One backup is paid for by many requests; without a share there is none at all."""
    stage = Stage({"a": Says(text="four", waits=True), "b": Says(text="four")})
    await stage.play(Hedge("a", "b", 0.0))
    stage.go.set()
    stage.done.clear()
    _, finished = await stage.play(Hedge("a", "b", 0.0))
    assert finished.model == "a"
    unhedged = Stage({"a": Says(text="four", waits=True), "b": Says(text="four")}, hedges=0.0)
    unhedged.go.set()
    _, finished = await unhedged.play(Hedge("a", "b", 0.0))
    assert unhedged.asked == ["a-0"]


async def test_the_best_of_several_wins() -> None:
    """By the scorer's judgement; it is a step as well, and everybody else's answer is compared."""
    stage = Stage({"a": Says(text="4"), "b": Says(text="5")})
    stage.scored = {"4": -2.0, "5": -0.1}
    text, finished = await stage.play(BestOf(("a", "b"), 2, "c"))
    assert text == "5 "
    assert [(s.model, s.part, s.chosen) for s in finished.steps] == [
        ("a", inference_pb.PLAN_PART_SAMPLE, False),
        ("b", inference_pb.PLAN_PART_SAMPLE, True),
        ("c", inference_pb.PLAN_PART_SCORER, False),
    ]
    assert stage.done[0].steps[0].agrees is False


async def test_one_model_is_drawn_from_differently() -> None:
    """The first answer as asked, the others as further samples."""
    stage = Stage({"a": Says(text="4")})
    stage.scored = {"4": -0.1}
    await stage.play(BestOf(("a",), 3, "b"))
    assert [twist.sample for twist in stage.twists] == [0, 1, 2]


async def test_a_scorer_that_fails_leaves_it_to_the_models_own_sureness() -> None:
    """The surest answer of its own accord wins."""
    stage = Stage({"a": Says(text="4", sure=-3.0), "b": Says(text="5", sure=-0.1)})
    stage.scored = None
    text, finished = await stage.play(BestOf(("a", "b"), 2, "c"))
    assert text == "5 "
    assert finished.steps[2].end == inference_pb.STEP_END_FAILED


async def test_a_scorer_that_hangs_is_given_up() -> None:
    """It is silent, and its agent says for a while that it does not answer."""
    said = {"a": Says(text="4", sure=-0.1), "b": Says(text="5", sure=-3.0), "c": Says()}
    stage, asked = Stage(said), asyncio.Event()

    async def scores(model: str, answers: Sequence[str], timeout_s: float | None) -> list[float]:
        del model, answers, timeout_s
        asked.set()
        await asyncio.Event().wait()
        return []

    run = stage.run(BestOf(("a", "b"), 2, "c"))
    run.scores = scores
    reading = asyncio.create_task(_all(stage.dispatch.run(run)))
    await asked.wait()
    for _ in range(2):
        stage.fleet.probed("c-0", answers=False)
        stage.clock.now_s += 5.0
    assert "".join(event.delta.text for event in await reading) == "4 "
    stage.check_idle()


async def test_a_verifier_scores_without_a_model() -> None:
    """What parses wins over what does not."""
    stage = Stage({"a": Says(text="def f( :"), "b": Says(text="def f(): pass", sure=-3.0)})
    text, finished = await stage.play(BestOf(("a", "b"), 2, "verifier:python"))
    assert text == "def f(): pass "
    assert len(finished.steps) == 2


async def test_the_best_of_what_is_left_wins() -> None:
    """A sample that fails is left out; when all fail, whoever is left is asked."""
    lost = Says(error=UnavailableError("gone"))
    stage = Stage({"a": lost, "b": Says(text="5")})
    text, _ = await stage.play(BestOf(("a", "b"), 2, "c"))
    assert text == "5 "
    stage = Stage({"a": lost, "b": lost, "c": Says(text="6")})
    text, _ = await stage.play(BestOf(("a", "b"), 2, "c"))
    assert text == "6 "


async def test_a_reviewer_sees_the_draft_and_streams() -> None:
    """The draft is not shown, and is known to differ."""
    stage = Stage({"a": Says(text="5"), "b": Says(text="four")})
    text, finished = await stage.play(Refine("a", "b"))
    assert text == "four "
    assert [twist.draft for twist in stage.twists] == ["", "5 "]
    assert [(s.part, s.chosen) for s in finished.steps] == [
        (inference_pb.PLAN_PART_DRAFT, False),
        (inference_pb.PLAN_PART_REVIEW, True),
    ]
    assert stage.done[0].steps[0].agrees is False


async def test_without_a_draft_the_reviewer_answers_as_asked() -> None:
    """And without a reviewer the draft is the answer."""
    lost = Says(error=UnavailableError("gone"))
    stage = Stage({"a": lost, "b": Says(text="four")})
    text, _ = await stage.play(Refine("a", "b"))
    assert (text, stage.twists[1]) == ("four ", AS_ASKED)
    stage = Stage({"a": Says(text="5"), "b": lost}, burst=0.0)
    text, finished = await stage.play(Refine("a", "b"))
    assert (text, finished.model) == ("5 ", "a")


async def test_a_sure_first_answer_streams_before_its_end() -> None:
    """From where even an unsure rest would leave it acceptable; nobody else is asked."""
    words = Says(text="it is as sure as can be", sure=-0.01, pauses_after=5)
    stage = Stage({"a": words})
    async with aclosing(stage.dispatch.run(stage.run(Cascade("a", "b", 0.5)))) as events:
        shown = [await anext(events) for _ in range(6)]
        assert [e.WhichOneof("event") for e in shown] == ["started", *["delta"] * 5]
        assert not any(e.delta.logprobs for e in shown)
        stage.go.set()
        rest = [event async for event in events]
    assert rest[-1].WhichOneof("event") == "finished"
    assert stage.asked == ["a-0"]


async def test_what_a_cascade_has_shown_it_does_not_take_back() -> None:
    """Where its model is lost after that, another one goes on behind it."""
    words = Says(text="it is as sure as can be", sure=-0.01, error=UnavailableError("gone"))
    stage = Stage({"a": words, "b": Says(text="indeed")})
    run = stage.run(Cascade("a", "b", 0.5))
    events = [event async for event in stage.dispatch.run(run)]
    assert "".join(e.delta.text for e in events) == "it is as sure as can be indeed "
    assert "handover" in [e.WhichOneof("event") for e in events]
    behind = stage.behind[1]
    assert behind is not None
    assert behind.text == "it is as sure as can be "
    stage.check_idle()


def hanging(*names: str) -> dict[str, Says]:
    """Models that never end."""
    return dict.fromkeys(names, Says(hangs=True))


@pytest.mark.parametrize(
    ("plan", "asked"),
    [
        (Single("a"), "a"),
        (Cascade("a", "b", 0.5), "a"),
        (Vote(("a", "b", "c")), "abc"),
        (Hedge("a", "b", 0.0), "ab"),
        (BestOf(("a", "b"), 2, "c"), "ab"),
        (Refine("a", "b"), "a"),
    ],
)
async def test_who_stops_reading_stops_every_call(plan: Plan, asked: str) -> None:
    """Cancelling a run cancels all that it had under way."""
    stage = Stage(dict.fromkeys("abc", Says(text="", hangs=True)))

    async def consume() -> None:
        async with aclosing(stage.dispatch.run(stage.run(plan))) as events:
            async for _ in events:
                pass

    task = asyncio.create_task(consume())
    await stage.hanging.wait()
    await until(lambda: len(stage.asked) == len(asked))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(stage.cancelled) == sorted(asked)
    stage.check_idle()


async def until(holds: Callable[[], bool]) -> None:
    """Let other tasks run until *holds*."""
    async with asyncio.timeout(10.0):
        while not holds():  # noqa: ASYNC110 - nobody signals it
            await asyncio.sleep(0)
