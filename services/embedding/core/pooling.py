"""From token vectors to one unit vector per text. Shapes: B texts, T tokens, D dimensions."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Pool: TypeAlias = Callable[[Floats, NDArray[np.int32]], Floats]


def head_and_tail(ids: Sequence[int], limit: int) -> tuple[int, ...]:
    """Return *ids* without their middle, at most *limit* of them.

    What a request asks for is said at its start or its end.
    """
    if len(ids) <= limit:
        return tuple(ids)
    head = (limit + 1) // 2
    return (*ids[:head], *ids[len(ids) - (limit - head) :])


def padded(rows: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return *rows* side by side and the mask of what is not padding, both (B, T)."""
    ids = np.zeros((len(rows), max(map(len, rows))), np.int32)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
        mask[i, : len(row)] = 1
    return ids, mask


def mean(hidden: Floats, mask: NDArray[np.int32]) -> Floats:
    """Average *hidden* (B, T, D) over the tokens in *mask* (B, T)."""
    weights = mask[:, :, None].astype(np.float32)
    return np.asarray((hidden * weights).sum(axis=1) / weights.sum(axis=1), np.float32)


def first(hidden: Floats, mask: NDArray[np.int32]) -> Floats:
    """Return the vector of the first token, (B, D)."""
    del mask
    return hidden[:, 0]


def unit(vectors: Floats) -> Floats:
    """Scale each row of *vectors* (B, D) to length 1; a zero row stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


POOLS: Mapping[str, Pool] = {"pooling_mode_mean_tokens": mean, "pooling_mode_cls_token": first}
"""By their key in a sentence-transformers 1_Pooling/config.json."""
