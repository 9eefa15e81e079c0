"""Many callers, slow callers, callers that leave."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.model.v1.model_control_service_pb2 import GetStateRequest, ModelState
from zeta.model.v1.model_control_service_pb2_grpc import ModelControlServiceStub
from zeta.router.v1.router_service_pb2 import Policy, RouteRequest, UpdatePolicyRequest
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub

from tests.system.calls import TIMEOUT_S, answer, endless, question
from tests.system.fleet import Fleet, eventually, running

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

STREAMS = 200
LEAVERS = 8
DEADLINE_S = 0.3
MODEL = "reasoner-14b"


async def state(channel: grpc.aio.Channel) -> ModelState:
    return (await ModelControlServiceStub(channel).GetState(GetStateRequest(), timeout=5.0)).state


async def idle(fleet: Fleet, model: str) -> bool:
    """Whether *model* has nothing to do, and holds no cache for anybody."""
    async with fleet.channel(fleet.model(model)) as channel:
        now = await state(channel)
    return now.running == 0 and now.waiting == 0 and now.kv_used_tokens == 0


async def test_two_hundred_streams_at_once(
    router: "InferenceServiceAsyncStub", fleet: Fleet
) -> None:
    """200 concurrent streams all end well, and leave every model idle."""
    answers = await asyncio.gather(
        *(
            answer(router.Generate(question(f"What is {i} + {i}?"), timeout=TIMEOUT_S))
            for i in range(STREAMS)
        )
    )

    assert len({a.started.decision_id for a in answers}) == STREAMS
    assert all(a.text for a in answers)
    for model in fleet.config.models:
        await eventually(partial(idle, fleet, model.name), 5.0, f"{model.name} idle")


@pytest.mark.parametrize("through", ["router", "model"])
async def test_a_slow_reader_holds_nobody_up(
    router: "InferenceServiceAsyncStub", fleet: Fleet, through: str
) -> None:
    """While one caller does not read, others are served; later it still gets all of its answer."""
    address = fleet.router if through == "router" else fleet.model(MODEL)
    async with fleet.channel(address) as own:
        much = endless(MODEL)  # more than the transport buffers
        much.logprobs.top = 20
        slow = InferenceServiceStub(own).Generate(much, timeout=TIMEOUT_S)
        first = await anext(aiter(slow))
        assert first.WhichOneof("event") == "started"

        served = await answer(router.Generate(question(model=MODEL), timeout=TIMEOUT_S))
        await eventually(lambda: idle(fleet, MODEL), 30.0, "the unread answer done")
        rest = [event async for event in slow]

    assert served.text
    assert rest[-1].WhichOneof("event") == "finished"
    tokens = sum(len(e.delta.token_ids) for e in rest)
    assert rest[-1].finished.usage.completion_tokens == tokens


@pytest.mark.parametrize("through", ["router", "model"])
async def test_a_caller_that_leaves_stops_the_work(fleet: Fleet, through: str) -> None:
    """A cancelled call frees its slot and its cache, whether it came directly or was routed."""
    address = fleet.router if through == "router" else fleet.model(MODEL)
    async with fleet.channel(address) as channel, fleet.channel(fleet.model(MODEL)) as direct:
        before = await state(direct)
        stub = InferenceServiceStub(channel)
        calls = [stub.Generate(endless(MODEL), timeout=TIMEOUT_S) for _ in range(LEAVERS)]
        async for event in calls[0]:
            if event.WhichOneof("event") == "delta":
                break
        for call in calls:
            call.cancel()
        await eventually(lambda: idle(fleet, MODEL), 5.0, "the abandoned answers dropped")
        after = await state(direct)

    assert before.cancelled_total < after.cancelled_total <= before.cancelled_total + LEAVERS
    assert after.completion_tokens_total - before.completion_tokens_total < LEAVERS * 900


@pytest.mark.parametrize("through", ["router", "model"])
async def test_a_deadline_stops_the_work(fleet: Fleet, through: str) -> None:
    """When a caller's deadline passes it hears so, and the model's work ends too."""
    address = fleet.router if through == "router" else fleet.model(MODEL)
    request = endless(MODEL)
    async with fleet.channel(address) as channel, fleet.channel(fleet.model(MODEL)) as direct:
        if through == "router":
            # It may know by now that such answers are long, and refuse them under other policies.
            hopeful = Policy(name="hopeful", max_calls=1, deadline_confidence=1.0)
            await RouterServiceStub(channel).UpdatePolicy(UpdatePolicyRequest(policy=hopeful))
            request.preference.policy = hopeful.name
        before = await state(direct)
        stub, start = InferenceServiceStub(channel), time.monotonic()
        # As many as have a place: the router refuses at once who would have to wait too long.
        calls = [stub.Generate(request, timeout=DEADLINE_S) for _ in range(12)]
        ended = await asyncio.gather(*(answer(call) for call in calls), return_exceptions=True)
        waited_s = time.monotonic() - start
        await eventually(lambda: idle(fleet, MODEL), 2.0, "late answers dropped")
        after = await state(direct)

    codes = {each.code() for each in ended if isinstance(each, grpc.aio.AioRpcError)}
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
    assert waited_s < 5.0
    assert after.cancelled_total > before.cancelled_total


async def test_a_model_that_is_named_is_the_one_that_answers(
    router: "InferenceServiceAsyncStub", fleet: Fleet
) -> None:
    """A request for one model is answered by it and by nobody else."""
    for model in fleet.config.models:
        got = await answer(router.Generate(question(model=model.name), timeout=TIMEOUT_S))

        assert got.started.model == got.finished.model == model.name


async def ensembles(channel: grpc.aio.Channel) -> int:
    """Of how many of a few prompts the answer would now be more than one model's."""
    kinds = []
    for i in range(12):
        asked = question(f"Tom has {i + 3} pens and buys {i + 5} more. How many has he?")
        asked.preference.policy = "every-kind"
        route = RouteRequest(generate=asked)
        found = await RouterServiceStub(channel).Route(route, timeout=TIMEOUT_S)
        kinds.append(found.decision.plan.WhichOneof("kind"))
    return sum(kind != "single" for kind in kinds)


