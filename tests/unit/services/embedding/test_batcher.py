"""Batching across calls, on a device that runs when the test lets it."""

import asyncio
from collections.abc import Sequence
from queue import Queue
from threading import Event

import numpy as np
import pytest
from numpy.typing import NDArray

from services.embedding.batcher import Batcher, Waiting, pick
from services.embedding.encoded import Prepared
from services.kit.errors import DrainingError

Rows = list[tuple[int, ...]]


class Gated:
    """An encoder whose vectors are its texts' lengths, and which runs a batch per permit."""

    name = "gated"
    batch_tokens = 64

    def __init__(self, *, broken: bool = False) -> None:
        self.batches: Queue[Rows] = Queue()
        self.permit, self.broken = Event(), broken

    def prepare(self, text: str) -> Prepared:
        """One token per character."""
        return Prepared(ids=tuple(map(ord, text)), tokens=len(text), truncated=False)

    def run(self, rows: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """Show the batch to the test and wait for its permit."""
        self.batches.put(list(rows))
        assert self.permit.wait(30)
        if self.broken:
            raise RuntimeError("the device is on fire")
        return np.array([[len(row)] for row in rows], np.float32)

    async def next_batch(self) -> Rows:
        """Return the batch that the device is on."""
        return await asyncio.to_thread(self.batches.get, timeout=30)


def waiting(length: int, *, urgent: bool = False) -> Waiting:
    return Waiting(
        prepared=Prepared(ids=tuple(range(length)), tokens=length, truncated=False), urgent=urgent
    )


async def test_texts_that_wait_while_the_device_runs_share_the_next_batch() -> None:
    """Calls that know nothing of each other are run together, and each gets its own vector."""
    encoder = Gated()
    with Batcher(encoder, max_batch=8) as batcher:
        leader = asyncio.create_task(batcher.encode(["first"], urgent=False))
        await encoder.next_batch()
        others = [
            asyncio.create_task(batcher.encode([text], urgent=False))
            for text in ("four", "seven77")
        ]
        await asyncio.sleep(0)
        encoder.permit.set()

        results = await asyncio.gather(leader, *others)

        assert [one.vector.tolist() for (one,) in results] == [[5], [4], [7]]
        assert len(await encoder.next_batch()) == 2


async def test_a_text_whose_caller_went_away_is_not_run() -> None:
    """Cancelled while it waits, it never reaches the device."""
    encoder = Gated()
    with Batcher(encoder, max_batch=1) as batcher:
        first = asyncio.create_task(batcher.encode(["aaaa"], urgent=False))
        await encoder.next_batch()
        gone = asyncio.create_task(batcher.encode(["bbbb"], urgent=False))
        last = asyncio.create_task(batcher.encode(["cccc"], urgent=False))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.wait([gone])
        encoder.permit.set()
        await asyncio.gather(first, last)

        assert await encoder.next_batch() == [tuple(map(ord, "cccc"))]


async def test_a_broken_batch_fails_its_callers_and_nobody_else() -> None:
    """The error reaches who waits for it, and the device thread goes on."""
    encoder = Gated(broken=True)
    encoder.permit.set()
    with Batcher(encoder, max_batch=8) as batcher:
        with pytest.raises(RuntimeError, match="on fire"):
            await batcher.encode(["text"], urgent=False)
        encoder.broken = False

        (one,) = await batcher.encode(["text"], urgent=False)

        assert one.tokens == 4


async def test_closing_refuses_new_texts() -> None:
    """After the end nothing waits for ever."""
    with Batcher(Gated(), max_batch=8) as batcher:
        pass

    with pytest.raises(DrainingError):
        await batcher.encode(["late"], urgent=False)


async def test_closing_fails_what_still_waits() -> None:
    """Whoever is in the queue at the end is told so."""
    encoder = Gated()
    with Batcher(encoder, max_batch=1) as batcher:
        first = asyncio.create_task(batcher.encode(["aaaa"], urgent=False))
        await encoder.next_batch()
        queued = asyncio.create_task(batcher.encode(["bbbb"], urgent=False))
        await asyncio.sleep(0)
        closing = asyncio.create_task(asyncio.to_thread(batcher.close))
        with pytest.raises(DrainingError):
            await queued
        encoder.permit.set()
        await closing

    assert (await first)[0].tokens == 4


async def test_no_texts_need_no_device() -> None:
    """An empty call is answered at once."""
    with Batcher(Gated(), max_batch=8) as batcher:
        assert await batcher.encode([], urgent=True) == []


def test_the_oldest_urgent_text_leads() -> None:
    """Requests that wait for their profile come before texts to embed."""
    old, urgent = waiting(4), waiting(5, urgent=True)

    assert pick([old, urgent], max_texts=1, max_tokens=64) == [urgent]


def test_short_texts_are_not_padded_to_long_ones() -> None:
    """Only texts of the leader's length class join it."""
    short, long, similar = waiting(5), waiting(40), waiting(7)

    assert pick([short, long, similar], max_texts=8, max_tokens=64) == [short, similar]


def test_a_batch_stays_within_its_texts_and_tokens() -> None:
    """Padding counts, and a text that is too long alone still runs alone."""
    eight = [waiting(8) for _ in range(20)]

    assert len(pick(eight, max_texts=4, max_tokens=64)) == 4
    assert len(pick(eight, max_texts=16, max_tokens=64)) == 8
    assert len(pick([waiting(100)], max_texts=16, max_tokens=64)) == 1
