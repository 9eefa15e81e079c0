"""Decoding on a card: which slots, shapes and addresses a step has, and what comes back.

A prompt's piece runs in the first profile, alone; a decode step runs in the second, filled up to a
batch size that has a CUDA graph. A row that only fills up is a slot of somebody else's: it writes
behind what that slot holds, and nothing reads what it computes. Caches stay on the card and are
updated in place; of a decode step's logits only the likeliest come back, unless more is asked for.

The graph is dialect "trt" of `graph.dialects`, with `graph.candidates`.

Letters: B sequences, T tokens, V vocabulary, W wanted positions, K candidates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import structlog
from numpy.typing import NDArray

from services.model.backends.base import Ids, Logits
from services.model.backends.trt import memory
from services.model.backends.trt.capacity import LOGIT_BYTES, Capacity, cache_names, pieces
from services.model.backends.trt.device import Context, Device, Grid, Sizes

log = structlog.get_logger()


class TensorRTBackend:
    """Runs a plan's two profiles on one card."""

    def __init__(
        self,
        device: Device,
        capacity: Capacity,
        prefill: Context,
        decode: Context,
        buckets: Sequence[int] = (),
    ) -> None:
        """Allocate all that steps need. Raises MemoryError.

        *buckets* are the batch sizes that are run, in order; the last one is all slots.
        """
        layout = self._layout = capacity.layout
        self.slots, self.context_tokens = layout.slots, capacity.context_tokens
        self._device, self._capacity = device, capacity
        self._prefill, self._decode = prefill, decode
        self._buckets = buckets or memory.buckets(layout.slots)
        self._caches = device.allocate(layout.size_bytes)
        self._at = {name: device.allocate(size) for name, size in capacity.parts().items()}
        self._behind = np.zeros(layout.slots, np.int64)
        """Where a row that only fills up may write in each slot (slots,)."""
        self._graphs: dict[tuple[int, int], Callable[[], None]] = {}
        entries = max(layout.slots, capacity.chunk_tokens)
        self._tokens = device.pinned((entries,), np.int64)
        self._positions = device.pinned((entries,), np.int64)
        self._wanted = device.pinned((capacity.rows,), np.int64)
        self._logits = device.pinned((capacity.rows, capacity.vocabulary), np.float32)
        self._top = _Top(device, capacity)
        self._upload_constants()

    def prefill(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """As `Backend.prefill`."""
        found = [
            self._feed(slot, start + begin, tokens[begin:stop], rows)
            for begin, stop, rows in pieces(len(tokens), wanted, self._capacity.chunk_tokens)
        ]
        self._holds(slot, start + len(tokens))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def decode(self, tokens: Ids, lengths: Ids) -> "_Ranked":
        """As `Backend.decode`."""
        count = len(tokens)
        rows = next(size for size in self._buckets if size >= count)
        self._tokens[:count], self._tokens[count:rows] = tokens, 0
        self._positions[:count], self._positions[count:rows] = lengths, self._behind[count:rows]
        self._holds(slice(count), lengths + 1)
        self._step(rows, memory.seen_tokens(int(lengths.max()) + 1, self._layout.tokens))
        self._device.wait()
        top = self._top
        return _Ranked(top.ids[:count], top.logits[:count], top.normaliser[:count, 0], self._rows)

    def copy(self, source: int, target: int, length: int) -> None:
        """As `Backend.copy`."""
        first, second = (self._layout.grid(self._caches, slot) for slot in (source, target))
        self._device.move(first, second, self._layout.strips(length))
        self._holds(target, length)

    def swap(self, one: int, other: int, length: int) -> None:
        """As `Backend.swap`; a few tokens at a time, through memory set aside for it."""
        layout, step = self._layout, self._capacity.swap_tokens()
        aside = Grid(
            address=self._at["swap"],
            row_bytes=step * layout.token_bytes,
            plane_bytes=step * layout.token_bytes * layout.heads,
        )
        for token in range(0, length, step):
            strips = layout.strips(min(step, length - token))
            first, second = (layout.grid(self._caches, slot, token) for slot in (one, other))
            for source, target in ((first, aside), (second, first), (aside, second)):
                self._device.move(source, target, strips)
        self._behind[[one, other]] = np.minimum(self._behind[[other, one]], length)

    def _holds(self, slots: int | slice, lengths: int | Ids) -> None:
        """Note that *slots* hold so many tokens: behind them is free.

        So is the last place of all: who goes on from what a full slot holds feeds its last token
        anew.
        """
        self._behind[slots] = np.minimum(lengths, self.context_tokens - 1)

    def _feed(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """Run one piece of a prompt; T and W are within the profile."""
        count, rows = len(tokens), max(wanted, 1)
        seen = memory.seen_tokens(start + count, self._layout.tokens)
        self._tokens[:count], self._wanted[:rows] = tokens, np.arange(count - rows, count)
        self._positions[:count] = np.arange(start, start + count)
        self._prefill.bind(self._shapes((1, count), rows, seen), self._addresses("wanted", slot))
        self._send(count)
        self._device.upload(self._at["wanted"], self._wanted[:rows])
        self._prefill.enqueue()
        if wanted:
            self._device.download(self._logits[:wanted], self._at["logits"])
        # Also without logits: what was sent may not change before it has arrived.
        self._device.wait()
        return self._logits[:wanted].copy()

    def _step(self, rows: int, seen: int) -> None:
        """Run a decode step on what is in the pinned arrays."""
        replay = self._graphs.get((rows, seen))
        if replay:
            replay()
            return

        def directly() -> None:
            self._decode.bind(self._shapes((rows, 1), rows, seen), self._addresses("first", 0))
            self._work(rows)

        # The first run after a change of shape does what cannot be recorded.
        directly()
        self._device.wait()
        try:
            self._graphs[rows, seen] = self._device.recorded(lambda: self._work(rows))
        except RuntimeError as error:
            log.warning("steps run without a CUDA graph", rows=rows, seen=seen, reason=str(error))
            self._graphs[rows, seen] = directly

    def _work(self, rows: int) -> None:
        self._send(rows)
        self._decode.enqueue()
        for name, array in self._top.named():
            self._device.download(array[:rows], self._at[name])

    def _send(self, count: int) -> None:
        self._device.upload(self._at["tokens"], self._tokens[:count])
        self._device.upload(self._at["positions"], self._positions[:count])

    def _rows(self, rows: Ids) -> Logits:
        """Fetch logits (R, V) of the last decode step."""
        for place, row in enumerate(rows.tolist()):
            address = self._at["logits"] + row * self._capacity.vocabulary * LOGIT_BYTES
            self._device.download(self._logits[place], address)
        self._device.wait()
        return self._logits[: len(rows)]

    def _shapes(self, tokens: Sizes, wanted: int, seen: int) -> dict[str, Sizes]:
        sizes = self._layout.sizes(tokens[0])
        return {
            "tokens": tokens,
            "positions": tokens,
            "seen": (seen,),
            "wanted": (wanted,),
            **{f"past_{name}": sizes for name in cache_names(self._layout)},
        }

    def _addresses(self, wanted: str, slot: int) -> dict[str, int]:
        """Return where everything is; *slot* is the first one of the batch."""
        given = ("tokens", "positions", "seen", "logits", *self._top.names)
        out = {name: self._at[name] for name in given} | {"wanted": self._at[wanted]}
        for i, name in enumerate(cache_names(self._layout)):
            address = self._caches + self._layout.offset(i, slot)
            out[f"past_{name}"] = out[f"present_{name}"] = address
        return out

    def _upload_constants(self) -> None:
        """Of a decode step every row is wanted; a prompt's piece says which."""
        for name, count in (("seen", self._layout.tokens), ("first", self._capacity.rows)):
            constant = self._device.pinned((count,), np.int64)
            constant[:] = np.arange(count)
            self._device.upload(self._at[name], constant)
            self._device.wait()


class _Top:
    """What a decode step tells the host."""

    names = ("top_ids", "top_logits", "normaliser")

    def __init__(self, device: Device, capacity: Capacity) -> None:
        rows, count = capacity.layout.slots, capacity.candidates
        self.ids: Ids = device.pinned((rows, count), np.int64)
        self.logits: Logits = device.pinned((rows, count), np.float32)
        self.normaliser: Logits = device.pinned((rows, 1), np.float32)

    def named(self) -> Iterator[tuple[str, NDArray[np.generic]]]:
        yield from zip(self.names, (self.ids, self.logits, self.normaliser), strict=True)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """A `base.Ranked`."""

    ids: Ids
    logits: Logits
    normaliser: Logits
    fetch: Callable[[Ids], Logits]

    def whole(self, rows: Ids) -> Logits:
        """As `base.Ranked.whole`."""
        return self.fetch(rows)
