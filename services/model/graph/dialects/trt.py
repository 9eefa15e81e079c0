"""Standard operators of opset 24, each in the form in which TensorRT's parser takes it."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from services.kit.errors import ConfigError
from services.model.graph.nodes import Graph
from services.model.graph.precision import STORED, Precision
from services.model.graph.quantise import BLOCK

_SIGNED = {8: np.dtype(np.int8), 4: np.dtype(ml_dtypes.int4)}


class Trt:
    """Standard operators, each in the form in which TensorRT takes it."""

    opsets: Mapping[str, int] = {"": 24}

    def activation(self, precision: Precision) -> np.dtype[Any]:
        """Networks are strongly typed: what is stored so is computed so."""
        return STORED[precision]

    def inputs(self) -> list[onnx.ValueInfoProto]:
        """As `Dialect.inputs`."""
        return [
            helper.make_tensor_value_info("positions", TensorProto.INT64, ["B", "T"]),
            helper.make_tensor_value_info("seen", TensorProto.INT64, ["K"]),
        ]

    def normalised(self, graph: Graph, source: str, weight: str) -> str:
        """As `Dialect.normalised`; the mean is taken in float32."""
        epsilon = graph.shape.norm_epsilon
        return graph.node("RMSNormalization", source, weight, axis=-1, epsilon=epsilon)

    def added(self, graph: Graph, hidden: str, skip: str, weight: str) -> tuple[str, str]:
        """As `Dialect.added`."""
        total = graph.node("Add", hidden, skip, outputs=(f"{weight}.sum",))
        return self.normalised(graph, total, weight), total

    def attended(self, graph: Graph, i: int, q: str, k: str, v: str) -> str:
        """As `Dialect.attended`.

        The cache is updated outside attention, and queries are scaled before it: TensorRT takes
        attention with one output only, and fuses it with scaled queries only.
        """
        shape = graph.shape
        scale = graph.constant("query.scale", np.array(shape.head_dim**-0.5, graph.activation))
        q = graph.node("Mul", _turned(graph, q, shape.heads), scale)
        k = _remembered(graph, f"key.{i}", _turned(graph, k, shape.kv_heads))
        v = _remembered(graph, f"value.{i}", _heads(graph, v, shape.kv_heads))
        out = graph.node("Attention", q, k, v, _mask(graph), scale=1.0)
        joined = graph.node("Transpose", out, perm=(0, 2, 1, 3))
        return graph.reshape(joined, 0, 0, shape.heads * shape.head_dim)

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
        """As `Dialect.product`. Raises ConfigError for rows that blocks do not fill."""
        high, wide = graph.size(matrices)
        if wide % BLOCK:
            raise ConfigError(
                f"{matrices[0]}: rows of {wide} numbers cannot be cut into blocks of {BLOCK}, as "
                "TensorRT wants them: import with --precision bf16 or fp16"
            )
        numbers = np.empty((wide, high), np.int8)
        scales, at = np.empty((wide // BLOCK, high), graph.activation), 0
        for levels, scale in graph.quantised(matrices, bits):
            numbers[:, at : at + len(levels)] = levels.T
            scales[:, at : at + len(levels)] = scale.T
            at += len(levels)
        stored = graph.constant(f"{name}.int{bits}", numbers.astype(_SIGNED[bits], copy=False))
        scaled = graph.constant(f"{name}.scales", scales)
        matrix = graph.node("DequantizeLinear", stored, scaled, axis=0, block_size=BLOCK)
        return graph.node("MatMul", hidden, matrix, outputs=(output,) if output else ())


def _heads(graph: Graph, source: str, heads: int) -> str:
    """Turn (B, T, heads · D) into (B, heads, T, D)."""
    per_head = graph.reshape(source, 0, 0, heads, graph.shape.head_dim)
    return graph.node("Transpose", per_head, perm=(0, 2, 1, 3))


def _turned(graph: Graph, source: str, heads: int) -> str:
    """Turn (B, T, heads · D) into (B, heads, T, D), and each pair by its position's angle."""
    return graph.node("RotaryEmbedding", _heads(graph, source, heads), *graph.angles(), "positions")


def _remembered(graph: Graph, name: str, new: str) -> str:
    """Write *new* (B, heads, T, D) into a cache, and return what is seen of it."""
    starts = graph.once("starts", "Gather", "positions", _zero(graph), axis=1)
    present = graph.node(
        "TensorScatter", f"past_{name}", new, starts, outputs=(f"present_{name}",), axis=2
    )
    count = graph.once("seen.count", "Shape", "seen")
    first, axis = graph.integers("first", 0), graph.integers("axis", 2)
    return graph.node("Slice", present, first, count, axis)


def _zero(graph: Graph) -> str:
    return graph.constant("zero", np.array(0, np.int64))


def _mask(graph: Graph) -> str:
    """Return which of the positions seen (B, 1, T, K) each new token attends to."""
    across = graph.once("across", "Unsqueeze", "positions", graph.integers("axes", 1, 3))
    return graph.once("mask", "LessOrEqual", "seen", across)
