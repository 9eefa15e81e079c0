"""Open channels to other Zeta processes: keepalive, retries, message limits, TLS.

gRPC's own retries are off. With them its C core (1.85) makes a call again, for ever and without a
pause, on a connection that the other side gave up (GOAWAY) and leaves open: one sick replica takes
a core and all memory of whoever calls it. A unary call that can do nothing twice is made again
here; the router makes the others again elsewhere, with a budget.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import uniform
from time import monotonic
from typing import Any, Final

import grpc

from services.kit.config import Server as Settings
from services.kit.security import channel_credentials

_AGAIN: Final = (
    "/zeta.embedding.v1.EmbeddingService/",
    "/zeta.inference.v1.InferenceService/CountTokens",
    "/zeta.inference.v1.InferenceService/ListModels",
    "/zeta.inference.v1.InferenceService/Score",
)
"""What calls that do nothing twice begin with."""
_PAUSES_S: Final = (0.05, 0.1)
"""Before the second and the third time, give or take a fifth."""


class Again(grpc.aio.UnaryUnaryClientInterceptor):
    """Makes calls again that nobody served, within their time, where nothing can be done twice."""

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        """Make the call, up to three times."""
        details, method = client_call_details, client_call_details.method
        path = method.decode() if isinstance(method, bytes) else method
        if not path.startswith(_AGAIN):
            return await continuation(details, request)
        until_s = None if details.timeout is None else monotonic() + details.timeout
        for pause_s in _PAUSES_S:
            call = await continuation(details, request)
            if await _status(call) is not grpc.StatusCode.UNAVAILABLE:
                return call
            await asyncio.sleep(pause_s * uniform(0.8, 1.2))  # noqa: S311 - no secret
            if until_s is not None:
                details = _within(details, max(until_s - monotonic(), 0.0))
        return await continuation(details, request)


def _within(details: grpc.aio.ClientCallDetails, timeout_s: float) -> grpc.aio.ClientCallDetails:
    return grpc.aio.ClientCallDetails(
        details.method, timeout_s, details.metadata, details.credentials, details.wait_for_ready
    )


async def _status(call: Any) -> grpc.StatusCode:
    """Wait for the end of *call*; whoever stops waiting stops it."""
    try:
        found: grpc.StatusCode = await call.code()
    except asyncio.CancelledError:
        call.cancel()
        raise
    return found


def options(settings: Settings) -> list[tuple[str, str | int]]:
    """Return the channel arguments that every caller uses."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Without it an unanswered ping is waited for a minute.
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.enable_retries", 0),
        # A replica that restarts is found again within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]


def open_channel(target: str, settings: Settings) -> grpc.aio.Channel:
    """Open a channel to *target* (HOST:PORT or unix:PATH); it connects when first used."""
    given, again = options(settings), [Again()]
    if settings.tls:
        secret = channel_credentials(settings.tls)
        return grpc.aio.secure_channel(target, secret, given, interceptors=again)
    return grpc.aio.insecure_channel(target, given, interceptors=again)
