"""Wait for servers to serve, over the standard gRPC health protocol."""

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health_pb2
from zeta.inference.v1.inference_service_pb2 import GenerateRequest
from zeta.router.v1.router_service_pb2 import RouteRequest
from zeta.router.v1.router_service_pb2_grpc import RouterServiceStub

from services.kit.channel import open_channel
from services.kit.config import FleetConfig, Server

if TYPE_CHECKING:  # exists in the stubs' .pyi alone
    from zeta.router.v1.router_service_pb2_grpc import RouterServiceAsyncStub

_WATCH = "/grpc.health.v1.Health/Watch"
_EMBEDDING = "zeta.embedding.v1.EmbeddingService"
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_RETRY_S = 0.1
_ANSWER_S = 5.0


async def until_serving(address: str, settings: Server, service: str = "") -> None:
    """Return when the server at *address* says that it serves; there is no time limit.

    An empty *service* stands for the whole process.
    """
    async with open_channel(address, settings) as channel:
        watch = channel.unary_stream(
            _WATCH,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        request = health_pb2.HealthCheckRequest(service=service)
        while True:
            with suppress(grpc.aio.AioRpcError):
                async for answer in watch(request, wait_for_ready=True):
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
            await asyncio.sleep(_RETRY_S)  # it came and went, or has no health service yet


async def until_routed(config: FleetConfig) -> None:
    """Return when the router has found every model, and somebody who embeds."""
    router = config.router.listen
    await until_serving(router, config.server, _EMBEDDING)
    async with open_channel(router, config.server) as channel:
        stub = RouterServiceStub(channel)
        for model in config.models:
            request = RouteRequest(generate=GenerateRequest(model=model.name, prompt="ready"))
            await _until_answered(stub, request)


async def _until_answered(stub: "RouterServiceAsyncStub", request: RouteRequest) -> None:
    """Return when the router decides about *request*, or refuses it for good."""
    while True:
        try:
            await stub.Route(request, timeout=_ANSWER_S)
        except grpc.aio.AioRpcError as failed:
            if failed.code() not in _NOT_YET:
                return
        else:
            return
        await asyncio.sleep(_RETRY_S)
