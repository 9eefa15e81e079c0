"""Embed where the encoder that was asked for is least busy, and elsewhere where that fails.

An encoder is named: the embedding service by `embedding.name`, a model that can pool its hidden
states by the model's name. Instances of one name make the same vectors; those of two names are
never mixed, whoever is busy or gone.
"""

from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from router_svc import metrics
from router_svc.client import Embedders, Metadata, Upstreams
from router_svc.core.breaker import RetryBudget
from router_svc.core.types import Ask
from router_svc.faults import counts_against, may_go_elsewhere, told
from router_svc.fleet import Fleet
from router_svc.wire import EmbedRequest, EmbedResponse
from services.kit.errors import UnavailableError, UnknownModelError, ZetaError

Admit = Callable[[Ask], AbstractAsyncContextManager[None]]


class Encoder(Protocol):
    """The instances of one encoder."""

    def least_busy(self, failed: Collection[str]) -> str | None:
        """Name the instance to ask next, other than *failed*; None where none can serve."""
        ...

    async def embed(
        self,
        instance: str,
        request: EmbedRequest,
        timeout_s: float | None,
        metadata: Metadata,
    ) -> EmbedResponse:
        """Ask *instance*, which counts as busier meanwhile. Raises ZetaError."""
        ...


class EmbedDispatch:
    """Sends texts to encoders. *admit* bounds what is under way; *clock* is monotonic seconds."""

    def __init__(
        self,
        fleet: Fleet,
        upstreams: Upstreams,
        embedders: Embedders,
        *,
        default: str,
        admit: Admit,
        budget: RetryBudget,
        clock: Callable[[], float],
    ) -> None:
        self._fleet, self._upstreams, self._embedders = fleet, upstreams, embedders
        self._default = default or embedders.name
        self._admit, self._budget, self._clock = admit, budget, clock

    def serves(self) -> bool:
        """Whether the encoder of callers who name none can serve."""
        return self._encoder(self._default).least_busy(()) is not None

    async def embed(
        self, request: EmbedRequest, timeout_s: float | None, metadata: Metadata
    ) -> EmbedResponse:
        """Embed within *timeout_s*. Raises ZetaError."""
        deadline_at_s = None if timeout_s is None else self._clock() + timeout_s
        request.model = request.model or self._default
        encoder = self._encoder(request.model)
        self._budget.earned()
        async with self._admit(Ask(text="", characters=0, deadline_s=timeout_s)):
            return await self._anywhere(encoder, request, deadline_at_s, metadata)

    async def _anywhere(
        self,
        encoder: Encoder,
        request: EmbedRequest,
        deadline_at_s: float | None,
        metadata: Metadata,
    ) -> EmbedResponse:
        failed = set[str]()
        last: ZetaError = UnavailableError(
            f"no instance of encoder {request.model!r} serves", retry_after_s=1.0
        )
        while (instance := encoder.least_busy(failed)) is not None:
            left_s = None if deadline_at_s is None else max(deadline_at_s - self._clock(), 0.001)
            try:
                return await encoder.embed(instance, request, left_s, metadata)
            except ZetaError as error:
                metrics.FAILURES.labels(instance, error.reason).inc()
                failed.add(instance)
                last = error
                if not may_go_elsewhere(error) or not self._budget.take():
                    break
                metrics.RETRIES.labels(instance).inc()
        raise told(last)

    def _encoder(self, name: str) -> Encoder:
        """Find an encoder. Raises UnknownModelError where there is none of that name."""
        if name == self._embedders.name:
            return self._embedders
        if name in self._fleet.models and self._fleet.may_embed(name):
            return _Replicas(name, self._fleet, self._upstreams)
        able = [model for model in self._fleet.models if self._fleet.may_embed(model, known=True)]
        known = ", ".join([self._embedders.name, *able])
        raise UnknownModelError(f"no encoder {name[:80]!r}; there are: {known}")


class _Replicas:
    """The replicas of a model that embeds."""

    def __init__(self, model: str, fleet: Fleet, upstreams: Upstreams) -> None:
        self._model, self._fleet, self._upstreams = model, fleet, upstreams

    def least_busy(self, failed: Collection[str]) -> str | None:
        """As `Encoder.least_busy`, by telemetry and our own requests since."""
        able = self._fleet.encoding_replicas(self._model)
        return next((replica for replica in able if replica not in failed), None)

    async def embed(
        self,
        instance: str,
        request: EmbedRequest,
        timeout_s: float | None,
        metadata: Metadata,
    ) -> EmbedResponse:
        """As `Encoder.embed`."""
        characters = sum(len(text) for text in request.texts)
        lease = self._fleet.begin(instance, characters / 4, 0.0, requests=len(request.texts))
        try:
            answer = await self._upstreams.embed(lease, request, timeout_s, metadata)
        except ZetaError as error:
            if counts_against(error):
                self._fleet.failed(lease)
            raise
        finally:
            self._fleet.end(lease)
        self._fleet.succeeded(lease)
        return answer
