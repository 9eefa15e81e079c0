"""`zeta.inference.v1.InferenceService` of one model: requests in, streams of answers out."""

import asyncio
import math
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from time import monotonic

import numpy as np
from numpy.typing import NDArray
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.inference.v1 import inference_service_pb2_grpc

from services.kit import rpc
from services.kit.errors import (
    ContextTooLongError,
    NotBuiltError,
    UnknownModelError,
    Violation,
    invalid,
)
from services.model import wire
from services.model.account import Account
from services.model.answer import Answer
from services.model.engine.types import Answered, FinishReason, Grammar, Request, Scored
from services.model.gate import Gate
from services.model.grammar import Grammars
from services.model.graph.encoder import Encoder
from services.model.loop import DeviceLoop, Stream
from services.model.samples import Samples
from services.model.text import Text

Ids = NDArray[np.int64]

_LONG_TEXT = 20_000
"""Characters from which tokenising would hold up the event loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What is served."""

    name: str
    replica: str
    text: Text
    vocabulary: int
    context_tokens: int
    default_max_tokens: int
    stop_ids: frozenset[int]
    temperature: float
    parameters: int
    precision: str
    runtime: str
    encoder: Encoder | None = None
    """How it makes vectors, where it serves them."""
    generates: bool = True

    @property
    def capabilities(self) -> list[inference.Capability.ValueType]:
        """What it serves, as the contract says it."""
        makes = [inference.CAPABILITY_GENERATE, inference.CAPABILITY_SCORE] * self.generates
        return makes + [inference.CAPABILITY_EMBED] * (self.encoder is not None)


