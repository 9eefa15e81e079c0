"""Values kept between two bounds, without what `np.clip` takes on a few values."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def within(values: Floats, low: float, high: float) -> Floats:
    """Return *values*, none below *low* or above *high*."""
    return np.minimum(np.maximum(values, low), high)


def clipped(value: float, low: float, high: float) -> float:
    """Return *value*, not below *low* and not above *high*."""
    return low if value < low else min(value, high)
