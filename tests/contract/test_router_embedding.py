"""Embedding through the router: models that encode beside embedding processes."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import grpc
import msgspec
import numpy as np
import pytest
from zeta.embedding.v1 import embedding_service_pb2 as embedding_pb
from zeta.embedding.v1 import embedding_service_pb2_grpc as embedding_grpc
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.telemetry.v1 import telemetry_service_pb2 as telemetry_pb

from router_svc.core.features import EMBEDDING_SIZE, lexical_profile
from router_svc.learner import Learner, packed
from services.kit.config import FleetConfig, Router, state_dir
from services.kit.config import Model as ModelConfig
from services.kit.errors import (
    DeadlinePassedError,
    InvalidRequestError,
    OverloadedError,
    UnavailableError,
    UnknownModelError,
    ZetaError,
)
from services.kit.rpc import Context, zeta_error
from services.kit.server import Serving, serving
from services.model import process
from tests.contract.router_fakes import (
    EMBEDDING,
    INFERENCE,
    SETTINGS,
    FakeEmbedder,
    FakeModel,
    FakeTelemetry,
    World,
    config_of,
    routed,
    served,
    served_embedder,
    served_telemetry,
    until,
)
from tests.unit.services.model import tiny_encoder

EMBED = embedding_pb.EmbedRequest(texts=["x"], model="enc")


@dataclass(slots=True)
class FakeEncoder(FakeModel, embedding_grpc.EmbeddingServiceServicer):
    """A model that embeds; it answers with its mark, fails or holds on as told."""

    mark: float = 0.0
    fails: grpc.StatusCode | None = None
    held: asyncio.Event | None = None
    came: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0

    async def ListModels(  # noqa: N802 - named by the contract
        self, _request: inference_pb.ListModelsRequest, _context: Context
    ) -> inference_pb.ListModelsResponse:
        """Introduce itself."""
        info = inference_pb.ModelInfo(
            name=self.name, context_tokens=512, capabilities=[inference_pb.CAPABILITY_EMBED]
        )
        return inference_pb.ListModelsResponse(models=[info])

    async def Embed(  # noqa: N802 - named by the contract
        self, request: embedding_pb.EmbedRequest, context: Context
    ) -> embedding_pb.EmbedResponse:
        """Embed as told."""
        self.asked += 1
        self.came.set()
        if self.fails:
            await context.abort(self.fails, "as told")
        if self.held:
            await self.held.wait()
        return embedding_pb.EmbedResponse(
            embeddings=[embedding_pb.Embedding(values=[self.mark])], encoder=request.model
        )

    async def Profile(  # noqa: N802 - named by the contract
        self, _request: embedding_pb.ProfileRequest, context: Context
    ) -> embedding_pb.ProfileResponse:
        """Profile nothing: nobody may ask a model for that."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "embeds only")


@asynccontextmanager
async def served_encoder(fake: FakeEncoder) -> AsyncGenerator[Serving, None]:
    """Serve a fake encoder on a free port."""
    services = {
        INFERENCE: partial(inference_grpc.add_InferenceServiceServicer_to_server, fake),
        EMBEDDING: partial(embedding_grpc.add_EmbeddingServiceServicer_to_server, fake),
    }
    async with serving("127.0.0.1:0", SETTINGS, services) as server:
        await server.set_serving()
        yield server


@asynccontextmanager
async def world(
    folder: Path,
    *encoders: FakeEncoder,
    router: Router | None = None,
    telemetry: FakeTelemetry | None = None,
) -> AsyncIterator[World]:
    """Run a router before a model, an embedding process and the replicas of an encoder."""
    async with AsyncExitStack() as stack:
        only = await stack.enter_async_context(served(FakeModel("only")))
        minilm = await stack.enter_async_context(served_embedder(FakeEmbedder()))
        servers = [await stack.enter_async_context(served_encoder(fake)) for fake in encoders]
        watched = "127.0.0.1:1"
        if telemetry is not None:
            watched = (await stack.enter_async_context(served_telemetry(telemetry))).address
        config = config_of(
            folder, [("enc", [s.address for s in servers]), ("only", [only.address])],
            embedders=[minilm.address], telemetry=watched, router=router,
        )  # fmt: skip
        ready = await stack.enter_async_context(routed(config))

        async def all_serve() -> bool:
            return await serves(ready, "enc") and await serves(ready, "")

        await until(all_serve)
        for fake in encoders:
            fake.asked = 0
            fake.came.clear()
        yield ready


