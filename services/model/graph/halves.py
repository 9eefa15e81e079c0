"""Turn a graph in dialect "ort" into one that computes in the type its weights are stored in.

Processors compute in float32; on a card halves are computed as they are, and attention knows
nothing else. "fp16", "int8" and "int4" compute in float16, "bf16" in bfloat16; the logits are
float32 all the same.
"""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from services.kit.errors import ConfigError
from services.model.graph.precision import STORED, Precision


def halved(model: onnx.ModelProto, precision: Precision, folder: Path | None) -> onnx.ModelProto:
    """Return *model* with nothing left in float32 but its logits; weights stay where they are.

    *folder* is where a file beside the graph is: of it, the few float32 constants are read.
    Raises ConfigError for a graph whose weights are float32.
    """
    if STORED[precision] == np.float32:
        raise ConfigError(
            "a model on a card computes in 16 bits: import it with --precision bf16, fp16, int8 "
            "or int4"
        )
    element = helper.np_dtype_to_tensor_dtype(STORED[precision])
    out = onnx.ModelProto()
    out.CopyFrom(model)
    _drop_casts(out.graph)
    for tensor in out.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(_narrow(tensor, precision, folder))
    for value in (*out.graph.input, *out.graph.output):
        if value.name != "logits" and value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = element
    _widen_logits(out.graph)
    return out


def _drop_casts(graph: onnx.GraphProto) -> None:
    """Let what is stored in 16 bits be used as it is."""
    casts = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Cast"}
    kept = [n for n in graph.node if n.op_type != "Cast"]
    for node in kept:
        node.input[:] = [casts.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)


def _narrow(tensor: TensorProto, precision: Precision, folder: Path | None) -> TensorProto:
    values = _read(tensor, folder)
    with np.errstate(over="ignore"):
        narrow = values.astype(STORED[precision])
    if not np.isfinite(narrow).all():
        raise ConfigError(
            f"{tensor.name} holds numbers too large for {STORED[precision]}: "
            "import with --precision bf16"
        )
    return numpy_helper.from_array(narrow, tensor.name)


def _read(tensor: TensorProto, folder: Path | None) -> NDArray[np.float32]:
    if not external_data_helper.uses_external_data(tensor):
        values: NDArray[np.float32] = numpy_helper.to_array(tensor)
        return values
    assert folder is not None, "a file beside a graph is in some folder"
    place = {entry.key: entry.value for entry in tensor.external_data}
    flat = np.fromfile(
        folder / place["location"],
        np.float32,
        count=int(place["length"]) // 4,
        offset=int(place["offset"]),
    )
    return flat.reshape(tuple(tensor.dims))


def _widen_logits(graph: onnx.GraphProto) -> None:
    last = next(n for n in graph.node if "logits" in n.output)
    last.output[0] = "logits.narrow"
    graph.node.append(helper.make_node("Cast", ["logits.narrow"], ["logits"], to=TensorProto.FLOAT))
