"""Callers that come whatever the fleet does: an open loop, on three ways to a router.

"direct" reaches the router that lives by a bare stub, so that statuses are seen as they are;
"network" by the Python client through a proxy that breaks; "mortal" by the client to the router
that is killed now and then.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from time import monotonic
from typing import Any

import grpc
import numpy as np
from zeta.inference.v1.inference_service_pb2 import GenerateRequest, GenerateResponse
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.errors import ZetaError
from services.kit.rpc import is_bare, zeta_error
from tests.bench.chaos.answers import Known, Stream
from tests.system.calls import answer, endless, question
from zeta_client import AsyncClient

PATHS = {"direct": 0.45, "network": 0.45, "mortal": 0.1}
_PATIENT_S, _HURRIED_S = 60.0, 2.0
_HURRIED_RATIO = 0.1

QUESTIONS: Mapping[str, Callable[[str], GenerateRequest]] = {
    **{
        text: lambda model, text=text: question(text, model=model)  # type: ignore[misc] # a default
        for text in (
            "What is 17 + 25?",
            "Reverse the string 'stone'",
            "What is the capital of France?",
            "Tom has 3 pens and buys 5 more. How many has he?",
        )
    },
    "counting, 120 tokens": lambda model: endless(model, 120),
    "counting, 400 tokens": lambda model: endless(model, 400),
    "counting, 900 tokens": lambda model: endless(model, 900),
}
"""By name: what builds the request, given the only model that may answer."""


def _loop_s(at_s: float) -> float:
    """Return what a loop's clock says when monotonic time is *at_s*."""
    return asyncio.get_running_loop().time() + at_s - monotonic()


class Callers:
    """Everybody who calls; *rng* decides what they do."""

    def __init__(
        self,
        direct: grpc.aio.Channel,
        clients: Mapping[str, AsyncClient],
        models: tuple[str, ...],
        rng: np.random.Generator,
    ) -> None:
        self.streams: list[Stream] = []
        self._direct: Any = InferenceServiceStub(direct)
        self._clients, self._models, self._rng = clients, models, rng

    async def known(self) -> Known:
        """Ask every model everything while nothing is disturbed; also reach every router."""
        for client in self._clients.values():
            await client.list_models()
        asked = [(name, model) for name in QUESTIONS for model in self._models]
        calls = [self._direct.Generate(QUESTIONS[n](m), timeout=_PATIENT_S) for n, m in asked]
        answers = await asyncio.gather(*(answer(call) for call in calls))
        return {each: got.text for each, got in zip(asked, answers, strict=True)}

    async def come(self, per_s: float, until_s: float) -> None:
        """Send requests at exponential distances until *until_s*, and wait for their ends.

        AssertionError where one has no end, long after its deadline.
        """
        try:
            async with asyncio.timeout_at(_loop_s(until_s) + 2 * _PATIENT_S):
                async with asyncio.TaskGroup() as calls:
                    due_s = monotonic()
                    while (due_s := due_s + float(self._rng.exponential(1 / per_s))) < until_s:
                        await asyncio.sleep(due_s - monotonic())
                        calls.create_task(self._one())
        except TimeoutError:
            endless = [stream.name for stream in self.streams if not stream.over]
            raise AssertionError(f"streams without an end: {endless}") from None

    async def _one(self) -> None:
        rng = self._rng
        stream = Stream(
            question=str(rng.choice(list(QUESTIONS))),
            model=str(rng.choice(["", *self._models])),
            path=str(rng.choice(list(PATHS), p=list(PATHS.values()))),
        )
        self.streams.append(stream)
        left_s = _HURRIED_S if rng.random() < _HURRIED_RATIO else _PATIENT_S
        request, ends_s = QUESTIONS[stream.question](stream.model), monotonic() + left_s
        try:
            async for event in self._events(stream.path, request, left_s):
                stream.events.append(event)
        except grpc.aio.AioRpcError as failed:
            stream.error = zeta_error(failed)
            stream.bare = is_bare(failed)
        except ZetaError as error:
            stream.error = error
        stream.late, stream.over = monotonic() >= ends_s, True

    def _events(
        self, path: str, request: GenerateRequest, left_s: float
    ) -> AsyncIterator[GenerateResponse]:
        if path == "direct":
            events: AsyncIterator[GenerateResponse] = aiter(
                self._direct.Generate(request, timeout=left_s)
            )
            return events
        return self._clients[path].generate(request, deadline_s=left_s)
