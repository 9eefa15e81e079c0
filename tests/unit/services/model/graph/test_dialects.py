"""What TensorRT's parser asks of a graph, and what both dialects hold alike.

On a processor ONNX Runtime runs "trt" graphs in fp32, fp16, int8 and int4 as they are. It has no
kernels for bf16: those graphs are checked by ONNX's own rules and type inference, and computed
widened to float32 (tests of parity, imports, and here).
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

from services.model.backends.ort import OrtBackend
from services.model.graph import checkpoint, decoder, dialects
from services.model.graph.checkpoint import FAMILIES, Checkpoint
from services.model.graph.decoder import PRECISIONS, Precision
from services.model.graph.precision import STORED
from services.model.graph.widen import widened
from tests.unit.services.model import tiny
from tests.unit.services.model.graph import exact

COUNT = 20
FARTHEST = {"fp32": 1e-5, "fp16": 0.03, "int8": 0.03, "int4": 0.03}
"""Of logits up to 7, computed in halves and in float32; measured: 0, .010, .013, .015."""


@pytest.fixture(params=sorted(FAMILIES))
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoint:
    """A small random checkpoint of each architecture."""
    tied = request.param in {"llama", "qwen3"}
    changes = {"intermediate_size": 64}
    return checkpoint.load(tiny.write(tmp_path, family=request.param, tied=tied, changes=changes))


@pytest.fixture(params=PRECISIONS)
def precision(request: pytest.FixtureRequest) -> Precision:
    """A precision."""
    found: Precision = request.param
    return found


def native(model: onnx.ModelProto, tokens: np.ndarray) -> np.ndarray:
    """Return the logits (T, V) of *tokens* as ONNX Runtime computes *model* without changes."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # Otherwise it would round to 8 bits what it multiplies by quantised weights.
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    session = onnxruntime.InferenceSession(
        dialects.with_cache(model, 64).SerializeToString(), options, ["CPUExecutionProvider"]
    )
    caches = {
        value.name: np.zeros((1, *value.shape[1:]), STORED["fp16"])
        if value.type == "tensor(float16)"
        else np.zeros((1, *value.shape[1:]), np.float32)
        for value in session.get_inputs()
        if value.name.startswith("past_")
    }
    places = np.arange(len(tokens))
    given = {"tokens": tokens[None], "positions": places[None], "seen": places, "wanted": places}
    found: np.ndarray = session.run(["logits"], given | caches)[0]
    return found


def test_the_graph_is_valid_and_strongly_typed(stored: Checkpoint, precision: Precision) -> None:
    """Standard operators, types that follow from one another, one type throughout."""
    model = decoder.build(stored, precision, dialect="trt")
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)

    assert [(o.domain, o.version) for o in model.opset_import] == [("", 24)]
    assert {node.domain for node in model.graph.node} == {""}
    element = helper.np_dtype_to_tensor_dtype(STORED[precision])
    between = {v.name: v.type.tensor_type.elem_type for v in inferred.graph.value_info}
    whole_numbers = {TensorProto.INT64, TensorProto.BOOL}
    assert set(between.values()) - whole_numbers == {element}
    for value in (*model.graph.input, *model.graph.output):
        if value.name.startswith(("past_", "present_")):
            assert value.type.tensor_type.elem_type == element
    assert model.graph.output[0].name == "logits"
    assert model.graph.output[0].type.tensor_type.elem_type == TensorProto.FLOAT


def test_attention_is_as_tensorrt_takes_it(stored: Checkpoint) -> None:
    """One output, no scale of its own, and caches that are an input and an output only."""
    model = decoder.build(stored, "fp16", dialect="trt")
    attention = [node for node in model.graph.node if node.op_type == "Attention"]
    assert len(attention) == stored.shape.layers
    for node in attention:
        assert len(node.output) == 1
        assert {a.name: helper.get_attribute_value(a) for a in node.attribute} == {"scale": 1.0}
    scatters = [node for node in model.graph.node if node.op_type == "TensorScatter"]
    assert {node.input[0] for node in scatters} == {
        v.name for v in model.graph.input if v.name.startswith("past_")
    }
    assert {node.output[0] for node in scatters} == {
        v.name for v in model.graph.output if v.name.startswith("present_")
    }


def test_a_cache_can_be_given_a_length(stored: Checkpoint) -> None:
    """TensorRT wants one; nothing else changes."""
    model = decoder.build(stored, dialect="trt")
    fixed = dialects.with_cache(model, 77)
    onnx.checker.check_model(fixed, full_check=True)
    for value in (*fixed.graph.input, *fixed.graph.output):
        if value.name.startswith(("past_", "present_")):
            size = [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
            assert size == ["B", stored.shape.kv_heads, 77, stored.shape.head_dim]
    assert fixed.graph.node == model.graph.node


@pytest.mark.parametrize("precision", sorted(FARTHEST))
def test_it_runs_in_the_type_that_it_states(stored: Checkpoint, precision: Precision) -> None:
    """As close to the same graph in float32 as its bits allow."""
    model = decoder.build(stored, precision, dialect="trt")
    tokens = np.random.default_rng(2).integers(0, 256, COUNT)
    backend = OrtBackend(model, stored.shape, slots=1, context_tokens=64, threads=1, dialect="trt")
    wide = backend.prefill(0, 0, tokens, COUNT)
    np.testing.assert_allclose(native(model, tokens), wide, atol=FARTHEST[precision])


def test_bfloat16_runs_widened_alone(stored: Checkpoint) -> None:
    """Should ONNX Runtime learn it, this test says so, and bf16 joins the one above."""
    model = decoder.build(stored, "bf16", dialect="trt")
    tokens = np.random.default_rng(2).integers(0, 256, COUNT)
    with pytest.raises(NoKernel, match="Could not find an implementation"):
        native(model, tokens)
    onnx.checker.check_model(widened(model), full_check=True)
    assert np.isfinite(native(widened(model), tokens)).all()


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_both_dialects_hold_the_same_numbers(stored: Checkpoint, precision: Precision) -> None:
    """Bit for bit, in another order and another type."""
    ort, trt = (
        {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        for model in (decoder.build(stored, precision, dialect=d) for d in dialects.DIALECTS)
    )
    packed = [name for name, value in ort.items() if value.dtype == np.uint8]
    assert packed
    assert set(packed) == {name for name in trt if name in ort and name.rpartition(".int")[1]}
    for name in packed:
        base, _, bits = name.rpartition(".int")
        bytes_, half = ort[name], 1 << (int(bits) - 1)
        if bits == "4":
            bytes_ = np.stack([bytes_ & 15, bytes_ >> 4], axis=-1)
        levels = bytes_.reshape(len(bytes_), -1).astype(np.int16) - half
        np.testing.assert_array_equal(trt[name].astype(np.int16), levels.T)
        scales = ort[f"{base}.scales"].reshape(len(levels), -1)
        np.testing.assert_array_equal(trt[f"{base}.scales"].astype(np.float32), scales.T)
        assert (trt[f"{base}.scales"] > 0).all()
    found = exact.types(decoder.build(stored, precision, dialect="trt"))
    halves = {name for name, dtype in found.items() if dtype == np.float16}
    assert {f"{name.rpartition('.int')[0]}.scales" for name in packed} <= halves
    assert not [name for name, dtype in found.items() if dtype == np.float32]
