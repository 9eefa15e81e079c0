"""Graphs that compute in 16 bits."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from services.kit.errors import ConfigError
from services.model import importer
from services.model.backends.cuda import CudaBackend
from services.model.graph import checkpoint, decoder, manifest
from services.model.graph.checkpoint import FAMILIES
from services.model.graph.halves import halved
from services.model.graph.precision import PRECISIONS, STORED, Precision
from tests.unit.services.model import tiny

HALVES: list[Precision] = [p for p in PRECISIONS if p != "fp32"]


@pytest.mark.parametrize("precision", HALVES)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_only_logits_are_left_in_float32(tmp_path: Path, family: str, precision: Precision) -> None:
    """Weights, caches and everything between are in the stored type, and of one type."""
    stored = checkpoint.load(tiny.write(tmp_path, family=family))
    graph = halved(decoder.build(stored, precision), precision, None).graph
    element = helper.np_dtype_to_tensor_dtype(STORED[precision])
    caches = [v for v in (*graph.input, *graph.output) if v.name.startswith(("past", "present"))]
    assert {v.type.tensor_type.elem_type for v in caches} == {element}
    assert {t.data_type for t in graph.initializer} <= {
        element, TensorProto.UINT8, TensorProto.INT64,
    }  # fmt: skip
    assert [n.output[0] for n in graph.node if n.op_type == "Cast"] == ["logits"]


def test_a_graph_of_halves_gives_the_logits_of_float32(tmp_path: Path) -> None:
    """Dropping the casts changes no more than rounding, also where weights are beside the graph."""
    source, target = tiny.write(tmp_path / "hf", tied=False), tmp_path / "imported"
    importer.convert(source, target, "fp16")
    stored = checkpoint.load(source)
    graph = onnx.load(target / manifest.GRAPH, load_external_data=False)
    tokens = np.arange(20)
    wide, narrow = (
        CudaBackend(
            model, stored.shape, folder=target, slots=1, context_tokens=32, device="cpu"
        ).prefill(0, 0, tokens, 20)
        for model in (graph, halved(graph, "fp16", target))
    )
    assert not np.array_equal(narrow, wide)
    np.testing.assert_allclose(narrow, wide, atol=0.02 * np.abs(wide).max())


def test_a_graph_of_float32_is_refused(tmp_path: Path) -> None:
    """Whoever wants a card is told how to import for it."""
    stored = checkpoint.load(tiny.write(tmp_path))
    with pytest.raises(ConfigError, match="--precision bf16"):
        halved(decoder.build(stored), "fp32", None)


def test_a_constant_beyond_the_range_of_halves_is_refused(tmp_path: Path) -> None:
    """Nothing becomes infinite unnoticed."""
    stored = checkpoint.load(tiny.write(tmp_path))
    graph = decoder.build(stored, "fp16")
    norm = next(t for t in graph.graph.initializer if t.name == "model.norm.weight")
    large = np.full(stored.shape.hidden, 1e6, np.float32)
    norm.CopyFrom(onnx.numpy_helper.from_array(large, norm.name))
    with pytest.raises(ConfigError, match=r"model\.norm\.weight"):
        halved(graph, "fp16", None)
