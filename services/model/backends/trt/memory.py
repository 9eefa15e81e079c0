"""How much of a card a model takes, and where in it each sequence is.

All caches are one allocation, [cache][slot][head][token][dimension], keys and values of a layer
being two caches. The batch is a prefix of the slots, so a step gets the address of each cache's
first slot and a prompt the address of its own slot.

Letters: C caches, H key heads, S cache tokens, D head dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from services.kit.errors import ConfigError
from services.model.backends.trt.device import Grid, Strips
from services.model.graph.checkpoint import Shape

_ALIGNED_TOKENS = 64
_EXACT_ROWS, _ROWS_STEP = 16, 8
_FEWEST_SEEN = 256
_RESERVE_BYTES, _RESERVE_RATIO = 1 << 30, 0.05
_GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where everything in the caches is, relative to their beginning."""

    caches: int
    heads: int
    head_dim: int
    item_bytes: int
    slots: int
    tokens: int
    """Of one slot."""

    @property
    def token_bytes(self) -> int:
        """Bytes of one token in one head."""
        return self.head_dim * self.item_bytes

    @property
    def head_bytes(self) -> int:
        """From one head to the next."""
        return self.tokens * self.token_bytes

    @property
    def slot_bytes(self) -> int:
        """From one slot to the next."""
        return self.heads * self.head_bytes

    @property
    def size_bytes(self) -> int:
        """All of it."""
        return self.caches * self.slots * self.slot_bytes

    def offset(self, cache: int, slot: int) -> int:
        """Return where a slot of a cache begins."""
        return (cache * self.slots + slot) * self.slot_bytes

    def sizes(self, rows: int) -> tuple[int, int, int, int]:
        """Return the shape (B, H, S, D) of one cache."""
        return rows, self.heads, self.tokens, self.head_dim

    def grid(self, beginning: int, slot: int, token: int = 0) -> Grid:
        """Return where the heads of *slot* have *token*, in all caches."""
        return Grid(
            address=beginning + slot * self.slot_bytes + token * self.token_bytes,
            row_bytes=self.head_bytes,
            plane_bytes=self.slots * self.slot_bytes,
        )

    def strips(self, tokens: int) -> Strips:
        """Return what *tokens* of one slot take, over all caches."""
        width_bytes = tokens * self.token_bytes
        return Strips(width_bytes=width_bytes, rows=self.heads, planes=self.caches)


def layout(shape: Shape, *, slots: int, context_tokens: int, item_bytes: int) -> Layout:
    """Return where a model's caches are."""
    return Layout(
        caches=2 * shape.layers,
        heads=shape.kv_heads,
        head_dim=shape.head_dim,
        item_bytes=item_bytes,
        slots=slots,
        tokens=cache_tokens(context_tokens),
    )


def cache_tokens(context_tokens: int) -> int:
    """Return the tokens that a slot has room for, at least *context_tokens*."""
    return -(-context_tokens // _ALIGNED_TOKENS) * _ALIGNED_TOKENS


def buckets(slots: int) -> Sequence[int]:
    """Return the batch sizes that are run: each up to 16, then every eighth.

    Fewer sizes are fewer CUDA graphs; an empty row costs little where there are many others.
    """
    steps = range(_EXACT_ROWS + _ROWS_STEP, slots + _ROWS_STEP, _ROWS_STEP)
    return [*range(1, min(slots, _EXACT_ROWS) + 1), *(min(size, slots) for size in steps)]


def seen_tokens(longest: int, tokens: int) -> int:
    """Return how much of a cache of *tokens* a step looks at: powers of two make few graphs."""
    return min(max(_FEWEST_SEEN, 1 << (longest - 1).bit_length()), tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What a model takes of a card."""

    weights_bytes: int
    layout: Layout
    context_tokens: int
    other_bytes: int
    """Inputs, outputs, and what the host reads."""

    def streams(self, free_bytes: int) -> bool:
        """Tell whether weights must stay in the host's memory in part. Raises ConfigError.

        That is so where they exceed the card; a cache that does not fit beside weights that do is
        refused instead, since streaming makes every step as slow as the bus.
        """
        room = free_bytes - _reserve(free_bytes) - self.other_bytes
        streaming = self.weights_bytes > room
        left = room if streaming else room - self.weights_bytes
        if self.layout.size_bytes > left:
            raise ConfigError(self.too_much(free_bytes, left))
        return streaming

    def weights_room(self, free_bytes: int) -> int:
        """Return how many bytes of weights may stay on the card beside everything else."""
        taken = _reserve(free_bytes) + self.other_bytes + self.layout.size_bytes
        return max(0, free_bytes - taken)

    def too_much(self, free_bytes: int, left: int) -> str:
        """Say what to lower where only *left* bytes are there for caches."""
        slots, tokens = self.layout.slots, self.context_tokens
        left = max(left, 0)
        rows = left * slots // self.layout.size_bytes
        steps = left * self.layout.tokens // self.layout.size_bytes // _ALIGNED_TOKENS
        shorter = steps * _ALIGNED_TOKENS
        ways = [f"lower max_running to {rows}"] * (rows > 0)
        ways += [f"lower context_tokens to {shorter}"] * (shorter > 0)
        return (
            f"the GPU's memory is too small: weights take {self.weights_bytes / _GIB:.1f} GiB and "
            f"the cache of {slots} requests of {tokens} tokens {self.layout.size_bytes / _GIB:.1f} "
            f"GiB, {free_bytes / _GIB:.1f} GiB are free; "
            + " or ".join([*ways, "import with fewer bits"])
        )


def _reserve(free_bytes: int) -> int:
    """Return what TensorRT's working memory and CUDA graphs may come to take."""
    return max(_RESERVE_BYTES, int(free_bytes * _RESERVE_RATIO))
