"""Conversations stay where their beginning is cached."""

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
import pytest
from zeta.inference.v1.inference_service_pb2 import (
    Conversation,
    GenerateRequest,
    Message,
    Role,
    SamplingParams,
)
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.config import FleetConfig, Replica
from tests.system.calls import TIMEOUT_S, Answer, answer
from tests.system.fleet import Fleet, running

if TYPE_CHECKING:  # these names exist in the stubs' .pyi alone
    from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceAsyncStub

MODEL, TURNS = "coder-7b", 4
QUESTIONS = ("What is 1 + 2?", "Name a colour.", "Reverse 'stone'.", "What is max([3, 9])?")


def two_coders(config: FleetConfig) -> FleetConfig:
    """Give the coder a second replica."""
    replace = msgspec.structs.replace
    second = Replica(listen="127.0.0.1:7099")
    return replace(
        config,
        models=tuple(
            replace(m, replicas=(*m.replicas, second)) if m.name == MODEL else m
            for m in config.models
        ),
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A fleet with two replicas of one model."""
    with running(tmp_path_factory.mktemp("pair"), two_coders) as up:
        yield up


async def converse(router: "InferenceServiceAsyncStub", session: str) -> list[Answer]:
    """Hold one conversation, each turn with all that was said before."""
    said = [Message(role=Role.ROLE_SYSTEM, content=f"You are number {session}. Be brief. " * 4)]
    answers = []
    for question in QUESTIONS[:TURNS]:
        said.append(Message(role=Role.ROLE_USER, content=question))
        request = GenerateRequest(
            model=MODEL,
            messages=Conversation(messages=said),
            sampling=SamplingParams(temperature=0.0),
            max_tokens=12,
            session_id=session,
        )
        answers.append(await answer(router.Generate(request, timeout=TIMEOUT_S)))
        said.append(Message(role=Role.ROLE_ASSISTANT, content=answers[-1].text))
    return answers


async def test_every_later_turn_finds_its_beginning_in_the_cache(pair: Fleet) -> None:
    """Several conversations at once, each on one replica throughout, most of it fed once."""
    async with pair.channel(pair.router) as channel:
        router = InferenceServiceStub(channel)
        talks = await asyncio.gather(*(converse(router, f"{n}") for n in range(4)))

    for talk in talks:
        assert len({each.started.replica for each in talk}) == 1
        for each in talk[1:]:
            usage = each.finished.usage
            assert usage.cached_prompt_tokens > 0.5 * usage.prompt_tokens
