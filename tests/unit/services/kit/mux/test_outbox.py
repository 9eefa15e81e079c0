"""What is put in during one turn of the loop goes out together, in its order."""

import asyncio

import pytest

from services.kit.aio import cancelled
from services.kit.mux.outbox import ROOM_BYTES, Outbox


class Wire:
    """Takes messages, when it is open."""

    def __init__(self) -> None:
        self.messages: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()

    async def write(self, parts: list[str]) -> None:
        """Take one message."""
        await self.open.wait()
        self.messages.append(parts)


async def sent(out: Outbox[str]) -> None:
    """Have everything sent, and no more."""
    out.close()
    async with asyncio.timeout(10.0):
        await out.run()


async def test_one_turn_of_the_loop_is_one_message() -> None:
    """Several tasks that are ready at once share a message, though it was idle before."""
    wire = Wire()
    out = Outbox(wire.write)
    running = asyncio.create_task(out.run())
    await asyncio.sleep(0)

    async def one(part: str) -> None:
        out.put(part)

    await asyncio.gather(*(one(part) for part in "abc"))
    out.close()
    await running

    assert wire.messages == [["a", "b", "c"]]


async def test_what_comes_while_a_message_is_written_waits_for_the_next() -> None:
    """The slower the other side, the more goes at once."""
    wire = Wire()
    wire.open.clear()
    out = Outbox(wire.write)
    running = asyncio.create_task(out.run())
    for part in "abc":
        out.put(part)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    wire.open.set()
    out.close()
    await running

    assert wire.messages == [["a"], ["b", "c"]]


async def test_a_message_is_bounded_and_the_order_kept() -> None:
    """Long parts go in several messages; one that is too long for any goes alone."""
    wire = Wire()
    out = Outbox(wire.write)
    for part, size_bytes in (("a", 200_000), ("b", 50_000), ("c", 100_000), ("d", 10**7), ("e", 1)):
        out.put(part, size_bytes)
    await sent(out)

    assert wire.messages == [["a", "b"], ["c"], ["d"], ["e"]]


async def test_senders_wait_while_it_is_full() -> None:
    """However many there are: each adds one part at a time."""
    wire = Wire()
    wire.open.clear()
    out = Outbox(wire.write)
    running, waiting_bytes = asyncio.create_task(out.run()), list[int]()

    async def send(part: str) -> None:
        for _ in range(10):
            if out.full:
                await out.room()
            waiting_bytes.append(len(waiting_bytes) * 10**6 - len(wire.messages) * 10**6)
            out.put(part, 10**6)

    senders = [asyncio.create_task(send(part)) for part in "ab"]
    await asyncio.wait(senders, timeout=0.0)
    for _ in range(10):
        await asyncio.sleep(0)
    before = len(waiting_bytes)
    wire.open.set()
    await asyncio.gather(*senders)
    out.close()
    await running

    assert before == -(-ROOM_BYTES // 10**6)
    assert len(wire.messages) == 20
    assert max(waiting_bytes) <= ROOM_BYTES


async def test_a_wire_that_breaks_is_heard_of() -> None:
    """Whoever runs it has to know that nothing is sent any more."""

    async def broken(_parts: list[str]) -> None:
        raise OSError("gone")

    out: Outbox[str] = Outbox(broken)
    out.put("a")
    running = asyncio.create_task(out.run())

    with pytest.raises(OSError, match="gone"):
        await running
    await cancelled(running)
