"""Everything the router asks of other processes: replicas, embedders, telemetry, their health."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Collection,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from random import shuffle
from typing import Any, Final, TypeAlias, TypeVar

import grpc
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb
from zeta.embedding.v1 import embedding_service_pb2_grpc as embedding_grpc
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.model.v1 import model_control_service_pb2 as control_pb
from zeta.model.v1 import model_control_service_pb2_grpc as control_grpc
from zeta.telemetry.v1 import telemetry_service_pb2 as telemetry_pb
from zeta.telemetry.v1 import telemetry_service_pb2_grpc as telemetry_grpc

from router_svc import wire
from router_svc.coalesce import coalesced
from router_svc.core.features import Features
from router_svc.core.twist import AS_ASKED, Twist
from router_svc.fleet import Fleet, Info, Lease
from router_svc.learner import Learner
from router_svc.run import HungError, LostError, Scores, Upstream
from router_svc.wire import Event
from services.kit import aio
from services.kit.channel import open_channel
from services.kit.config import FleetConfig
from services.kit.errors import UnavailableError, ZetaError
from services.kit.mux.client import Line
from services.kit.rpc import is_bare, zeta_error
from services.kit.tickets import Keyring, Passes

log = structlog.get_logger()

T = TypeVar("T")
Metadata: TypeAlias = tuple[tuple[str, str], ...]

INFERENCE: Final = "zeta.inference.v1.InferenceService"
EMBEDDING: Final = "zeta.embedding.v1.EmbeddingService"

_PROFILE_LIMIT_S: Final = 2.0
"""A profile that took longer would help nobody."""
_ALLOCATION_LIMIT_S: Final = 1.0
_PROFILE_HALF: Final = 10_000
"""Characters sent from each end of a long text; the embedder reads far fewer."""
_PROBE_S: Final = 2.0
"""A process that takes longer to say how it is hangs."""
_NO_ANSWER: Final = (
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
)
_PROBE_EVERY_S: Final = 0.5
_AGAIN_S: Final = 0.1
"""Pause before a broken stream is opened again; the channel itself backs off up to a second."""


class Upstreams:
    """Channels to every replica."""

    def __init__(self, config: FleetConfig, fleet: Fleet, keyring: Keyring | None = None) -> None:
        self._fleet = fleet
        fleet.ask = self.ask
        some_need_it = any(model.requires_ticket for model in config.models)
        self._passes = Passes(keyring) if keyring and some_need_it else None
        self._channels = {
            name: open_channel(address, config.server)
            for name, address in zip(fleet.names, fleet.addresses, strict=True)
        }
        self._stubs = {
            name: inference_grpc.InferenceServiceStub(channel)
            for name, channel in self._channels.items()
        }
        self._lines = {name: Line(channel, name) for name, channel in self._channels.items()}

    def sender(self, request: wire.Request, features: Features, metadata: Metadata) -> Upstream:
        """Make *request* ready to be sent to any replica."""
        return _Sender(self, request, features, metadata)

    def scores(self, request: wire.Request, metadata: Metadata) -> Scores:
        """Make the input of *request* ready to have answers to it scored."""
        return partial(self._score_answers, request, metadata)

    async def _score_answers(
        self,
        request: wire.Request,
        metadata: Metadata,
        model: str,
        answers: Sequence[str],
        timeout_s: float | None,
    ) -> list[float]:
        asked = wire.score_request(request, model, answers)
        said = await self.score(asked, timeout_s, metadata)
        return [each.logprob / max(each.tokens, 1) for each in said.scores]

    async def count(
        self,
        request: inference_pb.CountTokensRequest,
        timeout_s: float | None,
        metadata: Metadata,
    ) -> inference_pb.CountTokensResponse:
        """Count tokens where the model is least busy. Raises ZetaError."""
        return await self._least_busy(
            request.model,
            lambda stub: stub.CountTokens(
                request, timeout=timeout_s, metadata=self._shown(metadata)
            ),
        )

    async def score(
        self, request: inference_pb.ScoreRequest, timeout_s: float | None, metadata: Metadata
    ) -> inference_pb.ScoreResponse:
        """Score continuations where the model is least busy. Raises ZetaError."""
        return await self._least_busy(
            request.model,
            lambda stub: stub.Score(request, timeout=timeout_s, metadata=self._shown(metadata)),
        )

    async def embed(
        self,
        lease: Lease,
        request: embedding_pb.EmbedRequest,
        timeout_s: float | None,
        metadata: Metadata,
    ) -> embedding_pb.EmbedResponse:
        """Embed on the leased replica. Raises ZetaError; the lease's `abort` cancels the call."""
        stub = embedding_grpc.EmbeddingServiceStub(self._channels[lease.replica])
        call = stub.Embed(request, timeout=timeout_s, metadata=self._shown(metadata))
        lease.abort = call.cancel
        with _translated(lease):
            return await call

    async def allocate(self, replica: str, slots: int, kv_tokens: int) -> int:
        """Give *replica* so many slots and cache tokens; return its slots. Raises ZetaError."""
        stub = control_grpc.ModelControlServiceStub(self._channels[replica])
        wanted = control_pb.Allocation(max_running=slots, kv_tokens=kv_tokens)
        request = control_pb.SetAllocationRequest(allocation=wanted)
        try:
            answer = await stub.SetAllocation(request, timeout=_ALLOCATION_LIMIT_S)
        except grpc.aio.AioRpcError as failed:
            raise zeta_error(failed) from None
        return answer.allocation.max_running

    async def watch(self, replica: str) -> None:
        """Tell the fleet for ever how *replica* is."""
        line = self._lines[replica]

        async def tell(*, serving: bool) -> None:
            if serving:
                await aio.all_of(self._introduce(replica), line.settled(_PROFILE_LIMIT_S))
            self._fleet.health(replica, serving=serving)

        await watch_health(self._channels[replica], INFERENCE, tell)

    async def carry(self, replica: str) -> None:
        """Keep up for ever the stream that calls to *replica* share; it ends with this."""
        await self._lines[replica].keep()

    async def probe(self) -> None:
        """Ask for ever whoever may hang whether it still answers."""
        while True:
            await aio.all_of(*(self.ask(replica) for replica in self._fleet.suspects()))
            await asyncio.sleep(_PROBE_EVERY_S)

    async def ask(self, replica: str) -> None:
        """Ask *replica* whether it still answers."""
        stub: Any = health_pb2_grpc.HealthStub(self._channels[replica])
        request, answers = health_pb2.HealthCheckRequest(service=INFERENCE), True
        try:
            await stub.Check(request, timeout=_PROBE_S)
        except grpc.aio.AioRpcError as failed:
            answers = failed.code() not in _NO_ANSWER
        self._fleet.probed(replica, answers=answers)

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()

    def generate(
        self,
        replica: str,
        request: inference_pb.GenerateRequest,
        timeout_s: float | None,
        metadata: Metadata,
    ) -> Any:
        """Begin a call: on the stream that carries many, or as one of its own."""
        line, encoded = self._lines[replica], request.SerializeToString()
        metadata = self._shown(metadata)
        if line.takes(encoded):
            return line.call(encoded, timeout_s, metadata)
        stub = self._stubs[replica]
        return stub.Generate(request, timeout=timeout_s, metadata=metadata)

    def _shown(self, metadata: Metadata) -> Metadata:
        """Add what lets the router in where callers need a ticket."""
        return (*metadata, *self._passes.metadata()) if self._passes else metadata

    async def _introduce(self, replica: str) -> None:
        """Ask what the replica's model can do; where it does not say, the configuration stands."""
        try:
            answer = await self._stubs[replica].ListModels(
                inference_pb.ListModelsRequest(), timeout=_PROFILE_LIMIT_S
            )
        except grpc.aio.AioRpcError as failed:
            log.warning("no introduction", replica=replica, status=failed.code().name)
            return
        model = self._fleet.model_name(replica)
        for said in answer.models:
            if said.name == model:
                can = tuple(said.capabilities)
                info = Info(
                    context_tokens=said.context_tokens,
                    default_max_tokens=said.default_max_tokens,
                    parameters=said.parameters,
                    precision=said.precision,
                    runtime=said.runtime,
                    capabilities=can,
                )
                self._fleet.knows(
                    model,
                    info,
                    generates=not can or inference_pb.CAPABILITY_GENERATE in can,
                    embeds=inference_pb.CAPABILITY_EMBED in can,
                )

    async def _least_busy(
        self, model: str, ask: "Callable[[inference_grpc.InferenceServiceAsyncStub], Awaitable[T]]"
    ) -> T:
        last: ZetaError = UnavailableError(f"no replica of {model} serves", retry_after_s=1.0)
        for replica in self._fleet.healthy_replicas(model):
            try:
                return await ask(self._stubs[replica])
            except grpc.aio.AioRpcError as failed:
                last = zeta_error(failed)
                if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                    break
        raise last


