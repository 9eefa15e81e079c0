"""Streams one replica's reports to telemetry, and finds it again when it is lost.

Only the newest sample is ever kept for sending: an agent never has a backlog. An agent promises
to report at once whatever changed; a replica about which nothing did is reported seldom, as a
sign of life. An agent that cannot keep the promise, because its model does not answer, says so.
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
from telemetry_svc.core.fleet import SIGN_OF_LIFE_S
from telemetry_svc.wire import duration

log = structlog.get_logger()

Call: TypeAlias = "grpc.aio.StreamStreamCall[ReportRequest, ReportResponse]"

HEARTBEAT_S = 1.0
"""To a telemetry service that does not take silence for no change, an unchanged replica is
reported so often, or three times before it counts as silent."""
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
    """Return how often an unchanged replica is reported to who does not hold reports."""
    return min(HEARTBEAT_S, silent_after_s / 3)


class Reporter:
    """Sends what it is offered. *clock* is monotonic, *wall* is Unix time."""

    def __init__(
        self,
        channel: grpc.aio.Channel,
        *,
        heartbeat_s: float,
        read_every_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._telemetry = TelemetryServiceStub(channel)
        self._heartbeat_s, self._clock, self._wall = heartbeat_s, clock, wall
        self._promise, self._kept = duration(read_every_s), True
        self.held = asyncio.Event()
        """Set while telemetry takes silence for no change."""
        self._newest: ReplicaReport | None = None
        self._sent: ReplicaReport | None = None
        self._sent_s = self._sent_beat = float("-inf")
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
        if self._is_due() or not self._kept or not self._unchanged(report):
            self._kept = True
            self._due.set()

    def _is_due(self) -> bool:
        """Whether a sign of life is due; all agents give theirs at the same time.

        A service that is woken once for many takes half as long for each as when they come
        scattered (docs/benchmarks.md, "Telemetry").
        """
        if not self.held.is_set():
            return self._clock() - self._sent_s >= self._heartbeat_s
        return self._wall() // SIGN_OF_LIFE_S != self._sent_beat

    def doubt(self) -> None:
        """Take the promise back until the next offer: the replica could not be read in time."""
        if self._newest is not None and self._kept:
            self._kept = False
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
        self.held.clear()
        try:
            await aio.all_of(self._send(call), self._read(call), self._beat())
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

    async def _beat(self) -> None:
        """Have signs of life sent at the beat itself, not with the next reading after it.

        Readings of many agents are scattered, so that each would wake the service for itself;
        and a ping follows when nothing came for a while, so that pings come together, too.
        """
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_S - self._wall() % SIGN_OF_LIFE_S)
            if self._newest is not None and self._kept and self._is_due():
                self._due.set()

    async def _write(self, call: Call) -> None:
        report = self._newest
        assert report is not None
        self._seq += 1
        unchanged = self._kept and self._unchanged(report)
        report.seq = self._seq
        if self._kept:
            report.read_every.CopyFrom(self._promise)
        else:
            report.ClearField("read_every")
        self._sent, self._sent_s = report, self._clock()
        self._sent_beat = self._wall() // SIGN_OF_LIFE_S
        await call.write(ReportRequest(report=report, unchanged=unchanged))
        REPORTS.inc()

    def _unchanged(self, report: ReplicaReport) -> bool:
        return self._sent is not None and not _news(self._sent, report)

    async def _read(self, call: Call) -> None:
        async for response in call:
            self._acked_seq = response.acked_seq
            if response.holds:
                self.held.set()
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
