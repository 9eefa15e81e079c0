"""Channels to servers that refuse, break, or are sick."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc

from services.kit.channel import Again, open_channel
from services.kit.config import Server

INFERENCE = "zeta.inference.v1.InferenceService"
LIMIT_S = 30.0
_SETTINGS_FRAME = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_GOAWAY_FRAME = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0]) + bytes(8)
"""Of no error, and of no stream that was seen."""


class GivesUp(asyncio.Protocol):
    """A connection that is given up as soon as it is made, and left open."""

    def __init__(self, made: "list[GivesUp]") -> None:
        self.made, self.closed = made, asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give it up."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.made.append(self)
        transport.write(_SETTINGS_FRAME + _GOAWAY_FRAME)

    def connection_lost(self, exc: Exception | None) -> None:
        """Note it."""
        del exc
        self.closed.set()


@asynccontextmanager
async def sick() -> AsyncIterator[str]:
    """Serve such connections."""
    made = list[GivesUp]()
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: GivesUp(made), "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        for each in made:
            each.transport.abort()
            await each.closed.wait()


class Flaky:
    """Counts tokens once it was asked so many times."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked = failures, 0

    async def CountTokens(  # noqa: N802 - named by the contract
        self, request: inference_pb.CountTokensRequest, context: Any
    ) -> inference_pb.CountTokensResponse:
        """Refuse, or count."""
        del request
        self.asked += 1
        if self.asked <= self.failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return inference_pb.CountTokensResponse(tokens=4)


@asynccontextmanager
async def flaky(failures: int) -> AsyncIterator[tuple[Flaky, Any]]:
    """Serve one, and open a channel to it."""
    servicer, server = Flaky(failures), grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.CountTokens,
        inference_pb.CountTokensRequest.FromString,
        inference_pb.CountTokensResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(INFERENCE, {"CountTokens": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}", Server()) as channel:
            yield servicer, inference_grpc.InferenceServiceStub(channel)
    finally:
        await server.stop(None)


@pytest.mark.parametrize("patient", [False, True])
async def test_a_connection_that_is_given_up_and_left_open_fails_its_calls(
    *, patient: bool
) -> None:
    """Tried again for ever on it, they would take a core and all memory; nothing would end them."""
    async with (
        sick() as address,
        open_channel(address, Server()) as channel,
        asyncio.timeout(LIMIT_S),
    ):
        stub: Any = health_pb2_grpc.HealthStub(channel)
        call = stub.Watch(health_pb2.HealthCheckRequest(), wait_for_ready=patient)
        assert await call.code() is grpc.StatusCode.UNAVAILABLE


async def test_what_can_do_nothing_twice_is_asked_three_times() -> None:
    """And the caller sees the answer alone."""
    async with flaky(2) as (servicer, stub):
        answer = await stub.CountTokens(inference_pb.CountTokensRequest(), timeout=LIMIT_S)
        assert answer.tokens == 4
    assert servicer.asked == 3


async def test_all_that_is_tried_has_the_time_of_one_call() -> None:
    """Each time has what is left of it."""
    timeouts_s = []

    class Refused:
        async def code(self) -> grpc.StatusCode:
            """Refuse."""
            return grpc.StatusCode.UNAVAILABLE

    async def ask(details: grpc.aio.ClientCallDetails, _request: object) -> Refused:
        timeouts_s.append(details.timeout or 0.0)
        return Refused()

    path = "/zeta.inference.v1.InferenceService/CountTokens"
    details = grpc.aio.ClientCallDetails(path, LIMIT_S, grpc.aio.Metadata(), None, None)
    await Again().intercept_unary_unary(ask, details, None)
    first, second, third = timeouts_s
    assert first == LIMIT_S
    assert first - second >= 0.039
    assert second - third >= 0.079


async def test_a_server_that_goes_on_refusing_is_believed() -> None:
    """After the third time."""
    async with flaky(9) as (servicer, stub):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.CountTokens(inference_pb.CountTokensRequest(), timeout=LIMIT_S)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert refused.value.details() == "not yet"
    assert servicer.asked == 3
