"""TelemetryService: reports in, the fleet's state and history out.

All of it runs on one event loop, so the state needs no lock.
"""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable
from math import inf
from operator import itemgetter

import grpc
import structlog
from zeta.telemetry.v1 import telemetry_service_pb2_grpc
from zeta.telemetry.v1.telemetry_service_pb2 import (
    QueryHistoryRequest,
    QueryHistoryResponse,
    ReplicaHistory,
    ReplicaReport,
    ReportRequest,
    ReportResponse,
    WatchRequest,
    WatchResponse,
)

from services.kit.config import Telemetry
from services.kit.errors import DrainingError, InvalidRequestError, OverloadedError, invalid
from services.kit.rpc import DETAILS_KEY, Context, details_of
from telemetry_svc import wire
from telemetry_svc.core.fleet import Fleet, Limits
from telemetry_svc.core.sketch import Tasks
from telemetry_svc.core.window import History
from telemetry_svc.prometheus import Shown

log = structlog.get_logger()

ACK_REPORTS = 16
"""An acknowledgement follows at the latest after so many reports,"""
ACK_S = 30.0
"""or with the first one after so many seconds; the first of a stream is acknowledged at once."""
WATCH_BEAT_S = 0.5
"""A watcher to whom there is nothing to tell is told that; see `ReplicaStatus.held`."""
SHOWN_WINDOW_S = 60.0
"""Latency quantiles on the metrics page are those of the last minute."""
MAX_POINTS = 100_000
"""One answer from the history; about 10 MB."""


