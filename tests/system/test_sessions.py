"""Conversations stay where their beginning is cached."""

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec
import pytest
from zeta.inference.v1.inference_service_pb2 import (
    Conversation,
    GenerateRequest,
    Message,
    Preference,
    Role,
    SamplingParams,
)
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.config import FleetConfig, Pace, Policy, Replica
from tests.system.calls import TIMEOUT_S, Answer, answer
from tests.system.fleet import Fleet, running

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

MODEL, SPREAD = "coder-7b", "spread"
QUESTIONS = ("What is 1 + 2?", "Name a colour.", "Reverse 'stone'.", "What is max([3, 9])?")


def two_coders(config: FleetConfig) -> FleetConfig:
    """Give the coder a second replica, and the router a policy that asks them in turn.

    It reads as slowly as a large model: what a lost cache costs is then more than what a busy
    machine does to either replica.
    """
    replace = msgspec.structs.replace
    pace = Pace(prefill_s_per_token=0.003)
    policies = {**config.router.policies, SPREAD: Policy(balancer="round_robin")}
    second = Replica(listen="127.0.0.1:7099")
    return replace(
        config,
        router=replace(config.router, policies=policies),
        models=tuple(
            replace(m, replicas=(*m.replicas, second), pace=pace) if m.name == MODEL else m
            for m in config.models
        ),
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with two replicas of one model."""
    with running(tmp_path_factory.mktemp("pair"), two_coders) as up:
        yield up


class Talk:
    """One conversation."""

    def __init__(self, name: str) -> None:
        system = f"You are number {name}. Be brief. " * 4
        self.name, self.answers = name, list[Answer]()
        self.said = [Message(role=Role.ROLE_SYSTEM, content=system)]

    async def turn(
        self, router: "InferenceServiceAsyncStub", question: str, policy: str = ""
    ) -> None:
        """Ask, with all that was said before."""
        self.said.append(Message(role=Role.ROLE_USER, content=question))
        request = GenerateRequest(
            model=MODEL,
            messages=Conversation(messages=self.said),
            sampling=SamplingParams(temperature=0.0),
            max_tokens=12,
            session_id=self.name,
            preference=Preference(policy=policy),
        )
        self.answers.append(await answer(router.Generate(request, timeout=TIMEOUT_S)))
        self.said.append(Message(role=Role.ROLE_ASSISTANT, content=self.answers[-1].text))


async def test_later_turns_find_their_beginning_in_the_cache(pair: Fleet) -> None:
    """Conversations that began on two replicas in turn stay there.

    Both replicas are idle at each later turn: without sessions every turn would go to the same one.
    A few may move all the same: a replica that is silent for a moment is avoided.
    """
    talks = [Talk(f"number {i}") for i in range(6)]
    first, *later = QUESTIONS
    async with pair.channel(pair.router) as channel:
        router = InferenceServiceStub(channel)
        for talk in talks:
            await talk.turn(router, first, policy=SPREAD)
        for question in later:
            for talk in talks:
                await talk.turn(router, question)

    assert len({talk.answers[0].started.replica for talk in talks}) == 2, "all began in one place"
    stayed, spared = [], []
    for talk in talks:
        for before, each in pairwise(talk.answers):
            stayed.append(each.started.replica == before.started.replica)
            usage = each.finished.usage
            spared.append(usage.cached_prompt_tokens > 0.5 * usage.prompt_tokens)
    assert sum(stayed) >= 0.85 * len(stayed)
    assert sum(spared) >= 0.85 * len(spared)
