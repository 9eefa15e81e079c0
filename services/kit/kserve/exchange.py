"""One stream of requests, answered side by side; one that fails leaves the others alone."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from typing import Final, TypeAlias

import grpc
import structlog
from zeta.kserve.v2 import grpc_inference_service_pb2 as pb

from services.kit.aio import cancelled
from services.kit.errors import ZetaError
from services.kit.kserve.responses import failed
from services.kit.rpc import Context, zeta_error

log = structlog.get_logger()

AT_ONCE: Final = 128
"""Requests of one stream that are answered at the same time; the next ones wait in gRPC."""
_AHEAD: Final = 32
"""Responses made ahead of a caller who reads slowly; models coalesce what comes then."""
_STRICT: Final = ("triton_grpc_error", "true")

Responses: TypeAlias = AsyncGenerator[pb.ModelStreamInferResponse, None]


class Exchange:
    """Serves one `ModelStreamInfer` call; *answer* yields the responses to one request."""

    def __init__(
        self, answer: Callable[[pb.ModelInferRequest], Responses], context: Context
    ) -> None:
        self._answer, self._context = answer, context
        self._strict = _STRICT in (context.invocation_metadata() or ())
        self._room = asyncio.Semaphore(AT_ONCE)
        self._out: asyncio.Queue[pb.ModelStreamInferResponse | Exception | None] = asyncio.Queue(
            _AHEAD
        )

    async def responses(self, requests: AsyncIterator[pb.ModelInferRequest]) -> Responses:
        """Yield responses as they come, until *requests* end and all are answered.

        Raises what is not one request's own fault, and with `triton_grpc_error` any error.
        """
        serving = asyncio.create_task(self._serve(requests))
        # gRPC may drop this generator long after the caller has gone: do not wait for that.
        self._context.add_done_callback(lambda _: serving.cancel())  # type: ignore[arg-type]
        try:
            while (item := await self._out.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            await cancelled(serving)

    async def _serve(self, requests: AsyncIterator[pb.ModelInferRequest]) -> None:
        async with asyncio.TaskGroup() as group:
            try:
                async for request in requests:
                    await self._room.acquire()
                    group.create_task(self._one(request))
            except Exception as broken:  # noqa: BLE001 - raised where the caller is answered
                await self._out.put(broken)
        await self._out.put(None)

    async def _one(self, request: pb.ModelInferRequest) -> None:
        try:
            async with aclosing(self._answer(request)) as responses:
                async for response in responses:
                    await self._out.put(response)
        except (ZetaError, grpc.aio.AioRpcError) as error:
            await self._out.put(self._failed(request, error))
        except Exception as broken:  # noqa: BLE001 - as above
            await self._out.put(broken)
        finally:
            self._room.release()

    def _failed(
        self, request: pb.ModelInferRequest, error: ZetaError | grpc.aio.AioRpcError
    ) -> pb.ModelStreamInferResponse | Exception:
        known = error if isinstance(error, ZetaError) else zeta_error(error)
        # What is our fault is explained by our log only: `kit.rpc` sees to that.
        if self._strict or known.status is grpc.StatusCode.INTERNAL:
            return known
        log.info(
            "request refused", status=known.status.name, reason=known.reason, message=str(known)
        )
        return failed(request, known)
