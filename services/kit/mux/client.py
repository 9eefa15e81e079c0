"""The caller's end: one stream to a server, kept open, on which calls of `Generate` go."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Self

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from zeta.inference.v1 import call_service_pb2 as pb
from zeta.inference.v1 import call_service_pb2_grpc as pb_grpc
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from services.kit.aio import Bell, cancelled, within
from services.kit.mux import headers
from services.kit.mux.headers import Value
from services.kit.mux.outbox import Outbox

log = structlog.get_logger()

WINDOW: Final = 128
"""Events of a call that may wait for their reader; then its model waits, and no other call."""
_MOST_CALLS: Final = 1000
"""Open at once; a server takes 1024, and some that end here still end there."""
_REQUEST_BYTES: Final = 64 * 1024
"""A longer request would hold up what is behind it: it goes by a call of its own."""
_AGAIN_S: Final = 0.1
"""Pause before a broken stream is opened again; the channel itself backs off up to a second."""
_NEXT_S: Final = 30.0
"""A server that had no stream is asked again after that, or when it serves anew."""
_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}


class Line:
    """A stream to the server behind *channel* that is opened again whenever it breaks.

    *name* is the server's in our log. Where there is no stream, or the server has none, callers
    make calls of their own.
    """

    def __init__(self, channel: grpc.aio.Channel, name: str) -> None:
        self._stub: Any = pb_grpc.CallServiceStub(channel)
        self._name = name
        self._stream: _Stream | None = None
        self._settled, self._anew = asyncio.Event(), asyncio.Event()

    def takes(self, request: bytes) -> bool:
        """Whether *request* can go on the stream now."""
        stream = self._stream
        return (
            stream is not None
            and len(request) <= _REQUEST_BYTES
            and len(stream.open) < _MOST_CALLS
            and not stream.left
        )

    def call(
        self, request: bytes, timeout_s: float | None, metadata: Iterable[tuple[str, Value]]
    ) -> "Call":
        """Begin a call with an encoded `GenerateRequest` that the line `takes`."""
        assert self._stream is not None, "asked before"
        return self._stream.call(request, timeout_s, metadata)

    async def settled(self, within_s: float) -> None:
        """Wait until it is known whether the server has the stream; one that had none may now."""
        if self._stream is None or self._stream.left:
            self._settled.clear()
            self._anew.set()
        await within(within_s, self._settled.wait())

    def leave(self) -> None:
        """Take no more calls until a stream is opened again; the present one ends with its calls.

        For a server that stops: what comes after it is reached by a new connection.
        """
        if self._stream is not None:
            self._stream.leave()

    def cancel(self) -> None:
        """Stop the work of every call."""
        if self._stream is not None:
            for call in list(self._stream.open.values()):
                call.cancel()

    async def keep(self) -> None:
        """Keep the stream open for ever."""
        while True:
            self._anew.clear()
            try:
                # Waiting for the connection costs nothing, and notices it at once.
                await self.carry(wait_for_ready=True)
            except grpc.aio.AioRpcError as failed:
                if failed.code() is not grpc.StatusCode.UNAVAILABLE:
                    log.info("no stream for calls", server=self._name, status=failed.code().name)
                    self._settled.set()
                    await within(_NEXT_S, self._anew.wait())
            await asyncio.sleep(_AGAIN_S)

    async def carry(self, *, wait_for_ready: bool = False) -> None:
        """Open the stream once, and carry calls until it ends. Raises AioRpcError."""
        calls = self._stub.GenerateMany(wait_for_ready=wait_for_ready)
        reason = "the server closed the stream"
        try:
            if await calls.read() is grpc.aio.EOF:
                return
            self._stream = _Stream(calls)
            self._settled.set()
            await self._stream.run()
        except grpc.aio.AioRpcError as failed:
            reason = failed.details() or failed.code().name
            raise
        finally:
            calls.cancel()
            stream, self._stream = self._stream, None
            if stream is not None:
                stream.lost(reason)


class _Stream:
    """The calls of one stream."""

    def __init__(self, calls: Any) -> None:
        self._calls = calls
        self.out: Outbox[pb.CallOrder] = Outbox(self._send)
        self.open: dict[int, Call] = {}
        self.left = False
        """Whether it ends with the calls that it has."""
        self._last = 0

    def call(
        self, request: bytes, timeout_s: float | None, metadata: Iterable[tuple[str, Value]]
    ) -> "Call":
        self._last += 1
        start = pb.CallStart(request=request, headers=headers.written(metadata), window=WINDOW)
        if timeout_s is not None:
            start.timeout.CopyFrom(_duration(max(timeout_s, 0.0)))
        self.out.put(pb.CallOrder(call=self._last, start=start), len(request))
        call = self.open[self._last] = Call(self, self._last, timeout_s)
        return call

    async def run(self) -> None:
        """Carry calls until the stream ends. Raises AioRpcError."""
        writing = asyncio.create_task(self._write())
        try:
            while (message := await self._calls.read()) is not grpc.aio.EOF:
                self._got(message.news)
        finally:
            await cancelled(writing)

    def _got(self, all_news: Iterable[pb.CallNews]) -> None:
        for news in all_news:
            if (call := self.open.get(news.call)) is not None:
                call.got(news)

    def ended(self, number: int) -> None:
        """Forget a call."""
        del self.open[number]
        if self.left and not self.open:
            self.out.close()

    def leave(self) -> None:
        """End with the last of the calls."""
        self.left = True
        if not self.open:
            self.out.close()

    def lost(self, reason: str) -> None:
        """Have every call fail as one whose connection broke."""
        for call in list(self.open.values()):
            call.fail(partial(_error, grpc.StatusCode.UNAVAILABLE, reason))

    async def _write(self) -> None:
        await self.out.run()
        await self._calls.done_writing()

    async def _send(self, orders: list[pb.CallOrder]) -> None:
        await self._calls.write(pb.GenerateManyRequest(orders=orders))


class Call:
    """One call: an iterator of its events, with one reader.

    Raises AioRpcError where the call fails, and CancelledError behind `cancel`, as gRPC's own do.
    """

    def __init__(self, stream: _Stream, number: int, timeout_s: float | None) -> None:
        self._stream, self._number = stream, number
        self._events: deque[bytes] = deque()
        self._taken = 0
        """Events since more were allowed."""
        self._end: Callable[[], BaseException] | None = None
        """Makes what its reader sees behind the events; what was raised would hold this itself."""
        self._news = Bell()
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(timeout_s, 0.0), self._expire)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> inference_pb.GenerateResponse:
        while not self._events:
            if self._end is not None:
                raise self._end()
            await self._news.heard()
        event = self._events.popleft()
        self._taken += 1
        if self._taken >= WINDOW // 2 and self._end is None:
            self._order(pb.CallOrder(call=self._number, more=self._taken))
            self._taken = 0
        return inference_pb.GenerateResponse.FromString(event)

    def cancel(self) -> bool:
        """Stop the work; return whether it still ran."""
        return self._give_up(asyncio.CancelledError)

    def got(self, news: pb.CallNews) -> None:
        """Take in what the server says."""
        if news.HasField("end"):
            code = _CODES.get(news.end.code, grpc.StatusCode.UNKNOWN)
            if code is grpc.StatusCode.OK:
                self.fail(StopAsyncIteration)
            else:
                trailers = headers.read(news.end.trailers)
                self.fail(partial(_error, code, news.end.message, trailers))
        else:
            self._events.append(news.event)
            self._news.ring()

    def fail(self, end: Callable[[], BaseException]) -> None:
        """Have the reader see what *end* makes behind what came."""
        if self._end is None:
            self._end = end
            self._stream.ended(self._number)
            if self._timer is not None:
                self._timer.cancel()
            self._news.ring()

    def _expire(self) -> None:
        self._give_up(partial(_error, grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def _give_up(self, end: Callable[[], BaseException]) -> bool:
        if self._end is not None:
            return False
        self._events.clear()
        self._order(pb.CallOrder(call=self._number, cancel=pb.CallCancel()))
        self.fail(end)
        return True

    def _order(self, order: pb.CallOrder) -> None:
        self._stream.out.put(order)


def _error(
    code: grpc.StatusCode, message: str, trailers: tuple[tuple[str, Value], ...] = ()
) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(
        code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), details=message
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromNanoseconds(int(seconds * 1e9))
    return duration
