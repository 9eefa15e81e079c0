"""Nodes and constants of a decoder's graph, one after another: a thin layer over `onnx.helper`.

Letters: S positions, D head dimension.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from services.kit.errors import ConfigError
from services.model.graph import rope
from services.model.graph.checkpoint import Checkpoint, Shape
from services.model.graph.precision import STORED, Precision
from services.model.graph.quantise import Levels, Scales, quantise
from services.model.graph.shards import Floats, Weights
from services.model.graph.store import Store


@dataclass(slots=True, kw_only=True)
class Graph:
    """Nodes and weights so far. Every node's first output carries the node's name."""

    checkpoint: Checkpoint
    precision: Precision
    activation: np.dtype[Any]
    """What is computed in; norms and biases are stored so as well."""
    store: Store
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    @property
    def shape(self) -> Shape:
        """The decoder's dimensions."""
        return self.checkpoint.shape

    @property
    def weights(self) -> Weights:
        """The decoder's weights."""
        return self.checkpoint.weights

    @property
    def element(self) -> int:
        """What is computed in, as ONNX numbers types."""
        return helper.np_dtype_to_tensor_dtype(self.activation)

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

    def once(self, name: str, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node whose output is *name*, unless it is there."""
        if not any(name in node.output for node in self.nodes):
            self.node(kind, *inputs, outputs=(name,), **attributes)
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant once and return its name."""
        if name not in self.initializers:
            tensor = self.store.keep(name, value.dtype, value.shape, (value,))
            self.initializers[name] = tensor
        return name

    def integers(self, what: str, *values: int) -> str:
        """Add whole numbers, *what* they are for, and return their name."""
        return self.constant(f"{what}.{values}", np.array(values, np.int64))

    def vector(self, name: str) -> str:
        """Add a weight with one dimension and return its name."""
        rows = np.concatenate([rows for _, rows in self.checked(name)])
        return self.constant(name, narrowed(rows, self.activation, name))

    def matrix(self, name: str) -> str:
        """Add a weight as it is stored in the checkpoint, and return its name."""
        if name not in self.initializers:
            dtype = STORED[self.precision]
            pieces = (narrowed(rows, dtype, name) for _, rows in self.checked(name))
            self.initializers[name] = self.store.keep(name, dtype, self.weights.shape(name), pieces)
        return name

    def transposed(self, name: str, matrices: Sequence[str]) -> str:
        """Add matrices (out, in) as one (in, out), and return its name."""
        (high, wide), dtype, at = self.size(matrices), STORED[self.precision], 0
        out = np.empty((wide, high), dtype)
        for rows in (rows for m in matrices for _, rows in self.checked(m)):
            out[:, at : at + len(rows)] = narrowed(rows, dtype, name).T
            at += len(rows)
        return self.constant(f"{name}.transposed", out)

    def active(self, source: str) -> str:
        """Turn what is stored in fewer bits to what is computed in."""
        if STORED[self.precision] == self.activation:
            return source
        return self.once(f"{source}.float", "Cast", source, to=self.element)

    def checked(self, name: str) -> Iterator[tuple[int, Floats]]:
        """Yield a weight in pieces, all of them numbers."""
        for start, rows in self.weights.blocks(name):
            yield start, narrowed(rows, np.dtype(np.float32), name)

    def quantised(self, matrices: Sequence[str], bits: int) -> Iterator[tuple[Levels, Scales]]:
        """Yield numbers and scales of *matrices*, some rows at a time."""
        for name in matrices:
            for _, rows in self.checked(name):
                levels, scales = quantise(rows, bits)
                if not np.isfinite(scales).all():
                    raise ConfigError(
                        f"{name} holds numbers too large for {self.precision}: "
                        "import with --precision bf16 or fp32"
                    )
                yield levels, scales

    def size(self, matrices: Sequence[str]) -> tuple[int, int]:
        """Return outputs and inputs of *matrices* (out, in) side by side."""
        shapes = [self.weights.shape(name) for name in matrices]
        return sum(high for high, _ in shapes), shapes[0][1]

    def angles(self) -> tuple[str, str]:
        """Return the names of cosines and sines (S, D/2) of rotary embeddings."""
        if "rotary.cos" not in self.initializers:
            shape = self.shape
            cos, sin = rope.tables(
                theta=shape.rope_theta, head_dim=shape.head_dim, tokens=shape.context_tokens,
                scaled=shape.rope_scaling,
            )  # fmt: skip
            self.constant("rotary.cos", cos.astype(self.activation, copy=False))
            self.constant("rotary.sin", sin.astype(self.activation, copy=False))
        return "rotary.cos", "rotary.sin"

    def split(self, source: str, *sizes: int) -> tuple[str, ...]:
        """Cut the last dimension into pieces of *sizes*."""
        names = tuple(f"Split.{len(self.nodes)}.{i}" for i in range(len(sizes)))
        self.node("Split", source, self.integers("split", *sizes), outputs=names, axis=-1)
        return names

    def reshape(self, source: str, *sizes: int) -> str:
        """Give *source* another shape; 0 keeps a dimension, -1 takes what is left."""
        return self.node("Reshape", source, self.integers("shape", *sizes))


def narrowed(rows: NDArray[Any], dtype: np.dtype[Any], name: str) -> NDArray[Any]:
    """Store *rows* as *dtype*. Raises ConfigError for what is then no number."""
    with np.errstate(over="ignore"):
        out = rows.astype(dtype, copy=False)
    if not np.isfinite(out).all():
        fits = "holds what is no number: fetch the file again"
        if np.isfinite(rows).all():
            fits = f"holds numbers too large for {dtype}: import with --precision bf16 or fp32"
        raise ConfigError(f"{name} {fits}")
    return out