async def serves(ready: World, encoder: str) -> bool:
    """Whether an encoder answers."""
    try:
        await ready.embedding.Embed(embedding_pb.EmbedRequest(texts=["x"], model=encoder))
    except grpc.aio.AioRpcError:
        return False
    return True


async def refusal(ready: World, request: embedding_pb.EmbedRequest, **how: float) -> ZetaError:
    """Return the error that a request ends with."""
    try:
        await ready.embedding.Embed(request, **how)  # type: ignore[arg-type]
    except grpc.aio.AioRpcError as failed:
        return zeta_error(failed)
    pytest.fail("the call succeeded")


async def test_encoders_are_named_and_never_mixed(tmp_path: Path) -> None:
    """Who names none gets the embedding service's; a wrong name is refused with the right ones."""
    async with world(tmp_path, FakeEncoder("enc", mark=1.0)) as ready:
        named = await ready.embedding.Embed(EMBED)
        unnamed = await ready.embedding.Embed(embedding_pb.EmbedRequest(texts=["x"]))
        own = await ready.embedding.Embed(embedding_pb.EmbedRequest(texts=["x"], model="minilm"))
        wrong = [
            await refusal(ready, embedding_pb.EmbedRequest(texts=["x"], model=name))
            for name in ("nobody", "only")
        ]
    assert named.encoder == "enc"
    assert unnamed.encoder == own.encoder == "fake"
    assert all(isinstance(error, UnknownModelError) for error in wrong)
    assert all("there are: minilm, enc" in str(error) for error in wrong)


def taught(config: FleetConfig, model: str) -> None:
    """Leave a learned adapter of *model* in the journal: twice as long along the first axis."""
    learner = Learner(config.models, 1000.0)
    directions = np.zeros((len(config.models), EMBEDDING_SIZE), dtype=np.float32)
    directions[[m.name for m in config.models].index(model), 0] = 1.0
    first = replace(lexical_profile("x"), embedding=np.eye(EMBEDDING_SIZE)[0], source="fake+c")
    learner.adapters.noted(first)
    learner.adapters.adopt(directions, "fake")
    state = packed(learner.to_arrays())
    with closing(sqlite3.connect(state_dir(config) / config.router.journal)) as db, db:
        db.execute("INSERT OR REPLACE INTO state VALUES ('learned', ?, ?)", (time.time(), state))


async def test_embeddings_are_adapted_by_what_the_router_learned(tmp_path: Path) -> None:
    """For the model that was learned about, once, and of the encoder that it learned from."""
    embedder = FakeEmbedder()
    async with (
        served(FakeModel("a")) as one,
        served(FakeModel("b")) as other,
        served_embedder(embedder) as behind,
    ):
        replicas = [("a", [one.address]), ("b", [other.address])]
        config = config_of(tmp_path, replicas, embedders=[behind.address])
        async with routed(config):
            pass  # makes the journal
        taught(config, "a")
        async with routed(config) as ready:

            async def embedded(target: str) -> tuple[list[float], bool]:
                request = embedding_pb.EmbedRequest(texts=["x", "y"], target_model=target)
                answer = await ready.embedding.Embed(request)
                first, second = ([round(v, 4) for v in e.values[:2]] for e in answer.embeddings)
                assert first == second
                return first, answer.adapted

            async def serves() -> bool:
                with suppress(grpc.aio.AioRpcError):
                    await embedded("")
                    return True
                return False

            await until(serves)
            length = (1.2**2 + 0.8**2) ** 0.5
            stretched = [round(1.2 / length, 4), round(0.8 / length, 4)]
            assert await embedded("a") == (stretched, True)
            assert await embedded("b") == ([0.6, 0.8], False)
            assert await embedded("") == ([0.6, 0.8], False)
            embedder.adapts = True
            assert await embedded("a") == ([0.6, 0.8], True), "adapted twice"


