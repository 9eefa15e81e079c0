"""Talk to a router, or to any Zeta server: to a client the router is a model.

with Client("127.0.0.1:7070") as zeta:
    for text in zeta.ask("What is 17 * 24?"):
        print(text, end="")

Errors are those of `services.kit.errors`; messages are the protos' own, embeddings are NumPy
arrays. `async_client` is the same on asyncio.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from random import Random
from time import monotonic, perf_counter, sleep
from types import TracebackType
from typing import Protocol, Self, TypeVar

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

from services.kit.channel import options
from services.kit.config import Server
from services.kit.errors import NotBuiltError, ZetaError
from services.kit.security import channel_credentials
from zeta_client import wire
from zeta_client.answer import Answer
from zeta_client.lookaside import Direct, Left
from zeta_client.resume import PATIENT, Patience, Thread

Q = TypeVar("Q")
R = TypeVar("R")
M_co = TypeVar("M_co", covariant=True)
UNARY_TIMEOUT_S = 30.0
_REPORT_TIMEOUT_S = 2.0


class _Messages(Protocol[M_co]):
    """A running call whose messages are read one by one; gRPC does not name its type."""

    def __iter__(self) -> Iterator[M_co]: ...

    def cancel(self) -> bool: ...


class Client:
    """Calls that block.

    *target* is HOST:PORT or unix:PATH; *settings* hold TLS and message limits. Every call but
    a stream fails after *timeout_s*. Unreachable servers raise UnavailableError. *resume* says
    how long to go on with an answer whose connection broke; `resume.NEVER`: not at all.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7070",
        *,
        settings: Server | None = None,
        timeout_s: float = UNARY_TIMEOUT_S,
        resume: Patience = PATIENT,
    ) -> None:
        self._target, self._timeout_s = target, timeout_s
        self._resume, self._rng = resume, Random()  # noqa: S311 - jitter
        self._reached = False
        """Whether anything ever came from the server: a wrong address is told at once."""
        self._settings = settings or Server()
        self._channel = _open(target, self._settings)
        self._replicas: dict[str, grpc.Channel] = {}
        """Channels of replicas that were called directly, by address."""
        self._inference = InferenceServiceStub(self._channel)
        self._embedding = EmbeddingServiceStub(self._channel)
        self._router = RouterServiceStub(self._channel)
        self._telemetry = TelemetryServiceStub(self._channel)

    def __enter__(self) -> Self:
        """Connect when first used."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the channel."""
        self.close()

    def close(self) -> None:
        """Close the channel; running calls are cancelled."""
        self._reached = False
        for channel in (self._channel, *self._replicas.values()):
            channel.close()

    def generate(
        self,
        request: GenerateRequest,
        *,
        deadline_s: float | None = None,
        lookaside: bool = False,
    ) -> Iterator[GenerateResponse]:
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

    def ask(
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
    ) -> Iterator[str]:
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
        for event in self.generate(request, deadline_s=deadline_s):
            if event.delta.text:
                yield event.delta.text

    def answers(
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
        for event in self.generate(request, deadline_s=deadline_s):
            answer.add(event, perf_counter() - start_s)
        return answer

    def count_tokens(self, prompt: wire.Prompt, model: str = "") -> int:
        """Count the tokens of a question as the model sees it, chat template included."""
        request = wire.count_request(prompt, model)
        return (self._call(self._inference.CountTokens, request)).tokens

    def list_models(self) -> Sequence[ModelInfo]:
        """List the models that the target answers for."""
        return (self._call(self._inference.ListModels, ListModelsRequest())).models

    def score(
        self, prompt: wire.Prompt, continuations: Sequence[str], model: str = ""
    ) -> Sequence[ContinuationScore]:
        """Give the log-probability of each answer to a question."""
        request = wire.score_request(prompt, continuations, model)
        return (self._call(self._inference.Score, request)).scores

    def judge(self, prompt: wire.Prompt, answer: str, model: str) -> float:
        """Return how likely *model* finds it, in [0, 1], that *answer* is right.

        To be given as feedback, with a source such as "judge:NAME". The model is shown both.
        """
        request = wire.judge_request(prompt, answer, model)
        return wire.judged(self._call(self._inference.Score, request))

    def embed(
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
        return wire.vectors(self.embedded(request))

    def embedded(self, request: EmbedRequest) -> EmbedResponse:
        """Embed, and say who made the vectors and whether they are adapted."""
        return self._call(self._embedding.Embed, request)

    def profile(self, texts: Sequence[str], *, with_embedding: bool = False) -> Sequence[Profile]:
        """Say what kind of work each text is, and how hard."""
        request = ProfileRequest(texts=texts, with_embedding=with_embedding)
        return (self._call(self._embedding.Profile, request)).profiles

    def route(self, request: GenerateRequest, *, deadline_s: float | None = None) -> Decision:
        """Return the decision that the router would make now, without running it."""
        wanted = RouteRequest(generate=request)
        return (self._call(self._router.Route, wanted, deadline_s)).decision

    def feedback(
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
        return (self._call(self._router.SubmitFeedback, request)).counted

    def verify(
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
        return (self._call(self._router.SubmitFeedback, request)).score

    def forget_texts(self, decision_id: str) -> bool:
        """Delete the prompt and answer kept with consent; False where none were kept."""
        request = ForgetTextsRequest(decision_id=decision_id)
        return (self._call(self._router.ForgetTexts, request)).forgotten

    def watch_decisions(self, model: str = "") -> Iterator[WatchDecisionsResponse]:
        """Stream decisions as they are made; *model* keeps those that involve it."""
        return self._stream(self._router.WatchDecisions(WatchDecisionsRequest(model=model)))

    def policies(self) -> GetPolicyResponse:
        """Return the policies in force, and what has been learned about each model."""
        return self._call(self._router.GetPolicy, GetPolicyRequest())

    def update_policy(
        self, policy: Policy, *, etag: str = "", make_default: bool = False
    ) -> UpdatePolicyResponse:
        """Put a policy in force. Raises StaleEtagError where *etag* is not the current one."""
        request = UpdatePolicyRequest(policy=policy, etag=etag, make_default=make_default)
        return self._call(self._router.UpdatePolicy, request)

    def watch_fleet(self, *, min_interval_s: float = 0.0) -> Iterator[WatchResponse]:
        """Stream the fleet's state from a telemetry service: a snapshot, then changes."""
        request = WatchRequest(min_interval=wire.duration(min_interval_s))
        return self._stream(self._telemetry.Watch(request))

    def history(self, *, window_s: float, step_s: float = 0.0) -> Sequence[ReplicaHistory]:
        """Return a telemetry service's figures of the last *window_s*."""
        request = QueryHistoryRequest(window=wire.duration(window_s), step=wire.duration(step_s))
        return (self._call(self._telemetry.QueryHistory, request)).replicas

    def _call(
        self,
        method: "grpc.UnaryUnaryMultiCallable[Q, R]",  # not generic when it runs
        request: Q,
        deadline_s: float | None = None,
    ) -> R:
        try:
            answer = method(request, timeout=deadline_s or self._timeout_s)
        except grpc.RpcError as failed:
            raise wire.error_of(failed, self._target) from failed
        self._reached = True
        return answer

    def _stream(self, call: _Messages[R]) -> Iterator[R]:
        try:
            yield from call
        except grpc.RpcError as failed:
            raise wire.error_of(failed, self._target) from failed
        finally:
            call.cancel()

    def _whole(self, thread: Thread) -> Iterator[GenerateResponse]:
        while not thread.finished:
            call = self._inference.Generate(thread.request, timeout=thread.left_s())
            try:
                for event in call:
                    self._reached = True
                    if thread.is_new(event):
                        yield event
                if not thread.finished:
                    raise wire.cut_short()
            except grpc.RpcError as failed:
                broke = self._reached and wire.connection_broke(failed)
                pause_s = thread.again_in_s(wire.error_of(failed, self._target), broke=broke)
                sleep(pause_s)
            finally:
                call.cancel()

    def _direct(
        self, request: GenerateRequest, deadline_s: float | None
    ) -> Iterator[GenerateResponse]:
        """Stream an answer from the replica itself; what that does not give, from the router."""
        left = Left(deadline_s)
        try:
            wanted = RouteRequest(generate=request, ticket=True)
            routed = self._call(self._router.Route, wanted, deadline_s)
        except NotBuiltError:
            for event in self.generate(request, deadline_s=left.s()):
                yield event
            return
        answer = Direct(request, routed)
        for event in self._from_replica(answer, left.s()):
            yield event
        if answer.broken is not None:
            for event in self.generate(answer.rest(), deadline_s=left.s()):
                yield answer.behind(event)

    def _from_replica(self, answer: Direct, timeout_s: float | None) -> Iterator[GenerateResponse]:
        """Stream what the replica gives, and report how it ended."""
        call = self._replica(answer.address).Generate(
            answer.request, timeout=timeout_s, metadata=answer.metadata
        )
        try:
            for event in call:
                answer.note(event)
                if answer.finished is not None:
                    # The caller may judge the answer next: the router has to know of it by then.
                    with suppress(ZetaError):  # a lost report costs a lesson, never the answer
                        self._call(self._router.ReportOutcome, answer.outcome(), _REPORT_TIMEOUT_S)
                yield event
            if answer.finished is None:
                answer.broken = wire.cut_short()
        except grpc.RpcError as failed:
            answer.broken = wire.error_of(failed, answer.address)
        finally:
            call.cancel()
            if answer.finished is None:
                self._report_later(answer.outcome())

    def _replica(self, address: str) -> InferenceServiceStub:
        if address not in self._replicas:
            self._replicas[address] = _open(address, self._settings)
        return InferenceServiceStub(self._replicas[address])

    def _report_later(self, outcome: ReportOutcomeRequest) -> None:
        """Report while nobody waits for it."""
        self._router.ReportOutcome.future(outcome, timeout=_REPORT_TIMEOUT_S)


def _open(target: str, settings: Server) -> grpc.Channel:
    if settings.tls:
        return grpc.secure_channel(target, channel_credentials(settings.tls), options(settings))
    return grpc.insecure_channel(target, options(settings))
