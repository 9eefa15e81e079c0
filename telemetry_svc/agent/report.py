"""Streams one replica's reports to telemetry, and finds it again when it is lost.

Only the newest sample is ever kept for sending: an agent never has a backlog. A replica
about which nothing changed is reported less often, as a sign of life.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TypeAlias

import grpc
import structlog
from prometheus_client import Counter
from zeta.telemetry.v1.telemetry_service_pb2 import ReplicaReport, ReportRequest, ReportResponse
from zeta.telemetry.v1.telemetry_service_pb2_grpc import TelemetryServiceStub

from services.kit import aio
from services.kit.errors import StreamBrokenError, ZetaError

log = structlog.get_logger()

Call: TypeAlias = "grpc.aio.StreamStreamCall[ReportRequest, ReportResponse]"

HEARTBEAT_S = 1.0
"""An unchanged replica is reported so often, or three times before it counts as silent."""
MAX_UNACKED = 64
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 1.0

STREAM_ERRORS = (
    grpc.aio.AioRpcError,
    grpc.aio.BaseError,
    asyncio.InvalidStateError,
    ZetaError,
)
"""What a stream ends in: a status, or one of gRPC's own where the end crosses a write."""

REPORTS = Counter("zeta_agent_reports", "Reports sent to telemetry.")
STREAMS = Counter("zeta_agent_streams", "Report streams opened; each after the first replaces one.")


def heartbeat_s(silent_after_s: float) -> float:
    """Return how often an unchanged replica is reported."""
    return min(HEARTBEAT_S, silent_after_s / 3)


class Reporter:
    """Sends what it is offered. *clock* is monotonic."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        heartbeat_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._telemetry = TelemetryServiceStub(channel)
        self._heartbeat_s, self._clock = heartbeat_s, clock
        self._newest: ReplicaReport | None = None
        self._sent: ReplicaReport | None = None
        self._sent_s = float("-inf")
        self._due, self._acknowledged = asyncio.Event(), asyncio.Event()
        self._seq = self._acked_seq = 0
        self._connected: bool | None = None
        self._backoff_s = FIRST_BACKOFF_S

    @property
    def newest(self) -> ReplicaReport | None:
        """The last report offered."""
        return self._newest

    def offer(self, report: ReplicaReport) -> None:
        """Have *report* sent if it has news or a sign of life is due; replaces one not yet sent."""
        self._newest = report
        quiet_s = self._clock() - self._sent_s
        if quiet_s >= self._heartbeat_s or self._sent is None or _news(self._sent, report):
            self._due.set()

    async def run(self) -> None:
        """Keep a stream open until cancelled, with backoff from one to the next."""
        while True:
            try:
                STREAMS.inc()
                await self._stream()
            except STREAM_ERRORS as error:
                if self._connected is not False:
                    log.warning("telemetry lost", reason=_reason(error))
                self._connected = False
            await asyncio.sleep(self._backoff_s)
            self._backoff_s = min(2 * self._backoff_s, LAST_BACKOFF_S)

    async def _stream(self) -> None:
        """Send on one stream until it breaks, which is raised."""
        call = self._telemetry.Report()
        self._sent, self._acked_seq = None, self._seq
        try:
            await aio.all_of(self._send(call), self._read(call))
        finally:
            call.cancel()

    async def _send(self, call: Call) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self._seq - self._acked_seq >= MAX_UNACKED:
                self._acknowledged.clear()
                await self._acknowledged.wait()
            await self._write(call)

    async def _write(self, call: Call) -> None:
        report = self._newest
        assert report is not None
        self._seq += 1
        report.seq = self._seq
        self._sent, self._sent_s = report, self._clock()
        await call.write(ReportRequest(report=report))
        REPORTS.inc()

    async def _read(self, call: Call) -> None:
        async for response in call:
            self._acked_seq = response.acked_seq
            self._acknowledged.set()
            if not self._connected:
                log.info("reporting", acked_seq=response.acked_seq)
            self._connected, self._backoff_s = True, FIRST_BACKOFF_S
        raise StreamBrokenError("telemetry ended the stream")


def _news(before: ReplicaReport, after: ReplicaReport) -> bool:
    """Say whether anything but the machine's slow figures differs."""
    return before.alive != after.alive or before.state != after.state or before.rates != after.rates


def _reason(error: Exception) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return str(error)
