"""The CUDA backend against ONNX Runtime on the processor, and its decode speed.

python -m pytest -m gpu tests/gpu/test_cuda_backend.py
"""

import sys
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
from numpy.typing import NDArray

from services.model import importer
from services.model.backends import cuda
from services.model.backends.cuda import CudaBackend
from services.model.backends.ort import OrtBackend
from services.model.graph import decoder, runnable
from services.model.graph.precision import Precision
from services.model.graph.runnable import Runnable
from tests.bench import random_checkpoint
from tests.unit.services.model import tiny

onnxruntime = pytest.importorskip("onnxruntime")
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CUDAExecutionProvider" not in onnxruntime.get_available_providers(),
        reason="needs onnxruntime-gpu",
    ),
]
SLOTS, CONTEXT = 4, 96
CLOSE = {"fp16": 0.02, "bf16": 0.1, "int8": 0.05, "int4": 0.1}
"""Largest difference of logits, as a share of the largest logit."""
SHAPE = {"head_dim": 64, "hidden_size": 256, "intermediate_size": 512}
"""Kernels for cards have their own idea of the smallest head."""


@pytest.fixture(scope="module", params=CLOSE)
def stored(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runnable:
    """A small model in each precision."""
    folder = tmp_path_factory.mktemp("cuda")
    importer.convert(tiny.write(folder / "hf", changes=SHAPE), folder / "model", request.param)
    return runnable.load(folder / "model")


@pytest.fixture(scope="module", params=[False, True], ids=["launches", "graphs"])
def card(request: pytest.FixtureRequest, stored: Runnable) -> CudaBackend:
    """The model on a card, its decode steps captured or not."""
    return cuda.load(stored, slots=SLOTS, context_tokens=CONTEXT, graphs=request.param)


@pytest.fixture(scope="module")
def processor(stored: Runnable) -> OrtBackend:
    """The model on the processor."""
    return OrtBackend(stored.graph, stored.shape, slots=SLOTS, context_tokens=CONTEXT, threads=4)


def prompt(count: int, seed: int) -> NDArray[np.int64]:
    """Return random token ids (T,)."""
    return np.random.default_rng(seed).integers(0, 250, count)


def assert_close(
    found: NDArray[np.float32], wanted: NDArray[np.float32], precision: Precision
) -> None:
    """Say which logits differ by more than the precision explains."""
    limit = CLOSE[precision] * float(np.abs(wanted).max())
    np.testing.assert_allclose(found, wanted, atol=limit)


def test_prompts_in_pieces_agree_with_the_processor(
    stored: Runnable, card: CudaBackend, processor: OrtBackend
) -> None:
    """A prompt in two pieces gives the processor's logits of the whole."""
    tokens = prompt(40, 1)
    card.prefill(1, 0, tokens[:23], 0)
    found = card.prefill(1, 23, tokens[23:], 17)
    assert_close(found, processor.prefill(0, 0, tokens, 17), stored.precision)


def test_steps_of_every_batch_size_agree_with_the_processor(
    stored: Runnable, card: CudaBackend, processor: OrtBackend
) -> None:
    """Rows of different lengths, step after step: captured, replayed, and grown in between."""
    prompts = [prompt(n, n) for n in (5, 33, 1, 17)]
    for slot, tokens in enumerate(prompts):
        for backend in (card, processor):
            backend.prefill(slot, 0, tokens, 0)
    for rows in (1, 4, 2):
        lengths = np.array([len(p) for p in prompts[:rows]])
        for step in range(4):
            tokens = prompt(rows, 100 + step)
            found = card.decode(tokens, lengths + step).copy()
            assert_close(found, processor.decode(tokens, lengths + step), stored.precision)


def test_slots_are_copied_and_swapped_on_the_card(
    stored: Runnable, card: CudaBackend, processor: OrtBackend
) -> None:
    """A sequence that moved goes on as if it had not."""
    one, other = prompt(30, 7), prompt(12, 8)
    card.prefill(0, 0, one, 0)
    card.prefill(1, 0, other, 0)
    card.swap(0, 1, 30)
    card.copy(1, 2, 30)
    for slot, tokens in ((0, other), (1, one), (2, one)):
        found = card.prefill(slot, len(tokens), np.array([9]), 1)
        wanted = processor.prefill(0, 0, np.append(tokens, 9), 1)
        assert_close(found, wanted, stored.precision)


@pytest.mark.parametrize("graphs", [False, True])
def test_speed(tmp_path: Path, *, graphs: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Print decode speed of a 0.5B model beside the bytes that a step reads; gate nothing."""
    importer.convert(random_checkpoint.write(tmp_path / "hf"), tmp_path / "model", "bf16")
    stored = runnable.load(tmp_path / "model")
    backend = cuda.load(stored, slots=16, context_tokens=1024, graphs=graphs)
    for rows in (1, 16):
        lengths, tokens = np.full(rows, 128), prompt(rows, 3)
        for _ in range(5):
            backend.decode(tokens, lengths)
        start = perf_counter()
        for _ in range(50):
            backend.decode(tokens, lengths)
        step_s = (perf_counter() - start) / 50
        read = decoder.step_bytes(stored.shape, "fp32") / 2
        said = f"graphs {graphs}, {rows} rows: {rows / step_s:.0f} tokens/s"
        with capsys.disabled():
            sys.stdout.write(f"{said}, {read / step_s / 1e9:.0f} GB/s of weights\n")
