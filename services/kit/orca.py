"""Load as every gRPC client understands it: ORCA reports, behind each call and as a stream.

A client's weighted round robin (gRFC A58) gives an endpoint the weight rps / utilisation. Both
are averages over the same few seconds here, so that the weight is, by Little's law, the number of
requests that may run at once over how long one takes: a faster or wider replica gets more.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from math import exp, inf
from time import monotonic
from typing import Final

import grpc
import psutil
from zeta.orca.data.v3.orca_load_report_pb2 import OrcaLoadReport
from zeta.orca.service.v3 import orca_pb2_grpc
from zeta.orca.service.v3.orca_pb2 import OrcaLoadReportRequest

from services.kit.errors import invalid

REPORT_KEY: Final = "endpoint-load-metrics-bin"
ORCA: Final = "xds.service.orca.v3.OpenRcaService"
WORK: Final = frozenset({"Generate", "Embed", "Profile", "Score", "ModelInfer", "ModelStreamInfer"})
"""The calls that count as load."""
_MEAN_OVER_S: Final = 5.0
_PROCESS_EVERY_S: Final = 1.0
_LEAST_INTERVAL_S: Final = 0.1
_METADATA_EVERY_S: Final = 0.05
"""Averages over seconds are not made anew for every call of hundreds in one."""
_INTERVAL_S: Final = 10.0
_OVERWORKED: Final = frozenset(
    {
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.UNKNOWN,
    }
)
"""How calls end through no fault of the caller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What a server has to do now."""

    slots: int
    """Calls that may be worked on at once, at least 1."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Shares of resources in [0, 1], by name."""
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class Rate:
    """Events per second, each fading exponentially over *over_s*. Time is an argument."""

    over_s: float = _MEAN_OVER_S
    _rate: float = 0.0
    _at_s: float = 0.0

    def count(self, now_s: float) -> None:
        """Count one event."""
        self._rate, self._at_s = self.per_s(now_s) + 1.0 / self.over_s, now_s

    def per_s(self, now_s: float) -> float:
        """Return the rate now."""
        return self._rate * exp(-max(now_s - self._at_s, 0.0) / self.over_s)


@dataclass(slots=True)
class Mean:
    """What a value was on average, the past fading over *over_s*. Time is an argument."""

    over_s: float = _MEAN_OVER_S
    _mean: float = 0.0
    _value: float = 0.0
    _at_s: float = 0.0

    def now_is(self, value: float, now_s: float) -> None:
        """Note that the value is *value* from *now_s* on."""
        self._mean, self._value, self._at_s = self.mean(now_s), value, now_s

    def mean(self, now_s: float) -> float:
        """Return the mean up to *now_s*."""
        kept = exp(-max(now_s - self._at_s, 0.0) / self.over_s)
        return self._value + (self._mean - self._value) * kept


class ThisProcess:
    """The share that this process has of the machine, read once a second.

    *clock* is monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._process, self._clock = psutil.Process(), clock
        self._cpus = len(os.sched_getaffinity(0))
        self._memory_bytes = psutil.virtual_memory().total
        self._process.cpu_percent()  # from here on
        self._read_s, self._shares = clock(), (0.0, self._held())

    def shares(self) -> tuple[float, float]:
        """Return the shares of the processors that it may use, and of the memory."""
        now_s = self._clock()
        if now_s - self._read_s >= _PROCESS_EVERY_S:
            cpu_ratio = self._process.cpu_percent() / 100.0 / self._cpus
            self._read_s, self._shares = now_s, (cpu_ratio, self._held())
        return self._shares

    def _held(self) -> float:
        return float(self._process.memory_info().rss / self._memory_bytes)


class Load:
    """Counts calls and reports them. *use* says what there is to do now.

    *clock* is monotonic seconds.
    """

    def __init__(
        self,
        use: Callable[[], Use],
        *,
        process: Callable[[], tuple[float, float]] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._use, self._clock = use, clock
        self._process = process or ThisProcess(clock).shares
        self._calls, self._errors, self._busy = Rate(), Rate(), Mean()
        self._in_flight = 0
        self._made_s, self._metadata = -inf, ((REPORT_KEY, b""),)

    def began(self) -> None:
        """Note that a call arrived."""
        self._in_flight += 1
        self._busy.now_is(self._in_flight, self._clock())

    def ended(self, status: grpc.StatusCode) -> None:
        """Count a call that ended with *status*."""
        now_s = self._clock()
        self._calls.count(now_s)
        if status in _OVERWORKED:
            self._errors.count(now_s)
        self._in_flight -= 1
        self._busy.now_is(self._in_flight, now_s)

    def report(self) -> OrcaLoadReport:
        """Return the load now."""
        now_s, use = self._clock(), self._use()
        cpu_ratio, memory_ratio = self._process()
        return OrcaLoadReport(
            cpu_utilization=cpu_ratio,
            mem_utilization=memory_ratio,
            utilization=use.shares,
            rps_fractional=self._calls.per_s(now_s),
            eps=self._errors.per_s(now_s),
            named_metrics=use.figures,
            application_utilization=self._busy.mean(now_s) / use.slots,
        )

    def metadata(self) -> tuple[tuple[str, bytes], ...]:
        """Return the trailing metadata of a call that ends now: a report of just now."""
        now_s = self._clock()
        if now_s - self._made_s >= _METADATA_EVERY_S:
            self._made_s = now_s
            self._metadata = ((REPORT_KEY, self.report().SerializeToString()),)
        return self._metadata


class OrcaServicer(orca_pb2_grpc.OpenRcaServiceServicer):
    """Streams reports until *closing* is set."""

    def __init__(self, load: Load, closing: asyncio.Event) -> None:
        self._load, self._closing = load, closing

    async def StreamCoreMetrics(  # noqa: N802 - the standard's name
        self, request: OrcaLoadReportRequest, context: object
    ) -> AsyncIterator[OrcaLoadReport]:
        """Stream a report at once, then one per interval."""
        del context
        interval_s = interval_of(request)
        while True:
            yield self._load.report()
            try:
                await asyncio.wait_for(self._closing.wait(), interval_s)
            except TimeoutError:
                continue
            return


def interval_of(request: OrcaLoadReportRequest) -> float:
    """Return the seconds between two reports. Raises InvalidRequestError below zero."""
    if not request.HasField("report_interval"):
        return _INTERVAL_S
    asked_s = request.report_interval.ToNanoseconds() / 1e9
    if asked_s < 0:
        raise invalid("report_interval", f"must not be negative, got {asked_s:g} s")
    return max(asked_s, _LEAST_INTERVAL_S)
