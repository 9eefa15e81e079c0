"""Plans built and run: against ONNX Runtime, and against the memory's bandwidth.

Figures are printed, for docs/benchmarks.md; none of them gates.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from services.kit.config import TensorRT
from services.model import importer
from services.model.backends.ort import OrtBackend
from services.model.backends.trt import open as tensorrt
from services.model.backends.trt.backend import TensorRTBackend
from services.model.backends.trt.capacity import profiles
from services.model.backends.trt.device import Task
from services.model.backends.trt.open import Source
from services.model.graph import checkpoint, decoder, runnable
from services.model.graph.checkpoint import FAMILIES
from services.model.graph.decoder import Precision
from services.model.graph.runnable import Runnable
from tests.unit.services.model import tiny

if TYPE_CHECKING:
    from services.model.backends.trt.card import Card
    from services.model.backends.trt.maker import TensorRTMaker

HEADS: Mapping[str, object] = {
    "head_dim": 64, "hidden_size": 256, "intermediate_size": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
HALF_BILLION: Mapping[str, object] = {
    "num_hidden_layers": 24, "hidden_size": 896, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 151936,
    "max_position_embeddings": 4096,
}  # fmt: skip
"""Qwen2.5-0.5B's dimensions."""
FEWEST_COSINE: Mapping[Precision, float] = {
    "fp32": 0.99999, "fp16": 0.999, "bf16": 0.99, "int8": 0.99, "int4": 0.6,
}  # fmt: skip
PROMPT = np.random.default_rng(1).integers(0, 50, 48)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> TensorRT:
    """Where plans are kept."""
    return TensorRT(plan_dir=str(tmp_path_factory.mktemp("plans")))


def source_of(
    stored: Runnable, folder: Path, *, slots: int = 4, context_tokens: int = 96
) -> Source:
    """Return a model to serve."""
    return Source(
        stored=stored, folder=folder, slots=slots, context_tokens=context_tokens, chunk_tokens=64
    )


def told(stage: str, done: int, total: int) -> None:
    """Print progress, so that it can be seen to come."""
    print(f"\r{stage}: {done} of {total}        ", end="", flush=True)


def logits(backend: TensorRTBackend | OrtBackend, slot: int) -> np.ndarray[tuple[int, int]]:
    """Return the logits (T, V) after each token of the prompt."""
    found: np.ndarray[tuple[int, int]] = backend.prefill(slot, 0, PROMPT, len(PROMPT))
    return found


@pytest.mark.parametrize("precision", FEWEST_COSINE)
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_plan_computes_what_onnx_runtime_does(
    maker: "TensorRTMaker", settings: TensorRT, tmp_path: Path, family: str, precision: Precision
) -> None:
    """Every architecture and precision, weights beside the graph; float32 closely."""
    hf = tiny.write(tmp_path / "hf", family=family, changes=HEADS)
    importer.convert(hf, tmp_path / "model", precision, dialect="trt")
    stored = runnable.load(tmp_path / "model", "trt")
    backend = tensorrt.place(maker, source_of(stored, tmp_path / "model"), settings, told)
    reference = runnable.load(hf)
    ort = OrtBackend(reference.graph, reference.shape, slots=1, context_tokens=96, threads=4)
    found, expected = logits(backend, 2), logits(ort, 0)
    if precision == "fp32":
        np.testing.assert_allclose(found, expected, atol=1e-3)
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (found, expected))
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    print(
        f"\n{family} {precision}: cosine {cosine.mean():.6f}, |Δ| {abs(found - expected).max():.2e}"
    )
    assert cosine.mean() >= FEWEST_COSINE[precision]


def test_candidates_are_the_likeliest(
    maker: "TensorRTMaker", settings: TensorRT, tmp_path: Path
) -> None:
    """TensorRT's top-k and normaliser, on the first run of a step and on its replay."""
    folder = tiny.write(tmp_path)
    backend = tensorrt.place(maker, source_of(runnable.load(folder, "trt"), folder), settings, told)
    for _ in range(2):
        ranked = backend.decode(np.array([3, 4, 5]), np.zeros(3, np.int64))
        ids, top, normaliser = ranked.ids.copy(), ranked.logits.copy(), ranked.normaliser.copy()
        everything = ranked.whole(np.arange(3))
        np.testing.assert_array_equal(top, -np.sort(-everything, axis=1)[:, : top.shape[1]])
        np.testing.assert_array_equal(np.take_along_axis(everything, ids, axis=1), top)
        expected = np.log(np.exp(everything.astype(np.float64)).sum(axis=1))
        np.testing.assert_allclose(normaliser, expected, atol=1e-4)


