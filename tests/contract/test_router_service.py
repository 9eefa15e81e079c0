"""The router's services over real gRPC, before scripted models."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb
from zeta.inference.v1 import decision_pb2 as decision_pb
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.router.v1 import router_service_pb2 as router_pb
from zeta.telemetry.v1 import telemetry_service_pb2 as telemetry_pb

from services.kit.config import Policy, Router
from services.kit.errors import (
    InvalidRequestError,
    OverloadedError,
    PredictedDeadlineMissError,
    QualityUnreachableError,
    StaleEtagError,
    StreamBrokenError,
    UnavailableError,
    UnknownDecisionError,
    UnknownModelError,
    ZetaError,
)
from services.kit.rpc import Context, zeta_error
from tests.contract.router_fakes import (
    Answer,
    FakeEmbedder,
    FakeModel,
    FakeTelemetry,
    World,
    asking,
    begun_only,
    candidates_are,
    config_of,
    failing,
    hang,
    mute,
    read,
    routed,
    saying,
    served,
    until,
    world,
)
from tests.proxy import proxied

PLACES = 20
"""Of one replica: those that run, and who waits there."""
NO_EXPLORING = Policy(explore_ratio=0.0, max_calls=1)


Event: TypeAlias = inference_pb.GenerateResponse


async def refusal(call: object) -> ZetaError:
    """Return the error that a call ends with."""
    try:
        if isinstance(call, AsyncIterable):
            [_ async for _ in call]
        elif isinstance(call, Awaitable):
            await call
    except grpc.aio.AioRpcError as failed:
        return zeta_error(failed)
    pytest.fail("the call succeeded")


async def test_an_answer_streams_through(tmp_path: Path) -> None:
    """The client gets the model's text, with the router's decision, plan and cost."""
    coder = FakeModel("coder", [saying("four", parts=2)])
    async with world(tmp_path, coder) as ready:
        started, text, finished = await read(ready.inference.Generate(asking()))
    assert text == "four"
    assert started.plan == "single(coder)"
    assert started.replica == "coder-0"
    assert started.prompt_tokens == 7
    assert started.decision_id
    assert finished.model == "coder"
    assert finished.cost_usd == pytest.approx(7 * 1e-6 + 2 * 2e-6)
    assert [step.chosen for step in finished.steps] == [True]


def sampling(count: int) -> Answer:
    """A model that gives so many answers of two tokens each, one word apart."""

    async def answer(
        request: inference_pb.GenerateRequest, _context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        assert request.samples == count
        yield inference_pb.GenerateResponse(started=inference_pb.Started(prompt_tokens=7))
        for i in range(count):
            delta = inference_pb.Delta(seq=i + 1, text=f"answer {i}", sample=i)
            yield inference_pb.GenerateResponse(delta=delta)
        usage = inference_pb.Usage(prompt_tokens=7, completion_tokens=2 * count)
        ends = [inference_pb.SampleEnd(completion_tokens=2)] * count
        finished = inference_pb.Finished(usage=usage, samples=ends)
        yield inference_pb.GenerateResponse(finished=finished)

    return answer


async def test_samples_stream_through_from_one_model(tmp_path: Path) -> None:
    """However many calls the policy allows, one model gives them, and all are paid for."""
    models = [FakeModel(name, [sampling(3)]) for name in ("coder", "general")]
    policy = Policy(explore_ratio=0.0, max_calls=3)
    async with world(tmp_path, *models, policy=policy) as ready:
        for _ in range(4):
            request = asking(samples=3)
            request.preference.explain = True
            events = [e async for e in ready.inference.Generate(request)]
            finished = events[-1].finished
            assert [e.delta.text for e in events if e.delta.sample == 2] == ["answer 2"]
            assert len(finished.samples) == 3
            assert finished.cost_usd == pytest.approx(7 * 1e-6 + 6 * 2e-6)
            assert {p.plan.WhichOneof("kind") for p in finished.decision.plans} == {"single"}


async def test_the_upstream_request_is_complete(tmp_path: Path) -> None:
    """The model learns its name, the kind of task, the caller's ids and the time that is left."""
    coder = FakeModel("coder")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with world(tmp_path, coder, embedder=FakeEmbedder()) as ready:
        shape = inference_pb.OutputConstraint(regex="a+")
        request = asking(preference=inference_pb.Preference(explain=True), constraint=shape)
        metadata = (("x-request-id", "r-1"), ("traceparent", trace))
        await read(ready.inference.Generate(request, timeout=30.0, metadata=metadata))
        sent, passed = coder.requests[-1], coder.metadata[-1]
    assert sent.model == "coder"
    assert sent.task_kind == inference_pb.TASK_KIND_CODE
    assert not sent.HasField("preference")
    assert sent.constraint == shape
    assert passed["x-request-id"] == "r-1"
    assert passed["traceparent"] == trace
    assert coder.time_left_s[-1] == pytest.approx(30.0, abs=1.0)


