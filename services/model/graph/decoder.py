"""Write a decoder as an ONNX graph in ONNX Runtime's dialect ("ort").

Inputs: `tokens` (B, T); `lengths` (B,), the last position of each sequence; `longest`, the most
tokens that any sequence holds with this step's; `wanted` (W,), rows of the flattened (B·T)
hidden states whose logits are computed; per layer `past_key.i`, `past_value.i` (B, kv heads, S, D).
Outputs: `logits` (W, V), `present_key.i`, `present_value.i`, which may share memory with the past.

Precision is how the weights are stored. "fp16" and "bf16" are turned to float32 when the graph is
loaded, since processors have no fast kernels for them. "int8" and "int4" hold every matrix of the
layers in so many bits and the output projection in 8; the embedding, of which a step reads a few
rows only, is fp16. Norms and biases are always float32.

Letters: B sequences, T new tokens, S cache length, D head dimension, V vocabulary.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from services.kit.errors import ConfigError
from services.model.graph import rope
from services.model.graph.checkpoint import Checkpoint, Shape
from services.model.graph.quantise import BLOCK, quantise
from services.model.graph.shards import Floats, Weights
from services.model.graph.store import Inside, Store

Precision = Literal["fp32", "fp16", "bf16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MICROSOFT = "com.microsoft"
OPSET, IR_VERSION = 21, 10
VERSION = 1
"""Of what this module writes; raise it with every change that makes imported graphs outdated."""
_BITS: Mapping[Precision, int] = {"int8": 8, "int4": 4}
_STORED: Mapping[Precision, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.float16),
    "int4": np.dtype(np.float16),
}
"""Of matrices that are not quantised."""
_HEAD_BITS = 8
_EMBEDDING = "model.embed_tokens.weight"


def build(
    checkpoint: Checkpoint, precision: Precision = "fp32", store: Store | None = None
) -> onnx.ModelProto:
    """Return the decoder, its weights in *store*, by default inside.

    Raises ConfigError for weights that are no numbers or that *precision* cannot hold.
    """
    graph = _Graph(checkpoint, precision, store or Inside())
    hidden = _embedded(graph)
    skip = ""
    for i in range(checkpoint.shape.layers):
        hidden, skip = _layer(graph, i, hidden, skip)
    hidden, _ = _normalised(graph, "model.norm.weight", hidden, skip)
    _project(graph, hidden)
    return graph.model()


@dataclass(slots=True)
class _Graph:
    """Nodes and weights so far. Every node's first output carries the node's name."""

    checkpoint: Checkpoint
    precision: Precision
    store: Store
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        return self.checkpoint.shape

    @property
    def weights(self) -> Weights:
        return self.checkpoint.weights

    def node(
        self,
        kind: str,
        *inputs: str,
        outputs: tuple[str, ...] = (),
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node and return the name of its first output."""
        outputs = outputs or (f"{kind}.{len(self.nodes)}",)
        self.nodes.append(
            helper.make_node(kind, list(inputs), list(outputs), domain=domain, **attributes)
        )
        return outputs[0]

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant once and return its name."""
        if name not in self.initializers:
            tensor = self.store.keep(name, value.dtype, value.shape, (value,))
            self.initializers[name] = tensor
        return name

    def vector(self, name: str) -> str:
        """Add a weight with one dimension and return its name."""
        return self.constant(name, np.concatenate([rows for _, rows in self._checked(name)]))

    def matrix(self, name: str) -> str:
        """Add a weight as it is stored in the checkpoint, and return its name as float32."""
        if name not in self.initializers:
            dtype = _STORED[self.precision]
            pieces = (_cast(rows, dtype, name) for _, rows in self._checked(name))
            self.initializers[name] = self.store.keep(name, dtype, self.weights.shape(name), pieces)
        return name

    def widened(self, source: str) -> str:
        """Turn what is stored in fewer bits to float32."""
        if _STORED[self.precision] == np.float32:
            return source
        wide = f"{source}.float"
        if not any(wide in node.output for node in self.nodes):
            self.node("Cast", source, outputs=(wide,), to=TensorProto.FLOAT)
        return wide

    def linear(self, hidden: str, name: str, *weights: str) -> str:
        """Multiply by the weights (out, in), side by side; one product is faster than three."""
        matrices = [f"{w}.weight" for w in weights]
        bits = _BITS.get(self.precision)
        if bits is None:
            out = self.node("MatMul", hidden, self._transposed(name, matrices))
        else:
            out = self.product(hidden, name, matrices, bits)
        if f"{weights[0]}.bias" not in self.weights:
            return out
        bias = np.concatenate([self.weights[f"{w}.bias"] for w in weights])
        return self.node("Add", out, self.constant(f"{name}.bias", _cast(bias, bias.dtype, name)))

    def product(
        self, hidden: str, name: str, matrices: list[str], bits: int, output: str = ""
    ) -> str:
        """Multiply by quantised matrices (out, in), side by side."""
        wide = self.weights.shape(matrices[0])[1]
        high = sum(self.weights.shape(m)[0] for m in matrices)
        blocks, scales = -(-wide // BLOCK), list[Floats]()

        def packed() -> Iterator[NDArray[np.uint8]]:
            for rows in (rows for m in matrices for _, rows in self._checked(m)):
                numbers, scale = quantise(rows, bits)
                scales.append(scale)
                yield numbers

        stored, size = f"{name}.int{bits}", (high, blocks, BLOCK * bits // 8)
        self.initializers[stored] = self.store.keep(stored, np.dtype(np.uint8), size, packed())
        scaled = self.constant(f"{name}.scales", np.concatenate(scales))
        return self.node(
            "MatMulNBits", hidden, stored, scaled, outputs=(output,) if output else (),
            domain=MICROSOFT, K=wide, N=high, bits=bits, block_size=BLOCK, accuracy_level=4,
        )  # fmt: skip

    def _transposed(self, name: str, matrices: list[str]) -> str:
        """Add matrices (out, in) as one (in, out)."""
        wide = self.weights.shape(matrices[0])[1]
        dtype = _STORED[self.precision]
        out = np.empty((wide, sum(self.weights.shape(m)[0] for m in matrices)), dtype)
        at = 0
        for rows in (rows for m in matrices for _, rows in self._checked(m)):
            out[:, at : at + len(rows)] = _cast(rows, dtype, name).T
            at += len(rows)
        return self.widened(self.constant(f"{name}.transposed", out))

    def _checked(self, name: str) -> Iterator[tuple[int, Floats]]:
        """Yield a weight in pieces, all of them numbers."""
        for start, rows in self.weights.blocks(name):
            yield start, _cast(rows, np.dtype(np.float32), name)

    def split(self, source: str, *sizes: int) -> tuple[str, ...]:
        """Cut the last dimension into pieces of *sizes*."""
        names = tuple(f"Split.{len(self.nodes)}.{i}" for i in range(len(sizes)))
        lengths = self.constant(f"split.{sizes}", np.array(sizes, np.int64))
        self.node("Split", source, lengths, outputs=names, axis=-1)
        return names

    def reshape(self, source: str, *sizes: int) -> str:
        return self.node(
            "Reshape", source, self.constant(f"shape.{sizes}", np.array(sizes, np.int64))
        )

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes, "decoder", _inputs(self.shape), _outputs(self.shape),
            list(self.initializers.values()),
        )  # fmt: skip
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _cast(rows: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Store *rows* as *dtype*. Raises ConfigError for what is then no number."""
    with np.errstate(over="ignore"):
        out = rows.astype(dtype, copy=False)
    if not np.isfinite(out).all():
        fits = "holds what is no number: fetch the file again"
        if np.isfinite(rows).all():
            fits = f"holds numbers too large for {dtype}: import with --precision bf16 or fp32"
        raise ConfigError(f"{name} {fits}")
    return out


