"""The one server interceptor, and the one place that turns errors into statuses and back.

gRPC's own handler types are generic to the type checker only, hence the aliases below; handlers
and calls are `Any`, here and in `mux`, because their types say nothing that a checker could use.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from os import urandom
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import structlog
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import error_details_pb2, status_pb2
from zeta.inference.v1 import call_service_pb2 as pb

from services.kit import errors
from services.kit.errors import DeadlinePassedError, ForbiddenError, Violation, ZetaError
from services.kit.metrics import RPC_DURATION, of
from services.kit.mux.call import CallContext
from services.kit.mux.server import GENERATE, GENERATE_MANY, Carrier
from services.kit.orca import WORK, Load

if TYPE_CHECKING:
    Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
else:
    Context, Handler = grpc.aio.ServicerContext, grpc.RpcMethodHandler

DOMAIN = "zeta"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID_KEY = "x-request-id"
TRACE_KEY = "traceparent"
_TRACE_PARTS = 4
_NAMED = (REQUEST_ID_KEY, TRACE_KEY)
LAST_WORDS_S = 1.0
"""So long a call has, once it is cut, to tell its caller."""
_NO_DEADLINE_S = 1e8  # gRPC gives some callers without a deadline one in the far future

log = structlog.get_logger()

_BY_REASON: dict[str, type[ZetaError]] = {
    kind.reason: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ZetaError) and kind is not errors.ConfigError
}
# What a status without Zeta's details amounts to; the others say nothing that Zeta knows.
_BY_STATUS: dict[grpc.StatusCode, type[ZetaError]] = {
    # A call that this side did not cancel: the other side's process or connection ended.
    grpc.StatusCode.CANCELLED: errors.UnavailableError,
} | {
    kind.status: kind
    for kind in (
        errors.InvalidRequestError,
        errors.OverloadedError,
        errors.DeadlinePassedError,
        errors.UnavailableError,
        errors.NotBuiltError,
        errors.UnauthenticatedError,
        errors.ForbiddenError,
    )
}


def details_of(error: ZetaError) -> bytes:
    """Encode *error* as the google.rpc.Status that travels in the trailing metadata."""
    status = status_pb2.Status(code=error.status.value[0], message=str(error))
    parts: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN)]
    if error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
            for v in error.violations
        ]
        parts.append(error_details_pb2.BadRequest(field_violations=fields))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        parts.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for part in parts:
        status.details.add().Pack(part)
    encoded: bytes = status.SerializeToString()
    return encoded


def zeta_error(failed: grpc.aio.AioRpcError) -> ZetaError:
    """Turn a failed call back into the error that the other side raised.

    A status without Zeta's details becomes the nearest error, such as UnavailableError for
    UNAVAILABLE; one that says nothing to Zeta a plain ZetaError.
    """
    status, reason, violations, retry_after_s = status_pb2.Status(), "", [], None
    for key, value in failed.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            status.ParseFromString(value)
    for detail in status.details:
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(bad):
            violations = [Violation(f.field, f.description) for f in bad.field_violations]
        elif detail.Unpack(retry):
            retry_after_s = retry.retry_delay.ToNanoseconds() / 1e9
    kind = _BY_REASON.get(reason) or _BY_STATUS.get(failed.code()) or ZetaError
    if kind.status is not failed.code():
        kind = _BY_STATUS.get(failed.code(), ZetaError)
    return kind(
        failed.details() or failed.code().name, retry_after_s=retry_after_s, violations=violations
    )


def is_bare(failed: grpc.aio.AioRpcError) -> bool:
    """Whether a status has no details: gRPC's own, of a connection; ours all have some."""
    return all(key != DETAILS_KEY for key, _ in failed.trailing_metadata() or ())


def request_id() -> str:
    """Return the id of the call that is being served: the caller's, or one made for it."""
    return str(structlog.contextvars.get_contextvars().get("request_id", ""))


def named_by_caller(context: Context) -> str:
    """Return what the caller calls its request, however often it tries; empty for nothing.

    That is the trace (W3C Trace Context) that it belongs to, or the id that it was given.
    """
    trace = metadata_of(context, TRACE_KEY).split("-")
    return trace[1] if len(trace) == _TRACE_PARTS else metadata_of(context, REQUEST_ID_KEY)


def deadline_s(context: Context) -> float | None:
    """Seconds that the caller will still wait, None without a deadline."""
    left = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_S else left


def outgoing(context: Context) -> tuple[tuple[str, str], ...]:
    """Metadata that goes with every call made on behalf of this one."""
    trace = metadata_of(context, TRACE_KEY)
    own = ((REQUEST_ID_KEY, request_id()),)
    return (*own, (TRACE_KEY, trace)) if trace else own


