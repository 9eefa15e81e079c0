"""Every architecture computes what `transformers` computes, however its tokens are fed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.model import importer
from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request
from services.model.graph import checkpoint, reference, runnable
from tests.unit.services.model.graph import parity

CONTEXT_TOKENS, SLOTS = 160, 4


@dataclass(frozen=True, kw_only=True)
class Made:
    """A checkpoint, and what `transformers` said of it."""

    folder: Path
    logits: NDArray[np.float32]
    greedy: NDArray[np.int64]


@pytest.fixture(scope="module")
def said() -> Mapping[str, NDArray[Any]]:
    """Return all that `transformers` said."""
    with np.load(parity.FILE) as stored:
        return dict(stored)


@pytest.fixture(params=sorted(parity.CASES))
def made(request: pytest.FixtureRequest, said: Mapping[str, NDArray[Any]], tmp_path: Path) -> Made:
    """Write one architecture's checkpoint, the same numbers as when `transformers` ran it."""
    folder = parity.CASES[request.param].write(tmp_path / "hf")
    assert parity.digest(folder) == said[f"{request.param}/digest"], "make parity.npz again"
    return Made(
        folder=folder,
        logits=said[f"{request.param}/logits"],
        greedy=said[f"{request.param}/greedy"],
    )


@pytest.fixture
def backend(made: Made) -> OrtBackend:
    """Put the checkpoint on ONNX Runtime."""
    return ort(made.folder)


def ort(folder: Path) -> OrtBackend:
    """Put a model directory on ONNX Runtime."""
    stored = runnable.load(folder)
    return OrtBackend(
        stored.graph, stored.shape, slots=SLOTS, context_tokens=CONTEXT_TOKENS, threads=1
    )


def test_logits_are_those_of_transformers(made: Made, backend: OrtBackend) -> None:
    """In one piece, in chunks and token by token, and in NumPy."""
    tokens = parity.prompt()
    whole = backend.prefill(0, 0, tokens, parity.LOGITS)
    np.testing.assert_allclose(whole, made.logits, atol=1e-4)

    backend.prefill(1, 0, tokens[:33], 0)
    chunked = backend.prefill(1, 33, tokens[33:], parity.LOGITS)
    np.testing.assert_allclose(chunked, made.logits, atol=1e-4)

    singly = [backend.decode(np.array([t]), np.array([i])).copy() for i, t in enumerate(tokens)]
    np.testing.assert_allclose(np.concatenate(singly)[-parity.LOGITS :], made.logits, atol=1e-4)

    plain = reference.logits(checkpoint.load(made.folder), tokens)
    np.testing.assert_allclose(plain[-parity.LOGITS :], made.logits, atol=1e-4)


def test_greedy_answers_are_those_of_transformers(made: Made, backend: OrtBackend) -> None:
    """Sixty-four tokens, with strangers in the batch and a prompt in chunks."""
    limits = Limits(max_running=SLOTS, kv_tokens=SLOTS * CONTEXT_TOKENS, chunk_tokens=24)
    engine = Engine(backend, limits)
    rng = np.random.default_rng(3)
    prompts = [rng.integers(0, 256, 20), parity.prompt(), rng.integers(0, 256, 7)]
    for i, tokens in enumerate(prompts):
        engine.add(Request(id=i, tokens=tokens, max_tokens=parity.GREEDY_TOKENS))
    answer: list[int] = []
    while not engine.idle:
        outputs = engine.step().outputs
        answer += [o.token for o in outputs if isinstance(o, Generated) and o.id == 1]
    assert answer == made.greedy.tolist()


def test_an_import_in_float32_changes_no_bit(
    made: Made, backend: OrtBackend, tmp_path: Path
) -> None:
    """Imported or not, the same computation runs."""
    importer.convert(made.folder, tmp_path / "out", "fp32")
    tokens = parity.prompt()
    imported = ort(tmp_path / "out").prefill(0, 0, tokens, len(tokens))
    np.testing.assert_array_equal(imported, backend.prefill(0, 0, tokens, len(tokens)))
