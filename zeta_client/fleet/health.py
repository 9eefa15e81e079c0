"""Wait for servers to serve, over the standard gRPC health protocol."""

import asyncio
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2

from services.kit.channel import open_channel
from services.kit.config import Server

_WATCH = "/grpc.health.v1.Health/Watch"
_RETRY_S = 0.1


async def until_serving(address: str, settings: Server) -> None:
    """Return when the server at *address* says that it serves; there is no time limit."""
    async with open_channel(address, settings) as channel:
        watch = channel.unary_stream(
            _WATCH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        while True:
            with suppress(grpc.aio.AioRpcError):
                async for answer in watch(health_pb2.HealthCheckRequest(), wait_for_ready=True):
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            await asyncio.sleep(_RETRY_S)  # it came and went, or has no health service yet
