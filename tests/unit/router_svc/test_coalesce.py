"""Coalescing by time, and for readers who fall behind."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc.coalesce import EVERY_S, coalesced
from router_svc.wire import Event
from services.kit.errors import UnavailableError
from tests.unit.router_svc.fixtures import ManualClock

NEVER_S = 3600.0
"""So that nothing goes because its time has come."""


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


def started() -> Event:
    """The beginning of an answer."""
    return Event(started=inference_pb.Started(model="a"))


def finished() -> Event:
    """The end of an answer."""
    return Event(finished=inference_pb.Finished(reason=inference_pb.FINISH_REASON_STOP))


def text(events: Sequence[Event]) -> str:
    """What they say."""
    return "".join(event.delta.text for event in events)


class Source:
    """Sends events as they are asked for, *pace_s* apart, and counts them."""

    def __init__(
        self,
        events: Sequence[Event],
        error: Exception | None = None,
        *,
        pace_s: float = 0.0,
        turns: bool = True,
        hangs: bool = False,
    ) -> None:
        self._events, self._error = events, error
        self._pace_s, self._turns, self._hangs = pace_s, turns, hangs
        self.clock = ManualClock()
        self.sent = 0

    async def stream(self) -> AsyncGenerator[Event, None]:
        """Send them, each after a turn of the loop, or all in one; in the end, perhaps, nothing."""
        for event in self._events:
            self.clock.now_s += self._pace_s
            self.sent += 1
            yield event
            if self._turns:
                await asyncio.sleep(0)
        if self._hangs:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error


async def turns() -> None:
    """Let everything happen that can."""
    for _ in range(1000):
        await asyncio.sleep(0)


async def read(source: Source, found: list[Event], *, every_s: float = NEVER_S) -> list[Event]:
    """Read all of it into *found*."""
    async with aclosing(coalesced(source.stream(), every_s, source.clock)) as events:
        async for event in events:
            found.append(event)  # noqa: PERF401 - what came before an error counts
    return found


async def test_a_token_every_five_milliseconds_goes_by_itself() -> None:
    """The very same objects, by a caller who takes each in less than a millisecond."""
    sent = [started(), *map(delta, range(1, 9)), finished()]
    found = await read(Source(sent, pace_s=0.005), [], every_s=EVERY_S)
    assert all(one is other for one, other in zip(found, sent, strict=True))


async def test_one_delta_at_a_time_is_given() -> None:
    """All that comes sooner goes with the next or the end, in order, nothing lost."""
    found = await read(Source([started(), *map(delta, range(1, 101)), finished()]), [])
    begin, first, joined, end = found
    assert begin.HasField("started")
    assert end.HasField("finished")
    assert text([first]) == "1 "
    assert text([joined]) == "".join(f"{n} " for n in range(2, 101))
    assert [*joined.delta.token_ids] == [*range(2, 101)]
    assert [each.token_id for each in joined.delta.logprobs] == [*range(2, 101)]
    assert joined.delta.seq == 100


async def test_what_is_held_goes_when_its_time_has_come() -> None:
    """Though nothing follows it."""
    source, found = Source([*map(delta, range(1, 11))], hangs=True), ""
    async with aclosing(coalesced(source.stream(), every_s=0.001)) as events:
        while found != text([*map(delta, range(1, 11))]):
            found += text([await anext(events)])
    assert source.sent == 10


async def test_a_short_answer_is_passed_on_as_it_is() -> None:
    """Its end does not wait."""
    sent = [started(), delta(1), finished()]
    found = await read(Source(sent), [])
    assert all(one is other for one, other in zip(found, sent, strict=True))


async def test_the_end_of_an_answer_waits_for_nothing() -> None:
    """Not for its time, and not for the stream behind it."""
    source = Source([*map(delta, range(1, 11)), finished()], hangs=True)
    async with aclosing(coalesced(source.stream(), NEVER_S, source.clock)) as events:
        found = [await anext(events) for _ in range(3)]
    assert text(found) == text([*map(delta, range(1, 11))])
    assert found[-1].HasField("finished")


async def test_a_reader_who_falls_behind_is_given_all_that_came() -> None:
    """However short the interval is."""
    source = Source([*map(delta, range(1, 101)), finished()], pace_s=0.0001)
    found: list[Event] = []
    async with aclosing(coalesced(source.stream(), 0.001, source.clock)) as events:
        async for event in events:
            found.append(event)
            await turns()
    assert text(found) == "".join(f"{n} " for n in range(1, 101))
    assert len(found) < 8


async def test_answers_are_not_mixed() -> None:
    """Each sample's deltas are joined among themselves."""
    found = await read(Source([*(delta(n, sample=n % 2) for n in range(1, 12)), finished()]), [])
    first, *joined, _ = found
    assert [(event.delta.sample, event.delta.text) for event in joined] == [
        (0, "2 4 6 8 10 "),
        (1, "3 5 7 9 11 "),
    ]
    assert text([first]) == "1 "


async def test_what_follows_another_event_stays_behind_it() -> None:
    """Nothing is joined past it."""
    sent = [delta(1), delta(2), delta(3), started(), delta(4), delta(5), finished()]
    found = await read(Source(sent, turns=False), [])
    assert [event.WhichOneof("event") for event in found] == [
        *("delta", "delta", "started", "delta", "finished")
    ]
    assert [event.delta.text for event in found] == ["1 ", "2 3 ", "", "4 5 ", ""]


async def test_what_waits_is_bounded() -> None:
    """The source is not read on while a full delta waits, nor does that wait for its time."""
    source = Source([delta(n, tokens=100) for n in range(1, 101)])
    async with aclosing(coalesced(source.stream(), NEVER_S, source.clock)) as events:
        taken = [await anext(events), await anext(events)]
        await turns()
        assert source.sent == 1 + 2 + 2 + 1
        taken += [event async for event in events]
    assert text(taken) == "".join(f"{n} " for n in range(1, 101))
    assert max(len(event.delta.token_ids) for event in taken) == 200


@pytest.mark.parametrize("pace_s", [0.0, 2 * NEVER_S])
async def test_an_error_comes_behind_what_was_sent_before_it(pace_s: float) -> None:
    """Nothing is lost or repeated, and the error is the source's own."""
    found: list[Event] = []
    sent = [*map(delta, range(1, 10))]
    with pytest.raises(UnavailableError, match="gone"):
        await read(Source(sent, UnavailableError("gone"), pace_s=pace_s), found)
    assert text(found) == "1 2 3 4 5 6 7 8 9 "


async def test_who_stops_reading_stops_the_source() -> None:
    """Nothing goes on in the background."""
    source = Source([delta(n, tokens=100) for n in range(1, 1001)])
    async with aclosing(coalesced(source.stream(), NEVER_S, source.clock)) as events:
        for _ in range(5):
            await anext(events)
    sent = source.sent
    await turns()
    assert source.sent == sent < 1000
