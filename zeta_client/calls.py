"""Calls of `Generate` on one channel: on a stream that they share, where the server has it.

What a call costs gRPC by itself, on both sides, is then paid once for all of them. The first call
goes by itself, so that who asks once opens nothing more. A stream is opened while a call that
could not wait for it is under way, and not again before there is another call: an idle client
does not ask for a server that is away.
"""

import asyncio
from collections.abc import Iterable
from time import monotonic
from typing import Any, Final

import grpc
from zeta.inference.v1.inference_service_pb2 import GenerateRequest
from zeta.inference.v1.inference_service_pb2_grpc import InferenceServiceStub

from services.kit.aio import cancelled
from services.kit.mux.client import Line

_NEXT_S: Final = 30.0
"""A server without the stream is asked for it again after that."""


class Calls:
    """Begins calls; those of an asyncio client, with *share* on one stream."""

    def __init__(self, channel: grpc.aio.Channel, *, share: bool) -> None:
        self._stub: Any = InferenceServiceStub(channel)
        self._line, self._share = Line(channel, ""), share
        self._carrying: asyncio.Task[None] | None = None
        self._again_at_s = 0.0
        self._asked = False

    def begin(
        self,
        request: GenerateRequest,
        timeout_s: float | None,
        metadata: Iterable[tuple[str, str]] = (),
    ) -> Any:
        """Begin a call: an iterator of events that can be cancelled, and raises AioRpcError."""
        if self._share and self._asked:
            if self._carrying is None:
                self._open()
            elif self._line.takes(encoded := request.SerializeToString()):
                return self._line.call(encoded, timeout_s, metadata)
        self._asked = True
        return self._stub.Generate(request, timeout=timeout_s, metadata=tuple(metadata))

    @property
    def shares(self) -> bool:
        """Whether the next call goes on the stream, if it is not long."""
        return self._share and self._line.takes(b"")

    def leave(self) -> None:
        """Have calls from now on go where a new connection leads: this server stops."""
        self._line.leave()

    async def close(self) -> None:
        """Cancel what runs on the stream, and end it."""
        self._share = False
        self._line.cancel()
        if self._carrying is not None:
            await cancelled(self._carrying)

    def _open(self) -> None:
        if monotonic() >= self._again_at_s:
            self._carrying = asyncio.create_task(self._carry())

    async def _carry(self) -> None:
        try:
            await self._line.carry()
        except grpc.aio.AioRpcError as failed:
            if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                self._again_at_s = monotonic() + _NEXT_S
        finally:
            self._carrying = None
