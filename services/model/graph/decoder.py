"""Write a decoder as an ONNX graph in ONNX Runtime's dialect ("ort").

Inputs: `tokens` (B, T); `lengths` (B,), the last position of each sequence; `longest`, the most
tokens that any sequence holds with this step's; `wanted` (W,), rows of the flattened (B·T)
hidden states whose logits are computed; per layer `past_key.i`, `past_value.i` (B, kv heads, S, D).
Outputs: `logits` (W, V), `present_key.i`, `present_value.i`, which may share memory with the past.

Letters: B sequences, T new tokens, S cache length, D head dimension, V vocabulary.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from services.model.graph.checkpoint import Checkpoint, Shape

MICROSOFT = "com.microsoft"
OPSET, IR_VERSION = 21, 10


def build(checkpoint: Checkpoint) -> onnx.ModelProto:
    """Return the decoder with its weights inside, float32."""
    graph = _Graph(checkpoint)
    hidden = graph.node("Gather", "model.embed_tokens.weight", "tokens")
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
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        return self.checkpoint.shape

    def node(
        self,
        kind: str,
        *inputs: str,
        outputs: tuple[str, ...] = (),
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """Add a node and return the name of its first output."""
        for name in inputs:
            if name in self.checkpoint.weights:
                self.constant(name, self.checkpoint.weights[name])
        outputs = outputs or (f"{kind}.{len(self.nodes)}",)
        self.nodes.append(
            helper.make_node(kind, list(inputs), list(outputs), domain=domain, **attributes)
        )
        return outputs[0]

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """Add a constant once and return its name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def linear(self, hidden: str, name: str, *weights: str) -> str:
        """Multiply by the weights (out, in), side by side; one product is faster than three."""
        joined = np.concatenate([self.checkpoint.weights[f"{w}.weight"] for w in weights]).T
        out = self.node("MatMul", hidden, self.constant(f"{name}.transposed", joined))
        if f"{weights[0]}.bias" not in self.checkpoint.weights:
            return out
        bias = np.concatenate([self.checkpoint.weights[f"{w}.bias"] for w in weights])
        return self.node("Add", out, self.constant(f"{name}.bias", bias))

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
    epsilon = graph.shape.norm_epsilon
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
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    q, k, v = graph.split(joined, queries, keys, keys)
    if shape.family.qk_norm:
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
    normed = graph.node("SimplifiedLayerNormalization", per_head, weight, epsilon=epsilon)
    heads = graph.shape.heads if ".q_norm." in weight else graph.shape.kv_heads
    return graph.reshape(normed, 0, 0, heads * width)


def _rotary(graph: _Graph) -> tuple[str, str]:
    """Cosines and sines (S, D/2) of rotary embeddings (Su et al. 2021)."""
    shape = graph.shape
    exponents = np.arange(0, shape.head_dim, 2, dtype=np.float32) / np.float32(shape.head_dim)
    frequencies = np.float32(1) / np.float32(shape.rope_theta) ** exponents
    angles = np.outer(np.arange(shape.context_tokens, dtype=np.float32), frequencies)
    return graph.constant("rotary.cos", np.cos(angles)), graph.constant(
        "rotary.sin", np.sin(angles)
    )


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
    weight = "model.embed_tokens.weight" if graph.shape.tied else "lm_head.weight"
    graph.node("Gemm", picked, weight, outputs=("logits",), transB=1)


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
