"""`zeta.embedding.v1.EmbeddingService` of a model that encodes: texts in, pooled vectors out."""

import asyncio
from collections.abc import Sequence
from time import monotonic
from typing import Final

import numpy as np
from numpy.typing import NDArray
from zeta.embedding.v1.embedding_service_pb2 import (
    Embedding,
    EmbedRequest,
    EmbedResponse,
    ProfileRequest,
    ProfileResponse,
)
from zeta.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceServicer
from zeta.inference.v1.inference_service_pb2 import TASK_KIND_EMBEDDING

from services.kit import rpc
from services.kit.errors import InvalidRequestError, NotBuiltError, Violation, invalid
from services.model import wire
from services.model.account import Account
from services.model.engine.types import Embedded, Ids, Request
from services.model.gate import Gate
from services.model.graph.encoder import Encoder
from services.model.loop import DeviceLoop, Stream
from services.model.servicer import Model, check_model, deadline_s

MAX_TEXTS: Final = 256
MAX_TEXT_BYTES: Final = 1 << 20


class EmbeddingServicer(EmbeddingServiceServicer):
    """Embeds with one model, in the batch in which it may be generating as well."""

    def __init__(self, model: Model, encoder: Encoder, device: DeviceLoop, gate: Gate) -> None:
        self._model, self._encoder, self._device = model, encoder, device
        self._gate = gate
        self._account = Account(model=model.name, state=device.state)
        self._most = min(encoder.max_tokens or model.context_tokens, model.context_tokens)

    async def Embed(self, request: EmbedRequest, context: rpc.Context) -> EmbedResponse:  # noqa: N802 - the wire's name
        """Embed texts. Raises InvalidRequestError."""
        arrived_s = monotonic()
        rpc.check_deadline(context)
        self._gate.let_in(context)
        check_model(request.model, self._model.name)
        texts = [self._prompt(request.prompt_name) + text for text in _checked(request.texts)]
        found = await asyncio.to_thread(self._tokens, texts)
        with self._account.request(TASK_KIND_EMBEDDING):
            ids = [tokens for tokens, _ in found]
            streams = self._device.submit_all(self._requests(ids, context), arrived_s)
            try:
                vectors = [_vector(stream, await stream.take()) for stream in streams]
            finally:
                for stream in streams:
                    self._device.cancel(stream.request.id)
            self._account.embedded(TASK_KIND_EMBEDDING, streams)
        return EmbedResponse(
            embeddings=[
                Embedding(values=self._scaled(vector).tolist(), tokens=len(tokens), truncated=cut)
                for vector, (tokens, cut) in zip(vectors, found, strict=True)
            ],
            encoder=self._model.name,
        )

    async def Profile(self, request: ProfileRequest, context: rpc.Context) -> ProfileResponse:  # noqa: N802 - the wire's name
        """Refuse: a profile takes a classifier that was trained for the encoder."""
        del request, context
        raise NotBuiltError(
            f"profile: {self._model.name!r} embeds only; an embedding process profiles "
            "(python -m services.embedding), and so does the router"
        )

    def _prompt(self, name: str) -> str:
        known = self._encoder.prompts
        if name and name not in known:
            names = ", ".join(known) or "none"
            raise invalid("prompt_name", f"must be one of the encoder's: {names}; got {name!r}")
        return known.get(name or self._encoder.default_prompt, "")

    def _tokens(self, texts: Sequence[str]) -> list[tuple[Ids, bool]]:
        found = [self._model.text.encode_within(text, self._most) for text in texts]
        for i, (tokens, _) in enumerate(found):
            if not len(tokens):
                raise invalid(f"texts[{i}]", "holds no token that the model knows")
        return found

    def _requests(self, tokens: Sequence[Ids], context: rpc.Context) -> list[Request]:
        until_s = deadline_s(context)
        return [
            Request(
                id=self._device.next_id(),
                tokens=ids,
                pool=self._encoder.pool,
                rank=wire.STANDARD_RANK,
                deadline_s=until_s,
            )
            for ids in tokens
        ]

    def _scaled(self, vector: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scale (D,) as the encoder's makers do."""
        if not self._encoder.normalise:
            return vector
        out: NDArray[np.float32] = vector / max(float(np.linalg.norm(vector)), 1e-12)
        return out


def _vector(stream: Stream, outputs: Sequence[object]) -> NDArray[np.float32]:
    (only,) = outputs
    assert isinstance(only, Embedded), f"request {stream.request.id} asked for a vector"
    return only.vector


def _checked(texts: Sequence[str]) -> Sequence[str]:
    """Return *texts*. Raises InvalidRequestError for too many, empty or long ones."""
    if not 1 <= len(texts) <= MAX_TEXTS:
        raise invalid("texts", f"1 to {MAX_TEXTS} texts are taken, not {len(texts)}")
    wrong = [
        Violation(f"texts[{i}]", mistake) for i, text in enumerate(texts) if (mistake := _of(text))
    ]
    if wrong:
        text = f"{wrong[0].field}: {wrong[0].description}"
        raise InvalidRequestError(text, violations=wrong[:16])
    return texts


def _of(text: str) -> str:
    """Say what is wrong with *text*; empty where nothing is."""
    if not text:
        return "must not be empty"
    if (size := len(text.encode())) > MAX_TEXT_BYTES:
        return f"has {size} bytes of UTF-8; at most {MAX_TEXT_BYTES} are taken"
    return ""
