"""A simulated replica that takes as long as a real one would, and says what was recorded."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from zeta.inference.v1.inference_service_pb2 import (
    FINISH_REASON_STOP,
    Delta,
    Finished,
    GenerateResponse,
    Started,
    Usage,
)

from services.kit.config import Model
from services.kit.errors import ConfigError
from tests.bench.virtual.recorded import Given
from zeta_client.sim.server import Costs, Job, Server

OVERHEAD_S: Final = 0.008
"""Of a request besides: network, tokenizer and router; half on the way there, half back."""


class Replica:
    """One replica of *model* on the running loop; ConfigError for one without a pace."""

    def __init__(self, model: Model) -> None:
        self.server = Server(costs_of(model), model.max_running)
        self._model = model.name
        self._events: dict[int, tuple[asyncio.Event, asyncio.Event]] = {}
        """Of each job by number: it has its first token; it has ended."""
        self._count = 0

    async def generate(self, given: Given) -> AsyncGenerator[GenerateResponse, None]:
        """Stream *given* when its tokens are due; closing it cancels the work."""
        await asyncio.sleep(OVERHEAD_S / 2)
        job = self._begin(given)
        first, ended = self._events[job.number]
        try:
            started = Started(model=self._model, prompt_tokens=given.prompt_tokens)
            yield GenerateResponse(started=started)
            await first.wait()
            yield _delta(1, given.text[:1], 1)
            await ended.wait()
            yield _delta(2, given.text[1:], given.tokens - 1)
            await asyncio.sleep(OVERHEAD_S / 2)
            yield GenerateResponse(finished=_finished(given))
        finally:
            self._leave(job)

    def _begin(self, given: Given) -> Job:
        loop = asyncio.get_running_loop()
        self._count += 1
        job = Job(
            number=self._count,
            prompt_tokens=max(given.prompt_tokens, 1),
            output_tokens=max(given.tokens, 1),
            began_s=loop.time(),
        )
        self._events[job.number] = asyncio.Event(), asyncio.Event()
        self.server.add(job, loop.time())
        self._foresee()
        return job

    def _leave(self, job: Job) -> None:
        """Forget *job*, and stop working on it where it has not ended."""
        _, ended = self._events.pop(job.number)
        if not ended.is_set():
            self.server.cancel(job, asyncio.get_running_loop().time())
            self._foresee()

    def _foresee(self) -> None:
        """Look again when something changes of itself."""
        at_s = self.server.next_s()
        if at_s < float("inf"):
            asyncio.get_running_loop().call_at(at_s, self._fire, self.server.version)

    def _fire(self, version: int) -> None:
        if self.server.version != version:
            return
        first, ended = self.server.fire(asyncio.get_running_loop().time())
        for job in first:
            self._events[job.number][0].set()
        for job in ended:
            self._events[job.number][1].set()
        self._foresee()


def costs_of(model: Model) -> Costs:
    """Return what steps of *model* take. Raises ConfigError for one without a pace."""
    if model.pace is None:
        raise ConfigError(f"models.{model.name}.pace: must be set, for the time that steps take")
    return Costs(step_s=model.pace.step_s, prefill_s_per_token=model.pace.prefill_s_per_token)


def _delta(seq: int, text: str, tokens: int) -> GenerateResponse:
    return GenerateResponse(delta=Delta(seq=seq, text=text, token_ids=[1] * tokens))


def _finished(given: Given) -> Finished:
    usage = Usage(prompt_tokens=given.prompt_tokens, completion_tokens=given.tokens)
    return Finished(reason=FINISH_REASON_STOP, usage=usage, mean_logprob=given.mean_logprob)
