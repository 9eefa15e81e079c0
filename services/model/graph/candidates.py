"""Add to a decoder what mostly suffices to choose a token, so that logits may stay on a device.

Outputs beside `logits` (W, V): `top_ids` (W, K) and `top_logits` (W, K), the likeliest first, and
`normaliser` (W, 1), log Σ exp over the vocabulary.

Letters: W wanted positions, V vocabulary, K candidates.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COUNT = 64
"""K, where the vocabulary is larger; TensorRT takes up to 3,840."""


def with_candidates(model: onnx.ModelProto, vocabulary: int) -> onnx.ModelProto:
    """Return *model* with candidates."""
    count = min(COUNT, vocabulary)
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for name, value in (("top.count", [count]), ("top.axis", [1])):
        out.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), name))
    # The highest is taken off first, or the exponentials of large logits would overflow.
    out.graph.node.extend(
        [
            helper.make_node("TopK", ["logits", "top.count"], ["top_logits", "top_ids"], axis=1),
            helper.make_node("ReduceMax", ["logits", "top.axis"], ["top.highest"]),
            helper.make_node("Sub", ["logits", "top.highest"], ["top.below"]),
            helper.make_node("Exp", ["top.below"], ["top.weights"]),
            helper.make_node("ReduceSum", ["top.weights", "top.axis"], ["top.sum"]),
            helper.make_node("Log", ["top.sum"], ["top.log"]),
            helper.make_node("Add", ["top.log", "top.highest"], ["normaliser"]),
        ]
    )
    info = helper.make_tensor_value_info
    out.graph.output.extend(
        [
            info("top_logits", TensorProto.FLOAT, ["W", count]),
            info("top_ids", TensorProto.INT64, ["W", count]),
            info("normaliser", TensorProto.FLOAT, ["W", 1]),
        ]
    )
    return out