def test_streamed_weights_give_the_same_logits(
    maker: "TensorRTMaker", settings: TensorRT, tmp_path: Path
) -> None:
    """With as little of them on the card as can be."""
    folder = tiny.write(tmp_path, changes=HEADS)
    stored = runnable.load(folder, "trt")
    expected = logits(tensorrt.place(maker, source_of(stored, folder), settings, told), 0)
    model, capacity = tensorrt.prepared(
        stored.graph, stored.shape, slots=4, context_tokens=96, chunk_tokens=64
    )
    task = Task(model=model, folder=None, profiles=profiles(capacity), streaming=True)
    loaded = maker.load(maker.build(task, told).plan, 0)
    streamed = TensorRTBackend(maker.device, capacity, loaded.prefill, loaded.decode)
    print(f"\n{loaded.away_bytes} bytes of weights stay in the host's memory")
    np.testing.assert_allclose(logits(streamed, 0), expected, atol=1e-4)


def test_decode_against_the_memorys_bandwidth(
    maker: "TensorRTMaker", card: "Card", settings: TensorRT, tmp_path: Path
) -> None:
    """Half a billion random parameters in bf16; goal: 70 % of what reading them once allows."""
    folder = tiny.write(tmp_path, family="qwen2", changes=HALF_BILLION)
    raw = checkpoint.load(folder)
    plain = runnable.load(tiny.write(tmp_path / "tiny"), "trt")
    model = decoder.build(raw, "bf16", dialect="trt")
    stored = replace(plain, shape=raw.shape, graph=model, precision="bf16")
    began = perf_counter()
    source = source_of(stored, folder, slots=64, context_tokens=2048)
    backend = tensorrt.place(maker, source, settings, told)
    print(f"\nbuilt and loaded in {perf_counter() - began:.0f} s")
    bandwidth = bandwidth_bytes_per_s(card)
    print(f"{maker.about()}; copies move {bandwidth / 1e12:.2f} TB/s, read and written")
    weights = decoder.step_bytes(raw.shape, "bf16", "trt")
    for batch in (1, 2, 4, 8, 16, 32, 64):
        step_s = seconds_per_step(backend, batch)
        cache = batch * 256 * raw.shape.layers * raw.shape.kv_heads * raw.shape.head_dim * 2 * 2
        print(
            f"batch {batch:3}: {step_s * 1e3:7.3f} ms a step, {batch / step_s:9.0f} tokens/s, "
            f"{(weights + cache) / bandwidth / step_s:5.1%} of the limit"
        )
        assert step_s > 0


def seconds_per_step(backend: TensorRTBackend, batch: int, steps: int = 100) -> float:
    """Return what a decode step takes that looks at 256 tokens, the host's part included."""
    tokens, lengths = np.zeros(batch, np.int64), np.full(batch, 200)
    for _ in range(3):
        backend.decode(tokens, lengths)
    began = perf_counter()
    for _ in range(steps):
        backend.decode(tokens, lengths)
    return (perf_counter() - began) / steps


def bandwidth_bytes_per_s(card: "Card", size_bytes: int = 1 << 31) -> float:
    """Return how fast the card copies its own memory, the best of five by CUDA's events."""
    from cuda.bindings import runtime as cuda  # noqa: PLC0415 - on a GPU machine only

    source, target = card.allocate(size_bytes), card.allocate(size_bytes)
    kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    events = [cuda.cudaEventCreate()[1] for _ in range(2)]
    best_ms = float("inf")
    for _ in range(6):
        cuda.cudaEventRecord(events[0], card.stream)
        cuda.cudaMemcpyAsync(target, source, size_bytes, kind, card.stream)
        cuda.cudaEventRecord(events[1], card.stream)
        card.wait()
        best_ms = min(best_ms, cuda.cudaEventElapsedTime(*events)[1])
    for address in (source, target):
        cuda.cudaFree(address)
    return 2 * size_bytes / best_ms * 1e3