async def test_the_operator_names_the_default(tmp_path: Path) -> None:
    """`router.embedding_model` is the encoder of whoever names none."""
    router = Router(listen="127.0.0.1:0", embedding_model="enc")
    async with world(tmp_path, FakeEncoder("enc", mark=3.0), router=router) as ready:
        answer = await ready.embedding.Embed(embedding_pb.EmbedRequest(texts=["x"]))
    assert answer.encoder == "enc"


async def test_the_least_busy_replica_embeds(tmp_path: Path) -> None:
    """What one is busy with, the other is spared; both are used."""
    one, other = FakeEncoder("enc", mark=1.0), FakeEncoder("enc", mark=2.0)
    async with world(tmp_path, one, other) as ready:
        await until_both(ready, one, other)
        one.held, other.held = asyncio.Event(), asyncio.Event()
        one.came.clear()
        other.came.clear()
        first = asyncio.create_task(_embed(ready))
        second = asyncio.create_task(_embed(ready))
        async with asyncio.timeout(10):
            await one.came.wait()
            await other.came.wait()
        one.held.set()
        other.held.set()
        assert sorted([await first, await second]) == [1.0, 2.0]


async def test_idle_instances_share_calls_that_come_one_by_one(tmp_path: Path) -> None:
    """Routers and workers do not see one another's calls: they must not all begin at the first."""
    one, other = FakeEmbedder(), FakeEmbedder()
    async with (
        served(FakeModel("only")) as model,
        served_embedder(one) as here,
        served_embedder(other) as there,
    ):
        embedders = [here.address, there.address]
        config = config_of(tmp_path, [("only", [model.address])], embedders=embedders)
        async with routed(config) as ready:

            async def both() -> bool:
                with suppress(grpc.aio.AioRpcError):
                    await ready.embedding.Embed(embedding_pb.EmbedRequest(texts=["x"]))
                return one.calls > 0 and other.calls > 0

            await until(both)


async def until_both(ready: World, one: FakeEncoder, other: FakeEncoder) -> None:
    """Wait until the router knows both replicas: while one is held, the other answers."""

    async def known() -> bool:
        one.held, other.held = asyncio.Event(), asyncio.Event()
        calls = [asyncio.create_task(_embed(ready)) for _ in range(2)]
        while one.asked + other.asked < 2:  # noqa: ASYNC110 - what fakes count
            await asyncio.sleep(0)
        both = one.asked == other.asked == 1
        one.held.set()
        other.held.set()
        await asyncio.gather(*calls)
        one.asked = other.asked = 0
        return both

    await until(known)


async def _embed(ready: World) -> float:
    answer = await ready.embedding.Embed(EMBED)
    return float(answer.embeddings[0].values[0])


async def test_telemetry_says_who_is_busy(tmp_path: Path) -> None:
    """A replica that others keep busy is asked last."""
    one, other = FakeEncoder("enc", mark=1.0), FakeEncoder("enc", mark=2.0)
    telemetry = FakeTelemetry()
    async with world(tmp_path, one, other, telemetry=telemetry) as ready:
        await until_both(ready, one, other)
        one.held = other.held = None
        telemetry.tell("enc-0", telemetry_pb.REPLICA_HEALTH_SERVING)

        async def other_is_asked() -> bool:
            return await _embed(ready) == 2.0

        await until(other_is_asked)
        assert [await _embed(ready) for _ in range(5)] == [2.0] * 5


