"""Load reports, by a manual clock."""

import asyncio
from math import exp

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from zeta.orca.data.v3.orca_load_report_pb2 import OrcaLoadReport
from zeta.orca.service.v3.orca_pb2 import OrcaLoadReportRequest

from services.kit.errors import InvalidRequestError
from services.kit.orca import Load, Mean, OrcaServicer, Rate, ThisProcess, Use, interval_of

OK = grpc.StatusCode.OK


class Clock:
    """A clock that is set."""

    now_s = 100.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


def load(clock: Clock, *, slots: int = 4) -> Load:
    """Load of a server with so many slots and a cache half full."""
    use = Use(slots=slots, shares={"kv_cache": 0.5}, figures={"queue_depth": 3.0})
    return Load(lambda: use, process=lambda: (0.25, 0.125), clock=clock)


def test_a_steady_rate_is_found() -> None:
    """Five events a second are five a second, once the past before them has faded."""
    rate = Rate(over_s=5.0)

    for i in range(500):
        rate.count(i * 0.2)

    assert rate.per_s(100.0) == pytest.approx(5.0, rel=0.03)
    assert rate.per_s(105.0) == pytest.approx(5.0 * exp(-1.0), rel=0.03)


def test_a_mean_weighs_values_by_how_long_they_held() -> None:
    """What held longer counts more, and a constant is its own mean."""
    mean = Mean(over_s=5.0)
    mean.now_is(1.0, 0.0)
    assert mean.mean(1e3) == pytest.approx(1.0)

    mean.now_is(0.0, 1e3)

    assert mean.mean(1e3 + 5.0) == pytest.approx(exp(-1.0))


def test_serial_calls_show_as_the_share_of_time_they_take() -> None:
    """One call at a time, four fifths of the time, on four slots: a fifth is used."""
    clock, one = Clock(), None
    one = load(clock)

    for _ in range(60):
        one.began()
        clock.now_s += 0.8
        one.ended(OK)
        clock.now_s += 0.2
    report = one.report()

    assert report.application_utilization == pytest.approx(0.2, rel=0.1)
    assert report.rps_fractional == pytest.approx(1.0, rel=0.1)
    assert report.eps == 0.0


def test_waiting_calls_count_beyond_one() -> None:
    """Eight calls on four slots use twice what there is."""
    clock = Clock()
    busy = load(clock)

    for _ in range(8):
        busy.began()
    clock.now_s += 100.0

    assert busy.report().application_utilization == pytest.approx(2.0, rel=0.01)


def test_only_our_own_failures_are_errors() -> None:
    """A caller's mistakes and changes of mind leave the error rate at nothing."""
    clock = Clock()
    failing = load(clock)
    for status in (OK, grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.CANCELLED):
        failing.began()
        failing.ended(status)
    assert failing.report().eps == 0.0

    failing.began()
    failing.ended(grpc.StatusCode.RESOURCE_EXHAUSTED)

    assert failing.report().eps == pytest.approx(0.2)
    assert failing.report().rps_fractional == pytest.approx(0.8)


def test_the_metadata_is_a_report() -> None:
    """What goes behind a call is the message, under the standard's key."""
    ((key, value),) = load(Clock()).metadata()
    report = OrcaLoadReport.FromString(value)

    assert key == "endpoint-load-metrics-bin"
    assert report.cpu_utilization == 0.25
    assert report.mem_utilization == 0.125
    assert dict(report.utilization) == {"kv_cache": 0.5}
    assert dict(report.named_metrics) == {"queue_depth": 3.0}


def test_this_process_has_shares() -> None:
    """They are read again once a second has passed, and lie between nothing and all."""
    clock = Clock()
    process = ThisProcess(clock)
    assert process.shares()[0] == 0.0

    clock.now_s += 1.0
    cpu_ratio, memory_ratio = process.shares()

    assert cpu_ratio >= 0.0
    assert 0.0 < memory_ratio < 1.0


@pytest.mark.parametrize(("asked", "taken_s"), [(None, 10.0), (0.0, 0.1), (0.01, 0.1), (3.5, 3.5)])
def test_intervals_are_taken_down_to_a_limit(asked: float | None, taken_s: float) -> None:
    """Nothing asked means ten seconds; a tenth is the least."""
    assert interval_of(every(asked)) == taken_s


def test_a_negative_interval_is_refused() -> None:
    """The field and the value are named."""
    with pytest.raises(InvalidRequestError, match=r"report_interval: .* got -1 s"):
        interval_of(every(-1.0))


async def test_the_stream_ends_when_the_server_closes() -> None:
    """The first report comes at once; closing ends the stream without waiting for the next."""
    closing = asyncio.Event()
    stream = OrcaServicer(load(Clock()), closing).StreamCoreMetrics(every(3600.0), None)

    assert (await anext(stream)).cpu_utilization == 0.25
    closing.set()

    with pytest.raises(StopAsyncIteration):
        await asyncio.wait_for(anext(stream), 5.0)


def every(seconds: float | None) -> OrcaLoadReportRequest:
    """Ask for a report every so many seconds."""
    if seconds is None:
        return OrcaLoadReportRequest()
    interval = Duration()
    interval.FromNanoseconds(round(seconds * 1e9))
    return OrcaLoadReportRequest(report_interval=interval)