class TelemetryServicer(telemetry_service_pb2_grpc.TelemetryServiceServicer):
    """Holds the fleet. *clock* is monotonic, *wall* is Unix time; both in seconds."""

    def __init__(
        self,
        settings: Telemetry,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._clock, self._wall = settings, clock, wall
        self._fleet: Fleet[ReplicaReport] = Fleet(
            Limits(silent_after_s=settings.silent_after_s, gone_after_s=settings.gone_after_s)
        )
        self._histories: dict[str, History] = {}
        self._recorded: dict[str, ReplicaReport] = {}
        """The last report that went into each history."""
        self._quiet_step = -inf
        """The step of history in which quiet replicas were last remembered."""
        self._streams = itertools.count(1)
        self._news, self._closed = asyncio.Event(), asyncio.Event()
        self._told = 0
        """Ascends with what watchers are to be told at once."""
        self._reporting: set[Context] = set()

    async def Report(  # noqa: N802 - gRPC's name
        self, request_iterator: AsyncIterator[ReportRequest], context: Context
    ) -> AsyncIterator[ReportResponse]:
        """Take one agent's reports; HTTP/2 flow control holds a hasty agent back."""
        stream, unacked, acked_at_s, seq = next(self._streams), 0, -inf, 0
        self._reporting.add(context)
        try:
            async for request in request_iterator:
                self._take(request, stream)
                unacked, seq, now_s = unacked + 1, max(seq, request.report.seq), self._clock()
                if unacked >= ACK_REPORTS or now_s - acked_at_s >= ACK_S:
                    yield ReportResponse(acked_seq=seq, holds=True)
                    unacked, acked_at_s = 0, now_s
            if unacked:
                yield ReportResponse(acked_seq=seq, holds=True)
        finally:
            self._reporting.discard(context)
            # It may have been dead for as long as pings take to find out; its end looks the same.
            if self._fleet.lost(stream, alive_s=self._clock() - self._settings.silent_after_s):
                self._tell()

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: WatchRequest, context: Context
    ) -> AsyncIterator[WatchResponse]:
        """Tell the whole fleet, then what changed.

        While a slow watcher's message is under way, nothing is gathered for it: the next
        one is made from the fleet as it is by then.
        """
        del context
        least_s = wire.seconds("min_interval", request.min_interval)
        seen: int | None = None
        while True:
            told = self._told
            news = self._fleet.news(seen)
            yield wire.watch_response(news, self._clock())
            seen = news.change
            await self._pause(least_s)
            # Not `wait_for`, here and below: it makes a task each time, a dozen a second.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCH_BEAT_S):
                    await self._next_news(told)
            if self._closed.is_set():
                raise _closing()

    async def QueryHistory(  # noqa: N802 - gRPC's name
        self, request: QueryHistoryRequest, context: Context
    ) -> QueryHistoryResponse:
        """Return the past of one replica, or of all."""
        del context
        window_s = wire.seconds("window", request.window)
        if not request.HasField("window"):
            window_s = self._settings.history_s
        step_s = wire.seconds("step", request.step)
        response, points = QueryHistoryResponse(), 0
        for name, history in self._chosen(request.replica):
            past = self._past(name, history, window_s, step_s)
            points += len(past.points)
            if points > MAX_POINTS:
                raise invalid("step", f"the answer has over {MAX_POINTS} points: ask for fewer")
            response.replicas.append(past)
            await asyncio.sleep(0)  # the fleet's other calls go on in between
        return response

    async def sweep_until(self, stopped: asyncio.Event) -> None:
        """Notice silence and departure, and that nothing happens, until *stopped* is set."""
        while not stopped.is_set():
            self.sweep()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.silent_after_s / 10):
                    await stopped.wait()

    def sweep(self) -> None:
        """Notice silence and departure, and that nothing happens."""
        if self._fleet.sweep(self._clock()):
            self._forget()
            self._tell()
        self._remember_quiet()

    async def close(self) -> None:
        """End every stream, so that agents and watchers look for telemetry's successor."""
        self._closed.set()
        self._tell()
        error = _closing()
        details = ((DETAILS_KEY, details_of(error)),)
        for context in tuple(self._reporting):
            # Raised in any case: AbortError, or another where the agent left this very moment.
            with contextlib.suppress(grpc.aio.BaseError):
                await context.abort(error.status, str(error), details)

    def shown(self) -> list[Shown]:
        """Return every replica as the metrics page shows it."""
        now_s = self._clock()
        return [
            Shown(
                report=entry.report,
                age_s=entry.age_s(now_s),
                health=entry.health,
                tasks=self._histories[entry.name].tasks(now_s=now_s, window_s=SHOWN_WINDOW_S),
            )
            for entry in self._fleet.entries
        ]

    def _take(self, request: ReportRequest, stream: int) -> None:
        report = request.report
        wire.check(report)
        name, now_s, known = report.replica, self._clock(), self._fleet.get(report.replica)
        if self._fleet.full and known is None:
            raise OverloadedError(f"no room for {name!r}: {len(self._fleet)} replicas report")
        history = self._histories.get(name) or self._new_history()
        # Latency is large: read, and so checked, once per step only, and where it can differ.
        due = report.alive and history.due(now_s)
        same = request.unchanged and known and self._recorded.get(name) is known.report
        tasks = wire.tasks(report.state.tasks) if due and not same else None
        health, held_s = wire.health(report), wire.promise_s(report)
        if not self._fleet.take(
            name, report, stream=stream, seq=report.seq, health=health, now_s=now_s, held_s=held_s
        ):
            return
        self._histories[name] = history
        if due:
            self._record(report, history, tasks, now_s)
        elif same:
            self._recorded[name] = report
        if not (request.unchanged and known and known.health is health):
            self._tell()

    def _remember_quiet(self) -> None:
        """Keep the past of replicas that have nothing to report, once in each of its steps."""
        now_s = self._clock()
        if (step := now_s // self._settings.history_step_s) == self._quiet_step:
            return
        self._quiet_step = step
        for entry in self._fleet.entries:
            history, report = self._histories[entry.name], entry.report
            if entry.held_s is None or not report.alive or not history.due(now_s):
                continue
            if self._recorded.get(entry.name) is report:
                history.hold(self._wall(), at_s=now_s)
            else:
                self._record(report, history, self._readable(report), now_s)

    def _record(
        self, report: ReplicaReport, history: History, tasks: Tasks | None, now_s: float
    ) -> None:
        point, process = wire.point(report, self._wall()), wire.started_s(report.state)
        history.record(point, tasks, process=process, at_s=now_s)
        self._recorded[report.replica] = report

    def _readable(self, report: ReplicaReport) -> Tasks:
        """Read latency that was not looked at when it came; nothing where it makes no sense."""
        try:
            return wire.tasks(report.state.tasks)
        except InvalidRequestError as error:
            log.warning("latency makes no sense", replica=report.replica, error=str(error))
            return {}

    def _new_history(self) -> History:
        return History(history_s=self._settings.history_s, step_s=self._settings.history_step_s)

    def _past(self, name: str, history: History, window_s: float, step_s: float) -> ReplicaHistory:
        now_s = self._clock()
        return wire.replica_history(
            name,
            history.points(now_s=now_s, window_s=window_s, step_s=step_s),
            history.tasks(now_s=now_s, window_s=window_s),
        )

    def _chosen(self, replica: str) -> list[tuple[str, History]]:
        """Return the histories asked for; a list, because replicas may leave meanwhile."""
        if not replica:
            return sorted(self._histories.items(), key=itemgetter(0))
        if replica not in self._histories:
            known = ", ".join(sorted(self._histories)[:20]) or "none"
            raise invalid("replica", f"none is named {replica[:200]!r}; there are: {known}")
        return [(replica, self._histories[replica])]

    def _forget(self) -> None:
        """Drop the history of who is gone."""
        for name in [name for name in self._histories if name not in self._fleet]:
            del self._histories[name]
            self._recorded.pop(name, None)
            log.info("replica gone", replica=name)

    async def _next_news(self, told: int) -> None:
        while self._told == told and not self._closed.is_set():
            await self._news.wait()

    async def _pause(self, for_s: float) -> None:
        if for_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(for_s):
                    await self._closed.wait()

    def _tell(self) -> None:
        """Wake every watcher that waits."""
        self._told += 1
        self._news.set()
        self._news = asyncio.Event()


def _closing() -> DrainingError:
    return DrainingError("telemetry is stopping", retry_after_s=1.0)
