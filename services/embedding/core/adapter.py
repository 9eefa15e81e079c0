"""Per-model linear adapters: closer together then means similar success on that model.

Nothing learns them yet, so every model's adapter is the identity.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def adapt(vectors: Floats, model: str, adapters: Mapping[str, Floats]) -> tuple[Floats, bool]:
    """Pass *vectors* (B, D) through the adapter (D, D) of *model*, and say whether there was one.

    A model without a learned adapter gets the vectors as they are.
    """
    matrix = adapters.get(model)
    return (vectors, False) if matrix is None else (vectors @ matrix.T, True)
