"""Weights as 4 or 8 bits a number, in blocks of 32 along the input dimension, each with a scale.

The layout is that of ONNX Runtime's MatMulNBits without zero points: a number q of b bits stands
for (q - 2^(b-1)) · scale; two numbers of 4 bits share a byte, the first one in the low half.

Letters: N outputs, K inputs, G blocks of a row, P bytes of a block.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 32


def quantise(rows: NDArray[np.float32], bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Return the packed numbers (N, G, P) and the scales (N, G) of *rows* (N, K)."""
    blocks = _blocks(rows)
    half = 1 << (bits - 1)
    at = np.abs(blocks).argmax(axis=-1)[..., None]
    # The largest number becomes -half exactly: that end of the range reaches further.
    scales = np.take_along_axis(blocks, at, axis=-1)[..., 0] / np.float32(-half)
    return _packed(_levels(blocks, scales, half), bits), scales


def restore(
    packed: NDArray[np.uint8], scales: NDArray[np.float32], columns: int, bits: int
) -> NDArray[np.float32]:
    """Return the numbers (N, K) that *packed* and *scales* stand for."""
    levels = packed
    if bits == 4:  # noqa: PLR2004 - bits
        levels = np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:2], BLOCK)
    values = (levels.astype(np.float32) - (1 << (bits - 1))) * scales[..., None]
    return values.reshape(len(packed), -1)[:, :columns]


def _blocks(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    missing = -rows.shape[1] % BLOCK
    padded = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    return padded.reshape(len(rows), -1, BLOCK)


def _levels(
    blocks: NDArray[np.float32], scales: NDArray[np.float32], half: int
) -> NDArray[np.uint8]:
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    levels = np.rint(blocks * inverse[..., None])
    return (np.clip(levels, -half, half - 1) + half).astype(np.uint8)


def _packed(levels: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    if bits == 8:  # noqa: PLR2004 - bits
        return levels
    out: NDArray[np.uint8] = levels[..., 0::2] | levels[..., 1::2] * np.uint8(16)
    return out