@dataclass(slots=True, eq=False, kw_only=True)
class _Running:
    """A call that is being served."""

    task: asyncio.Task[object]
    endless: bool
    """Streams until its caller has enough."""
    answers: Any = None
    """What a stream's responses come from."""
    cut: bool = False
    """Whether it is told to end."""

    def end(self) -> None:
        """Have it end with DrainingError: now, or once its present response is sent."""
        if not self.cut:
            self.cut = True
            if getattr(self.answers, "ag_running", True):
                self.task.cancel()


class Scoped(grpc.aio.ServerInterceptor):
    """Runs every handler inside a scope: log context, timing, errors to statuses.

    *allowed_names*: names that a caller's certificate may carry; empty means any. *load* counts
    the calls that are work, and its report goes behind each of them. With *trusts_siblings*,
    whoever calls through a unix socket has shown its certificate to a sibling. An event of
    `Generate` on a stream with other calls has at most *event_bytes*.
    """

    def __init__(
        self,
        allowed_names: tuple[str, ...] = (),
        load: Load | None = None,
        *,
        trusts_siblings: bool = False,
        event_bytes: int = 1 << 20,
    ) -> None:
        self._allowed = frozenset(allowed_names)
        self._trusts_siblings = trusts_siblings
        self._load = load
        self._running: set[_Running] = set()
        self._event_bytes = event_bytes
        self._carriers: dict[asyncio.Task[object], Carrier] = {}
        self._ending = False

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler, if there is one; without one gRPC answers UNIMPLEMENTED."""
        if handler_call_details.method == GENERATE_MANY:
            return await self._many(continuation, handler_call_details)
        handler = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith("/grpc."):
            return handler
        method = handler_call_details.method
        inner, make = _inner(handler)
        # gRPC answers UNKNOWN to bytes that are no message: single requests are parsed in here.
        late, early = _parsers(handler)

        async def unary(request: Any, context: Context) -> Any:
            async with self._scope(method, context):
                return await inner(late(request), context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._scope(method, context, streams=True) as call:
                if self._ending and isinstance(context, CallContext):
                    # gRPC takes no new calls then; a stream that is open would.
                    raise _stopping()
                call.answers = inner(late(request), context)
                async for response in call.answers:
                    yield response
                    if call.cut:
                        raise _stopping()

        outer: Any = stream if handler.response_streaming else unary
        wrapped: Handler = make(outer, early, handler.response_serializer)
        return wrapped

    async def end(self, grace_s: float) -> None:
        """Wait so long for the calls that run, then tell them, and their callers, to end.

        A stream that is no work has no end that could be waited for.
        """
        self._ending = True
        for call in self._running:
            if call.endless:
                call.end()
        for carrier in self._carriers.values():
            carrier.close()
        await _ended({call.task for call in self._running}, grace_s)
        for call in self._running:
            call.end()
        await _ended({*(call.task for call in self._running), *self._carriers}, LAST_WORDS_S)

    async def _many(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        details: Any,
    ) -> Handler | None:
        """Return what serves a stream of calls, each as if it had come by itself."""
        # gRPC takes details of its own type alone.
        by_itself = type(details)(GENERATE, details.invocation_metadata)
        handler: Any = await self.intercept_service(continuation, by_itself)
        if handler is None:
            return None

        async def serve(_requests: Any, context: Context) -> None:
            task = asyncio.current_task()
            assert task is not None, "calls are served in tasks"
            carrier = Carrier(
                context, handler.unary_stream, handler.response_serializer, self._event_bytes
            )
            self._carriers[task] = carrier
            # Until its status is sent, which is after this function.
            task.add_done_callback(self._carriers.pop)
            if self._ending:
                carrier.close()
            try:
                await carrier.run()
            except DecodeError as error:
                await _abort(context, errors.invalid("request", f"cannot be read: {error}"))
            except ZetaError as error:
                await _abort(context, error)
            except (grpc.aio.InternalError, grpc.aio.UsageError):
                log.info("a stream of calls broke", peer=context.peer())

        many: Handler = grpc.stream_stream_rpc_method_handler(
            serve, pb.GenerateManyRequest.FromString, pb.GenerateManyResponse.SerializeToString
        )
        return many

    @asynccontextmanager
    async def _scope(
        self, method: str, context: Context, *, streams: bool = False
    ) -> AsyncIterator[_Running]:
        start, status = perf_counter(), grpc.StatusCode.OK
        service, _, name = method.lstrip("/").partition("/")
        load, refused = self._load if name in WORK else None, None
        task = asyncio.current_task()
        assert task is not None, "calls are served in tasks"
        call = _Running(task=task, endless=streams and name not in WORK)
        self._running.add(call)
        # Until its status is sent, which is after this scope.
        task.add_done_callback(lambda _: self._running.discard(call))
        # Every call has its own task, so that nothing has to be unbound.
        structlog.contextvars.bind_contextvars(rpc=name, **_names(context))
        try:
            if load is not None:
                load.began()
            self._authorise(context)
            yield call
        except asyncio.CancelledError:
            if call.cut and task.cancelling() == 1:
                task.uncancel()
                refused = _refusal(_stopping())
            else:
                # gRPC cancels the handler when the caller is gone or its deadline has passed.
                passed = (context.time_remaining() or 1.0) <= 0
                status = grpc.StatusCode.DEADLINE_EXCEEDED if passed else grpc.StatusCode.CANCELLED
                raise
            status = refused.status
        except (grpc.aio.AbortError, GeneratorExit):
            status = grpc.StatusCode.CANCELLED
            raise
        except Exception as error:  # noqa: BLE001 - the outermost place; nothing is swallowed
            refused = _refusal(error)
            status = refused.status
        finally:
            if load is not None:
                load.ended(status)
                context.set_trailing_metadata(load.metadata())
            of(RPC_DURATION, service, name, status.name).observe(perf_counter() - start)
        if refused is not None:
            await _abort(context, refused)

    def _authorise(self, context: Context) -> None:
        if not self._allowed or (self._trusts_siblings and context.peer().startswith("unix:")):
            return
        auth = context.auth_context()
        names = {
            value.decode(errors="replace")
            for key in ("x509_common_name", "x509_subject_alternative_name")
            for value in auth.get(key, ())
        }
        if not names & self._allowed:
            raise ForbiddenError(f"the certificate's names {sorted(names)} are not allowed here")


def check_deadline(context: Context) -> None:
    """Raise DeadlinePassedError where the caller no longer waits."""
    left = deadline_s(context)
    if left is not None and left <= 0:
        raise DeadlinePassedError("the deadline had passed before the work began")


async def _ended(tasks: set[asyncio.Task[object]], within_s: float) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=within_s)


def _stopping() -> ZetaError:
    return errors.DrainingError("this server stops; ask again", retry_after_s=1.0)


def _refusal(error: Exception) -> ZetaError:
    """Return what the caller is told of *error*, and log it."""
    if isinstance(error, grpc.aio.AioRpcError):
        upstream = zeta_error(error)
        log.info("rpc failed upstream", status=upstream.status.name, message=str(upstream))
        return upstream
    if isinstance(error, ZetaError):
        log.info("rpc refused", status=error.status.name, reason=error.reason, message=str(error))
        if error.status is not grpc.StatusCode.INTERNAL:
            return error
    # The cause stays hidden from the caller; our log explains it under the same id.
    correlation = uuid.uuid4().hex[:12]
    log.error("rpc broke", correlation=correlation, exc_info=error)
    return ZetaError(f"internal error; our log explains it under {correlation}")


async def _abort(context: Context, error: ZetaError) -> None:
    said = tuple(context.trailing_metadata() or ())
    await context.abort(error.status, str(error), (*said, (DETAILS_KEY, details_of(error))))


def _names(context: Context) -> dict[str, str]:
    """Return what the call's log events are found by: its id, and its trace where it has one."""
    said = {key: str(value) for key, value in context.invocation_metadata() or () if key in _NAMED}
    own = {"request_id": said.get(REQUEST_ID_KEY) or urandom(16).hex()}
    return {**own, TRACE_KEY: said[TRACE_KEY]} if TRACE_KEY in said else own