async def test_ensembles_fold_under_load_and_come_back(tmp_path: Path) -> None:
    """With every model's slots full twice over nobody asks two; nothing was switched.

    A fleet of its own: what others taught the shared one would decide with.
    """
    every_kind = Policy(name="every-kind", max_calls=3, deadline_confidence=0.9)
    with running(tmp_path) as fleet:
        async with fleet.channel(fleet.router) as channel:
            await RouterServiceStub(channel).UpdatePolicy(UpdatePolicyRequest(policy=every_kind))
            before = await ensembles(channel)
            busy = [
                asyncio.create_task(for_ever(channel, model.name))
                for model in fleet.config.models
                for _ in range(2 * model.max_running)
            ]
            try:
                await eventually(lambda: folded(channel), 40.0, "no ensemble under load")
                over = [task for task in busy if task.done()]
            finally:
                for task in busy:
                    task.cancel()
                await asyncio.gather(*busy, return_exceptions=True)

            assert before > 0
            assert not over
            await eventually(lambda: unfolded(channel), 40.0, "ensembles when idle again")


async def for_ever(channel: grpc.aio.Channel, model: str) -> None:
    """Have *model* write one long answer after another."""
    while True:
        await answer(InferenceServiceStub(channel).Generate(endless(model)))


async def folded(channel: grpc.aio.Channel) -> bool:
    """Whether no prompt has an ensemble answer it."""
    return await ensembles(channel) == 0


async def unfolded(channel: grpc.aio.Channel) -> bool:
    """Whether some prompt has."""
    return await ensembles(channel) > 0
