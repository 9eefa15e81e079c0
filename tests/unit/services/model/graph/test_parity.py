"""Every architecture computes what `transformers` computes, however its tokens are fed.

In float32 that is `transformers` itself. In fewer bits it is a decoder in NumPy over the weights as
they are stored ("ort"), and the "ort" graph with norms, biases and angles rounded too ("trt"): the
rounding is what a precision means, and everything after it has to agree to 1e-4 again.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from services.model import importer
from services.model.backends.base import Ids, Logits
from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request
from services.model.graph import checkpoint, decoder, reference, runnable
from services.model.graph.checkpoint import Checkpoint
from services.model.graph.decoder import PRECISIONS, Precision
from services.model.graph.dialects import DIALECTS, DialectName
from tests.unit.services.model.graph import exact, parity

CONTEXT_TOKENS, SLOTS = 160, 4


@dataclass(frozen=True, kw_only=True)
class Made:
    """A checkpoint, and what `transformers` said of it."""

    folder: Path
    stored: Checkpoint
    logits: NDArray[np.float32]
    greedy: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A dialect and a precision of a checkpoint, and the logits that it has to give."""

    backend: OrtBackend
    expected: NDArray[np.float32]


@pytest.fixture(scope="module")
def said() -> Mapping[str, NDArray[Any]]:
    """Return all that `transformers` said."""
    with np.load(parity.FILE) as stored:
        return dict(stored)