async def test_a_failure_before_the_first_token_is_retried_on_another_replica(
    tmp_path: Path,
) -> None:
    """The caller sees one clean answer."""
    fakes = [FakeModel("coder", [failing(), saying("four")]) for _ in range(2)]
    fakes[1].script = [saying("four")]
    async with world(tmp_path, *fakes) as ready:
        answers = [await read(ready.inference.Generate(asking())) for _ in range(3)]
    assert [text for _, text, _ in answers] == ["four"] * 3
    assert sum(len(fake.requests) for fake in fakes) == 4


async def test_a_failure_before_the_first_token_is_retried_on_another_model(tmp_path: Path) -> None:
    """With no replica of the chosen model left, the next best model answers."""
    broken, sound = FakeModel("best", [failing()]), FakeModel("second", [saying("four")])
    async with world(tmp_path, broken, sound) as ready:
        started, text, finished = await read(ready.inference.Generate(asking()))
    assert text == "four"
    assert started.model == finished.model == "second"
    assert len(broken.requests) == 1


async def test_a_stream_lost_in_the_middle_goes_on(tmp_path: Path) -> None:
    """Another model is given what was shown, and the caller sees one answer and a handover."""
    broken, sound = FakeModel("best", [failing(after=2)]), FakeModel("second", [saying("four")])
    async with world(tmp_path, broken, sound) as ready:
        events = [event async for event in ready.inference.Generate(asking())]
    assert "".join(event.delta.text for event in events) == "half half four"
    assert [event.delta.seq for event in events if event.HasField("delta")] == [1, 2, 3]
    (handover,) = [event.handover for event in events if event.HasField("handover")]
    assert (handover.from_replica, handover.to_replica) == ("best-0", "second-0")
    assert sound.requests[-1].continuation == inference_pb.Continuation(text="half half ")
    assert sound.requests[-1].messages == asking().messages


async def test_a_stream_that_nobody_can_go_on_with_says_so(tmp_path: Path) -> None:
    """What the caller has is not the whole: STREAM_BROKEN."""
    async with world(tmp_path, FakeModel("best", [failing(after=2)])) as ready:
        error = await refusal(ready.inference.Generate(asking()))
    assert isinstance(error, StreamBrokenError)


async def test_an_answer_that_gets_on_is_never_given_up(tmp_path: Path) -> None:
    """It breaks behind every token, more often than one may break that does not get on."""

    async def one_word(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        """Say a word, and break off; the sixth ends the answer."""
        words = request.continuation.text.count("word")
        yield inference_pb.GenerateResponse(started=inference_pb.Started(model=request.model))
        delta = inference_pb.Delta(seq=1, text="word ", token_ids=[words + 1])
        yield inference_pb.GenerateResponse(delta=delta)
        if words < 5:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "as the script says")
        finished = inference_pb.Finished(reason=inference_pb.FINISH_REASON_STOP)
        yield inference_pb.GenerateResponse(finished=finished)

    settings = Router(
        listen="127.0.0.1:0", breaker_failures=99, policies={"balanced": NO_EXPLORING}
    )
    async with world(tmp_path, FakeModel("only", [one_word]), router=settings) as ready:
        events = [event async for event in ready.inference.Generate(asking(), timeout=30.0)]
    assert "".join(event.delta.text for event in events) == "word " * 6
    assert sum(event.HasField("handover") for event in events) == 5


async def test_a_caller_comes_back_for_its_answer(tmp_path: Path) -> None:
    """After its connection broke: what it has is not repeated, what was made is not made again."""
    model = FakeModel("only", [hang, saying(" and four")])
    async with world(tmp_path, model) as ready:
        first = ready.inference.Generate(asking(tenant="t"))
        started, delta = cast("Event", await first.read()), cast("Event", await first.read())
        first.cancel()
        await model.cancelled.wait()
        resume = inference_pb.Resume(decision_id=started.started.decision_id, after_seq=1)
        again = inference_pb.GenerateRequest(resume=resume, tenant="t")
        events = [event async for event in ready.inference.Generate(again)]
        whole = [
            event
            async for event in ready.inference.Generate(
                inference_pb.GenerateRequest(
                    resume=inference_pb.Resume(decision_id=resume.decision_id), tenant="t"
                )
            )
        ]
        stranger = inference_pb.GenerateRequest(resume=resume, tenant="other")
        refused = await refusal(ready.inference.Generate(stranger))
        resume.after_seq = 99
        beyond = await refusal(
            ready.inference.Generate(inference_pb.GenerateRequest(resume=resume, tenant="t"))
        )
    assert events[0] == started
    assert [e.delta.seq for e in events if e.HasField("delta")] == [2]
    assert events[-1].HasField("finished")
    assert len(model.requests) == 2, "the second resumption needs no model"
    text = "".join(event.delta.text for event in whole)
    assert text == delta.delta.text + "".join(event.delta.text for event in events)
    assert whole[-1] == events[-1]
    assert isinstance(refused, UnknownDecisionError)
    assert [v.field for v in beyond.violations] == ["resume.after_seq"]


