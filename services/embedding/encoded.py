"""What an encoder takes and gives: the seam between the batcher and a runtime."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A text as token ids, shortened to what the encoder takes."""

    ids: tuple[int, ...]
    tokens: int
    """Of the whole text, special tokens not counted."""
    truncated: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A text as a unit vector (D,)."""

    vector: NDArray[np.float32]
    tokens: int
    truncated: bool


class Encoder(Protocol):
    """Turns texts into unit vectors of D dimensions, the same whatever shares the batch."""

    @property
    def name(self) -> str:
        """What callers are told made their vectors."""
        ...

    @property
    def batch_tokens(self) -> int:
        """Tokens, padding included, beyond which a larger batch gains nothing."""
        ...

    def prepare(self, text: str) -> Prepared:
        """Tokenise *text*; safe to call from any thread."""
        ...

    def run(self, rows: Sequence[tuple[int, ...]]) -> NDArray[np.float32]:
        """Return one unit vector per row of token ids, (B, D). Called from one thread only."""
        ...
