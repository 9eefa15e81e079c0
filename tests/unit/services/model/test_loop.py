"""The device thread and its streams, on the fake backend."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic

import numpy as np
import pytest

from services.kit.errors import (
    DeadlinePassedError,
    DrainingError,
    OverloadedError,
    StreamBrokenError,
    UnavailableError,
)
from services.model.backends.base import Ids, Logits
from services.model.backends.fake import FakeBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request
from services.model.loop import DeviceLoop, Stream
from services.model.state import State

LIMITS = Limits(max_running=2, kv_tokens=2 * 64, chunk_tokens=16)


class GatedBackend(FakeBackend):
    """Decodes one step per permit, so that a test decides how far the device is."""

    def __init__(self) -> None:
        super().__init__(slots=2, context_tokens=64, vocabulary=20)
        self.permits = threading.Semaphore(0)
        self.open = False
        self.broken = False

    def decode(self, tokens: Ids, lengths: Ids) -> Logits:
        """Wait for a permit, then decode, or break."""
        if not self.open:
            self.permits.acquire()
        if self.broken:
            raise MemoryError("the device is gone")
        return super().decode(tokens, lengths)

    def allow_all(self) -> None:
        """Let every step go on from here."""
        self.open = True
        self.permits.release()


@asynccontextmanager
async def device(backend: GatedBackend, *, max_waiting: int = 8) -> AsyncIterator[DeviceLoop]:
    """A device loop that is closed in the end."""
    loop = DeviceLoop(Engine(backend, LIMITS), State(), max_waiting=max_waiting, drain_s=3.0)
    try:
        yield loop
    finally:
        backend.allow_all()
        loop.close()


def submit(loop: DeviceLoop, *, max_tokens: int = 20, deadline_s: float = float("inf")) -> Stream:
    """Queue a request with a prompt of three tokens."""
    request = Request(
        id=loop.next_id(), tokens=np.array([1, 2, 3]), max_tokens=max_tokens, deadline_s=deadline_s
    )
    return loop.submit(request, monotonic())


async def read(stream: Stream) -> list[Generated]:
    """Read a stream to its end."""
    out: list[Generated] = []
    while not out or not out[-1].ends:
        out += [o for o in await stream.take() if isinstance(o, Generated)]
    return out


async def until(holds: Callable[[], bool]) -> None:
    """Let the event loop run until *holds*, for ten seconds at most."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - polls another thread's doing
            await asyncio.sleep(0)


async def test_a_stream_gives_every_token_once() -> None:
    """Twenty asked for, twenty given, then the end; times are in order."""
    backend = GatedBackend()
    async with device(backend) as loop:
        backend.allow_all()
        stream = submit(loop)
        assert len(await read(stream)) == 20
        times = stream.times()
        assert 0 <= times.began_s <= times.first_s <= times.last_s
        assert loop.state.totals.completion_tokens == 20


async def test_a_slow_reader_finds_its_tokens_together() -> None:
    """Tokens that came meanwhile are one batch."""
    backend = GatedBackend()
    async with device(backend) as loop:
        backend.allow_all()
        stream = submit(loop)
        await until(lambda: loop.state.totals.completion_tokens == 20)
        assert len(await stream.take()) == 20


async def test_requests_together_are_queued_all_or_none() -> None:
    """Where one of them does not fit, none is; those before go on."""
    backend = GatedBackend()
    async with device(backend, max_waiting=2) as loop:
        first = submit(loop)
        four = [Request(id=loop.next_id(), tokens=np.array([1, 2]), max_tokens=3) for _ in range(4)]
        with pytest.raises(OverloadedError, match="4 more do not fit"):
            loop.submit_all(four, monotonic())
        streams = loop.submit_all(four[:3], monotonic())
        backend.allow_all()
        for stream in (first, *streams):
            assert (await read(stream))[-1].ends


