"""Weights as 4 or 8 bits a number, in blocks of 32 along the input dimension, each with a scale.

A number q of b bits, from -2^(b-1) to 2^(b-1) - 1, stands for q · scale. Scales are positive and
halves, because TensorRT takes no others; both dialects hold the same numbers and scales.

Letters: N outputs, K inputs, G blocks of a row, P bytes of a block.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 32
_LEAST_SCALE = np.float16(2**-24)
"""The smallest half above zero."""

Levels = NDArray[np.int8]
Scales = NDArray[np.float16]


def quantise(rows: NDArray[np.float32], bits: int) -> tuple[Levels, Scales]:
    """Return the numbers (N, G · 32) and the scales (N, G) of *rows* (N, K).

    The last block is filled up with zeros. A scale that no half can hold is infinite.
    """
    blocks, half = _blocks(rows), 1 << (bits - 1)
    wanted = np.maximum(blocks.max(axis=-1) / (half - 1), blocks.min(axis=-1) / -half)
    with np.errstate(over="ignore"):
        scales = np.maximum(wanted.astype(np.float16), _LEAST_SCALE)
    # By the scale as it is stored, so that its rounding adds nothing to that of the numbers.
    levels = np.rint(blocks / scales[..., None].astype(np.float32))
    return np.clip(levels, -half, half - 1).astype(np.int8).reshape(len(rows), -1), scales


def packed(levels: Levels, bits: int) -> NDArray[np.uint8]:
    """Return *levels* as ONNX Runtime's MatMulNBits takes them without zero points (N, G, P).

    Half of the range is added; two numbers of 4 bits share a byte, the first in its low half.
    """
    raised = levels.view(np.uint8) + np.uint8(1 << (bits - 1))  # modulo 256
    blocks = raised.reshape(len(levels), -1, BLOCK)
    if bits == 8:  # noqa: PLR2004 - bits
        return blocks
    out: NDArray[np.uint8] = blocks[..., 0::2] | blocks[..., 1::2] * np.uint8(16)
    return out


def restore(levels: Levels, scales: Scales, columns: int) -> NDArray[np.float32]:
    """Return the numbers (N, K) that *levels* and *scales* stand for."""
    steps = scales[..., None].astype(np.float32)
    values = levels.astype(np.float32).reshape(len(levels), -1, BLOCK) * steps
    return values.reshape(len(levels), -1)[:, :columns]


def _blocks(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    missing = -rows.shape[1] % BLOCK
    filled = np.pad(rows, ((0, 0), (0, missing))) if missing else rows
    return filled.reshape(len(rows), -1, BLOCK)
