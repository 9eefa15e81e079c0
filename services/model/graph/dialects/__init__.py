"""The nodes in which runtimes differ. `graph.decoder` writes everything else.

Both dialects take `tokens` (B, T), `wanted` (W,), rows of the flattened (B·T) hidden states whose
logits are computed, and per layer `past_key.i`, `past_value.i` (B, kv heads, S, D); both give
`logits` (W, V) in float32 and `present_key.i`, `present_value.i`, which may share memory with the
past. What is whole numbers is int64 unless said otherwise.

"ort": ONNX Runtime's own operators, fast on processors; everything is computed in float32.
    `lengths` (B,) int32: last position of each sequence.
    `longest` () int32: the most tokens that any sequence holds with this step's.
    Several new tokens with a past need B = 1.

"trt": standard operators of opset 24, as TensorRT's parser reads them.
    `positions` (B, T): of the new tokens, consecutive in a row: row b is written to the cache from
        positions[b, 0] on. The last one has to be below S, also where a row is filled up to T with
        tokens that nobody wants; what those leave in the cache is overwritten by the next ones.
    `seen` (K,): 0 … K-1, the part of the cache that is looked at, with K above every position.
    A token sees what its row holds at its own position and before.
    "fp16" and "bf16" compute in that type and have caches of it; "int8" and "int4" compute in
    fp16. TensorRT wants S, a plain "S" here, fixed: see `with_cache`.

Letters: B sequences, T new tokens, K positions seen, S cache length, D head dimension,
V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, Literal, Protocol, get_args

import numpy as np
import onnx
from onnx import helper

from services.model.graph.checkpoint import Shape
from services.model.graph.dialects.ort import Ort
from services.model.graph.dialects.trt import Trt
from services.model.graph.nodes import Graph
from services.model.graph.precision import Precision

DialectName = Literal["ort", "trt"]
DIALECTS: tuple[DialectName, ...] = get_args(DialectName)


class Dialect(Protocol):
    """Writes the nodes in which runtimes differ."""

    opsets: Mapping[str, int]
    """Versions of the operator sets by domain."""

    def activation(self, precision: Precision) -> np.dtype[Any]:
        """Return what is computed in."""
        ...

    def inputs(self) -> list[onnx.ValueInfoProto]:
        """Return the inputs that say where tokens stand."""
        ...

    def normalised(self, graph: Graph, source: str, weight: str) -> str:
        """Divide the last dimension by the root of its mean square, times *weight*."""
        ...

    def added(self, graph: Graph, hidden: str, skip: str, weight: str) -> tuple[str, str]:
        """Return the normalised sum of *hidden* and *skip*, and the sum itself."""
        ...

    def attended(self, graph: Graph, i: int, q: str, k: str, v: str) -> str:
        """Turn, remember and attend: (B, T, heads · D) of layer *i* to the same."""
        ...

    def product(
        self,
        graph: Graph,
        hidden: str,
        name: str,
        matrices: list[str],
        bits: int,
        *,
        output: str = "",
    ) -> str:
        """Multiply by matrices (out, in), side by side, quantised to *bits*."""
        ...


_DIALECTS: Mapping[DialectName, Dialect] = {"ort": Ort(), "trt": Trt()}


def dialect(name: DialectName) -> Dialect:
    """Return the dialect called *name*."""
    return _DIALECTS[name]


def caches(shape: Shape, element: int, when: str) -> list[onnx.ValueInfoProto]:
    """Return the caches of all layers before ("past") or after ("present") a step."""
    size: list[str | int | None] = ["B", shape.kv_heads, "S", shape.head_dim]
    return [
        helper.make_tensor_value_info(f"{when}_{what}.{i}", element, size)
        for i in range(shape.layers)
        for what in ("key", "value")
    ]


def with_cache(model: onnx.ModelProto, tokens: int) -> onnx.ModelProto:
    """Return *model* with caches of *tokens* positions, and no others."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for value in (*out.graph.input, *out.graph.output):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param == "S":
                size.dim_value = tokens
    return out