def metadata_of(context: Context, key: str) -> str:
    """Return what the caller sent under *key*; empty where nothing."""
    for name, value in context.invocation_metadata() or ():
        if name == key:
            return str(value)
    return ""


def _parsers(handler: Handler) -> tuple[Callable[[Any], Any], Callable[[bytes], Any] | None]:
    """Return what a request goes through inside the scope, and what before it."""
    parse: Any = handler.request_deserializer

    def parsed(data: bytes) -> Any:
        try:
            return parse(data) if parse else data
        except DecodeError as error:
            raise errors.invalid("request", f"cannot be read: {error}") from error

    return (lambda requests: requests, parsed) if handler.request_streaming else (parsed, None)


def _inner(handler: Handler) -> tuple[Any, Any]:
    """Return the handler's function and the constructor of a handler of its kind."""
    kinds: dict[tuple[bool, bool], tuple[Any, Any]] = {
        (False, False): (handler.unary_unary, grpc.unary_unary_rpc_method_handler),
        (False, True): (handler.unary_stream, grpc.unary_stream_rpc_method_handler),
        (True, False): (handler.stream_unary, grpc.stream_unary_rpc_method_handler),
        (True, True): (handler.stream_stream, grpc.stream_stream_rpc_method_handler),
    }
    return kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
