"""ONNX Runtime's own operators."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from services.model.graph.nodes import Graph
from services.model.graph.precision import Precision
from services.model.graph.quantise import BLOCK, Scales, packed

MICROSOFT = "com.microsoft"


class Ort:
    """ONNX Runtime's operators."""

    opsets: Mapping[str, int] = {"": 21, MICROSOFT: 1}

    def activation(self, precision: Precision) -> np.dtype[Any]:
        """Processors have fast kernels for nothing else."""
        del precision
        return np.dtype(np.float32)

    def inputs(self) -> list[onnx.ValueInfoProto]:
        """As `Dialect.inputs`."""
        return [
            helper.make_tensor_value_info("lengths", TensorProto.INT32, ["B"]),
            helper.make_tensor_value_info("longest", TensorProto.INT32, []),
        ]

    def normalised(self, graph: Graph, source: str, weight: str) -> str:
        """As `Dialect.normalised`."""
        epsilon = graph.shape.norm_epsilon
        return graph.node("SimplifiedLayerNormalization", source, weight, epsilon=epsilon)

    def added(self, graph: Graph, hidden: str, skip: str, weight: str) -> tuple[str, str]:
        """As `Dialect.added`."""
        total = f"{weight}.sum"
        normed = graph.node(
            "SkipSimplifiedLayerNormalization", hidden, skip, weight,
            outputs=(f"{weight}.normed", "", "", total), domain=MICROSOFT,
            epsilon=graph.shape.norm_epsilon,
        )  # fmt: skip
        return normed, total

    def attended(self, graph: Graph, i: int, q: str, k: str, v: str) -> str:
        """As `Dialect.attended`."""
        shape, past = graph.shape, (f"past_key.{i}", f"past_value.{i}")
        return graph.node(
            "GroupQueryAttention",
            q, k, v, *past, "lengths", "longest", *graph.angles(),
            outputs=(f"model.layers.{i}.self_attn.out", f"present_key.{i}", f"present_value.{i}"),
            domain=MICROSOFT,
            num_heads=shape.heads,
            kv_num_heads=shape.kv_heads,
            scale=shape.head_dim**-0.5,
            do_rotary=1,
        )  # fmt: skip

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
        """As `Dialect.product`."""
        high, wide = graph.size(matrices)
        scales = list[Scales]()

        def pieces() -> Iterator[NDArray[np.uint8]]:
            for levels, scale in graph.quantised(matrices, bits):
                scales.append(scale)
                yield packed(levels, bits)

        stored, size = f"{name}.int{bits}", (high, -(-wide // BLOCK), BLOCK * bits // 8)
        graph.initializers[stored] = graph.store.keep(stored, np.dtype(np.uint8), size, pieces())
        scaled = graph.constant(f"{name}.scales", np.concatenate(scales, dtype=np.float32))
        return graph.node(
            "MatMulNBits", hidden, stored, scaled, outputs=(output,) if output else (),
            domain=MICROSOFT, K=wide, N=high, bits=bits, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip
