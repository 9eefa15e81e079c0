"""How much a plan runs at once, and the shapes that come of it.

Letters: B sequences, T tokens, V vocabulary, W wanted positions, K candidates.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from services.model.backends.trt import memory
from services.model.backends.trt.device import Shapes
from services.model.backends.trt.memory import Layout
from services.model.graph import candidates

MOST_WANTED = 64
"""Rows of logits that one piece of a prompt gives."""
_SWAPPED_TOKENS = 256
_ID_BYTES, LOGIT_BYTES = 8, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """How much a plan runs at once."""

    layout: Layout
    context_tokens: int
    chunk_tokens: int
    vocabulary: int

    @property
    def rows(self) -> int:
        """Most rows of logits."""
        return max(self.layout.slots, MOST_WANTED)

    @property
    def candidates(self) -> int:
        """K."""
        return min(candidates.COUNT, self.vocabulary)

    def swap_tokens(self) -> int:
        """Return how many tokens are swapped at once."""
        return min(_SWAPPED_TOKENS, self.layout.tokens)

    def parts(self) -> dict[str, int]:
        """Return the bytes of everything on the card beside weights and caches."""
        entries = max(self.layout.slots, self.chunk_tokens)
        return {
            "tokens": entries * _ID_BYTES,
            "positions": entries * _ID_BYTES,
            "wanted": self.rows * _ID_BYTES,
            "first": self.rows * _ID_BYTES,
            "seen": self.layout.tokens * _ID_BYTES,
            "logits": self.rows * self.vocabulary * LOGIT_BYTES,
            "top_logits": self.rows * self.candidates * LOGIT_BYTES,
            "top_ids": self.rows * self.candidates * _ID_BYTES,
            "normaliser": self.rows * LOGIT_BYTES,
            "swap": self.layout.strips(self.swap_tokens()).width_bytes
            * self.layout.heads
            * self.layout.caches,
        }


def cache_names(layout: Layout) -> Sequence[str]:
    """Name the caches in the order in which they lie in memory."""
    layers = range(layout.caches // 2)
    return list(chain.from_iterable((f"key.{i}", f"value.{i}") for i in layers))


def pieces(count: int, wanted: int, most: int) -> Iterator[tuple[int, int, int]]:
    """Cut *count* tokens, the last *wanted* of which give logits, into what runs at once.

    Yield where a piece starts and stops, and how many of its last tokens give logits.
    """
    first, start = count - wanted, 0
    while start < count:
        stop = min(start + most, count, max(first, start) + MOST_WANTED)
        yield start, stop, max(0, stop - max(first, start))
        start = stop


def profiles(capacity: Capacity) -> tuple[Shapes, Shapes]:
    """Return what the plan's two profiles have to take: a prompt's piece, and a decode step."""
    layout = capacity.layout
    chunk, slots, tokens = capacity.chunk_tokens, layout.slots, layout.tokens
    usual = memory.seen_tokens(min(1024, tokens), tokens)
    seen = ((1,), (usual,), (tokens,))
    caches = [f"past_{name}" for name in cache_names(layout)]
    one, many = layout.sizes(1), layout.sizes(slots)
    new, row = ((1, 1), (1, chunk), (1, chunk)), ((1, 1), (slots, 1), (slots, 1))
    prefill: Shapes = {
        **dict.fromkeys(("tokens", "positions"), new),
        "seen": seen,
        "wanted": ((1,), (1,), (min(MOST_WANTED, chunk),)),
        **dict.fromkeys(caches, (one, one, one)),
    }
    decode: Shapes = {
        **dict.fromkeys(("tokens", "positions"), row),
        "seen": seen,
        "wanted": ((1,), (slots,), (slots,)),
        **dict.fromkeys(caches, (one, many, many)),
    }
    return prefill, decode
