"""Talk to a router, or to any Zeta server: to a client the router is a model.

async with AsyncClient("127.0.0.1:7070") as zeta:
    async for text in zeta.ask("What is 17 * 24?"):
        print(text, end="")

Errors are those of `services.kit.errors`; messages are the protos' own, embeddings are NumPy
arrays. `client` is the same without asyncio.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from random import Random
from time import monotonic, perf_counter
from types import TracebackType
from typing import Self, TypeVar

import grpc
import numpy as np
from numpy.typing import NDArray
from zeta.embedding.v1.embedding_service_pb2 import (
    EmbedRequest,
    EmbedResponse,
    Profile,
    ProfileRequest,
)
from zeta.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from zeta.inference.v1.decision_pb2 import Decision
from zeta.inference.v1.inference_service_pb2 import (
    ContinuationScore,
    GenerateRequest,
    GenerateResponse,
    ListModelsRequest,
    ModelInfo,
)
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub
from zeta.router.v1.router_service_pb2 import (
    ForgetTextsRequest,
    GetPolicyRequest,
    GetPolicyResponse,
    Policy,
    ReportOutcomeRequest,
    RouteRequest,
    UpdatePolicyRequest,
    UpdatePolicyResponse,
    WatchDecisionsRequest,
    WatchDecisionsResponse,
)
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub
from zeta.telemetry.v1.telemetry_service_pb2 import (
    QueryHistoryRequest,
    ReplicaHistory,
    WatchRequest,
    WatchResponse,
)
from zeta.telemetry.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from services.kit.channel import open_channel
from services.kit.config import Server
from services.kit.errors import DrainingError, NotBuiltError, ZetaError
from zeta_client import wire
from zeta_client.answer import Answer
from zeta_client.calls import Calls
from zeta_client.lookaside import Direct, Left
from zeta_client.resume import PATIENT, Patience, Thread

Q = TypeVar("Q")
R = TypeVar("R")
UNARY_TIMEOUT_S = 30.0
_REPORT_TIMEOUT_S = 2.0


class AsyncClient:
    """Calls from asyncio code.

    *target* is HOST:PORT or unix:PATH; *settings* hold TLS and message limits. Every call but
    a stream fails after *timeout_s*. Unreachable servers raise UnavailableError. *resume* says
    how long to go on with an answer whose connection broke; `resume.NEVER`: not at all. With
    *share_stream*, answers that come over one connection share a stream where the server has it.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7070",
        *,
        settings: Server | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
        resume: Patience = PATIENT,
        share_stream: bool = True,
    ) -> None:
        self._target, self._timeout_s = target, timeout_s
        self._resume, self._rng = resume, Random()  # noqa: S311 - jitter
        self._reached = False
        """Whether anything ever came from the server: a wrong address is told at once."""
        self._settings = settings or Server()
        self._channel = open_channel(target, self._settings)
        self._share_stream = share_stream
        self._calls = Calls(self._channel, share=share_stream)
        self._replicas: dict[str, tuple[grpc.aio.Channel, Calls]] = {}
        """Replicas that were called directly, by address."""
        self._reports: set[asyncio.Task[None]] = set()
        """What nobody waits for."""
        self._inference = InferenceServiceStub(self._channel)
        self._embedding = EmbeddingServiceStub(self._channel)
        self._router = RouterServiceStub(self._channel)
        self._telemetry = TelemetryServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        """Connect when first used."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channel."""
        await self.close()

    async def close(self) -> None:
        """Close the channel; running calls are cancelled."""
        self._reached = False
        await asyncio.gather(*self._reports)
        for channel, calls in ((self._channel, self._calls), *self._replicas.values()):
            await calls.close()
            await channel.close()

    def generate(
        self,
        request: GenerateRequest,
        *,
        deadline_s: float | None = None,
        lookaside: bool = False,
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Stream the events of an answer; leaving the stream early stops the model's work.

        Where the connection breaks, the answer goes on behind what came, within *deadline_s*.
        With *lookaside* the answer comes straight from the replica that the router chose, and
        through the router only where that does not work. Raises StreamBrokenError after the last
        event where the answer was cut short.
        """
        if lookaside:
            return self._direct(request, deadline_s)
        thread = Thread(
            request, patience=self._resume, deadline_s=deadline_s, clock=monotonic, rng=self._rng
        )
        return self._whole(thread)

    async def ask(
        self,
        prompt: wire.Prompt,
        *,
        model: str = "",
        policy: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        session_id: str = "",
        consent_to_train: bool = False,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[str, None]:
        """Stream the text of the answer to a question, or to the last message of a conversation.

        Requests of one *session_id* stay where their beginning is cached. *consent_to_train*
        allows the operator to keep prompt and answer.
        """
        request = wire.question(
            prompt,
            model=model,
            policy=policy,
            temperature=temperature,
            max_tokens=max_tokens,
            session_id=session_id,
            consent_to_train=consent_to_train,
        )
        async for event in self.generate(request, deadline_s=deadline_s):
            if event.delta.text:
                yield event.delta.text

    async def answers(
        self,
        prompt: wire.Prompt,
        *,
        samples: int = 1,
        model: str = "",
        policy: str = "",
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        session_id: str = "",
        consent_to_train: bool = False,
        deadline_s: float | None = None,
    ) -> Answer:
        """Return the whole answer to *prompt*, as for `ask`; with several *samples*, all of them.

        `Answer.samples` has a text and an end of each; the prompt is read once for all.
        """
        request = wire.question(
            prompt,
            model=model,
            policy=policy,
            temperature=temperature,
            max_tokens=max_tokens,
            seed=seed,
            samples=samples if samples > 1 else None,
            session_id=session_id,
            consent_to_train=consent_to_train,
        )
        answer, start_s = Answer(), perf_counter()
        async for event in self.generate(request, deadline_s=deadline_s):
            answer.add(event, perf_counter() - start_s)
        return answer

    async def count_tokens(self, prompt: wire.Prompt, model: str = "") -> int:
        """Count the tokens of a question as the model sees it, chat template included."""
        request = wire.count_request(prompt, model)
        return (await self._call(self._inference.CountTokens, request)).tokens

    async def list_models(self) -> Sequence[ModelInfo]:
        """List the models that the target answers for."""
        return (await self._call(self._inference.ListModels, ListModelsRequest())).models

    async def score(
        self, prompt: wire.Prompt, continuations: Sequence[str], model: str = ""
    ) -> Sequence[ContinuationScore]:
        """Give the log-probability of each answer to a question."""
        request = wire.score_request(prompt, continuations, model)
        return (await self._call(self._inference.Score, request)).scores

    async def judge(self, prompt: wire.Prompt, answer: str, model: str) -> float:
        """Return how likely *model* finds it, in [0, 1], that *answer* is right.

        To be given as feedback, with a source such as "judge:NAME". The model is shown both.
        """
        request = wire.judge_request(prompt, answer, model)
        return wire.judged(await self._call(self._inference.Score, request))

    async def embed(
        self,
        texts: Sequence[str],
        target_model: str = "",
        *,
        encoder: str = "",
        prompt_name: str = "",
    ) -> NDArray[np.float32]:
        """Embed texts as (N, D), passed through what was learned about *target_model*.

        *encoder* names who makes the vectors, which cannot be compared with another's; empty: the
        target's default. *prompt_name* is one of its prompts, such as "query".
        """
        request = wire.embed_request(texts, target_model, encoder=encoder, prompt_name=prompt_name)
        return wire.vectors(await self.embedded(request))

    async def embedded(self, request: EmbedRequest) -> EmbedResponse:
        """Embed, and say who made the vectors and whether they are adapted."""
        return await self._call(self._embedding.Embed, request)

    async def profile(
        self, texts: Sequence[str], *, with_embedding: bool = False
    ) -> Sequence[Profile]:
        """Say what kind of work each text is, and how hard."""
        request = ProfileRequest(texts=texts, with_embedding=with_embedding)
        return (await self._call(self._embedding.Profile, request)).profiles

    async def route(self, request: GenerateRequest, *, deadline_s: float | None = None) -> Decision:
        """Return the decision that the router would make now, without running it."""
        wanted = RouteRequest(generate=request)
        return (await self._call(self._router.Route, wanted, deadline_s)).decision

    async def feedback(
        self,
        decision_id: str,
        score: float | None = None,
        *,
        better_than: str = "",
        preference: float = 1.0,
        feedback_id: str = "",
        source: str = "user",
    ) -> bool:
        """Judge an answer: a *score* in [0, 1], or how much *better_than* another decision's.

        False where this feedback was counted before.
        """
        request = wire.feedback_request(
            decision_id,
            score=score,
            better_than=better_than,
            preference=preference,
            feedback_id=feedback_id,
            source=source,
        )
        return (await self._call(self._router.SubmitFeedback, request)).counted

    async def verify(
        self,
        decision_id: str,
        verifier: str,
        answer: str,
        reference: str = "",
        *,
        feedback_id: str = "",
    ) -> float:
        """Have a verifier judge *answer* as feedback; return the score, in [0, 1].

        *verifier* is "exact", "numeric", "json", "python", "doctest" or one of your own;
        *reference* is what it holds the answer against. Raises InvalidRequestError for one that
        is not there.
        """
        request = wire.verification_request(
            decision_id, verifier, answer, reference, feedback_id=feedback_id
        )
        return (await self._call(self._router.SubmitFeedback, request)).score

    async def forget_texts(self, decision_id: str) -> bool:
        """Delete the prompt and answer kept with consent; False where none were kept."""
        request = ForgetTextsRequest(decision_id=decision_id)
        return (await self._call(self._router.ForgetTexts, request)).forgotten

    def watch_decisions(self, model: str = "") -> AsyncGenerator[WatchDecisionsResponse, None]:
        """Stream decisions as they are made; *model* keeps those that involve it."""
        return self._stream(self._router.WatchDecisions(WatchDecisionsRequest(model=model)))

    async def policies(self) -> GetPolicyResponse:
        """Return the policies in force, and what has been learned about each model."""
        return await self._call(self._router.GetPolicy, GetPolicyRequest())

    async def update_policy(
        self, policy: Policy, *, etag: str = "", make_default: bool = False
    ) -> UpdatePolicyResponse:
        """Put a policy in force. Raises StaleEtagError where *etag* is not the current one."""
        request = UpdatePolicyRequest(policy=policy, etag=etag, make_default=make_default)
        return await self._call(self._router.UpdatePolicy, request)

    def watch_fleet(self, *, min_interval_s: float = 0.0) -> AsyncGenerator[WatchResponse, None]:
        """Stream the fleet's state from a telemetry service: a snapshot, then changes."""
        request = WatchRequest(min_interval=wire.duration(min_interval_s))
        return self._stream(self._telemetry.Watch(request))

    async def history(self, *, window_s: float, step_s: float = 0.0) -> Sequence[ReplicaHistory]:
        """Return a telemetry service's figures of the last *window_s*."""
        request = QueryHistoryRequest(window=wire.duration(window_s), step=wire.duration(step_s))
        return (await self._call(self._telemetry.QueryHistory, request)).replicas

    async def _call(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Q, R],
        request: Q,
        deadline_s: float | None = None,
    ) -> R:
        try:
            answer = await method(request, timeout=deadline_s or self._timeout_s)
        except grpc.aio.AioRpcError as failed:
            raise wire.error_of(failed, self._target) from failed
        self._reached = True
        return answer

    async def _stream(self, call: grpc.aio.UnaryStreamCall[Q, R]) -> AsyncGenerator[R, None]:
        try:
            async for message in call:
                yield message
        except grpc.aio.AioRpcError as failed:
            raise wire.error_of(failed, self._target) from failed
        finally:
            call.cancel()

    async def _whole(self, thread: Thread) -> AsyncGenerator[GenerateResponse, None]:
        while not thread.finished:
            call = self._calls.begin(thread.request, thread.left_s())
            try:
                async for event in call:
                    self._reached = True
                    if thread.is_new(event):
                        yield event
                if not thread.finished:
                    raise wire.cut_short()
            except grpc.aio.AioRpcError as failed:
                broke = self._reached and wire.connection_broke(failed)
                error = wire.error_of(failed, self._target)
                if isinstance(error, DrainingError):
                    self._calls.leave()
                pause_s = thread.again_in_s(error, broke=broke)
                await asyncio.sleep(pause_s)
            finally:
                call.cancel()

    async def _direct(
        self, request: GenerateRequest, deadline_s: float | None
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Stream an answer from the replica itself; what that does not give, from the router."""
        left = Left(deadline_s)
        try:
            wanted = RouteRequest(generate=request, ticket=True)
            routed = await self._call(self._router.Route, wanted, deadline_s)
        except NotBuiltError:
            async for event in self.generate(request, deadline_s=left.s()):
                yield event
            return
        answer = Direct(request, routed)
        async for event in self._from_replica(answer, left.s()):
            yield event
        if answer.broken is not None:
            async for event in self.generate(answer.rest(), deadline_s=left.s()):
                yield answer.behind(event)

    async def _from_replica(
        self, answer: Direct, timeout_s: float | None
    ) -> AsyncGenerator[GenerateResponse, None]:
        """Stream what the replica gives, and report how it ended."""
        call = self._replica(answer.address).begin(answer.request, timeout_s, answer.metadata)
        try:
            async for event in call:
                answer.note(event)
                if answer.finished is not None:
                    # The caller may judge the answer next: the router has to know of it by then.
                    with suppress(ZetaError):  # a lost report costs a lesson, never the answer
                        await self._call(
                            self._router.ReportOutcome, answer.outcome(), _REPORT_TIMEOUT_S
                        )
                yield event
            if answer.finished is None:
                answer.broken = wire.cut_short()
        except grpc.aio.AioRpcError as failed:
            answer.broken = wire.error_of(failed, answer.address)
        finally:
            call.cancel()
            if answer.finished is None:
                self._report_later(answer.outcome())

    def _replica(self, address: str) -> Calls:
        if address not in self._replicas:
            channel = open_channel(address, self._settings)
            self._replicas[address] = channel, Calls(channel, share=self._share_stream)
        return self._replicas[address][1]

    def _report_later(self, outcome: ReportOutcomeRequest) -> None:
        """Report while nobody waits for it."""

        async def report() -> None:
            with suppress(ZetaError):
                await self._call(self._router.ReportOutcome, outcome, _REPORT_TIMEOUT_S)

        task = asyncio.create_task(report())
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