@pytest.fixture(scope="module", params=sorted(parity.CASES))
def made(
    request: pytest.FixtureRequest,
    said: Mapping[str, NDArray[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Made:
    """Write one architecture's checkpoint, the same numbers as when `transformers` ran it."""
    folder = parity.CASES[request.param].write(tmp_path_factory.mktemp("made") / "hf")
    assert parity.digest(folder) == said[f"{request.param}/digest"], "make parity.npz again"
    return Made(
        folder=folder,
        stored=checkpoint.load(folder),
        logits=said[f"{request.param}/logits"],
        greedy=said[f"{request.param}/greedy"],
    )


@pytest.fixture(scope="module", params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> DialectName:
    """A dialect."""
    found: DialectName = request.param
    return found


@pytest.fixture(scope="module", params=PRECISIONS)
def cell(
    request: pytest.FixtureRequest,
    made: Made,
    dialect: DialectName,
    tmp_path_factory: pytest.TempPathFactory,
) -> Cell:
    """One cell of the matrix, on ONNX Runtime."""
    precision: Precision = request.param
    model = decoder.build(made.stored, precision, dialect=dialect)
    backend = on_ort(exact.exactly(model), made.stored, dialect)
    if precision == "fp32":
        return Cell(backend=backend, expected=made.logits)
    if dialect == "ort":
        kept = exact.as_stored(made.folder, tmp_path_factory.mktemp("kept") / "hf", precision)
        expected = reference.logits(checkpoint.load(kept), parity.prompt())[-parity.LOGITS :]
    else:
        rounded = exact.all_rounded(decoder.build(made.stored, precision), precision)
        expected = whole(on_ort(rounded, made.stored, "ort"), parity.prompt())
    return Cell(backend=backend, expected=expected)


def on_ort(model: Any, stored: Checkpoint, dialect: DialectName) -> OrtBackend:
    """Put a graph on ONNX Runtime."""
    return OrtBackend(
        model, stored.shape, slots=SLOTS, context_tokens=CONTEXT_TOKENS, threads=1, dialect=dialect
    )


def whole(backend: OrtBackend, tokens: Ids) -> Logits:
    """Feed a prompt in one piece."""
    return backend.prefill(0, 0, tokens, parity.LOGITS)


def in_chunks(backend: OrtBackend, tokens: Ids) -> Logits:
    """Feed a prompt in pieces of different lengths."""
    backend.prefill(1, 0, tokens[:33], 0)
    backend.prefill(1, 33, tokens[33:50], 0)
    return backend.prefill(1, 50, tokens[50:], parity.LOGITS)


def singly(backend: OrtBackend, tokens: Ids) -> Logits:
    """Feed a prompt token by token."""
    steps = [backend.decode(np.array([t]), np.array([i])).copy() for i, t in enumerate(tokens)]
    return np.concatenate(steps)[-parity.LOGITS :]


def among_strangers(backend: OrtBackend, tokens: Ids) -> Logits:
    """Feed the end of a prompt while sequences of other lengths take the same steps."""
    rng = np.random.default_rng(3)
    lengths = np.array([90, len(tokens) - parity.LOGITS, 7])
    for slot, fed in enumerate((rng.integers(0, 256, 90), tokens[: lengths[1]], tokens[:7])):
        backend.prefill(slot, 0, fed, 0)
    steps = []
    for i, token in enumerate(tokens[lengths[1] :]):
        strangers = rng.integers(0, 256, 2)
        together = backend.decode(np.array([strangers[0], token, strangers[1]]), lengths + i)
        steps.append(together[1].copy())
    return np.stack(steps)


MODES: dict[str, Callable[[OrtBackend, Ids], Logits]] = {
    f.__name__: f for f in (whole, in_chunks, singly, among_strangers)
}


@pytest.mark.parametrize("mode", MODES)
def test_every_cell_of_the_matrix_agrees(cell: Cell, mode: str) -> None:
    """Architecture, dialect, precision, and how the tokens come."""
    logits = MODES[mode](cell.backend, parity.prompt())
    np.testing.assert_allclose(logits, cell.expected, atol=1e-4)


def test_the_decoder_in_numpy_is_that_of_transformers(made: Made) -> None:
    """What imports are checked with."""
    plain = reference.logits(made.stored, parity.prompt())
    np.testing.assert_allclose(plain[-parity.LOGITS :], made.logits, atol=1e-4)


def test_greedy_answers_are_those_of_transformers(made: Made, dialect: DialectName) -> None:
    """Sixty-four tokens, with strangers in the batch and a prompt in chunks."""
    backend = on_ort(decoder.build(made.stored, dialect=dialect), made.stored, dialect)
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
    made: Made, dialect: DialectName, tmp_path: Path
) -> None:
    """Imported or not, the same computation runs."""
    importer.convert(made.folder, tmp_path / "out", "fp32", dialect=dialect)
    here, there = (
        whole(on_ort(found.graph, made.stored, dialect), parity.prompt())
        for found in (runnable.load(f, dialect) for f in (made.folder, tmp_path / "out"))
    )
    np.testing.assert_array_equal(here, there)


def test_rows_of_several_new_tokens_share_a_step(made: Made) -> None:
    """In the "trt" dialect, with a past in each row, filled up where a row has fewer."""
    model = decoder.build(made.stored, dialect="trt").SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # it complains where a cache cannot be shared
    session = onnxruntime.InferenceSession(model, options, ["CPUExecutionProvider"])
    tokens, other = parity.prompt(), np.random.default_rng(4).integers(0, 256, 67)
    shape = (3, made.stored.shape.kv_heads, CONTEXT_TOKENS, made.stored.shape.head_dim)
    names = [value.name for value in session.get_inputs() if value.name.startswith("past_")]
    caches = dict.fromkeys(names, np.zeros(shape, np.float32))

    def step(rows: list[Ids], starts: list[int], wanted: NDArray[np.int64]) -> Logits:
        count = max(map(len, rows))
        given = {
            "tokens": np.stack([np.pad(row, (0, count - len(row))) for row in rows]),
            "positions": np.array(starts)[:, None] + np.arange(count),
            "seen": np.arange(max(starts) + count),
            "wanted": wanted,
        }
        presents = [name.replace("past", "present") for name in names]
        logits, *new = session.run(["logits", *presents], given | caches)
        caches.update(zip(names, new, strict=True))
        found: Logits = logits
        return found

    step([other[:20], tokens[:33], other[:7]], [0, 0, 0], np.arange(0))
    last = np.arange(47 - parity.LOGITS, 47)
    rows = [other[20:], tokens[33:], other[7:50]]
    logits = step(rows, [20, 33, 7], np.concatenate([last + 47, last + 2 * 47 - 4]))

    np.testing.assert_allclose(logits[: parity.LOGITS], made.logits, atol=1e-4)
    alone = whole(on_ort(decoder.build(made.stored), made.stored, "ort"), other[:50])
    np.testing.assert_allclose(logits[parity.LOGITS :], alone, atol=1e-4)


def test_references_that_changed_are_noticed(said: Mapping[str, NDArray[Any]]) -> None:
    """What `make parity` fails for: a logit, a token, a name."""
    assert list(parity.differences(said, said)) == []
    other = dict(said)
    other["qwen2/logits"] = said["qwen2/logits"] + np.float32(2e-5)
    other["llama/greedy"] = said["llama/greedy"][::-1]
    del other["mistral/digest"]
    names = [line.split()[0] for line in parity.differences(said, other)]
    assert names == ["mistral/digest", "llama/greedy", "qwen2/logits"]