async def test_who_comes_back_is_told_where_the_answer_goes_on(tmp_path: Path) -> None:
    """Its model went while it was gone; coming back once more, it is told again."""
    best, second = FakeModel("best", [hang]), FakeModel("second", [saying("indeed")])
    sockets = [f"unix:{tmp_path}/{fake.name}.sock" for fake in (best, second)]
    config = config_of(tmp_path, [("best", sockets[:1]), ("second", sockets[1:])])
    async with served(second, sockets[1]), routed(config) as ready:
        async with served(best, sockets[0]):
            await until(partial(candidates_are, ready, 2))
            first = ready.inference.Generate(asking())
            started, _delta = cast("Event", await first.read()), cast("Event", await first.read())
            first.cancel()
            await best.cancelled.wait()
        resume = inference_pb.Resume(decision_id=started.started.decision_id, after_seq=1)
        again = inference_pb.GenerateRequest(resume=resume)
        twice = [[event async for event in ready.inference.Generate(again)] for _ in range(2)]
    for events in twice:
        kinds = [event.WhichOneof("event") for event in events]
        assert kinds == ["started", "handover", "delta", "finished"]
        handover = events[1].handover
        assert (handover.from_replica, handover.to_replica) == ("best-0", "second-0")
        assert handover.after_seq == 1


async def test_coming_back_stops_what_still_runs_for_the_old_connection(tmp_path: Path) -> None:
    """A connection may break without a word: the new one takes the answer over."""
    model = FakeModel("only", [hang, saying(" and four")])
    async with world(tmp_path, model) as ready:
        first = ready.inference.Generate(asking())
        started, delta = cast("Event", await first.read()), cast("Event", await first.read())
        resume = inference_pb.Resume(decision_id=started.started.decision_id, after_seq=1)
        again = ready.inference.Generate(inference_pb.GenerateRequest(resume=resume))
        events = [event async for event in again]
        assert isinstance(await refusal(first.read()), StreamBrokenError)
    assert model.cancelled.is_set()
    assert model.requests[-1].continuation.text == delta.delta.text
    assert events[-1].HasField("finished")


async def test_a_models_refusal_of_the_request_passes_through(tmp_path: Path) -> None:
    """A wrong field is wrong everywhere: no retry, the same status."""
    strict = FakeModel("best", [failing(grpc.StatusCode.INVALID_ARGUMENT)])
    async with world(tmp_path, strict, FakeModel("second")) as ready:
        error = await refusal(ready.inference.Generate(asking()))
    assert error.status is grpc.StatusCode.INVALID_ARGUMENT
    assert len(strict.requests) == 1


async def test_the_breaker_opens_and_closes(tmp_path: Path) -> None:
    """A model that keeps failing is not asked, until a probe finds it well again."""
    broken = FakeModel("best", [failing(), failing(), saying("well")])
    settings = Router(
        listen="127.0.0.1:0",
        breaker_failures=2,
        breaker_open_s=0.3,
        policies={"balanced": NO_EXPLORING},
    )
    async with world(tmp_path, broken, FakeModel("second"), router=settings) as ready:
        for _ in range(2):
            assert (await read(ready.inference.Generate(asking())))[1] == "four"
        route = await ready.router.Route(router_pb.RouteRequest(generate=asking()))
        reasons = {r.replica: r.reason for r in route.decision.rejections}

        async def answers_again() -> bool:
            return (await read(ready.inference.Generate(asking())))[1] == "well"

        await until(answers_again)
    assert reasons == {"best-0": decision_pb.REJECTION_REASON_CIRCUIT_OPEN}


async def test_a_client_that_goes_away_stops_the_model(tmp_path: Path) -> None:
    """Cancelling the call cancels the call upstream."""
    slow = FakeModel("slow", [hang])
    async with world(tmp_path, slow) as ready:
        call = ready.inference.Generate(asking())
        assert (await anext(aiter(call))).WhichOneof("event") == "started"
        call.cancel()
        await asyncio.wait_for(slow.cancelled.wait(), 10.0)


async def test_a_deadline_stops_the_model(tmp_path: Path) -> None:
    """When the caller's time is up, the model stops."""
    slow = FakeModel("slow", [hang])
    async with world(tmp_path, slow) as ready:
        error = await refusal(ready.inference.Generate(asking(), timeout=1.0))
        await asyncio.wait_for(slow.cancelled.wait(), 10.0)
    assert error.status is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_deadline_that_cannot_be_met_is_refused_at_once(tmp_path: Path) -> None:
    """A hundred thousand tokens within seconds are refused unasked; a short answer is not."""
    model, embedder = FakeModel("only"), FakeEmbedder(expected_output_tokens=100_000)
    async with world(tmp_path, model, embedder=embedder) as ready:
        hopeless = asking(max_tokens=100_000)
        error = await refusal(ready.inference.Generate(hopeless, timeout=5.0))
        assert not model.requests
        await read(ready.inference.Generate(asking(max_tokens=8), timeout=5.0))
    assert isinstance(error, PredictedDeadlineMissError)


