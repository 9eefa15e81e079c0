"""The embedding service over gRPC in this process, with the real encoder."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zeta.embedding.v1.embedding_service_pb2 import (
    EmbedRequest,
    EmbedResponse,
    Profile,
    ProfileRequest,
)
from zeta.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from zeta.inference.v1.inference_service_pb2 import TaskKind
from zeta.orca.data.v3.orca_load_report_pb2 import OrcaLoadReport
from zeta.orca.service.v3.orca_pb2 import OrcaLoadReportRequest
from zeta.orca.service.v3.orca_pb2_grpc import OpenRcaServiceStub

from services.embedding.__main__ import serving_encoder
from services.embedding.adapters import write
from services.embedding.core.adapter import learn
from services.embedding.encoder import OnnxEncoder, load
from services.embedding.servicer import NAME
from services.kit.channel import open_channel
from services.kit.config import Embedding, EmbeddingReplica, Server
from services.kit.errors import ConfigError, InvalidRequestError, ZetaError
from services.kit.rpc import zeta_error

if TYPE_CHECKING:
    from zeta.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceAsyncStub

SETTINGS = Embedding(cache_entries=64)
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    """Convert the installed all-MiniLM-L6-v2."""
    cache: Path = tmp_path_factory.mktemp("cache")
    return load(SETTINGS, cache)


@pytest.fixture
async def channel(encoder: OnnxEncoder) -> AsyncIterator[grpc.aio.Channel]:
    """Serve it on a free port; yield a channel to it."""
    replica = EmbeddingReplica(listen="127.0.0.1:0")
    async with (
        serving_encoder(encoder, SETTINGS, replica, Server(drain_grace_s=0)) as server,
        open_channel(server.address, Server()) as channel,
    ):
        yield channel


@pytest.fixture
def service(channel: grpc.aio.Channel) -> "EmbeddingServiceAsyncStub":
    """Return a stub."""
    return EmbeddingServiceStub(channel)


async def embed(service: "EmbeddingServiceAsyncStub", *texts: str) -> EmbedResponse:
    return await service.Embed(EmbedRequest(texts=texts))


async def profile(service: "EmbeddingServiceAsyncStub", text: str) -> Profile:
    response = await service.Profile(ProfileRequest(texts=[text]))
    return response.profiles[0]


async def refused(call: Awaitable[Any]) -> ZetaError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return zeta_error(failed.value)


async def test_embeddings_are_unit_vectors_in_order(service: "EmbeddingServiceAsyncStub") -> None:
    """One per text, doubles included, with tokens and the encoder's name."""
    response = await embed(service, "red shoes", "a cat", "red shoes")
    vectors = np.array([one.values for one in response.embeddings])

    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    assert (vectors[0] == vectors[2]).all()
    assert (vectors[0] != vectors[1]).any()
    assert [one.tokens for one in response.embeddings] == [2, 2, 2]
    assert response.encoder == "minilm"


async def test_a_text_has_one_vector_alone_or_in_a_batch(
    service: "EmbeddingServiceAsyncStub",
) -> None:
    """Neither its batch nor the cache changes it."""
    texts = [f"sentence {i} " + "and more " * i for i in range(40)]
    together = await embed(service, *texts)
    again = await embed(service, texts[7])

    np.testing.assert_allclose(
        np.array(again.embeddings[0].values), np.array(together.embeddings[7].values), atol=1e-3
    )


async def test_batched_calls_equal_a_lone_one(
    service: "EmbeddingServiceAsyncStub", encoder: OnnxEncoder
) -> None:
    """Thirty calls at once get what the encoder computes for each text by itself."""
    texts = [f"What is {i} times {i + 1}?" for i in range(30)]
    responses = await asyncio.gather(*(embed(service, text) for text in texts))
    alone = [encoder.run([encoder.prepare(text).ids])[0] for text in texts]

    np.testing.assert_allclose(
        np.array([response.embeddings[0].values for response in responses]),
        np.array(alone),
        atol=1e-3,
    )


