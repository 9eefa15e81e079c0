"""What a graph has to compute exactly: the same numbers, rounded where they are stored only."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from safetensors.numpy import load_file, save_file

from services.model.graph.precision import BITS, HEAD_BITS, STORED, Precision
from services.model.graph.quantise import quantise, restore
from services.model.graph.shards import Floats

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"


def as_stored(source: Path, folder: Path, precision: Precision) -> Path:
    """Write the checkpoint in *source*, its matrices as *precision* keeps them, in float32."""
    shutil.copytree(source, folder)
    path = folder / "model.safetensors"
    weights = {name: w.astype(np.float32) for name, w in load_file(path).items()}
    head = weights.get(_HEAD, weights[_EMBEDDING])
    kept = {name: _kept(name, w, precision) for name, w in weights.items()}
    if precision in BITS:
        # The table that is looked up and the projection are stored apart, if they are one here.
        kept[_HEAD] = _restored(head, HEAD_BITS)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    save_file(kept, path)
    return folder


def exactly(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph of the "ort" dialect whose products do not round what goes in."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for node in out.graph.node:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = 1
    return out


def all_rounded(model: onnx.ModelProto, precision: Precision) -> onnx.ModelProto:
    """Return a graph of the "ort" dialect with norms, biases and angles as "trt" keeps them."""
    out = exactly(model)
    for tensor in out.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            rounded = numpy_helper.to_array(tensor).astype(STORED[precision]).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(rounded, tensor.name))
    return out


def types(model: onnx.ModelProto) -> dict[str, np.dtype[np.generic]]:
    """Return the types of the constants."""
    return {t.name: helper.tensor_dtype_to_np_dtype(t.data_type) for t in model.graph.initializer}


def _kept(name: str, weight: Floats, precision: Precision) -> Floats:
    if weight.ndim == 1:
        return weight
    if precision in BITS and name != _EMBEDDING:
        return _restored(weight, BITS[precision])
    return weight.astype(STORED[precision]).astype(np.float32)


def _restored(weight: Floats, bits: int) -> Floats:
    return restore(*quantise(weight, bits), weight.shape[1])
