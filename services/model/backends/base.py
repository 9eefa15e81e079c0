"""What the engine asks of a device.

Laws, checked on every backend by tests/laws/test_backends.py: a sequence's logits depend on
nothing but its own tokens, whatever slot it is in, whatever the pieces it was fed in, and
whatever else is in the batch; `copy` and `swap` move sequences whole.

Letters: B sequences, T tokens, V vocabulary, W wanted positions, D dimensions, K candidates.
"""

from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
Ids = NDArray[np.int64]


class Ranked(Protocol):
    """Logits (B, V) that stayed on a device, and what mostly suffices to choose by.

    All of it is valid until the backend's next call.
    """

    @property
    def ids(self) -> Ids:
        """The likeliest tokens (B, K), the likeliest first."""
        ...

    @property
    def logits(self) -> Logits:
        """Theirs (B, K)."""
        ...

    @property
    def normaliser(self) -> Logits:
        """Log Σ exp over the vocabulary (B,)."""
        ...

    def whole(self, rows: Ids) -> Logits:
        """Fetch all logits (R, V) of some rows (R,)."""
        ...


Decoded: TypeAlias = Logits | Ranked


def fetched(decoded: Decoded) -> Logits:
    """Return all logits (B, V), wherever they are."""
    if isinstance(decoded, np.ndarray):
        return decoded
    return decoded.whole(np.arange(len(decoded.ids)))


class Backend(Protocol):
    """Runs forward steps on slots of a cache; knows nothing of requests, text or scheduling."""

    slots: int
    """Sequences that the cache holds."""
    context_tokens: int
    """Tokens that one slot holds."""

    def prefill(self, slot: int, start: int, tokens: Ids, wanted: int) -> Logits:
        """Feed *tokens* (T,) of one sequence whose first *start* tokens are in *slot* already.

        Return the logits (W, V) that follow each of the last *wanted* of these tokens.
        """
        ...

    def decode(self, tokens: Ids, lengths: Ids) -> Decoded:
        """Feed one token (B,) to each of slots 0 … B-1, which hold *lengths* (B,) tokens.

        Return the logits (B, V) that follow, or the likeliest of them; the next call may overwrite
        them.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first *length* tokens of slot *source* over slot *target*."""
        ...

    def swap(self, one: int, other: int, length: int) -> None:
        """Exchange the first *length* tokens of two slots."""
        ...


@runtime_checkable
class Encodes(Protocol):
    """A backend that gives hidden states as well; the laws hold for them too."""

    def hidden(self, slot: int, start: int, tokens: Ids, wanted: int) -> NDArray[np.float32]:
        """Feed as `Backend.prefill` does; return the last hidden states (W, D) instead."""
        ...