async def test_whom_no_place_would_help_is_not_told_to_come_back(tmp_path: Path) -> None:
    """All places are taken; an answer that is too long for any place is refused as just that."""
    busy, embedder = FakeModel("busy", [hang]), FakeEmbedder(expected_output_tokens=100_000)
    async with world(tmp_path, busy, embedder=embedder) as ready:
        calls = [ready.inference.Generate(asking(max_tokens=8)) for _ in range(PLACES)]
        for call in calls:
            await anext(aiter(call))
        error = await refusal(ready.inference.Generate(asking(max_tokens=100_000), timeout=5.0))
        for call in calls:
            call.cancel()
    assert isinstance(error, PredictedDeadlineMissError)
    assert error.retry_after_s is None


async def test_too_many_requests_are_refused_with_a_time_to_retry(tmp_path: Path) -> None:
    """One runs, one waits, the third is refused at once; a critical one takes a place."""
    slow = FakeModel("slow", [hang])
    settings = Router(
        listen="127.0.0.1:0", max_in_flight=1, max_queued=1, policies={"balanced": NO_EXPLORING}
    )
    async with world(tmp_path, slow, router=settings) as ready:
        running = ready.inference.Generate(asking())
        await anext(aiter(running))
        waiting = asyncio.create_task(refusal(ready.inference.Generate(asking())))
        await until(lambda: queued(ready))
        error = await refusal(ready.inference.Generate(asking()))
        assert isinstance(error, OverloadedError)
        assert error.retry_after_s is not None
        assert error.retry_after_s > 0
        critical = ready.inference.Generate(asking(priority=inference_pb.PRIORITY_CRITICAL))
        turn = asyncio.create_task(read(critical))
        assert isinstance(await asyncio.wait_for(waiting, 10.0), OverloadedError)
        slow.script = [saying("at last")]
        running.cancel()
        assert (await asyncio.wait_for(turn, 10.0))[1] == "at last"


async def queued(_ready: World) -> bool:
    """Whether somebody waits for admission."""
    from router_svc import metrics  # noqa: PLC0415 - the process's own gauge

    return bool(metrics.QUEUED._value.get() == 1.0)


async def test_no_replica_is_unavailable_and_comes_back(tmp_path: Path) -> None:
    """Without a model the router refuses, and its health says so; with one it serves."""
    config = config_of(tmp_path, [("late", [f"unix:{tmp_path}/late.sock"])])
    async with routed(config) as ready:
        error = await refusal(ready.inference.Generate(asking()))
        assert isinstance(error, UnavailableError)
        assert error.retry_after_s is not None
        assert await health(ready) == health_pb2.HealthCheckResponse.NOT_SERVING
        async with served(FakeModel("late"), f"unix:{tmp_path}/late.sock"):

            async def serves() -> bool:
                return await health(ready) == health_pb2.HealthCheckResponse.SERVING

            await until(serves)
            assert (await read(ready.inference.Generate(asking())))[1] == "four"


async def test_who_was_accepted_waits_for_the_model_to_restart(tmp_path: Path) -> None:
    """Its only replica goes before a word was said: the request is answered when it is back."""
    address = f"unix:{tmp_path}/late.sock"
    going, coming = FakeModel("late", [mute]), FakeModel("late", [saying("at last")])
    async with routed(config_of(tmp_path, [("late", [address])])) as ready:
        async with served(going, address):

            async def serves() -> bool:
                return await health(ready) == health_pb2.HealthCheckResponse.SERVING

            await until(serves)
            waiting = asyncio.create_task(read(ready.inference.Generate(asking())))
            await going.arrived.wait()
        refused = await refusal(ready.inference.Generate(asking()))
        async with served(coming, address):
            assert (await waiting)[1] == "at last"
    assert isinstance(refused, UnavailableError), "nothing new is accepted meanwhile"


async def test_an_answer_leaves_a_link_that_is_dead(tmp_path: Path) -> None:
    """Nothing passes and no agent tells: a probe of the router's own does, long before gRPC's."""
    fakes = FakeModel("twin", [begun_only]), FakeModel("twin", [begun_only])
    async with (
        served(fakes[0]) as one,
        served(fakes[1]) as other,
        proxied(one.address) as to_one,
        proxied(other.address) as to_other,
    ):
        links = {"twin-0": to_one, "twin-1": to_other}
        config = config_of(tmp_path, [("twin", [link.address for link in links.values()])])
        async with routed(config) as ready:
            await until(partial(candidates_are, ready, 2))
            call = aiter(ready.inference.Generate(asking(), timeout=20.0))
            first = await anext(call)
            links[first.started.replica].flowing.clear()
            rest = [event async for event in call]
            links[first.started.replica].flowing.set()
    (handover,) = [event.handover for event in rest if event.HasField("handover")]
    assert handover.from_replica == first.started.replica
    assert "".join(event.delta.text for event in rest) == "wait and four"