async def test_long_texts_say_that_they_were_shortened(
    service: "EmbeddingServiceAsyncStub",
) -> None:
    """The count is that of the whole text."""
    long, short = (await embed(service, "word " * 1000, "word")).embeddings

    assert (long.truncated, long.tokens) == (True, 1000)
    assert (short.truncated, short.tokens) == (False, 1)


async def test_nothing_is_adapted_before_anything_is_learned(
    service: "EmbeddingServiceAsyncStub",
) -> None:
    """A target model without an adapter gets the embedding as it is, and is told so."""
    plain = await embed(service, "hello")
    aimed = await service.Embed(EmbedRequest(texts=["hello"], target_model="coder-7b"))

    assert not aimed.adapted
    assert aimed.embeddings[0].values == plain.embeddings[0].values


async def test_a_learned_adapter_brings_what_a_model_finds_alike_together(
    encoder: OnnxEncoder, tmp_path: Path
) -> None:
    """For its target model alone; vectors stay as long as they were."""
    texts, file = ["What is 3 + 4?", "Name a colour.", "What is 12 * 5?"], tmp_path / "a.npz"
    vectors = encoder.run([encoder.prepare(text).ids for text in texts])
    learned = learn(vectors, np.array([[1.0], [0.0], [1.0]]))
    write(file, ["coder"], learned, encoder_sha256=encoder.sha256)
    settings = msgspec.structs.replace(SETTINGS, adapters=str(file))
    replica = EmbeddingReplica(listen="127.0.0.1:0")
    async with (
        serving_encoder(encoder, settings, replica, Server(drain_grace_s=0)) as server,
        open_channel(server.address, Server()) as channel,
    ):
        stub = EmbeddingServiceStub(channel)
        plain, aimed, other = [
            await stub.Embed(EmbedRequest(texts=texts, target_model=model))
            for model in ("", "coder", "unknown")
        ]
    before, after = (np.array([e.values for e in r.embeddings]) for r in (plain, aimed))

    assert (plain.adapted, aimed.adapted, other.adapted) == (False, True, False)
    assert [e.values for e in other.embeddings] == [e.values for e in plain.embeddings]
    np.testing.assert_allclose(np.linalg.norm(after, axis=1), 1.0, atol=1e-3)
    assert after[0] @ after[2] - after[0] @ after[1] > before[0] @ before[2] - before[0] @ before[1]


async def test_adapters_for_another_encoder_stop_the_start(
    encoder: OnnxEncoder, tmp_path: Path
) -> None:
    """A health check that answers can be believed."""
    file = tmp_path / "a.npz"
    write(file, ["coder"], np.zeros((1, 384), np.float32), encoder_sha256="0" * 64)
    settings = msgspec.structs.replace(SETTINGS, adapters=str(file))
    replica = EmbeddingReplica(listen="127.0.0.1:0")
    with pytest.raises(ConfigError, match="learned for encoder"):
        async with serving_encoder(encoder, settings, replica, Server()):
            pass


async def test_a_profile_says_kind_difficulty_length_and_language(
    service: "EmbeddingServiceAsyncStub",
) -> None:
    """Shares sum to 1 over the four kinds; the rest lies in its range."""
    found = await profile(service, "Write a Rust function that merges two sorted vectors")
    shares = {share.kind: share.probability for share in found.tasks}

    assert max(shares, key=lambda kind: shares[kind]) == TaskKind.TASK_KIND_CODE
    assert len(shares) == 4
    assert sum(shares.values()) == pytest.approx(1)
    assert 0 <= found.difficulty <= 1
    assert found.expected_output_tokens >= 1
    assert found.prompt_tokens >= 9
    assert found.language == "en"
    assert not found.HasField("embedding")


async def test_a_profile_carries_the_embedding_if_asked(
    service: "EmbeddingServiceAsyncStub",
) -> None:
    """The same vector that Embed returns, and the name of the classifier beside the encoder's."""
    response = await service.Profile(ProfileRequest(texts=["hello"], with_embedding=True))
    plain = await embed(service, "hello")

    assert response.profiles[0].embedding == plain.embeddings[0]
    assert response.encoder == "minilm+profile-minilm"


