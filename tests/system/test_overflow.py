"""Work goes to the model that is best for it and has room, in a running fleet."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import msgspec
import pytest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.router.v1.router_service_pb2 import RouteRequest, SubmitFeedbackRequest
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub

from services.kit.config import FleetConfig, Pace, Policy
from tests.system.calls import TIMEOUT_S, answer, endless, question
from tests.system.fleet import Fleet, eventually, running
from zeta_client.tasks import Task, generate

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub
    from zeta.router.v1.router_service_pb2_grpc import RouterServiceAsyncStub

PROMPT = "In Python, what is 'rocket'.index('t')?"
WORTH = {"coder-7b": 1.0, "reasoner-14b": 0.97, "general-4b": 0.95}
"""What answers to questions of code are scored here, so that any model may stand in."""
SUMS_WORTH = {"reasoner-14b": 1.0, "general-4b": 0.95}
SLOWLY = Pace(step_s=0.3)
DEADLINE_S = 4.0
"""Too short for the slow reasoner, which writes its thoughts down, and long for the others."""
TAUGHT = 16
ROOM = 96
"""Tokens that no answer here needs: what is cut off says nothing of how long answers are."""
SLOTS = 4
CALLERS = 2 * SLOTS
WITHIN_S = 60.0


def alone(config: FleetConfig) -> FleetConfig:
    """Single models, none to try out, and time for every profile."""
    policy = Policy(latency_weight_per_s=0.0, plans=("single",), explore_ratio=0.0)
    router = msgspec.structs.replace(
        config.router, policies={"balanced": policy}, profile_timeout_s=TIMEOUT_S
    )
    return msgspec.structs.replace(config, router=router)


def slow_to_reason(config: FleetConfig) -> FleetConfig:
    """A reasoner that takes seconds, and may."""
    models = tuple(
        msgspec.structs.replace(model, pace=SLOWLY if model.name == "reasoner-14b" else None)
        for model in config.models
    )
    return msgspec.structs.replace(alone(config), models=models)


def small(config: FleetConfig) -> FleetConfig:
    """Four slots a model, at the pace of larger ones."""
    paces = (Pace(step_s=0.01), Pace(step_s=0.04), Pace(step_s=0.02))
    models = tuple(
        msgspec.structs.replace(model, max_running=SLOTS, pace=pace)
        for model, pace in zip(config.models, paces, strict=True)
    )
    return msgspec.structs.replace(alone(config), models=models)


@pytest.fixture
def modest(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that is soon full, and has learned nothing."""
    with running(tmp_path, small) as up:
        yield up


async def taught(channel: grpc.aio.Channel, model: str, task: Task, score: float) -> None:
    """Have *model* answer, and give that *score*."""
    inference: InferenceServiceAsyncStub = InferenceServiceStub(channel)
    got = await answer(
        inference.Generate(question(task.prompt, model=model, max_tokens=ROOM), timeout=TIMEOUT_S)
    )
    told = SubmitFeedbackRequest(decision_id=got.started.decision_id, score=score)
    await RouterServiceStub(channel).SubmitFeedback(told, timeout=TIMEOUT_S)


async def goes_to(channel: grpc.aio.Channel, model: str) -> bool:
    """Whether the question would be, and then is, answered by *model*."""
    router: RouterServiceAsyncStub = RouterServiceStub(channel)
    found = await router.Route(RouteRequest(generate=question(PROMPT)), timeout=TIMEOUT_S)
    if found.decision.plan.single.model != model:
        return False
    inference: InferenceServiceAsyncStub = InferenceServiceStub(channel)
    got = await answer(inference.Generate(question(PROMPT), timeout=TIMEOUT_S))
    return got.finished.model == model


@asynccontextmanager
async def busy(channel: grpc.aio.Channel, model: str) -> AsyncIterator[None]:
    """Twice as many callers as *model* has slots, who ask again as soon as they are answered."""

    async def for_ever() -> None:
        while True:
            await answer(InferenceServiceStub(channel).Generate(endless(model, max_tokens=60)))

    callers = [asyncio.create_task(for_ever()) for _ in range(CALLERS)]
    try:
        yield
        assert not [caller for caller in callers if caller.done()]
    finally:
        for caller in callers:
            caller.cancel()
        await asyncio.gather(*callers, return_exceptions=True)


async def test_code_overflows_to_the_idle_reasoner_then_to_the_small_model(modest: Fleet) -> None:
    """The coder busy: the reasoner; both busy: the general model; idle again: the coder."""
    tasks = generate(TAUGHT, split="demo", seed=1, weights={"python_string": 1.0})
    async with modest.channel(modest.router) as channel:
        for model, score in WORTH.items():
            await asyncio.gather(*(taught(channel, model, task, score) for task in tasks))
        settled = partial(eventually, within_s=WITHIN_S)

        await settled(lambda: goes_to(channel, "coder-7b"), what="idle: the coder")
        async with busy(channel, "coder-7b"):
            await settled(lambda: goes_to(channel, "reasoner-14b"), what="the reasoner")
            async with busy(channel, "reasoner-14b"):
                await settled(lambda: goes_to(channel, "general-4b"), what="the general model")
        await settled(lambda: goes_to(channel, "coder-7b"), what="idle again: the coder")


async def test_a_short_deadline_takes_the_faster_model(tmp_path: Path) -> None:
    """The reasoner where there is time; where there is none, who is nearly as good."""
    tasks = generate(8, split="demo", seed=1, weights={"arithmetic": 1.0})
    with running(tmp_path, slow_to_reason) as fleet:
        async with fleet.channel(fleet.router) as channel:
            inference: InferenceServiceAsyncStub = InferenceServiceStub(channel)
            await asyncio.gather(
                *(
                    taught(channel, model, task, score)
                    for model, score in SUMS_WORTH.items()
                    for task in tasks
                )
            )
            patient = await answer(
                inference.Generate(question(tasks[0].prompt, max_tokens=ROOM), timeout=TIMEOUT_S)
            )
            hurried = await answer(
                inference.Generate(question(tasks[0].prompt, max_tokens=ROOM), timeout=DEADLINE_S)
            )

    assert patient.finished.model == "reasoner-14b"
    assert patient.finished.timings.total.ToMilliseconds() > DEADLINE_S * 1e3
    assert hurried.finished.model == "general-4b"
