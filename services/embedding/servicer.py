"""zeta.embedding.v1.EmbeddingService: checks, computes, encodes."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from zeta.embedding.v1.embedding_service_pb2 import (
    EmbedRequest,
    EmbedResponse,
    ProfileRequest,
    ProfileResponse,
)
from zeta.embedding.v1.embedding_service_pb2_grpc import EmbeddingServiceServicer

from services.embedding import wire
from services.embedding.core.adapter import adapt
from services.embedding.profiler import Profiler
from services.kit.rpc import Context, check_deadline

NAME = "zeta.embedding.v1.EmbeddingService"


class EmbeddingServicer(EmbeddingServiceServicer):
    """Serves one encoder, the head trained for it, and the adapters learned so far."""

    def __init__(
        self,
        profiler: Profiler,
        *,
        encoder: str,
        classifier: str,
        adapters: Mapping[str, NDArray[np.float32]],
    ) -> None:
        self._profiler, self._adapters = profiler, adapters
        self._encoder, self._classifier = encoder, classifier

    async def Embed(self, request: EmbedRequest, context: Context) -> EmbedResponse:  # noqa: N802 - the wire's name
        """Embed texts. Raises InvalidRequestError."""
        check_deadline(context)
        wire.check_encoder(request, self._encoder)
        encoded = await self._profiler.embed(wire.checked(request.texts))
        vectors = np.stack([one.vector for one in encoded])
        values, adapted = adapt(vectors, request.target_model, self._adapters)
        return EmbedResponse(
            embeddings=[wire.embedding(*pair) for pair in zip(encoded, values, strict=True)],
            encoder=self._encoder,
            adapted=adapted,
        )

    async def Profile(self, request: ProfileRequest, context: Context) -> ProfileResponse:  # noqa: N802 - the wire's name
        """Profile texts. Raises InvalidRequestError."""
        check_deadline(context)
        found = await self._profiler.profile(wire.checked(request.texts))
        return ProfileResponse(
            profiles=[
                wire.profile(one.profile, one.encoded, with_embedding=request.with_embedding)
                for one in found
            ],
            encoder=f"{self._encoder}+{self._classifier}",
        )