class InferenceServicer(inference_service_pb2_grpc.InferenceServiceServicer):
    """Answers with one model."""

    def __init__(self, model: Model, device: DeviceLoop, gate: Gate) -> None:
        self._model, self._device, self._gate = model, device, gate
        self._grammars = Grammars(
            model.text.serialised(), vocabulary=model.vocabulary, stop_ids=model.stop_ids
        )
        self._account = Account(model=model.name, state=device.state)

    async def Generate(  # noqa: N802 - the contract's name
        self, request: inference.GenerateRequest, context: rpc.Context
    ) -> AsyncGenerator[inference.GenerateResponse, None]:
        """Stream an answer; the engine stops when the caller is gone or out of time."""
        arrived_s = monotonic()
        rpc.check_deadline(context)
        ticket = self._gate.generate(request, context)
        decision_id = ticket.decision_id if ticket else rpc.request_id()
        check_model(request.model, self._model.name)
        self._check_generates()
        call = self._call(request)
        tokens = await self._tokens(request)
        answered = await self._answered(request, len(tokens))
        grammar = await self._grammar(call)
        works = self._requests(tokens, answered, call, grammar, context)
        answers, seq = [Answer(self._model.text, call.stops) for _ in works], 0
        answers[0].go_on(answered.tolist(), request.continuation.text, self._ended(works[0]))
        if answers[0].finish is not None:
            # Whoever made it was lost between its last piece and the word that it is the last.
            yield self._started(len(tokens), decision_id)
            yield wire.delta(1, answers[0].feed(()), logprobs=False)
            yield wire.finished(self._model.name, answers, works[0], wire.AT_ONCE)
            return
        streams = self._device.submit_all(works, arrived_s)
        # gRPC may drop this generator long after the caller has gone: do not wait for that.
        context.add_done_callback(lambda _: self._cancel(streams))  # type: ignore[arg-type]
        samples = Samples(answers, streams, self._device.cancel)
        with self._account.request(call.kind):
            yield self._started(len(tokens), decision_id)
            async for i, piece in samples.pieces():
                seq += 1
                yield wire.delta(seq, piece, logprobs=call.logprobs, sample=i)
            self._account.answered(call.kind, samples)
            yield wire.finished(
                self._model.name, answers, works[0], samples.times(),
                reused_tokens=samples.cached_prompt_tokens,
            )  # fmt: skip

    async def CountTokens(  # noqa: N802 - the contract's name
        self, request: inference.CountTokensRequest, context: rpc.Context
    ) -> inference.CountTokensResponse:
        """Count the tokens of an input."""
        rpc.check_deadline(context)
        self._gate.let_in(context)
        check_model(request.model, self._model.name)
        wire.check_count(request)
        tokens = await self._encode(*self._prompt(request))
        return inference.CountTokensResponse(tokens=len(tokens), model=self._model.name)

    async def ListModels(  # noqa: N802 - the contract's name
        self, request: inference.ListModelsRequest, context: rpc.Context
    ) -> inference.ListModelsResponse:
        """List the one model."""
        del request, context
        info = inference.ModelInfo(
            name=self._model.name,
            context_tokens=self._model.context_tokens,
            default_max_tokens=self._model.default_max_tokens,
            parameters=self._model.parameters,
            precision=self._model.precision,
            runtime=self._model.runtime,
            capabilities=self._model.capabilities,
        )
        return inference.ListModelsResponse(models=[info])

    async def Score(  # noqa: N802 - the contract's name
        self, request: inference.ScoreRequest, context: rpc.Context
    ) -> inference.ScoreResponse:
        """Score continuations; each is tokenised apart from the input."""
        arrived_s = monotonic()
        rpc.check_deadline(context)
        self._gate.let_in(context)
        check_model(request.model, self._model.name)
        self._check_generates()
        wire.check_score(request)
        prompt = await self._tokens(request)
        pairs = [
            await self._continuation(request, i, prompt) for i in range(len(request.continuations))
        ]
        scores = await self._scores(prompt, pairs, deadline_s(context), arrived_s)
        return inference.ScoreResponse(
            scores=[
                inference.ContinuationScore(logprob=score, tokens=len(tokens))
                for score, tokens in zip(scores, pairs, strict=True)
            ],
            model=self._model.name,
        )

    def _check_generates(self) -> None:
        if not self._model.generates:
            raise NotBuiltError(
                f"model {self._model.name!r} embeds only: call zeta.embedding.v1.EmbeddingService"
            )

    def _call(self, request: inference.GenerateRequest) -> wire.Call:
        return wire.call(
            request,
            vocabulary=self._model.vocabulary,
            max_tokens=self._model.default_max_tokens,
            temperature=self._model.temperature,
            seed=secrets.randbits(64),
        )

    async def _grammar(self, call: wire.Call) -> Grammar | None:
        if call.constraint is None:
            return None
        return await asyncio.to_thread(self._grammars.compile, call.constraint)

    def _requests(
        self,
        tokens: Ids,
        answered: Ids,
        call: wire.Call,
        grammar: Grammar | None,
        context: rpc.Context,
    ) -> list[Request]:
        """Return one request per sample, next to one another so that they share the prompt."""
        return [
            Request(
                id=self._device.next_id(),
                tokens=tokens,
                answered=answered,
                max_tokens=min(call.max_tokens, self._model.context_tokens - len(tokens)),
                sampling=call.sampling.of_sample(i),
                stop_ids=self._model.stop_ids,
                grammar=grammar,
                top_logprobs=call.top_logprobs,
                rank=call.rank,
                deadline_s=deadline_s(context),
            )
            for i in range(call.samples)
        ]

    def _cancel(self, streams: Sequence[Stream]) -> None:
        for stream in streams:
            self._device.cancel(stream.request.id)

    @staticmethod
    def _ended(work: Request) -> FinishReason | None:
        """Return why the answer so far is the whole of it, None where something may follow."""
        if len(work.answered) and int(work.answered[-1]) in work.stop_ids:
            return FinishReason.STOP
        return FinishReason.LENGTH if len(work.answered) >= work.max_tokens else None

    def _started(self, prompt_tokens: int, decision_id: str) -> inference.GenerateResponse:
        return inference.GenerateResponse(
            started=inference.Started(
                decision_id=decision_id,
                plan=f"single({self._model.name})",
                model=self._model.name,
                replica=self._model.replica,
                prompt_tokens=prompt_tokens,
            )
        )

    def _prompt(self, request: wire.Asked) -> tuple[str, bool]:
        """Return the prompt's text, and whether the tokenizer may put its own tokens before it."""
        if request.WhichOneof("input") == "prompt":
            return request.prompt, True
        return self._model.text.render(wire.messages(request.messages)), False

    async def _tokens(self, request: inference.GenerateRequest | inference.ScoreRequest) -> Ids:
        """Return the input's token ids. Raises ContextTooLongError without room for one more."""
        field = request.WhichOneof("input") or ""
        if isinstance(request, inference.GenerateRequest) and field == "token_ids":
            tokens = np.array(request.token_ids.ids, np.int64)
        else:
            text, special = self._prompt(request)
            self._check_fits(self._model.text.fewest_tokens(text), field)
            tokens = await self._encode(text, special)
        if not len(tokens):
            raise invalid(field, "holds no token that the model knows")
        self._check_fits(len(tokens), field)
        return tokens

    async def _answered(self, request: inference.GenerateRequest, prompt_tokens: int) -> Ids:
        """Return the tokens of an answer that was begun elsewhere. Raises ContextTooLongError."""
        said = request.continuation
        if said.token_ids:
            tokens = np.array(said.token_ids, np.int64)
        else:
            self._check_fits(self._model.text.fewest_tokens(said.text), "continuation.text")
            tokens = await self._encode(said.text, special=False)
        self._check_fits(prompt_tokens + len(tokens) - 1, "continuation")
        return tokens

    async def _encode(self, text: str, special: bool) -> Ids:  # noqa: FBT001 - private
        if len(text) < _LONG_TEXT:
            return self._model.text.encode(text, special=special)
        return await asyncio.to_thread(self._model.text.encode, text, special=special)

    def _check_fits(self, tokens: int, field: str) -> None:
        room = self._model.context_tokens
        if tokens >= room:
            text = f"{tokens} tokens or more, and an answer, do not fit in {room} tokens of context"
            raise ContextTooLongError(f"{field}: {text}", violations=[Violation(field, text)])

    async def _continuation(self, request: inference.ScoreRequest, index: int, prompt: Ids) -> Ids:
        field, text = f"continuations[{index}]", request.continuations[index]
        self._check_fits(len(prompt) + self._model.text.fewest_tokens(text) - 1, field)
        tokens = await self._encode(text, special=False)
        if not len(tokens):
            raise invalid(field, "holds no token that the model knows")
        self._check_fits(len(prompt) + len(tokens) - 1, field)
        return tokens

    async def _scores(
        self, prompt: Ids, continuations: list[Ids], deadline_s: float, arrived_s: float
    ) -> list[float]:
        """Score all continuations at once, as the batch has room."""
        streams: list[Stream] = []
        try:
            for tokens in continuations:
                work = Request(
                    id=self._device.next_id(),
                    tokens=np.concatenate([prompt, tokens]),
                    scored_tokens=len(tokens),
                    rank=wire.STANDARD_RANK,
                    deadline_s=deadline_s,
                )
                streams.append(self._device.submit(work, arrived_s))
            return [_logprob((await stream.take())[0]) for stream in streams]
        finally:
            self._cancel(streams)


def check_model(name: str, here: str) -> None:
    """Raise UnknownModelError where *name* is neither empty nor *here*, the model's own."""
    if name not in ("", here):
        raise UnknownModelError(
            f"no model {name!r} here; this server answers for {here!r}",
            violations=[Violation("model", f"must be empty or {here!r}")],
        )


def _logprob(output: Answered) -> float:
    assert isinstance(output, Scored), "nothing else was asked for"
    return output.logprob


def deadline_s(context: rpc.Context) -> float:
    """The caller's deadline by our monotonic clock."""
    left_s = rpc.deadline_s(context)
    return math.inf if left_s is None else monotonic() + left_s