@dataclass(frozen=True, slots=True)
class _Sender:
    """A request, ready to be sent to any replica."""

    upstreams: Upstreams
    request: wire.Request
    features: Features
    metadata: Metadata

    async def __call__(
        self,
        model: str,
        lease: Lease,
        timeout_s: float | None,
        behind: wire.Continuation | None = None,
        twist: Twist = AS_ASKED,
    ) -> AsyncGenerator[Event, None]:
        asked = wire.upstream_request(self.request, model, self.features, behind, twist)
        call = self.upstreams.generate(lease.replica, asked, timeout_s, self.metadata)
        lease.abort = call.cancel
        try:
            with _translated(lease):
                async with aclosing(coalesced(call)) as events:
                    async for event in events:
                        yield event
        finally:
            call.cancel()


@contextmanager
def _translated(lease: Lease) -> Iterator[None]:
    """Turn the end of a call into our error: a refusal, or a replica that was given up."""
    try:
        yield
    except grpc.aio.AioRpcError as failed:
        error = zeta_error(failed)
        if isinstance(error, UnavailableError) and is_bare(failed):
            raise LostError(str(error)) from None
        raise error from None
    except asyncio.CancelledError:
        if not lease.lost:
            raise
        raise HungError(f"{lease.replica} does not answer any more") from None


