"""Open channels to other Zeta processes: keepalive, retries, message limits, TLS."""

import json

import grpc

from services.kit.config import Server as Settings
from services.kit.security import channel_credentials

# gRPC retries by itself only where nothing can be done twice; the router retries the rest,
# with a budget.
_RETRY = {
    "methodConfig": [
        {
            "name": [
                {"service": "zeta.embedding.v1.EmbeddingService"},
                {"service": "zeta.inference.v1.InferenceService", "method": "CountTokens"},
                {"service": "zeta.inference.v1.InferenceService", "method": "ListModels"},
                {"service": "zeta.inference.v1.InferenceService", "method": "Score"},
            ],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}


def options(settings: Settings) -> list[tuple[str, str | int]]:
    """Return the channel arguments that every caller uses, sync or async."""
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # Without it an unanswered ping is waited for a minute.
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.service_config", json.dumps(_RETRY)),
        # A replica that restarts is found again within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]


def open_channel(target: str, settings: Settings) -> grpc.aio.Channel:
    """Open a channel to *target* (HOST:PORT or unix:PATH); it connects when first used."""
    if settings.tls:
        return grpc.aio.secure_channel(target, channel_credentials(settings.tls), options(settings))
    return grpc.aio.insecure_channel(target, options(settings))
