"""Fewer bits: how much of a weight is left."""

import numpy as np
import pytest

from services.model.graph.quantise import BLOCK, packed, quantise, restore


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [BLOCK, 3 * BLOCK, 50])
def test_every_number_is_within_half_a_step(bits: int, columns: int) -> None:
    """And blocks do not touch one another."""
    rng = np.random.default_rng(bits)
    rows = (rng.normal(0, 1, (7, columns)) * rng.lognormal(0, 3, (7, 1))).astype(np.float32)
    levels, scales = quantise(rows, bits)
    assert levels.shape == (7, -(-columns // BLOCK) * BLOCK)
    steps = np.repeat(scales.astype(np.float32), BLOCK, axis=1)[:, :columns]
    # Rounding a scale to a half may leave the largest number a little beyond the range.
    beyond = (1 << (bits - 1)) * 2**-11
    assert (np.abs(restore(levels, scales, columns) - rows) <= steps * (0.5 + beyond)).all()


def test_what_fits_is_kept_exactly() -> None:
    """Whole numbers from -8 to 7 need no more than four bits, and zeros none."""
    rows = np.resize(np.arange(-8, 8, dtype=np.float32), (3, 2 * BLOCK))
    rows[1] = 0
    np.testing.assert_array_equal(restore(*quantise(rows, 4), 2 * BLOCK), rows)


@pytest.mark.parametrize("bits", [4, 8])
def test_scales_are_positive_halves(bits: int) -> None:
    """TensorRT takes no others, whatever the sign of the largest number, for zeros too."""
    rows = np.linspace(-1, 1, 8 * BLOCK, dtype=np.float32).reshape(8, -1)
    rows[3], rows[4] = 0, 1e-30
    levels, scales = quantise(rows, bits)
    assert scales.dtype == np.float16
    assert (scales > 0).all()
    assert not levels[3:5].any()


def test_numbers_are_packed_as_matmulnbits_takes_them() -> None:
    """Half of the range is added, and the first of two is in the low half of a byte."""
    levels = np.zeros((1, BLOCK), np.int8)
    levels[0, :4] = -8, 7, 0, 1
    assert packed(levels, 4)[0, 0, :3].tolist() == [0xF0, 0x98, 0x88]
    levels[0, :2] = -128, 127
    assert packed(levels, 8)[0, 0, :4].tolist() == [0, 255, 128, 129]