async def test_an_error_behind_outputs_is_raised_after_them() -> None:
    """Streams that share their news lose neither."""
    backend = GatedBackend()
    async with device(backend) as loop:
        requests = [
            Request(id=loop.next_id(), tokens=np.array([1, 2, 3]), max_tokens=9) for _ in range(2)
        ]
        one, other = loop.submit_all(requests, monotonic())
        await one.news.wait()
        backend.broken = True
        backend.allow_all()
        await until(loop.crashed.is_set)
        one.news.clear()
        assert len(one.taken()) == 1
        assert one.news.is_set()
        assert len(other.taken()) == 1
        for stream in (one, other):
            with pytest.raises(StreamBrokenError):
                stream.taken()


async def test_cancelling_frees_the_slot_within_one_step() -> None:
    """While the device is inside a step, one more permit is enough."""
    backend = GatedBackend()
    async with device(backend) as loop:
        stream = submit(loop)
        await stream.take()
        assert loop.occupancy.running == 1
        loop.cancel(stream.request.id)
        backend.permits.release()
        await until(lambda: loop.occupancy.running == 0)
        assert loop.state.totals.steps <= 2


async def test_a_passed_deadline_ends_a_request_within_one_step() -> None:
    """The engine itself keeps deadlines; it needs no caller to hang up."""
    backend = GatedBackend()
    async with device(backend) as loop:
        stream = submit(loop, deadline_s=monotonic() + 0.05)
        await stream.take()
        await until(lambda: monotonic() > stream.request.deadline_s)
        backend.permits.release()
        with pytest.raises(DeadlinePassedError):
            await read(stream)
        await until(lambda: loop.occupancy.running == 0)


async def test_more_than_runs_and_waits_is_refused() -> None:
    """Two run, one waits, the fourth is told when to come again; later there is room."""
    backend = GatedBackend()
    async with device(backend, max_waiting=1) as loop:
        streams = [submit(loop) for _ in range(3)]
        with pytest.raises(OverloadedError) as refused:
            submit(loop)
        assert refused.value.retry_after_s == 1.0
        loop.cancel(streams[0].request.id)
        submit(loop)


async def test_a_drain_finishes_what_runs_and_refuses_the_rest() -> None:
    """Running and waiting requests end in peace."""
    backend = GatedBackend()
    async with device(backend) as loop:
        streams = [submit(loop) for _ in range(3)]
        draining = asyncio.create_task(loop.drain(None))
        await until(lambda: loop.draining)
        with pytest.raises(DrainingError) as refused:
            submit(loop)
        assert refused.value.retry_after_s == 3.0
        backend.allow_all()
        assert await draining == (3, 0)
        assert [len(await read(s)) for s in streams] == [20] * 3


async def test_a_drain_cuts_off_what_outlasts_its_grace() -> None:
    """What is cut off gets an error that says to go elsewhere."""
    backend = GatedBackend()
    async with device(backend) as loop:
        stream = submit(loop)
        await stream.take()
        assert await loop.drain(0.01) == (0, 1)
        with pytest.raises(DrainingError):
            await stream.take()


async def test_a_crash_fails_every_request_and_is_told() -> None:
    """Nobody waits for a device that is gone."""
    backend = GatedBackend()
    async with device(backend) as loop:
        streams = [submit(loop) for _ in range(3)]
        await streams[0].take()
        backend.broken = True
        backend.permits.release()
        async with asyncio.timeout(10):
            await loop.crashed.wait()
        for stream in streams:
            with pytest.raises(StreamBrokenError):
                await read(stream)
        with pytest.raises(UnavailableError, match="device failed"):
            submit(loop)


async def test_an_allocation_holds_from_the_next_step_on() -> None:
    """One slot less: the second request waits for the first."""
    backend = GatedBackend()
    async with device(backend) as loop:
        loop.allocate(Limits(max_running=1, kv_tokens=64, chunk_tokens=16))
        streams = [submit(loop) for _ in range(2)]
        await streams[0].take()
        await until(lambda: len(loop.waiting()) == 1)
        backend.allow_all()
        first, second = [await read(s) for s in streams]
        assert (len(first), len(second)) == (19, 20)
        assert streams[1].times().began_s >= streams[0].times().last_s - 1e-3
