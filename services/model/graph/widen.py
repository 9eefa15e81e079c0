"""Have a graph computed in float32 whatever type it states, its stored weights unchanged.

ONNX Runtime has no kernels for bfloat16 on processors and few for halves. There a graph of the
"trt" dialect is checked in this form: the same nodes and numbers, rounded nowhere in between.
"""

import onnx
from onnx import TensorProto, helper

_NARROW = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def widened(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return *model* with float32 inputs, outputs and everything between."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    graph = out.graph
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type in _NARROW:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    stored = {t.name: f"{t.name}.wide" for t in graph.initializer if t.data_type in _NARROW}
    for node in graph.node:
        _retarget(node, stored)
    casts = [helper.make_node("Cast", [n], [w], to=TensorProto.FLOAT) for n, w in stored.items()]
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
    return out


def _retarget(node: onnx.NodeProto, stored: dict[str, str]) -> None:
    """Let *node* read what is widened, and cast to nothing narrower."""
    for i, name in enumerate(node.input):
        node.input[i] = stored.get(name, name)
    if node.op_type == "Cast":
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i in _NARROW:
                attribute.i = TensorProto.FLOAT