async def health(ready: World) -> int:
    """What the router's health service says about itself."""
    stub: Any = health_pb2_grpc.HealthStub(ready.channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest())
    return int(answer.status)


async def test_a_stalled_profiler_costs_its_time_box_only(tmp_path: Path) -> None:
    """The text alone has to do; when the profile comes, it fills the cache."""
    embedder = FakeEmbedder(stalled=True)
    settings = Router(
        listen="127.0.0.1:0", profile_timeout_s=0.02, policies={"balanced": NO_EXPLORING}
    )
    async with world(tmp_path, FakeModel("only"), embedder=embedder, router=settings) as ready:
        request = asking(
            "reverse the list [1, 2]", preference=inference_pb.Preference(explain=True)
        )
        await until(lambda: asked(ready, request, embedder))
        _, _, finished = await read(ready.inference.Generate(request))
        assert finished.decision.profile.source == decision_pb.PROFILE_SOURCE_LEXICAL
        embedder.release.set()

        async def cached() -> bool:
            _, _, finished = await read(ready.inference.Generate(request))
            return finished.decision.profile.source == decision_pb.PROFILE_SOURCE_CACHE

        await until(cached)


async def asked(
    ready: World, request: inference_pb.GenerateRequest, embedder: FakeEmbedder
) -> bool:
    """Whether the embedder has been reached."""
    await read(ready.inference.Generate(request))
    return embedder.calls > 0


async def test_feedback_counts_once_and_changes_beliefs(tmp_path: Path) -> None:
    """A repeated feedback id changes nothing; beliefs follow the scores."""
    async with world(tmp_path, FakeModel("only"), embedder=FakeEmbedder()) as ready:
        before = await belief(ready, "only")
        started, _, _ = await read(ready.inference.Generate(asking()))
        verdict = router_pb.SubmitFeedbackRequest(decision_id=started.decision_id, score=0.0)
        first = await ready.router.SubmitFeedback(verdict)
        after = await belief(ready, "only")
        second = await ready.router.SubmitFeedback(verdict)
        assert await belief(ready, "only") == after
    assert (first.counted, second.counted) == (True, False)
    assert after.quality < before.quality
    assert after.outcomes > before.outcomes
    assert after.total_mean_s > 0


async def test_everyone_may_judge_an_answer_once(tmp_path: Path) -> None:
    """A verifier counts beside the user, neither counts twice, and an id of one's own is a name."""
    async with world(tmp_path, FakeModel("only"), embedder=FakeEmbedder()) as ready:
        started, _, _ = await read(ready.inference.Generate(asking()))

        async def counts(source: str, feedback_id: str = "") -> bool:
            verdict = router_pb.SubmitFeedbackRequest(
                decision_id=started.decision_id, score=1.0, source=source, feedback_id=feedback_id
            )
            return (await ready.router.SubmitFeedback(verdict)).counted

        said = [await counts(source) for source in ("", "user", "verifier:exact", "verifier:exact")]
        named = [await counts("user", "f1"), await counts("verifier:exact", "f1")]
    assert said == [True, False, True, False]
    assert named == [True, False]


async def belief(ready: World, model: str) -> router_pb.Belief:
    """What the router believes of *model* on code."""
    policy = await ready.router.GetPolicy(router_pb.GetPolicyRequest())
    found = [b for b in policy.beliefs if b.model == model]
    return next(b for b in found if b.task_kind == inference_pb.TASK_KIND_CODE)


async def test_a_comparison_counts_for_both_sides(tmp_path: Path) -> None:
    """The better answer's model rises, the other's falls."""
    async with world(
        tmp_path, FakeModel("one"), FakeModel("two"), embedder=FakeEmbedder()
    ) as ready:
        ids = {}
        for model in ("one", "two"):
            started, _, _ = await read(ready.inference.Generate(asking(model=model)))
            ids[model] = started.decision_id
        before = {m: await belief(ready, m) for m in ids}
        comparison = router_pb.Comparison(other_decision_id=ids["two"], preference=1.0)
        await ready.router.SubmitFeedback(
            router_pb.SubmitFeedbackRequest(decision_id=ids["one"], comparison=comparison)
        )
        after = {m: await belief(ready, m) for m in ids}
    assert after["one"].quality > before["one"].quality
    assert after["two"].quality < before["two"].quality


