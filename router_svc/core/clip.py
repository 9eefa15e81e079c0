"""Values kept between two bounds, and constants, without what NumPy takes for them on a few values.

At a dozen numbers NumPy spends as long on making an array of a Python float as on the arithmetic,
each time: what is known beforehand is made an array once.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def constant(value: float) -> Floats:
    """Return *value* as an array, (), which no one may change."""
    made = np.array(value)
    made.flags.writeable = False
    return made


ZERO: Final = constant(0.0)
HALF: Final = constant(0.5)
ONE: Final = constant(1.0)


def within(values: Floats, low: Floats | float, high: Floats | float) -> Floats:
    """Return *values*, none below *low* or above *high*."""
    return np.minimum(np.maximum(values, low), high)


def clipped(value: float, low: float, high: float) -> float:
    """Return *value*, not below *low* and not above *high*."""
    return low if value < low else min(value, high)
