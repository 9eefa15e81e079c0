"""How weights are stored."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BITS: Mapping[Precision, int] = {"int8": 8, "int4": 4}
"""Of the matrices in a layer, where they are quantised."""
HEAD_BITS = 8
"""Of the output projection beside quantised layers: it decides between neighbouring tokens."""
STORED: Mapping[Precision, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.float16),
    "int4": np.dtype(np.float16),
}
"""Of matrices that are not quantised."""