async def test_memory_survives_a_restart(tmp_path: Path) -> None:
    """Learned state is restored, old decisions take feedback, and repeats stay repeats."""
    model = FakeModel("only")
    async with served(model) as server:
        config = config_of(tmp_path, [("only", [server.address])])
        async with routed(config) as ready:
            await until(lambda: answered(ready))
            ids = [(await read(ready.inference.Generate(asking())))[0].decision_id for _ in "ab"]
            counted = router_pb.SubmitFeedbackRequest(decision_id=ids[0], score=0.0)
            await ready.router.SubmitFeedback(counted)
            learned = await belief(ready, "only")
        async with routed(config) as ready:
            assert await belief(ready, "only") == learned
            assert not (await ready.router.SubmitFeedback(counted)).counted
            late = router_pb.SubmitFeedbackRequest(decision_id=ids[1], score=0.0)
            assert (await ready.router.SubmitFeedback(late)).counted
            assert (await belief(ready, "only")).quality < learned.quality


async def answered(ready: World) -> bool:
    """Whether the router gets an answer."""
    try:
        await read(ready.inference.Generate(asking()))
    except grpc.aio.AioRpcError:
        return False
    return True


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (router_pb.SubmitFeedbackRequest(score=1.0), "INVALID_FIELD"),
        (router_pb.SubmitFeedbackRequest(decision_id="x"), "INVALID_FIELD"),
        (router_pb.SubmitFeedbackRequest(decision_id="x", score=1.5), "INVALID_FIELD"),
        (router_pb.SubmitFeedbackRequest(decision_id="x", score=float("nan")), "INVALID_FIELD"),
        (
            router_pb.SubmitFeedbackRequest(
                decision_id="x", comparison=router_pb.Comparison(preference=1.0)
            ),
            "INVALID_FIELD",
        ),
        (router_pb.SubmitFeedbackRequest(decision_id="x", score=1.0), "UNKNOWN_DECISION"),
    ],
)
async def test_bad_feedback_is_refused(
    tmp_path: Path, request_: router_pb.SubmitFeedbackRequest, reason: str
) -> None:
    """Each mistake has its reason."""
    async with routed(config_of(tmp_path, [("only", ["127.0.0.1:1"])])) as ready:
        error = await refusal(ready.router.SubmitFeedback(request_))
    assert error.reason == reason
    assert isinstance(error, UnknownDecisionError) == (reason == "UNKNOWN_DECISION")


def bad_requests() -> dict[str, tuple[inference_pb.GenerateRequest, str]]:
    """Name wrong requests with the field or reason that the refusal must carry."""
    wish, sampling = inference_pb.Preference, inference_pb.SamplingParams
    return {
        "nothing": (inference_pb.GenerateRequest(), "input"),
        "empty prompt": (asking(""), "prompt"),
        "no message": (
            inference_pb.GenerateRequest(messages=inference_pb.Conversation()),
            "messages.messages",
        ),
        "no role": (
            inference_pb.GenerateRequest(
                messages=inference_pb.Conversation(messages=[inference_pb.Message(content="x")])
            ),
            "messages.messages[0].role",
        ),
        "token ids for nobody": (
            inference_pb.GenerateRequest(token_ids=inference_pb.TokenIds(ids=[1])),
            "model",
        ),
        "no tokens": (asking(max_tokens=0), "max_tokens"),
        "no samples": (asking(samples=0), "samples"),
        "too many samples": (asking(samples=17), "samples"),
        "hot": (asking(sampling=sampling(temperature=9.0)), "sampling.temperature"),
        "not a number": (asking(sampling=sampling(top_p=float("nan"))), "sampling.top_p"),
        "odd priority": (asking(priority=77), "priority"),
        "odd task": (asking(task_kind=77), "task_kind"),
        "formless": (asking(constraint=inference_pb.OutputConstraint()), "constraint"),
        "empty stop": (asking(stop=["a", ""]), "stop"),
        "unknown policy": (asking(preference=wish(policy="none")), "preference.policy"),
        "odd quality": (asking(preference=wish(min_quality=2.0)), "preference.min_quality"),
        "negative weight": (
            asking(preference=wish(latency_weight_per_s=-1.0)),
            "preference.latency_weight_per_s",
        ),
    }


@pytest.mark.parametrize("name", bad_requests())
async def test_a_wrong_request_is_refused_by_field(tmp_path: Path, name: str) -> None:
    """INVALID_ARGUMENT names the field, in Generate and in Route."""
    request, field = bad_requests()[name]
    async with routed(config_of(tmp_path, [("only", ["127.0.0.1:1"])])) as ready:
        for call in (
            ready.inference.Generate(request),
            ready.router.Route(router_pb.RouteRequest(generate=request)),
        ):
            error = await refusal(call)
            assert error.status is grpc.StatusCode.INVALID_ARGUMENT
            assert [v.field for v in error.violations] == [field]


