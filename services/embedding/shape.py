"""The shape of a BERT, apart from `graph`, which needs onnx, and onnx is slow to import."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

Precision: TypeAlias = Literal["int8", "fp32"]

BUILDER_VERSION = 1
"""Part of the cache's key: raise it with every change of what `graph.build` returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What of a BERT's config.json the graph needs."""

    layers: int
    heads: int
    norm_epsilon: float
