"""What a worker passes on to another, as bytes."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from zeta.inference.v1 import inference_service_pb2 as inference_pb
from zeta.inference.v1 import inference_service_pb2_grpc as inference_grpc

from router_svc.workers import Worker
from services.kit.channel import open_channel
from services.kit.config import Server as Settings
from services.kit.rpc import Context, deadline_s, outgoing
from services.kit.server import Add


class Siblings:
    """Channels to the other workers, opened when they are needed."""

    def __init__(self, worker: Worker, settings: Settings) -> None:
        self._worker = worker
        self._settings = settings
        self._channels: dict[int, grpc.aio.Channel] = {}

    def channel(self, number: int) -> grpc.aio.Channel:
        """Return the channel to worker *number*."""
        if number not in self._channels:
            # The folder of the sockets is the workers' own: no certificates in there.
            plain = Settings(max_message_bytes=self._settings.max_message_bytes)
            self._channels[number] = open_channel(self._worker.address(number), plain)
        return self._channels[number]

    def has(self, decision_id: str) -> bool:
        """Whether another worker made that decision."""
        return self._worker.owner(decision_id) != self._worker.number

    async def resume(
        self, request: inference_pb.GenerateRequest, context: Context
    ) -> AsyncGenerator[inference_pb.GenerateResponse, None]:
        """Have the worker that began an answer go on with it."""
        stub = inference_grpc.InferenceServiceStub(
            self.channel(self._worker.owner(request.resume.decision_id))
        )
        call = stub.Generate(request, timeout=deadline_s(context), metadata=outgoing(context))
        try:
            async for event in call:
                yield event
        finally:
            call.cancel()

    async def close(self) -> None:
        """Close every channel."""
        for channel in self._channels.values():
            await channel.close()


def relayed(service: ServiceDescriptor, channel: grpc.aio.Channel) -> Add:
    """Return what adds *service* to a server such that *channel* answers for it."""

    def add(server: grpc.aio.Server) -> None:
        handlers = {method.name: _handler(method, channel) for method in service.methods}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service.full_name, handlers),)
        )

    return add


def _handler(method: MethodDescriptor, channel: grpc.aio.Channel) -> Any:
    path = f"/{method.containing_service.full_name}/{method.name}"

    async def unary(request: bytes, context: Context) -> Any:
        ask: Any = channel.unary_unary(path)
        return await ask(request, timeout=deadline_s(context), metadata=outgoing(context))

    async def stream(request: bytes, context: Context) -> AsyncIterator[Any]:
        ask: Any = channel.unary_stream(path)
        call = ask(request, timeout=deadline_s(context), metadata=outgoing(context))
        try:
            await call.initial_metadata()
            await context.send_initial_metadata(())
            async for response in call:
                yield response
        finally:
            call.cancel()

    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(unary)
