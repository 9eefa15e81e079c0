"""One vector from the hidden states of a sequence, added up as its pieces are fed.

Letters: T tokens, W wanted positions, D dimensions.
"""

import numpy as np
from numpy.typing import NDArray

from services.model.engine.types import Chunk

Floats = NDArray[np.float32]


def add(chunk: Chunk, rows: Floats) -> None:
    """Take in the hidden states (W, D) of *chunk*; its sequence keeps the sum."""
    sequence = chunk.sequence
    counted = rows[:1] if sequence.request.pool == "first" else rows
    if sequence.request.pool == "first" and chunk.start > 0:
        return
    if len(counted):
        total = counted.sum(axis=0, dtype=np.float64)
        sequence.pooled = total if sequence.pooled is None else sequence.pooled + total


def result(chunk: Chunk) -> Floats:
    """Return the vector (D,) of the sequence that *chunk* completes."""
    request, total = chunk.sequence.request, chunk.sequence.pooled
    assert total is not None, "what is complete has been fed"
    count = len(request.tokens) if request.pool == "mean" else 1
    out: Floats = (total / count).astype(np.float32)
    return out
