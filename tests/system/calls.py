"""How the tests ask, and what they hold of an answer."""

import asyncio
from collections.abc import AsyncIterable
from dataclasses import dataclass, field

import grpc
import pytest
from zeta.inference.v1.inference_service_pb2 import (
    Conversation,
    Finished,
    GenerateRequest,
    GenerateResponse,
    Message,
    Role,
    SamplingParams,
    Started,
)

from services.kit.errors import ZetaError
from services.kit.rpc import zeta_error

PROMPT = "What is 17 + 25?"
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A stream that ended well."""

    started: Started
    text: str
    finished: Finished


def question(prompt: str = PROMPT, *, model: str = "", max_tokens: int = 24) -> GenerateRequest:
    """Ask for a short greedy answer."""
    return GenerateRequest(
        model=model,
        messages=Conversation(messages=[Message(role=Role.ROLE_USER, content=prompt)]),
        sampling=SamplingParams(temperature=0.0),
        max_tokens=max_tokens,
    )


def endless(model: str = "", max_tokens: int = 900) -> GenerateRequest:
    """Ask for an answer of exactly *max_tokens*.

    So small a repetition penalty favours tokens that were seen, and the end was not.
    """
    return GenerateRequest(
        model=model,
        prompt="0 1 2 3 4 5 6 7 8 9 and so on",
        sampling=SamplingParams(temperature=0.0, repetition_penalty=0.05),
        max_tokens=max_tokens,
    )


async def answer(stream: AsyncIterable[GenerateResponse]) -> Answer:
    """Read a stream to its end; the contract's order of events must hold."""
    events = [event async for event in stream]
    assert events, "an empty stream"
    assert events[0].WhichOneof("event") == "started"
    assert events[-1].WhichOneof("event") == "finished"
    deltas = [e.delta for e in events if e.WhichOneof("event") == "delta"]
    assert [d.seq for d in deltas] == list(range(1, len(deltas) + 1))
    return Answer(
        started=events[0].started,
        text="".join(d.text for d in deltas),
        finished=events[-1].finished,
    )


@dataclass(slots=True)
class Reader:
    """Reads one stream, and remembers how far it came and how it ended."""

    call: grpc.aio.UnaryStreamCall[GenerateRequest, GenerateResponse]
    has_text: asyncio.Event = field(default_factory=asyncio.Event)
    text: list[str] = field(default_factory=list)
    handovers: list[str] = field(default_factory=list)
    """The models that took over."""
    tokens: int = 0
    """Of the whole answer, as the last event says."""
    end: str = ""
    """The last event, or the reason of the refusal."""

    async def read(self) -> None:
        """Read to the end, whatever it is."""
        try:
            async for event in self.call:
                self.end = str(event.WhichOneof("event"))
                if self.end == "delta":
                    self.has_text.set()
                    self.text.append(event.delta.text)
                elif self.end == "handover":
                    self.handovers.append(event.handover.to_model)
                elif self.end == "finished":
                    self.tokens = event.finished.usage.completion_tokens
        except grpc.aio.AioRpcError as failed:
            self.end = zeta_error(failed).reason


def refusal(failed: pytest.ExceptionInfo[grpc.aio.AioRpcError]) -> ZetaError:
    """Decode the google.rpc details of a refused call."""
    return zeta_error(failed.value)