async def test_a_cached_profile_is_the_same_profile(service: "EmbeddingServiceAsyncStub") -> None:
    """Asked twice, alone and among others, it does not change."""
    once = await profile(service, "What is 3 + 4?")
    response = await service.Profile(ProfileRequest(texts=["new one", "What is 3 + 4?"] * 4))

    assert [response.profiles[i] for i in (1, 3, 5, 7)] == [once] * 4


@pytest.mark.parametrize(
    ("texts", "fields"),
    [
        ([], ["texts"]),
        (["x"] * 257, ["texts"]),
        (["a", "", "b", ""], ["texts[1]", "texts[3]"]),
        (["x" * (MIB + 1)], ["texts[0]"]),
        (["fine", "\N{SNOWMAN}" * (MIB // 3 + 1)], ["texts[1]"]),
    ],
)
async def test_bad_texts_are_refused_by_field(
    service: "EmbeddingServiceAsyncStub", texts: list[str], fields: list[str]
) -> None:
    """None, too many, empty, too long: INVALID_ARGUMENT, each with its path."""
    for call in (
        service.Embed(EmbedRequest(texts=texts)),
        service.Profile(ProfileRequest(texts=texts)),
    ):
        error = await refused(call)

        assert isinstance(error, InvalidRequestError)
        assert [violation.field for violation in error.violations] == fields


@pytest.mark.parametrize("text", [" ", "\x00", "\n\n", "\N{GRINNING FACE}" * 50, "\u202e\ufeff"])
async def test_odd_texts_are_answered(service: "EmbeddingServiceAsyncStub", text: str) -> None:
    """Blank, control and unknown characters have a vector and a profile like any other."""
    vectors = await embed(service, text)
    found = await profile(service, text)

    assert np.linalg.norm(vectors.embeddings[0].values) == pytest.approx(1, rel=1e-5)
    assert sum(share.probability for share in found.tasks) == pytest.approx(1)


async def test_as_much_as_allowed_is_taken(service: "EmbeddingServiceAsyncStub") -> None:
    """256 texts in one call, and one text of a MiB."""
    many = await embed(service, *(f"text {i}" for i in range(256)))
    large = await embed(service, "ab " * (MIB // 3))

    assert len(many.embeddings) == 256
    assert large.embeddings[0].tokens == MIB // 3


async def test_a_deadline_that_passes_ends_the_call_and_nothing_else(
    service: "EmbeddingServiceAsyncStub",
) -> None:
    """Work nobody waits for is dropped, and the next call is served."""
    texts = [f"{i} " + "long " * 120 for i in range(256)]

    error = await refused(service.Embed(EmbedRequest(texts=texts), timeout=0.05))

    assert error.status is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len((await embed(service, "next")).embeddings) == 1


async def test_health_says_serving_once_warm(channel: grpc.aio.Channel) -> None:
    """For the whole process and for the service by its name."""
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for name in ("", NAME):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))

        assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("work", [embed, profile])
async def test_load_is_reported_by_orca(
    channel: grpc.aio.Channel,
    service: "EmbeddingServiceAsyncStub",
    work: Callable[["EmbeddingServiceAsyncStub", str], Awaitable[object]],
) -> None:
    """Profiles and embeddings count, also for clients that balance by themselves."""
    before = await reported(channel)
    await work(service, "red shoes")
    after = await reported(channel)

    assert before.rps_fractional == 0.0
    assert after.rps_fractional > 0.0
    assert after.named_metrics == {"running": 0.0, "queue_depth": 0.0}


async def reported(channel: grpc.aio.Channel) -> OrcaLoadReport:
    reports = OpenRcaServiceStub(channel).StreamCoreMetrics(OrcaLoadReportRequest())
    report = await reports.read()
    reports.cancel()
    assert isinstance(report, OrcaLoadReport)
    return report
