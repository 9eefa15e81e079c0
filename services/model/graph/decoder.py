"""Write a decoder as an ONNX graph, in the dialect of the runtime that is to run it.

The architectures are here, the few nodes in which runtimes differ in `graph.dialects`, which also
says what the graph takes and gives.

Precision is how the weights are stored. In the "ort" dialect "fp16" and "bf16" are turned to
float32 when the graph is loaded, since processors have no fast kernels for them, and norms and
biases are float32; in the "trt" dialect everything is computed, and stored, in that type. "int8"
and "int4" hold every matrix of the layers in so many bits and the output projection in 8; the
embedding, of which a step reads a few rows only, is fp16.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper

from services.model.graph import dialects
from services.model.graph.checkpoint import Checkpoint, Shape
from services.model.graph.dialects import Dialect, DialectName
from services.model.graph.nodes import Graph, narrowed
from services.model.graph.precision import BITS, HEAD_BITS, PRECISIONS, STORED, Precision
from services.model.graph.quantise import BLOCK
from services.model.graph.store import Inside, Store

__all__ = ["PRECISIONS", "VERSION", "Precision", "build", "step_bytes", "written_bytes"]

IR_VERSION = 10
VERSION = 1
"""Of what this module writes; raise it with every change that makes imported graphs outdated."""
_EMBEDDING = "model.embed_tokens.weight"


def build(
    checkpoint: Checkpoint,
    precision: Precision = "fp32",
    store: Store | None = None,
    *,
    dialect: DialectName = "ort",
) -> onnx.ModelProto:
    """Return the decoder, its weights in *store*, by default inside.

    Raises ConfigError for weights that are no numbers or that *precision* cannot hold.
    """
    speak = dialects.dialect(dialect)
    graph = Graph(
        checkpoint=checkpoint,
        precision=precision,
        activation=speak.activation(precision),
        store=store or Inside(),
    )
    _Decoder(graph, speak).write()
    return _model(graph, speak)


class _Decoder:
    """Writes the layers of a decoder one after another."""

    def __init__(self, graph: Graph, speak: Dialect) -> None:
        self._graph, self._speak, self._shape = graph, speak, graph.shape

    def write(self) -> None:
        """Write tokens to logits."""
        hidden = self._embedded()
        skip = ""
        for i in range(self._shape.layers):
            hidden, skip = self._layer(i, hidden, skip)
        hidden, _ = self._normalised("model.norm.weight", hidden, skip)
        self._project(hidden)

    def _embedded(self) -> str:
        """Look the tokens up; where a widened table is also the projection, it is there once."""
        graph = self._graph
        table = graph.matrix(_EMBEDDING)
        if self._shape.tied and graph.precision not in BITS:
            return graph.node("Gather", graph.active(table), "tokens")
        return graph.active(graph.node("Gather", table, "tokens"))

    def _layer(self, i: int, hidden: str, skip: str) -> tuple[str, str]:
        """Return the layer's last product and the residual that is still to be added to it."""
        layer = f"model.layers.{i}"
        normed, residual = self._normalised(f"{layer}.input_layernorm.weight", hidden, skip)
        attended = self._attention(i, normed)
        normed, residual = self._normalised(
            f"{layer}.post_attention_layernorm.weight", attended, residual
        )
        return self._feed_forward(layer, normed), residual

    def _normalised(self, weight: str, hidden: str, skip: str) -> tuple[str, str]:
        """Return the normalised sum of *hidden* and *skip*, and the sum itself."""
        weight = self._graph.vector(weight)
        if not skip:
            return self._speak.normalised(self._graph, hidden, weight), hidden
        return self._speak.added(self._graph, hidden, skip, weight)

    def _attention(self, i: int, hidden: str) -> str:
        shape, name = self._shape, f"model.layers.{i}.self_attn"
        weights = (f"{name}.q_proj", f"{name}.k_proj", f"{name}.v_proj")
        joined = self._linear(hidden, f"{name}.qkv", *weights)
        queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        q, k, v = self._graph.split(joined, queries, keys, keys)
        if shape.family.qk_norm:
            q = self._head_norm(f"{name}.q_norm.weight", q, queries)
            k = self._head_norm(f"{name}.k_norm.weight", k, keys)
        attended = self._speak.attended(self._graph, i, q, k, v)
        return self._linear(attended, f"{name}.o", f"{name}.o_proj")

    def _head_norm(self, weight: str, source: str, width: int) -> str:
        """Normalise each head by itself."""
        graph = self._graph
        per_head = graph.reshape(source, 0, 0, -1, self._shape.head_dim)
        normed = self._speak.normalised(graph, per_head, graph.vector(weight))
        return graph.reshape(normed, 0, 0, width)

    def _feed_forward(self, layer: str, hidden: str) -> str:
        """SwiGLU (Shazeer 2020)."""
        graph, name, width = self._graph, f"{layer}.mlp", self._shape.intermediate
        joined = self._linear(hidden, f"{name}.gate_up", f"{name}.gate_proj", f"{name}.up_proj")
        gate, up = graph.split(joined, width, width)
        silu = graph.node("Mul", gate, graph.node("Sigmoid", gate))
        return self._linear(graph.node("Mul", silu, up), f"{name}.down", f"{name}.down_proj")

    def _linear(self, hidden: str, name: str, *weights: str) -> str:
        """Multiply by the weights (out, in), side by side; one product is faster than three."""
        graph, matrices = self._graph, [f"{w}.weight" for w in weights]
        bits = BITS.get(graph.precision)
        if bits is None:
            matrix = graph.active(graph.transposed(name, matrices))
            out = graph.node("MatMul", hidden, matrix)
        else:
            out = self._speak.product(graph, hidden, name, matrices, bits)
        if f"{weights[0]}.bias" not in graph.weights:
            return out
        bias = np.concatenate([graph.weights[f"{w}.bias"] for w in weights])
        stored = graph.constant(f"{name}.bias", narrowed(bias, graph.activation, name))
        return graph.node("Add", out, stored)

    def _project(self, hidden: str) -> None:
        """Logits of the wanted rows alone: the output projection is the widest product of all."""
        graph, shape = self._graph, self._shape
        rows = graph.reshape(hidden, -1, shape.hidden)
        picked = graph.node("Gather", rows, "wanted")
        weight = _EMBEDDING if shape.tied else "lm_head.weight"
        wide = graph.activation == np.float32
        output = "logits" if wide else "logits.narrow"
        if graph.precision in BITS:
            self._speak.product(graph, picked, "lm_head", [weight], HEAD_BITS, output=output)
        else:
            table = graph.active(graph.matrix(weight))
            graph.node("Gemm", picked, table, outputs=(output,), transB=1)
        if not wide:
            graph.node("Cast", output, outputs=("logits",), to=TensorProto.FLOAT)


