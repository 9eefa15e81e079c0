"""Fewer bits: how much of a weight is left."""

import numpy as np
import pytest

from services.model.graph.quantise import BLOCK, quantise, restore


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [BLOCK, 3 * BLOCK, 50])
def test_every_number_is_within_half_a_step(bits: int, columns: int) -> None:
    """But for those at the short end of the range, within one; blocks do not touch one another."""
    rng = np.random.default_rng(bits)
    rows = (rng.normal(0, 1, (7, columns)) * rng.lognormal(0, 3, (7, 1))).astype(np.float32)
    packed, scales = quantise(rows, bits)
    assert packed.shape == (7, -(-columns // BLOCK), BLOCK * bits // 8)
    steps = np.repeat(np.abs(scales), BLOCK, axis=1)[:, :columns]
    error = np.abs(restore(packed, scales, columns, bits) - rows)
    assert (error <= steps * 1.001).all()
    assert (error <= steps * 0.501).mean() > 0.95


def test_what_fits_is_kept_exactly() -> None:
    """Whole numbers from -8 to 7 need no more than four bits, and zeros no scale."""
    rows = np.resize(np.arange(-8, 8, dtype=np.float32), (3, 2 * BLOCK))
    rows[1] = 0
    np.testing.assert_array_equal(restore(*quantise(rows, 4), 2 * BLOCK, 4), rows)
