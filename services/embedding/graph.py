"""Build a BERT encoder as an ONNX graph, in fp32 or with 8-bit weights and activations.

Shapes: B texts, T tokens (padded), H hidden units, A attention heads. The graph turns `ids` and
`mask`, both (B, T) int32, into `hidden` (B, T, H) float32; pooling is left to `core.pooling`.

8 bits: weights have one scale per output column, activations one per token, found as the graph
runs. A scale per tensor, which is all DynamicQuantizeLinear offers, would make a text's vector
depend on the texts that happen to share its batch. Weights use 7 of their 8 bits, because x86
without VNNI adds products pairwise in 16 bits, which full-range weights overflow.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from services.embedding.shape import Precision, Shape

Array: TypeAlias = NDArray[np.float32]

_OPSET = 20
_IR_VERSION = 9
_FUSED = "com.microsoft"
_PEAK = 63
"""Largest code of a weight."""


def build(weights: Mapping[str, Array], shape: Shape, precision: Precision) -> bytes:
    """Return the serialised graph. *weights* are named as in a Hugging Face BertModel.

    Raises KeyError for a weight that is missing.
    """
    return _Builder(weights, shape, precision).graph().SerializeToString()


class _Builder:
    """Collects nodes and constants; every method appends nodes and returns its output's name."""

    def __init__(self, weights: Mapping[str, Array], shape: Shape, precision: Precision) -> None:
        self._weights, self._shape, self._precision = weights, shape, precision
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[str, onnx.TensorProto] = {}

    def graph(self) -> onnx.ModelProto:
        x = self._embeddings()
        for index in range(self._shape.layers):
            x = self._layer(x, f"encoder.layer.{index}")
        self._nodes.append(helper.make_node("Identity", [x], ["hidden"]))
        width = self._weights["embeddings.word_embeddings.weight"].shape[1]
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT32, ["B", "T"])
            for name in ("ids", "mask")
        ]
        outputs = [helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["B", "T", width])]
        graph = helper.make_graph(
            self._nodes, "bert", inputs, outputs, list(self._constants.values())
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_FUSED, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)

    def _embeddings(self) -> str:
        """Sum of word, position and (always the first) token type embeddings, normalised."""
        words = self._words()
        table = self._weights["embeddings.position_embeddings.weight"]
        kinds = self._weights["embeddings.token_type_embeddings.weight"]
        length = self._op("Shape", ["ids"], start=1, end=2)
        zero, axis = self._constant("zero", np.array([0])), self._constant("axis", np.array([0]))
        positions = self._op(
            "Slice", [self._constant("positions", table + kinds[0]), zero, length, axis]
        )
        return self._norm(self._op("Add", [words, positions]), "embeddings.LayerNorm")

    def _words(self) -> str:
        name = "embeddings.word_embeddings.weight"
        table = self._weights[name]
        if self._precision == "fp32":
            return self._op("Gather", [self._constant(name, table), "ids"])
        scale = _scale(table, axis=1)
        rows = self._op("Gather", [self._constant(name, _rounded(table, scale)), "ids"])
        scales = self._op("Gather", [self._constant(f"{name}.scale", scale), "ids"])
        return self._op("Mul", [self._op("Cast", [rows], to=TensorProto.FLOAT), scales])

    def _layer(self, x: str, name: str) -> str:
        attended = self._linear(self._attention(x, name), [f"{name}.attention.output.dense"])
        x = self._norm(self._op("Add", [attended, x]), f"{name}.attention.output.LayerNorm")
        wide = self._op("Gelu", [self._linear(x, [f"{name}.intermediate.dense"])])
        narrow = self._linear(wide, [f"{name}.output.dense"])
        return self._norm(self._op("Add", [narrow, x]), f"{name}.output.LayerNorm")

    def _attention(self, x: str, name: str) -> str:
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        joined = self._linear(x, parts)
        query, key, value = self._split(joined, 3)
        return self._op(
            "MultiHeadAttention",
            [query, key, value, "", "mask"],
            domain=_FUSED,
            num_heads=self._shape.heads,
        )

    def _linear(self, x: str, names: list[str]) -> str:
        """Apply the linear layers *names* to *x* at once; their outputs lie side by side."""
        weight = np.concatenate([self._weights[f"{n}.weight"] for n in names]).T
        bias = np.concatenate([self._weights[f"{n}.bias"] for n in names])
        out = self._matmul(x, names[0], np.ascontiguousarray(weight))
        return self._op("Add", [out, self._constant(f"{names[0]}.bias", bias)])

    def _matmul(self, x: str, name: str, weight: Array) -> str:
        if self._precision == "fp32":
            return self._op("MatMul", [x, self._constant(name, weight)])
        scale = _scale(weight, axis=0)
        codes, x_scale = self._quantised(x)
        zero = self._constant("int8_zero", np.array(128, np.uint8))
        product = self._op(
            "MatMulInteger", [codes, self._constant(name, _rounded(weight, scale)), zero]
        )
        real = self._op("Cast", [product], to=TensorProto.FLOAT)
        real = self._op("Mul", [real, x_scale])
        return self._op("Mul", [real, self._constant(f"{name}.scale", scale)])

    def _quantised(self, x: str) -> tuple[str, str]:
        """Return *x* as unsigned codes around 128, and the scale of each token (B, T, 1)."""
        last = self._constant("last_axis", np.array([-1]))
        peak = self._op("ReduceMax", [self._op("Abs", [x]), last], keepdims=1)
        tiny = self._constant("tiny", np.array(1e-12, np.float32))
        peak = self._op("Max", [peak, tiny])
        scale = self._op("Mul", [peak, self._constant("step", np.array(1 / 127, np.float32))])
        steps = self._op("Round", [self._op("Div", [x, scale])])
        shifted = self._op("Add", [steps, self._constant("shift", np.array(128, np.float32))])
        return self._op("Cast", [shifted], to=TensorProto.UINT8), scale

    def _norm(self, x: str, name: str) -> str:
        gain = self._constant(f"{name}.weight", self._weights[f"{name}.weight"])
        bias = self._constant(f"{name}.bias", self._weights[f"{name}.bias"])
        return self._op("LayerNormalization", [x, gain, bias], epsilon=self._shape.norm_epsilon)

    def _split(self, x: str, parts: int) -> list[str]:
        names = [f"{x}.{i}" for i in range(parts)]
        self._nodes.append(helper.make_node("Split", [x], names, axis=-1, num_outputs=parts))
        return names

    def _op(self, kind: str, inputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        name = f"{kind}_{len(self._nodes)}"
        self._nodes.append(
            helper.make_node(kind, inputs, [name], name=name, domain=domain, **attributes)
        )
        return name

    def _constant(self, name: str, value: NDArray[np.generic]) -> str:
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name


def _scale(weight: Array, axis: int) -> Array:
    """Return the step that maps the largest weight along *axis* to _PEAK."""
    peak = np.abs(weight).max(axis=axis, keepdims=True)
    return np.asarray(np.maximum(peak, 1e-12) / _PEAK, np.float32)


def _rounded(weight: Array, scale: Array) -> NDArray[np.int8]:
    return np.asarray(np.rint(weight / scale), np.int8)