def _model(graph: Graph, speak: Dialect) -> onnx.ModelProto:
    value, shape = helper.make_tensor_value_info, graph.shape
    inputs = [
        value("tokens", TensorProto.INT64, ["B", "T"]),
        *speak.inputs(),
        value("wanted", TensorProto.INT64, ["W"]),
        *dialects.caches(shape, graph.element, "past"),
    ]
    outputs = [
        value("logits", TensorProto.FLOAT, ["W", shape.vocabulary]),
        *dialects.caches(shape, graph.element, "present"),
    ]
    written = helper.make_graph(
        graph.nodes, "decoder", inputs, outputs, list(graph.initializers.values())
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in speak.opsets.items()]
    return helper.make_model(written, opset_imports=opsets, ir_version=IR_VERSION)


def written_bytes(shape: Shape, precision: Precision, dialect: DialectName = "ort") -> int:
    """Return about how large the weights of a graph are."""
    stored, table = STORED[precision].itemsize, shape.vocabulary * shape.hidden
    item_bytes = dialects.dialect(dialect).activation(precision).itemsize
    angles = item_bytes * shape.context_tokens * shape.head_dim
    # "trt" reads what is not quantised as it is stored.
    matrices = step_bytes(shape, precision, dialect if precision in BITS else "trt")
    return matrices + angles + stored * table * (precision in BITS or not shape.tied)


def step_bytes(shape: Shape, precision: Precision, dialect: DialectName = "ort") -> int:
    """Return the bytes of weights that one decode step reads from memory."""
    head = shape.vocabulary * shape.hidden
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden * (2 * queries + 2 * keys + 3 * shape.intermediate)
    item_bytes = dialects.dialect(dialect).activation(precision).itemsize
    if precision not in BITS:
        return item_bytes * (head + shape.layers * layer)
    scale_bytes = item_bytes / BLOCK
    return int(
        head * (HEAD_BITS / 8 + scale_bytes)
        + shape.layers * layer * (BITS[precision] / 8 + scale_bytes)
    )
