"""A model process that encodes, over real gRPC."""

import asyncio
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from numpy.typing import NDArray
from zeta.embedding.v1 import embedding_service_pb2 as embedding
from zeta.embedding.v1 import embedding_service_pb2_grpc as embedding_grpc
from zeta.inference.v1 import inference_service_pb2 as inference
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc
from zeta.model.v1 import model_control_service_pb2 as control
from zeta.model.v1 import model_control_service_pb2_grpc as control_grpc

from services.kit import rpc
from services.kit.channel import open_channel
from services.kit.config import FleetConfig, Model, Replica, Server, Tickets
from services.kit.errors import (
    ConfigError,
    InvalidRequestError,
    NotBuiltError,
    OverloadedError,
    TicketMismatchError,
    UnauthenticatedError,
    UnknownModelError,
    ZetaError,
)
from services.kit.tickets import TICKET_KEY, Claims, Keyring, Passes
from services.model import process, text
from services.model.graph import checkpoint, reference
from services.model.process import EMBEDDING
from tests.unit.services.model import tiny, tiny_encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A server's stubs."""

    embed: "embedding_grpc.EmbeddingServiceAsyncStub"
    answers: "inference_grpc.InferenceServiceAsyncStub"
    controls: "control_grpc.ModelControlServiceAsyncStub"
    health: Any
    folder: Path

    def plain(self, content: str) -> NDArray[np.float32]:
        """Compute the vector (D,) of a text that ends as its tokenizer ends it, in NumPy."""
        stored = checkpoint.load(self.folder)
        tokens = text.load(self.folder).encode(content, special=True)
        hidden = reference.hidden_states(stored, tokens)[-1]
        out: NDArray[np.float32] = hidden / np.linalg.norm(hidden)
        return out


def settings_of(folder: Path, **changes: Any) -> Model:
    """Describe the model."""
    return Model(
        name="enc", dir=str(folder), max_running=2, max_waiting=6, prefill_chunk_tokens=16,
        replicas=(Replica(listen="127.0.0.1:0"),), **changes,
    )  # fmt: skip


@asynccontextmanager
async def serving(
    folder: Path, *, tickets: Tickets | None = None, **changes: Any
) -> AsyncIterator[Ready]:
    """Serve the encoder in *folder*."""
    settings = settings_of(folder, **changes)
    config = FleetConfig(
        models=(settings,), server=Server(drain_grace_s=1.0), tickets=tickets or Tickets()
    )
    model, backend = process.load(settings, "enc-0")
    started = process.running(config, settings, model, backend, "127.0.0.1:0")
    async with started as running, open_channel(running.server.address, config.server) as channel:
        yield Ready(
            embed=embedding_grpc.EmbeddingServiceStub(channel),
            answers=inference_grpc.InferenceServiceStub(channel),
            controls=control_grpc.ModelControlServiceStub(channel),
            health=health_pb2_grpc.HealthStub(channel),
            folder=folder,
        )


async def refusal(call: Any) -> ZetaError:
    """Return the error that a call ends with."""
    try:
        if hasattr(call, "__aiter__"):
            [_ async for _ in call]
        else:
            await call
    except grpc.aio.AioRpcError as failed:
        return rpc.zeta_error(failed)
    pytest.fail("the call succeeded")


async def rows(ready: Ready, *texts: str, **fields: str) -> NDArray[np.float32]:
    """Embed texts as (N, D)."""
    request = embedding.EmbedRequest(texts=texts, **fields)
    answer = await ready.embed.Embed(request, timeout=20)
    return np.array([e.values for e in answer.embeddings], np.float32)


async def test_a_closed_encoder_embeds_for_the_router_alone(tmp_path: Path) -> None:
    """Nobody else has a pass, and a ticket is for answers."""
    keys = tmp_path / "keys"
    keys.write_text(f"one {b64encode(bytes(32)).decode()}\n")
    folder, tickets, keyring = tmp_path / "enc", Tickets(keys=str(keys)), Keyring(keys)
    folder.mkdir()
    tiny_encoder.write(folder)
    ask = embedding.EmbedRequest(texts=["Hi"])
    ticket = keyring.sign(Claims(replica="enc-0", issued_s=time.time(), expires_s=9e9))

    async with serving(folder, tickets=tickets, requires_ticket=True) as ready:
        assert isinstance(await refusal(ready.embed.Embed(ask)), UnauthenticatedError)
        with_ticket = ready.embed.Embed(ask, metadata=((TICKET_KEY, ticket),))
        assert isinstance(await refusal(with_ticket), TicketMismatchError)
        answer = await ready.embed.Embed(ask, metadata=Passes(keyring).metadata())

    assert len(answer.embeddings) == 1


async def test_an_encoder_embeds(tmp_path: Path) -> None:
    """Vectors are the model's, of unit length, in the order of the texts; prompts go before."""
    async with serving(tiny_encoder.write(tmp_path)) as ready:
        texts = ("Hi", "a longer text than one chunk of sixteen tokens", "x")
        answer = await ready.embed.Embed(embedding.EmbedRequest(texts=texts, model="enc"))
        asked = await rows(ready, "Hi", prompt_name="query")
        expected = np.stack([ready.plain(one) for one in texts])
        prompted = ready.plain(f"{tiny_encoder.PROMPTS['query']}Hi")
    found = np.array([e.values for e in answer.embeddings])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(asked[0], prompted, atol=1e-4)
    assert answer.encoder == "enc"
    assert not answer.adapted
    assert [e.tokens for e in answer.embeddings] == [len(t) + 1 for t in texts]