async def test_what_is_not_built_says_so(tmp_path: Path) -> None:
    """Tickets are UNIMPLEMENTED, never ignored."""
    async with routed(config_of(tmp_path, [("only", ["127.0.0.1:1"])])) as ready:
        call = ready.router.Route(router_pb.RouteRequest(generate=asking(), ticket=True))
        assert (await refusal(call)).status is grpc.StatusCode.UNIMPLEMENTED


async def test_only_known_answers_can_be_gone_on_with(tmp_path: Path) -> None:
    """Unknown ones are NOT_FOUND, one that is not named is a mistake."""
    async with routed(config_of(tmp_path, [("only", ["127.0.0.1:1"])])) as ready:
        for resume, kind in (
            (inference_pb.Resume(decision_id="x"), UnknownDecisionError),
            (inference_pb.Resume(after_seq=1), InvalidRequestError),
        ):
            request = inference_pb.GenerateRequest(resume=resume)
            assert isinstance(await refusal(ready.inference.Generate(request)), kind)


async def test_who_may_answer_is_the_callers_to_say(tmp_path: Path) -> None:
    """A named model answers alone, an allow-list holds, unknown names are refused."""
    async with world(tmp_path, FakeModel("best"), FakeModel("second")) as ready:
        named, _, _ = await read(ready.inference.Generate(asking(model="second")))
        wish = inference_pb.Preference(allowed_models=["second"])
        allowed, _, _ = await read(ready.inference.Generate(asking(preference=wish)))
        unknown = await refusal(ready.inference.Generate(asking(model="nobody")))
        wish = inference_pb.Preference(allowed_models=["nobody"])
        unlisted = await refusal(ready.inference.Generate(asking(preference=wish)))
        wish = inference_pb.Preference(min_quality=0.999)
        unreachable = await refusal(ready.inference.Generate(asking(preference=wish)))
    assert named.model == allowed.model == "second"
    assert isinstance(unknown, UnknownModelError)
    assert isinstance(unlisted, UnknownModelError)
    assert isinstance(unreachable, QualityUnreachableError)


async def test_a_decision_explains_itself(tmp_path: Path) -> None:
    """Propensities sum to 1, the best plan leads, and everyone left out has a reason."""
    fakes = [FakeModel("a"), FakeModel("b"), FakeModel("c")]
    policy = Policy(explore_ratio=0.1, max_calls=3)
    async with world(tmp_path, *fakes, policy=policy) as ready:
        wish = inference_pb.Preference(allowed_models=["a", "b"])
        route = router_pb.RouteRequest(generate=asking(preference=wish))
        decision = (await ready.router.Route(route)).decision
        assert not any(fake.requests for fake in fakes)
        whole = (await ready.router.Route(router_pb.RouteRequest(generate=asking()))).decision
    assert {c.model for c in decision.candidates} == {"a", "b"}
    assert {(r.model, r.reason) for r in decision.rejections} == {
        ("c", decision_pb.REJECTION_REASON_NOT_ALLOWED)
    }
    utilities = [plan.utility for plan in whole.plans]
    assert utilities == sorted(utilities, reverse=True)
    assert sum(plan.propensity for plan in whole.plans) == pytest.approx(1.0)
    kinds = {plan.plan.WhichOneof("kind") for plan in whole.plans}
    assert "single" in kinds
    assert len(kinds) > 2
    for plan in whole.plans:
        terms = plan.latency_term + plan.cost_term + plan.capacity_term
        assert plan.utility == pytest.approx(plan.quality - terms)


async def test_policies_change_with_the_right_etag_only(tmp_path: Path) -> None:
    """A stale etag is ABORTED; a good one puts the policy in force."""
    async with routed(config_of(tmp_path, [("only", ["127.0.0.1:1"])])) as ready:
        before = await ready.router.GetPolicy(router_pb.GetPolicyRequest())
        policy = router_pb.Policy(
            name="mine",
            explore_ratio=0.1,
            deadline_confidence=0.5,
            max_calls=2,
            without_forecast=True,
        )
        update = router_pb.UpdatePolicyRequest(policy=policy, etag=before.etag, make_default=True)
        changed = await ready.router.UpdatePolicy(update)
        stale = await refusal(ready.router.UpdatePolicy(update))
        policy.explore_ratio = 0.9
        odd = await refusal(ready.router.UpdatePolicy(router_pb.UpdatePolicyRequest(policy=policy)))
        after = await ready.router.GetPolicy(router_pb.GetPolicyRequest())
    assert isinstance(stale, StaleEtagError)
    assert [v.field for v in odd.violations] == ["policy.explore_ratio"]
    assert after.default_policy == "mine"
    assert after.etag == changed.etag != before.etag
    assert {p.name: p.without_forecast for p in after.policies} == {
        "balanced": False,
        "mine": True,
    }


