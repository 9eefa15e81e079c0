"""A scripted model and a whole router in this process, talking real gRPC."""

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Sequence,
)
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc
from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb
from zeta.embedding.v1 import embedding_service_pb2_grpc as embedding_grpc
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.model.v1 import model_control_service_pb2 as model_pb
from zeta.router.v1 import router_service_pb2 as router_pb
from zeta.router.v1 import router_service_pb2_grpc as router_grpc
from zeta.telemetry.v1 import telemetry_service_pb2 as telemetry_pb

from router_svc.app import running
from services.kit.config import (
    Embedding,
    EmbeddingReplica,
    Fleet,
    FleetConfig,
    Model,
    Policy,
    Replica,
    Router,
    Server,
    Telemetry,
)
from services.kit.rpc import Context
from services.kit.server import Serving, serving

INFERENCE = "zeta.inference.v1.InferenceService"
TELEMETRY = "zeta.telemetry.v1.TelemetryService"
EMBEDDING = "zeta.embedding.v1.EmbeddingService"
SETTINGS = Server(drain_grace_s=0.2)

Answer: TypeAlias = Callable[
    [inference_pb.GenerateRequest, Context], AsyncIterator[inference_pb.GenerateResponse]
]


def saying(text: str, *, mean_logprob: float = -0.05, parts: int = 1) -> Answer:
    """A model that answers *text* in so many parts."""

    async def answer(
        request: inference_pb.GenerateRequest, _context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        yield inference_pb.GenerateResponse(
            started=inference_pb.Started(model=request.model, prompt_tokens=7)
        )
        size = max(-(-len(text) // parts), 1)
        for i in range(0, len(text), size):
            delta = inference_pb.Delta(seq=i // size + 1, text=text[i : i + size])
            yield inference_pb.GenerateResponse(delta=delta)
        yield inference_pb.GenerateResponse(
            finished=inference_pb.Finished(
                reason=inference_pb.FINISH_REASON_STOP,
                usage=inference_pb.Usage(prompt_tokens=7, completion_tokens=parts),
                mean_logprob=mean_logprob,
            )
        )

    return answer


def failing(status: grpc.StatusCode = grpc.StatusCode.UNAVAILABLE, *, after: int = 0) -> Answer:
    """A model that aborts after so many deltas."""

    async def answer(
        request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        yield inference_pb.GenerateResponse(started=inference_pb.Started(model=request.model))
        for i in range(after):
            yield inference_pb.GenerateResponse(delta=inference_pb.Delta(seq=i + 1, text="half "))
        await context.abort(status, "as the script says")

    return answer


@dataclass(slots=True)
class FakeModel(inference_grpc.InferenceServiceServicer):
    """Answers as its script says: the first entries once each, the last one for ever."""

    name: str
    script: list[Answer] = field(default_factory=lambda: [saying("four")])
    requests: list[inference_pb.GenerateRequest] = field(default_factory=list)
    metadata: list[dict[str, str]] = field(default_factory=list)
    time_left_s: list[float] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def Generate(  # noqa: N802 - named by the contract
        self, request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncIterator[inference_pb.GenerateResponse]:
        """Answer as the script says."""
        self.requests.append(request)
        # Read while the call runs: what gRPC hands out afterwards is no longer the call's.
        self.metadata.append(
            {key: str(value) for key, value in context.invocation_metadata() or ()}
        )
        self.time_left_s.append(context.time_remaining() or 0.0)
        self.arrived.set()
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        try:
            async for event in answer(request, context):
                yield event
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def ListModels(  # noqa: N802 - named by the contract
        self, _request: inference_pb.ListModelsRequest, _context: Context
    ) -> inference_pb.ListModelsResponse:
        """Introduce itself."""
        info = inference_pb.ModelInfo(name=self.name, context_tokens=512, default_max_tokens=64)
        return inference_pb.ListModelsResponse(models=[info])

    async def CountTokens(  # noqa: N802 - named by the contract
        self, request: inference_pb.CountTokensRequest, _context: Context
    ) -> inference_pb.CountTokensResponse:
        """One token a character."""
        return inference_pb.CountTokensResponse(tokens=len(request.prompt), model=request.model)

    async def Score(  # noqa: N802 - named by the contract
        self, request: inference_pb.ScoreRequest, _context: Context
    ) -> inference_pb.ScoreResponse:
        """Every continuation is as likely as it is short."""
        scores = [
            inference_pb.ContinuationScore(logprob=-len(text), tokens=len(text))
            for text in request.continuations
        ]
        return inference_pb.ScoreResponse(scores=scores, model=request.model)


async def hang(
    request: inference_pb.GenerateRequest, _context: Context
) -> AsyncIterator[inference_pb.GenerateResponse]:
    """Say one word, then nothing, until cancelled."""
    yield inference_pb.GenerateResponse(started=inference_pb.Started(model=request.model))
    yield inference_pb.GenerateResponse(delta=inference_pb.Delta(seq=1, text="wait"))
    await asyncio.Event().wait()


async def begun_only(
    request: inference_pb.GenerateRequest, context: Context
) -> AsyncIterator[inference_pb.GenerateResponse]:
    """Answer behind a beginning, else begin and hang."""
    answer = saying(" and four") if request.HasField("continuation") else hang
    async for event in answer(request, context):
        yield event


async def mute(
    request: inference_pb.GenerateRequest, _context: Context
) -> AsyncIterator[inference_pb.GenerateResponse]:
    """Take the request, and say nothing until cancelled."""
    yield inference_pb.GenerateResponse(started=inference_pb.Started(model=request.model))
    await asyncio.Event().wait()


class FakeEmbedder(embedding_grpc.EmbeddingServiceServicer):
    """Profiles everything as code, or never answers."""

    def __init__(self, *, stalled: bool = False, expected_output_tokens: float = 8.0) -> None:
        self.stalled = stalled
        self.expected_output_tokens = expected_output_tokens
        self.adapts = False
        """Whether it says that it has adapted embeddings itself."""
        self.release = asyncio.Event()
        self.calls = 0

    async def Profile(  # noqa: N802 - named by the contract
        self, _request: embedding_pb.ProfileRequest, _context: Context
    ) -> embedding_pb.ProfileResponse:
        """Call everything code."""
        self.calls += 1
        if self.stalled:
            await self.release.wait()
        profile = embedding_pb.Profile(
            tasks=[
                embedding_pb.TaskShare(kind=inference_pb.TASK_KIND_CODE, probability=0.9),
                embedding_pb.TaskShare(kind=inference_pb.TASK_KIND_GENERAL, probability=0.1),
            ],
            difficulty=0.5,
            expected_output_tokens=self.expected_output_tokens,
            prompt_tokens=5,
            embedding=embedding_pb.Embedding(values=[1.0] + [0.0] * 383),
        )
        return embedding_pb.ProfileResponse(profiles=[profile], encoder="fake")

    async def Embed(  # noqa: N802 - named by the contract
        self, request: embedding_pb.EmbedRequest, _context: Context
    ) -> embedding_pb.EmbedResponse:
        """Embed all texts alike."""
        self.calls += 1
        alike = embedding_pb.Embedding(values=[0.6, 0.8] + [0.0] * 382)
        return embedding_pb.EmbedResponse(
            encoder="fake", embeddings=[alike] * len(request.texts), adapted=self.adapts
        )


class FakeTelemetry:
    """Sends what is put into it to its one watcher."""

    def __init__(self) -> None:
        self.news: asyncio.Queue[telemetry_pb.WatchResponse] = asyncio.Queue()

    async def Watch(  # noqa: N802 - named by the contract
        self, _request: telemetry_pb.WatchRequest, _context: Context
    ) -> AsyncIterator[telemetry_pb.WatchResponse]:
        """Stream the news."""
        while True:
            yield await self.news.get()

    def tell(self, replica: str, health: telemetry_pb.ReplicaHealth.ValueType) -> None:
        """Report on *replica*, busy with three requests."""
        state = model_pb.ModelState(
            running=3, allocation=model_pb.Allocation(max_running=4), waiting_prompt_tokens=5
        )
        report = telemetry_pb.ReplicaReport(replica=replica, state=state)
        status = telemetry_pb.ReplicaStatus(report=report, health=health)
        self.news.put_nowait(
            telemetry_pb.WatchResponse(snapshot=telemetry_pb.FleetSnapshot(replicas=[status]))
        )


@asynccontextmanager
async def served_telemetry(fake: FakeTelemetry) -> AsyncGenerator[Serving, None]:
    """Serve a fake telemetry service on a free port."""
    add = partial(_add_watch, fake)
    async with serving("127.0.0.1:0", SETTINGS, {TELEMETRY: add}) as server:
        await server.set_serving()
        yield server


def _add_watch(fake: FakeTelemetry, server: grpc.aio.Server) -> None:
    handlers: dict[str, Any] = {
        "Watch": grpc.unary_stream_rpc_method_handler(
            fake.Watch,
            telemetry_pb.WatchRequest.FromString,
            telemetry_pb.WatchResponse.SerializeToString,
        )
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(TELEMETRY, handlers),))


@dataclass(slots=True, kw_only=True)
class World:
    """A router with its fakes."""

    inference: "inference_grpc.InferenceServiceAsyncStub"
    router: "router_grpc.RouterServiceAsyncStub"
    embedding: "embedding_grpc.EmbeddingServiceAsyncStub"
    channel: grpc.aio.Channel
    address: str
    config: FleetConfig


def config_of(
    folder: Path,
    replicas: Sequence[tuple[str, Sequence[str]]],
    *,
    embedders: Sequence[str] = ("127.0.0.1:1",),
    telemetry: str = "127.0.0.1:1",
    policy: Policy | None = None,
    router: Router | None = None,
) -> FleetConfig:
    """Describe a fleet of fakes: *replicas* are models with their addresses."""
    settings = router or Router(
        listen="127.0.0.1:0",
        # The box is wide because tests share a busy machine; tests of the box set their own.
        profile_timeout_s=5.0,
        policies={"balanced": policy or Policy(explore_ratio=0.0, max_calls=1)},
    )
    models = tuple(
        Model(
            name=name,
            dir=".",
            replicas=tuple(Replica(listen=address) for address in addresses),
            priors={"code": 0.9 - 0.1 * i, "reasoning": 0.5, "general": 0.5},
            usd_per_m_prompt_tokens=1.0,
            usd_per_m_completion_tokens=2.0,
        )
        for i, (name, addresses) in enumerate(replicas)
    )
    return FleetConfig(
        fleet=Fleet(state_dir=str(folder)),
        server=SETTINGS,
        router=settings,
        telemetry=Telemetry(listen=telemetry),
        embedding=Embedding(replicas=tuple(EmbeddingReplica(listen=a) for a in embedders)),
        models=models,
    )


@asynccontextmanager
async def served(fake: FakeModel, listen: str = "127.0.0.1:0") -> AsyncGenerator[Serving, None]:
    """Serve a fake model."""
    add = partial(inference_grpc.add_InferenceServiceServicer_to_server, fake)
    async with serving(listen, SETTINGS, {INFERENCE: add}) as server:
        await server.set_serving()
        yield server


@asynccontextmanager
async def served_embedder(fake: FakeEmbedder) -> AsyncGenerator[Serving, None]:
    """Serve a fake embedder on a free port."""
    add = partial(embedding_grpc.add_EmbeddingServiceServicer_to_server, fake)
    async with serving("127.0.0.1:0", SETTINGS, {EMBEDDING: add}) as server:
        await server.set_serving()
        yield server


@asynccontextmanager
async def routed(config: FleetConfig) -> AsyncGenerator[World, None]:
    """Run a router."""
    async with (
        running(config, seed=1) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield World(
            inference=inference_grpc.InferenceServiceStub(channel),
            router=router_grpc.RouterServiceStub(channel),
            embedding=embedding_grpc.EmbeddingServiceStub(channel),
            channel=channel,
            address=server.address,
            config=config,
        )


@asynccontextmanager
async def world(
    folder: Path,
    *fakes: FakeModel,
    embedder: FakeEmbedder | None = None,
    policy: Policy | None = None,
    router: Router | None = None,
    telemetry: FakeTelemetry | None = None,
) -> AsyncGenerator[World, None]:
    """Run a router before *fakes*; fakes of one name are replicas of one model."""
    async with AsyncExitStack() as stack:
        addresses: dict[str, list[str]] = {}
        for fake in fakes:
            server = await stack.enter_async_context(served(fake))
            addresses.setdefault(fake.name, []).append(server.address)
        embedders = ["127.0.0.1:1"]
        if embedder is not None:
            embedders = [(await stack.enter_async_context(served_embedder(embedder))).address]
        watched = "127.0.0.1:1"
        if telemetry is not None:
            watched = (await stack.enter_async_context(served_telemetry(telemetry))).address
        config = config_of(
            folder,
            list(addresses.items()),
            embedders=embedders,
            telemetry=watched,
            policy=policy,
            router=router,
        )
        ready = await stack.enter_async_context(routed(config))
        if embedder is not None:
            await until(lambda: embeds(ready))
        await until(lambda: candidates_are(ready, len(fakes)))
        yield ready


async def embeds(ready: World) -> bool:
    """Whether the router has found an embedder."""
    try:
        await ready.embedding.Embed(embedding_pb.EmbedRequest(texts=["x"]))
    except grpc.aio.AioRpcError:
        return False
    return True


async def candidates_are(ready: World, count: int) -> bool:
    """Whether the router can ask *count* replicas."""
    try:
        answer = await ready.router.Route(router_pb.RouteRequest(generate=asking("hello?")))
    except grpc.aio.AioRpcError:
        return False
    unhealthy = [r for r in answer.decision.rejections if r.reason == 1]
    models = {m.name: len(m.replicas) for m in ready.config.models}
    return sum(models.values()) - len(unhealthy) >= count


async def until(holds: Callable[[], Awaitable[bool]], within_s: float = 10.0) -> None:
    """Poll until *holds*."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110 - the condition lies behind the wire
            await asyncio.sleep(0.01)


def asking(prompt: str = "what is 2 + 2?", **fields: object) -> inference_pb.GenerateRequest:
    """A request."""
    return inference_pb.GenerateRequest(prompt=prompt, **fields)  # type: ignore[arg-type] # tests vary them


async def read(
    call: AsyncIterable[inference_pb.GenerateResponse],
) -> tuple[inference_pb.Started, str, inference_pb.Finished]:
    """Read a whole answer."""
    events = [event async for event in call]
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[0] == "started"
    assert kinds[-1] == "finished"
    assert set(kinds[1:-1]) <= {"delta"}
    text = "".join(event.delta.text for event in events)
    return events[0].started, text, events[-1].finished
