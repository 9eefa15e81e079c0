"""Coalescing for slow readers."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc.coalesce import coalesced
from router_svc.wire import Event
from services.kit.errors import UnavailableError
from tests.unit.router_svc.fixtures import ManualClock


def delta(seq: int, *, sample: int = 0, tokens: int = 1) -> Event:
    """One delta of an answer."""
    piece = inference_pb.Delta(
        seq=seq,
        text=f"{seq} ",
        token_ids=[seq] * tokens,
        logprobs=[inference_pb.TokenLogprob(token_id=seq, logprob=-0.5)] * tokens,
        sample=sample,
    )
    return Event(delta=piece)


def finished() -> Event:
    """The end of an answer."""
    return Event(finished=inference_pb.Finished(reason=inference_pb.FINISH_REASON_STOP))


class Source:
    """Sends events as they are asked for, and counts them."""

    def __init__(self, events: Sequence[Event], error: Exception | None = None) -> None:
        self._events, self._error = events, error
        self.sent = 0
        self.closed = False

    async def stream(self) -> AsyncGenerator[Event, None]:
        """Send them, each after a turn of the loop."""
        try:
            for event in self._events:
                self.sent += 1
                yield event
                await asyncio.sleep(0)
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def read(source: Source, found: list[Event], *, slow: bool) -> list[Event]:
    """Read all of it into *found*; slowly: everything that can happen meanwhile does."""
    clock = ManualClock()
    async with aclosing(coalesced(source.stream(), clock)) as events:
        async for event in events:
            found.append(event)
            if slow:
                clock.now_s += 0.01
                for _ in range(1000):
                    await asyncio.sleep(0)
    return found


async def late(events: AsyncGenerator[Event, None], clock: ManualClock) -> Event:
    """Read one, and take long over it."""
    event = await anext(events)
    clock.now_s += 0.01
    return event


async def test_a_reader_that_keeps_up_gets_every_delta_as_it_was() -> None:
    """The very same objects."""
    sent = [*map(delta, range(1, 6)), finished()]
    found = await read(Source(sent), [], slow=False)
    assert all(one is other for one, other in zip(found, sent, strict=True))


async def test_a_slow_reader_gets_the_same_in_fewer_deltas() -> None:
    """Text, tokens and log-probabilities in order, and the end as its own event."""
    found = await read(Source([*map(delta, range(1, 101)), finished()]), [], slow=True)
    *deltas, end = found
    assert len(deltas) < 8
    assert "".join(event.delta.text for event in deltas) == "".join(f"{n} " for n in range(1, 101))
    ids = list(range(1, 101))
    assert [i for event in deltas for i in event.delta.token_ids] == ids
    assert [each.token_id for event in deltas for each in event.delta.logprobs] == ids
    assert deltas[-1].delta.seq == 100
    assert end.HasField("finished")


async def test_answers_are_not_mixed() -> None:
    """Deltas of several samples stay apart."""
    found = await read(Source([delta(n, sample=n % 2) for n in range(1, 12)]), [], slow=True)
    assert [event.delta.seq for event in found] == list(range(1, 12))


async def test_a_short_answer_is_passed_on_as_it_is() -> None:
    """Whoever reads it: it is not worth a task."""
    sent = [*map(delta, range(1, 4)), finished()]
    found = await read(Source(sent), [], slow=True)
    assert all(one is other for one, other in zip(found, sent, strict=True))


async def test_what_waits_is_bounded() -> None:
    """The source is not read on while four full deltas wait."""
    source = Source([delta(n, tokens=200) for n in range(1, 101)])
    clock = ManualClock()
    async with aclosing(coalesced(source.stream(), clock)) as events:
        taken = [await late(events, clock) for _ in range(5)]
        for _ in range(1000):
            await asyncio.sleep(0)
        assert source.sent == len(taken) + 4
        rest = [event async for event in events]
    assert [event.delta.seq for event in rest] == list(range(6, 101))


@pytest.mark.parametrize("slow", [False, True])
async def test_an_error_comes_behind_what_was_sent_before_it(*, slow: bool) -> None:
    """Nothing is lost, and the error is the source's own."""
    found: list[Event] = []
    sent = [*map(delta, range(1, 10))]
    with pytest.raises(UnavailableError, match="gone"):
        await read(Source(sent, UnavailableError("gone")), found, slow=slow)
    assert found[-1].delta.seq == 9
    assert "".join(event.delta.text for event in found) == "1 2 3 4 5 6 7 8 9 "


async def test_who_stops_reading_stops_the_source() -> None:
    """Nothing goes on in the background."""
    source, clock = Source([*map(delta, range(1, 1001))]), ManualClock()
    async with aclosing(coalesced(source.stream(), clock)) as events:
        for _ in range(5):
            await late(events, clock)
    sent = source.sent
    for _ in range(10):
        await asyncio.sleep(0)
    assert source.sent == sent < 1000