async def test_the_default_prompt_goes_first(tmp_path: Path) -> None:
    """Where the makers name one, a text without a prompt's name gets it."""
    async with serving(tiny_encoder.write(tmp_path, default_prompt="query")) as ready:
        found = await rows(ready, "Hi")
        bare = await rows(ready, "Hi", prompt_name="document")
        prompted = ready.plain(f"{tiny_encoder.PROMPTS['query']}Hi")
        plain = ready.plain("Hi")
    np.testing.assert_allclose(found[0], prompted, atol=1e-4)
    np.testing.assert_allclose(bare[0], plain, atol=1e-4)


async def test_long_texts_lose_their_end_and_say_so(tmp_path: Path) -> None:
    """Up to what the makers allow, a text is whole."""
    async with serving(tiny_encoder.write(tmp_path, max_tokens=24)) as ready:
        request = embedding.EmbedRequest(texts=["y" * 23, "y" * 24, "y" * 9999])
        whole, longer, longest = (await ready.embed.Embed(request)).embeddings
    assert [e.tokens for e in (whole, longer, longest)] == [24, 24, 24]
    assert [e.truncated for e in (whole, longer, longest)] == [False, True, True]
    np.testing.assert_allclose(whole.values, longest.values, atol=1e-5)


async def test_it_says_what_it_can_do(tmp_path: Path) -> None:
    """Capabilities, health, and a reason for what it does not do."""
    async with serving(tiny_encoder.write(tmp_path)) as ready:
        (info,) = (await ready.answers.ListModels(inference.ListModelsRequest())).models
        state = (await ready.controls.GetState(control.GetStateRequest())).state
        health = await ready.health.Check(health_pb2.HealthCheckRequest(service=EMBEDDING))
        profile = await refusal(ready.embed.Profile(embedding.ProfileRequest(texts=["x"])))
        generate = await refusal(ready.answers.Generate(inference.GenerateRequest(prompt="x")))
        score = await refusal(
            ready.answers.Score(inference.ScoreRequest(prompt="x", continuations=["y"]))
        )
    assert list(info.capabilities) == list(state.capabilities) == [inference.CAPABILITY_EMBED]
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    assert isinstance(profile, NotBuiltError)
    assert "embeds only" in str(profile)
    assert all(isinstance(e, NotBuiltError) and "embeds only" in str(e) for e in (generate, score))


@pytest.mark.parametrize(
    ("request_", "kind", "message"),
    [
        (embedding.EmbedRequest(), InvalidRequestError, "1 to 256 texts"),
        (embedding.EmbedRequest(texts=["x"] * 257), InvalidRequestError, "257"),
        (embedding.EmbedRequest(texts=["x", ""]), InvalidRequestError, r"texts\[1\]"),
        (embedding.EmbedRequest(texts=["é" * 600_000]), InvalidRequestError, "1200000 bytes"),
        (embedding.EmbedRequest(texts=["x"], prompt_name="q"), InvalidRequestError, "query, doc"),
        (embedding.EmbedRequest(texts=["x"], model="minilm"), UnknownModelError, "'minilm'"),
        (embedding.EmbedRequest(texts=["x"] * 9), OverloadedError, "9 more do not fit"),
    ],
)
async def test_what_cannot_be_embedded_is_refused(
    tmp_path: Path, request_: embedding.EmbedRequest, kind: type[ZetaError], message: str
) -> None:
    """With the field that is wrong; and nothing stays behind."""
    async with serving(tiny_encoder.write(tmp_path)) as ready:
        error = await refusal(ready.embed.Embed(request_))
        assert isinstance(error, kind)
        with pytest.raises(kind, match=message):
            raise error
        assert len(await rows(ready, "still here")) == 1


async def test_one_process_generates_and_embeds(tmp_path: Path) -> None:
    """Both at once, in one batch, and neither changes the other."""
    folder = tiny_encoder.write(tmp_path, bare=False)
    async with serving(folder, serves=("generate", "embed")) as ready:
        (info,) = (await ready.answers.ListModels(inference.ListModelsRequest())).models
        request = inference.GenerateRequest(prompt="Hello there", max_tokens=40)

        async def answer() -> list[int]:
            events = [event async for event in ready.answers.Generate(request)]
            return [i for event in events for i in event.delta.token_ids]

        alone, vector = await answer(), await rows(ready, "some text")
        company = asyncio.gather(*(rows(ready, "some text") for _ in range(3)))
        both, vectors = await asyncio.gather(answer(), company)
        state = (await ready.controls.GetState(control.GetStateRequest())).state
    assert both == alone
    for found in vectors:
        np.testing.assert_allclose(found, vector, atol=1e-5)
    assert inference.CAPABILITY_GENERATE in info.capabilities
    assert inference.CAPABILITY_EMBED in info.capabilities
    assert {t.kind: t.requests_total for t in state.tasks}[inference.TASK_KIND_EMBEDDING] == 4


def test_a_model_serves_what_it_can(tmp_path: Path) -> None:
    """What the files do not allow is a mistake in the configuration."""
    bare, plain = tiny_encoder.write(tmp_path / "a"), tiny.write(tmp_path / "b")
    with pytest.raises(ConfigError, match="no output projection"):
        process.load(settings_of(bare, serves=("generate",)), "enc-0")
    with pytest.raises(ConfigError, match=r"no modules\.json"):
        process.load(settings_of(plain, serves=("embed",)), "enc-0")
    assert not process.load(settings_of(bare), "enc-0")[0].generates
    assert process.load(settings_of(plain), "enc-0")[0].encoder is None
