"""Batch texts across concurrent calls on one device thread.

When the device is free it takes the oldest of the most urgent texts and whatever waits that is
of similar length, so that no short text is padded to a long one. Nothing waits for a batch to
fill. A text whose caller has gone is dropped before it runs.
"""

import asyncio
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from time import perf_counter
from types import TracebackType
from typing import Self

from services.embedding.encoded import Encoded, Encoder, Prepared
from services.embedding.instruments import BATCH_TEXTS, DEVICE_SECONDS, TOKENS
from services.kit.errors import DrainingError
from services.kit.orca import Use

_INLINE_CHARACTERS = 4096
"""Calls with more are tokenised in a thread of their own, so that other calls go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A text in the queue."""

    prepared: Prepared
    urgent: bool
    done: Future[Encoded] = field(default_factory=Future)


class Batcher:
    """Owns the device thread; a context manager that starts and ends it."""

    def __init__(self, encoder: Encoder, *, max_batch: int) -> None:
        self._encoder, self._max_batch = encoder, max_batch
        self._waiting: list[Waiting] = []
        self._running = 0
        self._changed = Condition()
        self._closed = False
        self._thread = Thread(target=self._work, name="device", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Fail what still waits, and end the thread after the batch that runs."""
        with self._changed:
            self._closed = True
            left, self._waiting = self._waiting, []
            self._changed.notify()
        for item in left:
            if item.done.set_running_or_notify_cancel():
                item.done.set_exception(DrainingError("the embedding service is stopping"))
        self._thread.join()

    @property
    def use(self) -> Use:
        """What there is to do now, in texts."""
        return Use(
            slots=self._max_batch,
            figures={"running": float(self._running), "queue_depth": float(len(self._waiting))},
        )

    async def encode(self, texts: Sequence[str], *, urgent: bool) -> list[Encoded]:
        """Encode *texts*, before all that is not urgent if *urgent*.

        Raises DrainingError once the batcher is closed.
        """
        items = [Waiting(prepared=p, urgent=urgent) for p in await self._prepare(texts)]
        with self._changed:
            if self._closed:
                raise DrainingError("the embedding service is stopping")
            self._waiting.extend(items)
            self._changed.notify()
        return await asyncio.gather(*(asyncio.wrap_future(item.done) for item in items))

    async def _prepare(self, texts: Sequence[str]) -> list[Prepared]:
        if sum(map(len, texts)) <= _INLINE_CHARACTERS:
            return list(map(self._encoder.prepare, texts))
        return await asyncio.to_thread(lambda: list(map(self._encoder.prepare, texts)))

    def _work(self) -> None:
        while batch := self._next():
            running = [item for item in batch if item.done.set_running_or_notify_cancel()]
            if running:
                self._run(running)

    def _next(self) -> list[Waiting]:
        """Wait for work and take it from the queue; empty once closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting)
            if self._closed:
                return []
            chosen = pick(
                self._waiting, max_texts=self._max_batch, max_tokens=self._encoder.batch_tokens
            )
            taken = {id(item) for item in chosen}
            self._waiting = [item for item in self._waiting if id(item) not in taken]
            return chosen

    def _run(self, batch: list[Waiting]) -> None:
        start = perf_counter()
        self._running = len(batch)
        try:
            vectors = self._encoder.run([item.prepared.ids for item in batch])
        except Exception as error:  # noqa: BLE001 - the callers raise it; the thread goes on
            for item in batch:
                item.done.set_exception(error)
            return
        finally:
            self._running = 0
        DEVICE_SECONDS.observe(perf_counter() - start)
        BATCH_TEXTS.observe(len(batch))
        for item, vector in zip(batch, vectors, strict=True):
            prepared = item.prepared
            TOKENS.inc(len(prepared.ids))
            item.done.set_result(
                Encoded(vector=vector, tokens=prepared.tokens, truncated=prepared.truncated)
            )


def pick(waiting: Sequence[Waiting], *, max_texts: int, max_tokens: int) -> list[Waiting]:
    """Choose the next batch from *waiting* (oldest first, not empty).

    The oldest urgent text, else the oldest, leads; others join in order of urgency and age while
    they are of its length class and the padded batch stays within *max_tokens*.
    """
    ordered = sorted(waiting, key=lambda item: not item.urgent)
    leader = ordered[0]
    size, longest = _size_class(leader), len(leader.prepared.ids)
    chosen = [leader]
    for item in ordered[1:]:
        if len(chosen) == max_texts:
            break
        longest_then = max(longest, len(item.prepared.ids))
        fits = (len(chosen) + 1) * longest_then <= max_tokens
        if _size_class(item) == size and fits:
            chosen.append(item)
            longest = longest_then
    return chosen


def _size_class(item: Waiting) -> int:
    """Lengths of one class differ by less than a factor of two."""
    return len(item.prepared.ids).bit_length()
