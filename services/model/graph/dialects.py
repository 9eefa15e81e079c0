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

from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, get_args

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from services.kit.errors import ConfigError
from services.model.graph import rope
from services.model.graph.checkpoint import Shape
from services.model.graph.nodes import Graph
from services.model.graph.precision import STORED, Precision
from services.model.graph.quantise import BLOCK, Levels, Scales, packed, quantise

DialectName = Literal["ort", "trt"]
DIALECTS: tuple[DialectName, ...] = get_args(DialectName)
MICROSOFT = "com.microsoft"
_SIGNED = {8: np.dtype(np.int8), 4: np.dtype(ml_dtypes.int4)}


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
            q, k, v, *past, "lengths", "longest", *_angles(graph),
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
        high, wide = _size(graph, matrices)
        scales = list[Scales]()

        def pieces() -> Iterator[NDArray[np.uint8]]:
            for levels, scale in _quantised(graph, matrices, bits):
                scales.append(scale)
                yield packed(levels, bits)

        stored, size = f"{name}.int{bits}", (high, -(-wide // BLOCK), BLOCK * bits // 8)
        graph.initializers[stored] = graph.store.keep(stored, np.dtype(np.uint8), size, pieces())
        scaled = graph.constant(f"{name}.scales", np.concatenate(scales, dtype=np.float32))
        return graph.node(
            "MatMulNBits", hidden, stored, scaled, outputs=(output,) if output else (),
            domain=MICROSOFT, K=wide, N=high, bits=bits, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip


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
        high, wide = _size(graph, matrices)
        if wide % BLOCK:
            raise ConfigError(
                f"{matrices[0]}: rows of {wide} numbers cannot be cut into blocks of {BLOCK}, as "
                "TensorRT wants them: import with --precision bf16 or fp16"
            )
        numbers = np.empty((wide, high), np.int8)
        scales, at = np.empty((wide // BLOCK, high), graph.activation), 0
        for levels, scale in _quantised(graph, matrices, bits):
            numbers[:, at : at + len(levels)] = levels.T
            scales[:, at : at + len(levels)] = scale.T
            at += len(levels)
        stored = graph.constant(f"{name}.int{bits}", numbers.astype(_SIGNED[bits], copy=False))
        scaled = graph.constant(f"{name}.scales", scales)
        matrix = graph.node("DequantizeLinear", stored, scaled, axis=0, block_size=BLOCK)
        return graph.node("MatMul", hidden, matrix, outputs=(output,) if output else ())


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


def _size(graph: Graph, matrices: list[str]) -> tuple[int, int]:
    """Return outputs and inputs of *matrices* side by side."""
    return sum(graph.weights.shape(m)[0] for m in matrices), graph.weights.shape(matrices[0])[1]


def _quantised(graph: Graph, matrices: list[str], bits: int) -> Iterator[tuple[Levels, Scales]]:
    """Yield numbers and scales of *matrices*, some rows at a time."""
    for name in matrices:
        for _, rows in graph.checked(name):
            levels, scales = quantise(rows, bits)
            if not np.isfinite(scales).all():
                raise ConfigError(
                    f"{name} holds numbers too large for {graph.precision}: "
                    "import with --precision bf16 or fp32"
                )
            yield levels, scales


def _angles(graph: Graph) -> tuple[str, str]:
    """Cosines and sines (S, D/2) of rotary embeddings."""
    if "rotary.cos" not in graph.initializers:
        shape = graph.shape
        cos, sin = rope.tables(
            theta=shape.rope_theta, head_dim=shape.head_dim, tokens=shape.context_tokens,
            scaled=shape.rope_scaling,
        )  # fmt: skip
        graph.constant("rotary.cos", cos.astype(graph.activation, copy=False))
        graph.constant("rotary.sin", sin.astype(graph.activation, copy=False))
    return "rotary.cos", "rotary.sin"


def _heads(graph: Graph, source: str, heads: int) -> str:
    """Turn (B, T, heads · D) into (B, heads, T, D)."""
    per_head = graph.reshape(source, 0, 0, heads, graph.shape.head_dim)
    return graph.node("Transpose", per_head, perm=(0, 2, 1, 3))


def _turned(graph: Graph, source: str, heads: int) -> str:
    """Turn (B, T, heads · D) into (B, heads, T, D), and each pair by its position's angle."""
    return graph.node("RotaryEmbedding", _heads(graph, source, heads), *_angles(graph), "positions")


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