class Embedders:
    """The embedding processes; work goes to the least busy one that serves."""

    def __init__(self, config: FleetConfig) -> None:
        self.name = config.embedding.name
        """Of the encoder that all of them run."""
        self._channels = [open_channel(r.listen, config.server) for r in config.embedding.replicas]
        self._stubs = [embedding_grpc.EmbeddingServiceStub(c) for c in self._channels]
        self._busy = [0] * len(self._stubs)
        self._serving = [False] * len(self._stubs)
        self.changed: Callable[[], None] = lambda: None
        """Called when an instance comes or goes."""

    def least_busy(self, failed: Collection[str]) -> str | None:
        """As `embedding.Encoder.least_busy`, by our own calls."""
        able = [i for i in self._by_load() if str(i) not in failed]
        return str(able[0]) if able else None

    async def embed(
        self,
        instance: str,
        request: embedding_pb.EmbedRequest,
        timeout_s: float | None,
        metadata: Metadata,
    ) -> embedding_pb.EmbedResponse:
        """As `embedding.Encoder.embed`."""
        return await self._ask(
            int(instance), lambda stub: stub.Embed(request, timeout=timeout_s, metadata=metadata)
        )

    async def profile(
        self, request: embedding_pb.ProfileRequest, timeout_s: float | None, metadata: Metadata
    ) -> embedding_pb.ProfileResponse:
        """Pass *request* on. Raises ZetaError."""
        return await self._least_busy(
            lambda stub: stub.Profile(request, timeout=timeout_s, metadata=metadata)
        )

    async def features(self, text: str) -> Features:
        """Profile *text*, the middle of a very long one left out.

        Raises ZetaError where nobody serves, ValueError where what came is no profile.
        """
        sent = text
        if len(text) > 2 * _PROFILE_HALF:
            sent = f"{text[:_PROFILE_HALF]}\n{text[-_PROFILE_HALF:]}"
        request = embedding_pb.ProfileRequest(texts=[sent], with_embedding=True)
        answer = await self.profile(request, _PROFILE_LIMIT_S, ())
        if len(answer.profiles) != 1:
            raise ValueError(f"{len(answer.profiles)} profiles for one text")
        found = wire.features_of(answer.profiles[0], answer.encoder, text)
        if sent is text:
            return found
        tokens = int(found.prompt_tokens * len(text) / len(sent))
        return replace(found, prompt_tokens=max(tokens, 1))

    async def watch(self, i: int) -> None:
        """Keep up for ever with whether instance *i* serves."""

        async def tell(*, serving: bool) -> None:
            self._serving[i] = serving
            self.changed()

        await watch_health(self._channels[i], EMBEDDING, tell)

    def count(self) -> int:
        """Number of instances."""
        return len(self._stubs)

    def serves(self) -> bool:
        """Whether any instance serves."""
        return any(self._serving)

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels:
            await channel.close()

    async def _least_busy(
        self, ask: "Callable[[embedding_grpc.EmbeddingServiceAsyncStub], Awaitable[T]]"
    ) -> T:
        last: ZetaError = UnavailableError("no embedding process serves", retry_after_s=1.0)
        for i in self._by_load():
            try:
                return await self._ask(i, ask)
            except UnavailableError as error:
                last = error
        raise last

    def _by_load(self) -> list[int]:
        """Instances that serve, the least busy first; alike ones in any order.

        Their work for other routers and workers is not known here: were ties always broken the
        same way, all of these would meet at the first instance.
        """
        able = [i for i, serving in enumerate(self._serving) if serving]
        shuffle(able)
        return sorted(able, key=self._busy.__getitem__)

    async def _ask(
        self, i: int, ask: "Callable[[embedding_grpc.EmbeddingServiceAsyncStub], Awaitable[T]]"
    ) -> T:
        self._busy[i] += 1
        try:
            return await ask(self._stubs[i])
        except grpc.aio.AioRpcError as failed:
            raise zeta_error(failed) from None
        finally:
            self._busy[i] -= 1


async def watch_health(
    channel: grpc.aio.Channel, service: str, tell: Callable[..., Awaitable[None]]
) -> None:
    """Call *tell*(serving=…) for ever, as the process's own health stream says."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    while True:
        try:
            # Waiting for the connection costs nothing, and notices it at once.
            async for answer in stub.Watch(request, wait_for_ready=True):
                await tell(serving=answer.status == health_pb2.HealthCheckResponse.SERVING)
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                log.warning("health stream", service=service, status=failed.code().name)
        await tell(serving=False)
        await asyncio.sleep(_AGAIN_S)


async def watch_telemetry(config: FleetConfig, fleet: Fleet, learner: Learner) -> None:
    """Feed telemetry's stream into fleet and learner for ever; without it, wait for it."""
    channel = open_channel(config.telemetry.listen, config.server)
    stub = telemetry_grpc.TelemetryServiceStub(channel)
    try:
        while True:
            try:
                async for answer in stub.Watch(telemetry_pb.WatchRequest(), wait_for_ready=True):
                    fleet.told(anew=answer.HasField("snapshot"))
                    for status in (*answer.snapshot.replicas, *answer.delta.replicas):
                        _take_report(status, fleet, learner)
            except grpc.aio.AioRpcError as failed:
                log.warning("telemetry lost", status=failed.code().name)
            fleet.reports_lost()
            await asyncio.sleep(_AGAIN_S)
    finally:
        await channel.close()


def _take_report(status: telemetry_pb.ReplicaStatus, fleet: Fleet, learner: Learner) -> None:
    report, state = status.report, status.report.state
    fleet.reported(
        report.replica,
        requests=state.running + state.waiting,
        prompt_tokens=state.waiting_prompt_tokens,
        max_running=state.allocation.max_running,
        draining=state.draining or status.health == telemetry_pb.REPLICA_HEALTH_DRAINING,
        dead=status.health == telemetry_pb.REPLICA_HEALTH_DEAD,
        age_s=status.age.ToNanoseconds() / 1e9,
        held_s=report.read_every.ToNanoseconds() / 1e9 if status.held else inf,
    )
    if state.HasField("step_time") and state.running and state.model in fleet.models:
        learner.step_time(state.model, state.running, state.step_time.ToNanoseconds() / 1e9)


def model_infos(fleet: Fleet, config: FleetConfig) -> Mapping[str, inference_pb.ModelInfo]:
    """Describe every model: as it said itself, or as configured until it has."""
    found = {}
    for model in config.models:
        info = fleet.infos.get(model.name)
        found[model.name] = inference_pb.ModelInfo(
            name=model.name,
            context_tokens=info.context_tokens if info else model.context_tokens,
            default_max_tokens=info.default_max_tokens if info else model.default_max_tokens,
            parameters=info.parameters if info else 0,
            precision=info.precision if info else "",
            runtime=info.runtime if info else "",
            capabilities=[inference_pb.Capability.values()[c] for c in info.capabilities]
            if info
            else [inference_pb.CAPABILITY_GENERATE],
            replicas=[replica.listen for replica in model.replicas],
        )
    return found