def _embedded(graph: _Graph) -> str:
    """Look the tokens up; a table that is also the output projection is there as float32 once."""
    table = graph.matrix(_EMBEDDING)
    if graph.shape.tied and graph.precision not in _BITS:
        return graph.node("Gather", graph.widened(table), "tokens")
    return graph.widened(graph.node("Gather", table, "tokens"))


def _layer(graph: _Graph, i: int, hidden: str, skip: str) -> tuple[str, str]:
    """Return the layer's last product and the residual that is still to be added to it."""
    layer = f"model.layers.{i}"
    normed, residual = _normalised(graph, f"{layer}.input_layernorm.weight", hidden, skip)
    attended = _attention(graph, i, normed)
    normed, residual = _normalised(
        graph, f"{layer}.post_attention_layernorm.weight", attended, residual
    )
    return _feed_forward(graph, layer, normed), residual


def _normalised(graph: _Graph, weight: str, hidden: str, skip: str) -> tuple[str, str]:
    """Return the normalised sum of *hidden* and *skip*, and the sum itself."""
    epsilon, weight = graph.shape.norm_epsilon, graph.vector(weight)
    if not skip:
        normed = graph.node("SimplifiedLayerNormalization", hidden, weight, epsilon=epsilon)
        return normed, hidden
    total = f"{weight}.sum"
    normed = graph.node(
        "SkipSimplifiedLayerNormalization", hidden, skip, weight,
        outputs=(f"{weight}.normed", "", "", total), domain=MICROSOFT, epsilon=epsilon,
    )  # fmt: skip
    return normed, total