async def test_what_is_foreseen_is_told(tmp_path: Path) -> None:
    """Every model has its forecast and price; requests raise the forecast of who is best."""
    async with world(tmp_path, FakeModel("best"), FakeModel("second")) as ready:
        at_first = (await ready.router.GetPolicy(router_pb.GetPolicyRequest())).outlooks

        async def foreseen() -> bool:
            await read(ready.inference.Generate(asking(model="second")))
            told = (await ready.router.GetPolicy(router_pb.GetPolicyRequest())).outlooks
            return told[1].forecast_requests_per_s > 0.0 == told[0].forecast_requests_per_s

        await until(foreseen)
    assert [(o.model, o.shadow_price) for o in at_first] == [("best", 0.0), ("second", 0.0)]


async def test_decisions_can_be_watched(tmp_path: Path) -> None:
    """A watcher sees each decision that involves its model."""
    async with world(tmp_path, FakeModel("best"), FakeModel("second")) as ready:
        watch = ready.router.WatchDecisions(router_pb.WatchDecisionsRequest(model="second"))
        await watch.initial_metadata()
        watched = asyncio.ensure_future(anext(aiter(watch)))
        started, _, _ = await read(ready.inference.Generate(asking()))
        while not watched.done():
            started, _, _ = await read(ready.inference.Generate(asking(model="second")))
        decision = (await watched).decision
        watch.cancel()
    assert decision.plan.single.model == "second"
    assert started.model == "second"


async def test_embedding_work_is_passed_on(tmp_path: Path) -> None:
    """Embed and Profile reach an embedder; without one they are UNAVAILABLE."""
    embedder = FakeEmbedder()
    embed = embedding_pb.EmbedRequest(texts=["x"])
    profile = embedding_pb.ProfileRequest(texts=["x"])
    async with world(tmp_path, FakeModel("only"), embedder=embedder) as ready:
        assert (await ready.embedding.Embed(embed)).encoder == "fake"
        assert (await ready.embedding.Profile(profile)).encoder == "fake"
    async with routed(config_of(tmp_path, [("only", ["127.0.0.1:1"])])) as ready:
        assert isinstance(await refusal(ready.embedding.Embed(embed)), UnavailableError)


async def test_the_rest_of_the_inference_service_is_passed_on(tmp_path: Path) -> None:
    """Counting and scoring reach the named model; the list says what the models say."""
    async with world(tmp_path, FakeModel("best"), FakeModel("second")) as ready:
        count = await ready.inference.CountTokens(
            inference_pb.CountTokensRequest(model="second", prompt="four")
        )
        score = await ready.inference.Score(
            inference_pb.ScoreRequest(prompt="a", continuations=["bc"])
        )
        models = (await ready.inference.ListModels(inference_pb.ListModelsRequest())).models
        nobody = inference_pb.CountTokensRequest(model="nobody", prompt="x")
        assert isinstance(await refusal(ready.inference.CountTokens(nobody)), UnknownModelError)
    assert (count.model, count.tokens) == ("second", 4)
    assert (score.model, score.scores[0].tokens) == ("best", 2)
    assert [(m.name, m.context_tokens, len(m.replicas)) for m in models] == [
        ("best", 512, 1),
        ("second", 512, 1),
    ]


async def test_a_prompt_too_long_for_every_model_is_refused(tmp_path: Path) -> None:
    """CONTEXT_TOO_LONG, without asking anybody."""
    model = FakeModel("only")
    async with world(tmp_path, model) as ready:
        error = await refusal(ready.inference.Generate(asking("word " * 20_000)))
    assert error.reason == "CONTEXT_TOO_LONG"
    assert not model.requests


async def test_telemetry_moves_work_and_its_loss_does_not_stop_it(tmp_path: Path) -> None:
    """A draining or dead replica is left, a silent agent is not held against its replica."""
    telemetry = FakeTelemetry()
    fakes = [FakeModel("only"), FakeModel("only")]
    reasons = {
        telemetry_pb.REPLICA_HEALTH_DRAINING: decision_pb.REJECTION_REASON_DRAINING,
        telemetry_pb.REPLICA_HEALTH_DEAD: decision_pb.REJECTION_REASON_UNHEALTHY,
        telemetry_pb.REPLICA_HEALTH_SILENT: None,
    }
    async with world(tmp_path, *fakes, telemetry=telemetry) as ready:
        for health_, reason in reasons.items():
            telemetry.tell("only-0", health_)
            await until(lambda reason=reason: refused_for(ready, reason))  # type: ignore[misc]
        decision = (await ready.router.Route(router_pb.RouteRequest(generate=asking()))).decision
    assert decision.candidates[0].replica == "only-1"
    assert len(decision.rejections) == 0


async def refused_for(ready: World, reason: int | None) -> bool:
    """Whether the first replica is refused for *reason*, or for none."""
    decision = (await ready.router.Route(router_pb.RouteRequest(generate=asking()))).decision
    return next((r.reason for r in decision.rejections if r.replica == "only-0"), None) == reason
