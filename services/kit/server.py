"""Run one gRPC server: health per service, reflection, channelz, signals, drain.

async def serve_it(config: FleetConfig) -> None:
    async with serving("127.0.0.1:7070", config.server, {NAME: add_servicer}) as server:
        server.set_serving(NAME)
        await server.stopped.wait()

run("router", serve_it(config), config.fleet.log_level)
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import grpc
import structlog
from grpc_channelz.v1 import channelz
from grpc_health.v1 import _async as health_aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from zeta.orca.service.v3 import orca_pb2_grpc

from services.kit import aio
from services.kit import log as kit_log
from services.kit.config import Server as Settings
from services.kit.errors import ConfigError
from services.kit.mux.server import CALLS, INFERENCE
from services.kit.orca import ORCA, Load, OrcaServicer, Use
from services.kit.rpc import LAST_WORDS_S, Scoped
from services.kit.security import server_credentials

log = structlog.get_logger()

Add = Callable[[grpc.aio.Server], None]

_ENVELOPE_BYTES: Final = 64
"""What a message with one event on a stream of calls is longer than the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """A server that runs."""

    address: str
    """Where it listens, with the port that it was given for port 0."""
    stopped: asyncio.Event
    """Set when the process is to end."""
    health: health_aio.HealthServicer
    names: tuple[str, ...]

    async def set_serving(self, *, serving: bool = True, names: tuple[str, ...] = ()) -> None:
        """Tell health checkers that *names* (empty: all services) serve, or that they do not."""
        state = health_pb2.HealthCheckResponse
        status = state.SERVING if serving else state.NOT_SERVING
        for name in names or ("", *self.names):
            await self.health.set(name, status)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pings:
    """How a server finds out that a caller is gone whose connection says nothing."""

    every_s: float
    """Connections without traffic are pinged so often;"""
    answer_s: float
    """one that does not answer for so long is closed."""


@asynccontextmanager
async def serving(
    listen: str,
    settings: Settings,
    services: Mapping[str, Add],
    *,
    use: Callable[[], Use] | None = None,
    siblings_at: str = "",
    pings: Pings | None = None,
) -> AsyncIterator[Serving]:
    """Serve *services* (full protobuf name → what adds its servicer) on *listen*.

    With *use*, which says what there is to do, the server reports its load by ORCA. With
    *siblings_at*, a unix socket, *listen* is shared with other processes of the same kind, who
    reach this one there, without TLS: nobody else may have access to it.

    Health says NOT_SERVING until `set_serving`. Leaving the context takes no new calls, gives
    running ones `drain_grace_s`, then ends them with DrainingError. *pings* find callers that are
    gone sooner than the usual minute. Raises ConfigError when the address is taken.
    """
    load, closing = Load(use) if use else None, asyncio.Event()
    calls = Scoped(
        settings.tls.allowed_names if settings.tls else (),
        load,
        trusts_siblings=bool(siblings_at),
        event_bytes=settings.max_message_bytes - _ENVELOPE_BYTES,
    )
    server = grpc.aio.server(
        interceptors=[calls],
        options=_options(settings, pings, shared=bool(siblings_at)),
    )
    for add in services.values():
        add(server)
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    channelz.add_channelz_servicer(server)
    builtin = [health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME]
    if INFERENCE in services:
        builtin.append(CALLS)  # by the interceptor
    if load is not None:
        builtin.append(ORCA)
        orca_pb2_grpc.add_OpenRcaServiceServicer_to_server(OrcaServicer(load, closing), server)
    reflection.enable_server_reflection([*services, *builtin], server)
    address = _bind(server, listen, settings)
    if siblings_at:
        server.add_insecure_port(siblings_at)
    running = Serving(
        address=address, stopped=aio.stop_event(), health=health, names=tuple(services)
    )
    await running.set_serving(serving=False)
    await server.start()
    log.info("listening", address=address)
    try:
        yield running
    finally:
        closing.set()
        await running.set_serving(serving=False)
        # Health streams never end: without calls, nothing is waited for.
        stopping = asyncio.create_task(server.stop(settings.drain_grace_s + 2 * LAST_WORDS_S))
        await calls.end(settings.drain_grace_s)
        await server.stop(None)
        await stopping
        log.info("stopped", address=address)


def run(
    process: str,
    main: Coroutine[None, None, None],
    level: str = "info",
    *,
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    """Run a process to its end; a mistake in the configuration is one message and exit code 2."""
    kit_log.configure(process, level)
    try:
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(main)
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - a person reads this before any log exists
        sys.exit(2)


def _options(settings: Settings, pings: Pings | None, *, shared: bool) -> list[tuple[str, int]]:
    pings = pings or Pings(every_s=60.0, answer_s=20.0)
    return [
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.keepalive_time_ms", int(pings.every_s * 1e3)),
        ("grpc.keepalive_timeout_ms", int(pings.answer_s * 1e3)),
        # Without it an unanswered ping is waited for a minute.
        ("grpc.http2.ping_timeout_ms", int(pings.answer_s * 1e3)),
        # However long nothing else is said: streams may be silent for hours.
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        # Two processes on one port by mistake would each get half of the calls.
        ("grpc.so_reuseport", int(shared)),
    ]


def _bind(server: grpc.aio.Server, listen: str, settings: Settings) -> str:
    try:
        if settings.tls:
            port = server.add_secure_port(listen, server_credentials(settings.tls))
        else:
            port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise ConfigError(
            f"cannot listen on {listen!r}: is the address taken? Choose another"
        ) from error
    return listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"