def _attention(graph: _Graph, i: int, hidden: str) -> str:
    shape, name = graph.shape, f"model.layers.{i}.self_attn"
    weights = (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj")
    joined = graph.linear(hidden, f"{name}.qkv", *weights)
    q, k, v = joined, "", ""  # attention takes them side by side as well
    if shape.family.qk_norm:
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        q, k, v = graph.split(joined, queries, keys, keys)
        q, k = _head_norm(graph, f"{name}.q_norm.weight", q), _head_norm(
            graph, f"{name}.k_norm.weight", k
        )  # fmt: skip
    cos, sin = _rotary(graph)
    attended = graph.node(
        "GroupQueryAttention",
        q, k, v, f"past_key.{i}", f"past_value.{i}", "lengths", "longest", cos, sin,
        outputs=(f"{name}.out", f"present_key.{i}", f"present_value.{i}"),
        domain=MICROSOFT,
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
        scale=shape.head_dim**-0.5,
        do_rotary=1,
    )  # fmt: skip
    return graph.linear(attended, f"{name}.o", f"{name}.o_proj")


def _head_norm(graph: _Graph, weight: str, source: str) -> str:
    """Normalise each head by itself."""
    width = graph.shape.head_dim
    per_head = graph.reshape(source, 0, 0, -1, width)
    epsilon = graph.shape.norm_epsilon
    normed = graph.node(
        "SimplifiedLayerNormalization", per_head, graph.vector(weight), epsilon=epsilon
    )
    heads = graph.shape.heads if ".q_norm." in weight else graph.shape.kv_heads
    return graph.reshape(normed, 0, 0, heads * width)


def _rotary(graph: _Graph) -> tuple[str, str]:
    """Cosines and sines (S, D/2) of rotary embeddings."""
    if "rotary.cos" not in graph.initializers:
        shape = graph.shape
        cos, sin = rope.tables(
            theta=shape.rope_theta, head_dim=shape.head_dim, tokens=shape.context_tokens,
            scaled=shape.rope_scaling,
        )  # fmt: skip
        graph.constant("rotary.cos", cos)
        graph.constant("rotary.sin", sin)
    return "rotary.cos", "rotary.sin"


def _feed_forward(graph: _Graph, layer: str, hidden: str) -> str:
    """SwiGLU (Shazeer 2020)."""
    name = f"{layer}.mlp"
    joined = graph.linear(hidden, f"{name}.gate_up", f"{name}.gate_proj", f"{name}.up_proj")
    width = graph.shape.intermediate
    gate, up = graph.split(joined, width, width)
    silu = graph.node("Mul", gate, graph.node("Sigmoid", gate))
    return graph.linear(graph.node("Mul", silu, up), f"{name}.down", f"{name}.down_proj")


def _project(graph: _Graph, hidden: str) -> None:
    """Logits of the wanted rows alone: the output projection is the widest product of all."""
    rows = graph.reshape(hidden, -1, graph.shape.hidden)
    picked = graph.node("Gather", rows, "wanted")
    weight = _EMBEDDING if graph.shape.tied else "lm_head.weight"
    if graph.precision in _BITS:
        graph.product(picked, "lm_head", [weight], _HEAD_BITS, "logits")
        return
    table = graph.widened(graph.matrix(weight))
    graph.node("Gemm", picked, table, outputs=("logits",), transB=1)


def written_bytes(shape: Shape, precision: Precision) -> int:
    """Return about how large the weights of a graph are."""
    stored, table = _STORED[precision].itemsize, shape.vocabulary * shape.hidden
    angles = 4 * shape.context_tokens * shape.head_dim
    if precision in _BITS:
        return step_bytes(shape, precision) + stored * table + angles
    return stored * (step_bytes(shape, precision) // 4 + table * (not shape.tied)) + angles


def step_bytes(shape: Shape, precision: Precision) -> int:
    """Return the bytes of weights that one decode step reads from memory."""
    head = shape.vocabulary * shape.hidden
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden * (2 * queries + 2 * keys + 3 * shape.intermediate)
    if precision not in _BITS:
        return 4 * (head + shape.layers * layer)
    scale_bytes = 4 / BLOCK
    return int(
        head * (_HEAD_BITS / 8 + scale_bytes)
        + shape.layers * layer * (_BITS[precision] / 8 + scale_bytes)
    )


def _inputs(shape: Shape) -> list[onnx.ValueInfoProto]:
    value = helper.make_tensor_value_info
    return [
        value("tokens", TensorProto.INT64, ["B", "T"]),
        value("lengths", TensorProto.INT32, ["B"]),
        value("longest", TensorProto.INT32, []),
        value("wanted", TensorProto.INT64, ["W"]),
        *_caches(shape, "past"),
    ]


def _outputs(shape: Shape) -> list[onnx.ValueInfoProto]:
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["W", shape.vocabulary])
    return [logits, *_caches(shape, "present")]


def _caches(shape: Shape, when: str) -> list[onnx.ValueInfoProto]:
    size: list[str | int | None] = ["B", shape.kv_heads, "S", shape.head_dim]
    return [
        helper.make_tensor_value_info(f"{when}_{what}.{i}", TensorProto.FLOAT, size)
        for i in range(shape.layers)
        for what in ("key", "value")
    ]