async def test_a_failure_is_tried_elsewhere(tmp_path: Path) -> None:
    """A replica that fails is not asked twice for one request; a refusal of the request stands."""
    one, other = FakeEncoder("enc", mark=1.0), FakeEncoder("enc", mark=2.0)
    router = Router(listen="127.0.0.1:0", breaker_open_s=600.0)
    async with world(tmp_path, one, other, router=router) as ready:
        await until_both(ready, one, other)
        one.held = other.held = None
        one.fails = grpc.StatusCode.UNAVAILABLE
        assert await _embed(ready) == 2.0
        once = one.asked
        assert [await _embed(ready) for _ in range(2)] == [2.0] * 2
        # A channel repeats a call by itself; the router asks each replica once for a request.
        asked = one.asked
        assert asked == 3 * once > 0
        # Its circuit opened: it is left alone.
        assert [await _embed(ready) for _ in range(3)] == [2.0] * 3
        assert one.asked == asked
        other.fails = grpc.StatusCode.INVALID_ARGUMENT
        before = other.asked
        assert isinstance(await refusal(ready, EMBED), InvalidRequestError)
        assert other.asked == before + 1
        other.fails = grpc.StatusCode.UNAVAILABLE
        nobody = await refusal(ready, EMBED)
        assert isinstance(nobody, UnavailableError)
        assert nobody.retry_after_s is not None


async def test_the_deadline_is_the_callers(tmp_path: Path) -> None:
    """It ends a call that hangs."""
    held = FakeEncoder("enc")
    async with world(tmp_path, held) as ready:
        held.held = asyncio.Event()
        assert isinstance(await refusal(ready, EMBED, timeout=0.2), DeadlinePassedError)
        held.held.set()


async def test_embedding_queues_like_any_request(tmp_path: Path) -> None:
    """One runs, one waits, the next is refused with a time to come back."""
    held = FakeEncoder("enc", mark=1.0)
    router = Router(listen="127.0.0.1:0", max_in_flight=1, max_queued=1)
    async with world(tmp_path, held, router=router) as ready:
        held.held = asyncio.Event()
        calls = [asyncio.create_task(_embed(ready)) for _ in range(2)]
        async with asyncio.timeout(10):
            await held.came.wait()

        async def full() -> bool:
            return isinstance(await refusal(ready, EMBED, timeout=0.5), OverloadedError)

        await until(full)
        held.held.set()
        assert await asyncio.gather(*calls) == [1.0, 1.0]


async def test_an_encoder_is_not_asked_to_generate(tmp_path: Path) -> None:
    """Questions go to models that generate, whatever the order of the configuration."""
    encoder = FakeEncoder("enc")
    async with world(tmp_path, encoder) as ready:
        for _ in range(3):
            events = ready.inference.Generate(inference_pb.GenerateRequest(prompt="x"))
            assert {e.finished.model async for e in events if e.HasField("finished")} == {"only"}
        counted = await ready.inference.CountTokens(inference_pb.CountTokensRequest(prompt="abc"))
    assert counted.model == "only"
    assert not encoder.requests


async def test_a_real_model_embeds_through_the_router(tmp_path: Path) -> None:
    """Vectors, prompts and refusals are those of the model itself."""
    folder = tiny_encoder.write(tmp_path / "enc")
    settings = ModelConfig(name="enc", dir=str(folder), max_running=2, replicas=())
    model, backend = process.load(settings, "enc-0")
    config = FleetConfig(models=(settings,), server=SETTINGS)
    async with process.running(config, settings, model, backend, "127.0.0.1:0") as running:
        fleet = config_of(tmp_path / "state", [("enc", [running.server.address])])
        fleet = msgspec.structs.replace(
            fleet, router=msgspec.structs.replace(fleet.router, embedding_model="enc")
        )
        async with routed(fleet) as ready:
            await until(lambda: serves(ready, "enc"))
            request = embedding_pb.EmbedRequest(texts=["a", "a", "b"], prompt_name="query")
            answer = await ready.embedding.Embed(request)
            bad = await refusal(ready, embedding_pb.EmbedRequest(texts=[""]))
    first, again, other = (np.array(e.values) for e in answer.embeddings)
    np.testing.assert_allclose(first, again, atol=1e-5)
    assert float(np.linalg.norm(other)) == pytest.approx(1.0, abs=1e-5)
    assert float(np.abs(first - other).max()) > 1e-3
    assert isinstance(bad, InvalidRequestError)
    assert [v.field for v in bad.violations] == ["texts[0]"]
