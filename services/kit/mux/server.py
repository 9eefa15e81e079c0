"""The server's end of a stream that carries calls."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
import structlog
from zeta.inference.v1 import call_service_pb2 as pb

from services.kit.aio import cancelled
from services.kit.errors import invalid
from services.kit.mux import headers
from services.kit.mux.call import CallContext
from services.kit.mux.headers import Value
from services.kit.mux.outbox import Outbox

log = structlog.get_logger()

CALLS: Final = "zeta.inference.v1.CallService"
GENERATE_MANY: Final = f"/{CALLS}/GenerateMany"
INFERENCE: Final = "zeta.inference.v1.InferenceService"
GENERATE: Final = f"/{INFERENCE}/Generate"

MOST_CALLS: Final = 1024
"""Of one stream, at once; each holds memory, however little it asks."""
_END_BYTES: Final = 512
"""About what the end of a call takes on the stream."""

Answer: TypeAlias = Callable[[bytes, Any], AsyncGenerator[Any, None]]
"""Takes an encoded request and a context, as a handler of `Generate` does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    context: CallContext
    task: asyncio.Task[None]
    deadline: asyncio.TimerHandle | None


class Carrier:
    """Serves the calls of one stream, each in a task of its own.

    *encode* is what an event goes through; one of more than *event_bytes* fails its call.
    """

    def __init__(
        self, stream: Any, answer: Answer, encode: Callable[[Any], bytes], event_bytes: int
    ) -> None:
        self._stream = stream
        self._answer, self._encode, self._event_bytes = answer, encode, event_bytes
        self._calls: dict[int, _Call] = {}
        self._out: Outbox[pb.CallNews] = Outbox(self._send)
        self._closing = False
        self._over = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Serve until the caller has said its last and all is answered, or `close`.

        Raises InvalidRequestError for a stream that makes no sense.
        """
        await self._send([])
        tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._out.run())]
        for task in tasks:
            task.add_done_callback(self._failed)
        try:
            await self._over
            self._out.close()
            await tasks[1]
        finally:
            for call in self._calls.values():
                call.task.cancel()
            for task in tasks:
                await cancelled(task)

    def close(self) -> None:
        """Have the stream end with the last of its calls."""
        self._closing = True
        self._end_if_idle()

    async def _send(self, news: list[pb.CallNews]) -> None:
        await self._stream.write(pb.GenerateManyResponse(news=news))

    async def _read(self) -> None:
        while (message := await self._stream.read()) is not grpc.aio.EOF:
            for order in message.orders:
                self._take(order)
            if self._out.full:
                # Who does not read what came of its calls is not heard either.
                await self._out.room()
        self.close()

    def _take(self, order: pb.CallOrder) -> None:
        call, kind = self._calls.get(order.call), order.WhichOneof("order")
        if kind == "start":
            if call is not None:
                raise invalid("orders.call", f"must be new, got {order.call} again")
            self._begin(order.call, order.start)
        elif kind is None:
            raise invalid("orders.order", "must hold one")
        elif call is not None and kind == "more":
            call.context.allow(order.more)
        elif call is not None:
            call.task.cancel()

    def _begin(self, number: int, start: pb.CallStart) -> None:
        if len(self._calls) >= MOST_CALLS:
            said = f"{MOST_CALLS} calls are open on this stream; wait, or make a call of its own"
            self._put_end(number, grpc.StatusCode.RESOURCE_EXHAUSTED, said)
            return
        try:
            context = CallContext(self._stream, start)
        except ValueError as wrong:
            self._put_end(number, grpc.StatusCode.INVALID_ARGUMENT, str(wrong))
            return
        task = asyncio.create_task(self._serve(number, start.request, context))
        task.add_done_callback(partial(self._ended, number))
        left_s, timer = context.time_remaining(), None
        if left_s is not None:
            timer = asyncio.get_running_loop().call_later(left_s, self._late, number)
        self._calls[number] = _Call(context=context, task=task, deadline=timer)

    async def _serve(self, number: int, request: bytes, context: CallContext) -> None:
        try:
            async with aclosing(self._answer(request, context)) as events:
                async for event in events:
                    await context.room()
                    if self._out.full:
                        await self._out.room()
                    self._put_event(number, self._encode(event), context)
        except grpc.aio.AbortError:
            pass  # its status is in the context
        except asyncio.CancelledError:
            late = context.late
            context.code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.CANCELLED
            context.message = "Deadline Exceeded" if late else "cancelled"
        except Exception:
            log.exception("call broke")
            context.code, context.message = grpc.StatusCode.UNKNOWN, "the call broke"
        finally:
            context.end()
        self._put_end(number, context.code, context.message, context.trailers)

    def _put_event(self, number: int, event: bytes, context: CallContext) -> None:
        if len(event) > self._event_bytes:
            context.code = grpc.StatusCode.RESOURCE_EXHAUSTED
            context.message = f"an event of {len(event)} bytes; {self._event_bytes} are allowed"
            raise grpc.aio.AbortError
        self._out.put(pb.CallNews(call=number, event=event), len(event))

    def _put_end(
        self,
        number: int,
        code: grpc.StatusCode,
        message: str,
        trailers: tuple[tuple[str, Value], ...] = (),
    ) -> None:
        end = pb.CallEnd(code=code.value[0], message=message, trailers=headers.written(trailers))
        self._out.put(pb.CallNews(call=number, end=end), _END_BYTES)

    def _late(self, number: int) -> None:
        call = self._calls[number]
        call.context.late = True
        call.task.cancel()

    def _ended(self, number: int, _task: asyncio.Task[None]) -> None:
        timer = self._calls.pop(number).deadline
        if timer is not None:
            timer.cancel()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._closing and not self._calls and not self._over.done():
            self._over.set_result(None)

    def _failed(self, task: asyncio.Task[None]) -> None:
        """Have the stream fail as *task* did."""
        if not task.cancelled() and (error := task.exception()) and not self._over.done():
            self._over.set_exception(error)
