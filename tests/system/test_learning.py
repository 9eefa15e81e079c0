"""What a running fleet learns from scores: who is left, who comes back, and that it is told."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import msgspec
import pytest
from zeta.inference.v1.decision_pb2 import PlanKind
from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.router.v1.router_service_pb2 import (
    Belief,
    GetPolicyRequest,
    Policy,
    RouteRequest,
    SubmitFeedbackRequest,
    UpdatePolicyRequest,
)
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub
from zeta.telemetry.v1.telemetry_service_pb2 import QueryHistoryRequest
from zeta.telemetry.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from services.kit.config import FleetConfig
from tests.system.calls import TIMEOUT_S, answer, question
from tests.system.fleet import Fleet, eventually, running
from zeta_client.tasks import Task, stream

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub
    from zeta.router.v1.router_service_pb2_grpc import RouterServiceAsyncStub

CODE = "python_string"
BEST = {CODE: "coder-7b", "arithmetic": "reasoner-14b", "fact": "general-4b"}
"""Of each family of prompts, by the configuration's priors."""
ALONE = Policy(
    name="alone", max_calls=1, plans=[PlanKind.PLAN_KIND_SINGLE], deadline_confidence=0.9
)
LEFT_WITHIN = 40
FOUND_WITHIN = 200


def unhurried(config: FleetConfig) -> FleetConfig:
    """Give every profile its time: prompts then look the same however busy the machine is."""
    router = msgspec.structs.replace(config.router, profile_timeout_s=TIMEOUT_S)
    return msgspec.structs.replace(config, router=router)


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet that has learned nothing."""
    with running(tmp_path, unhurried) as up:
        yield up


def prompts(family: str) -> Iterator[Task]:
    """Draw prompts of one family for ever."""
    return stream(split="demo", seed=3, weights={family: 1.0})


async def chosen(channel: grpc.aio.Channel, family: str) -> str:
    """Who would answer most of five prompts of *family* alone."""
    router: RouterServiceAsyncStub = RouterServiceStub(channel)
    names = []
    for _, task in zip(range(5), prompts(family), strict=False):
        asked = question(task.prompt)
        asked.preference.policy = ALONE.name
        found = await router.Route(RouteRequest(generate=asked), timeout=TIMEOUT_S)
        names.append(found.decision.plan.single.model)
    return max(names, key=names.count)


async def scored_until(
    channel: grpc.aio.Channel, score: float, *, is_chosen: bool, within: int
) -> None:
    """Score the coder's answers to code until it is chosen, or no more; fail after *within*."""
    router: RouterServiceAsyncStub = RouterServiceStub(channel)
    inference: InferenceServiceAsyncStub = InferenceServiceStub(channel)
    for _, task in zip(range(within), prompts(CODE), strict=False):
        asked = question(task.prompt, model=BEST[CODE])
        asked.task_kind = TaskKind.TASK_KIND_CODE
        got = await answer(inference.Generate(asked, timeout=TIMEOUT_S))
        told = SubmitFeedbackRequest(decision_id=got.started.decision_id, score=score)
        await router.SubmitFeedback(told, timeout=TIMEOUT_S)
        if (await chosen(channel, CODE) == BEST[CODE]) == is_chosen:
            return
    raise AssertionError(f"{within} answers with a score of {score} changed nothing")


async def belief(channel: grpc.aio.Channel, model: str, kind: TaskKind.ValueType) -> Belief:
    """Return what the router says it has learned of *model*."""
    router: RouterServiceAsyncStub = RouterServiceStub(channel)
    known = (await router.GetPolicy(GetPolicyRequest(), timeout=TIMEOUT_S)).beliefs
    return next(one for one in known if (one.model, one.task_kind) == (model, kind))


async def test_a_model_that_turns_wrong_is_left_and_found_again(fresh: Fleet) -> None:
    """For its kind of task, and by what everybody can ask: decisions, beliefs and history.

    First the priors decide, for every kind.
    """
    code = TaskKind.TASK_KIND_CODE
    async with fresh.channel(fresh.router) as channel:
        await RouterServiceStub(channel).UpdatePolicy(UpdatePolicyRequest(policy=ALONE))
        assert {family: await chosen(channel, family) for family in BEST} == BEST
        first = await belief(channel, "coder-7b", code)

        await scored_until(channel, 0.0, is_chosen=False, within=LEFT_WITHIN)
        fallen = await belief(channel, "coder-7b", code)
        others = {family: await chosen(channel, family) for family in ("arithmetic", "fact")}

        await scored_until(channel, 1.0, is_chosen=True, within=FOUND_WITHIN)
        risen = await belief(channel, "coder-7b", code)

    assert others == {family: BEST[family] for family in others}
    assert fallen.quality < first.quality
    assert fallen.quality < risen.quality
    assert first.outcomes < fallen.outcomes
    assert fallen.total_mean_s >= fallen.ttft_mean_s > 0.0
    await eventually(lambda: in_history(fresh, "coder-7b-0"), 10.0, "its times in the history")


async def in_history(fleet: Fleet, replica: str) -> bool:
    """Whether telemetry can tell how fast *replica* answered questions of code."""
    async with fleet.channel(fleet.telemetry) as channel:
        asked = QueryHistoryRequest(replica=replica)
        found = await TelemetryServiceStub(channel).QueryHistory(asked, timeout=TIMEOUT_S)
    tasks = [task for each in found.replicas for task in each.tasks]
    return any(t.kind == TaskKind.TASK_KIND_CODE and t.requests_total > 0 for t in tasks)


async def test_how_long_each_model_s_answers_are_is_learned(fresh: Fleet) -> None:
    """The reasoner writes its thoughts down and the general model does not: soon that is expected.

    Before the first answer they are expected to be alike.
    """
    names = ("reasoner-14b", "general-4b")
    async with fresh.channel(fresh.router) as channel:
        before = await expected_tokens(channel)
        inference: InferenceServiceAsyncStub = InferenceServiceStub(channel)
        for _, task in zip(range(20), prompts("arithmetic"), strict=False):
            for name in names:
                asked = question(task.prompt, model=name, max_tokens=96)
                await answer(inference.Generate(asked, timeout=TIMEOUT_S))
        after = await expected_tokens(channel)

    first, since = (each["reasoner-14b"] / each["general-4b"] for each in (before, after))
    assert first < 2.0
    assert since > 2.0 * first


async def expected_tokens(channel: grpc.aio.Channel) -> dict[str, float]:
    """Return how long every model's answer to one more sum is expected to be, in tokens."""
    asked = RouteRequest(generate=question("What is 7 + 12 - 5?"))
    found = await RouterServiceStub(channel).Route(asked, timeout=TIMEOUT_S)
    return {one.model: one.output_tokens for one in found.decision.candidates}
