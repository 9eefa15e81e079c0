"""What of the TensorRT backend the laws of every backend do not ask for."""

from pathlib import Path

import numpy as np
import pytest

from services.model.backends.base import Backend
from services.model.backends.ort import OrtBackend
from services.model.backends.trt.backend import TensorRTBackend
from services.model.engine import sampler
from services.model.engine.engine import Engine
from services.model.engine.types import Generated, Limits, Request, Sampling
from services.model.graph import checkpoint, decoder
from tests.unit.services.model import tiny
from tests.unit.services.model.backends.trt.processor import Processor, on_processor


@pytest.fixture
def backend(tmp_path: Path) -> TensorRTBackend:
    """Four slots, batches of 2 and 4."""
    stored = checkpoint.load(tiny.write(tmp_path))
    return on_processor(stored, slots=4, context_tokens=64, buckets=(2, 4))


def recordings(backend: TensorRTBackend) -> int:
    """Return how many graphs were recorded."""
    assert isinstance(backend._device, Processor)
    return backend._device.recordings


def test_each_batch_size_is_recorded_once(backend: TensorRTBackend) -> None:
    """One and two rows share a graph, three and four another; later steps replay them."""
    for count in (1, 2, 3, 4, 1, 2, 3, 4):
        backend.decode(np.arange(count), np.zeros(count, np.int64))
    assert recordings(backend) == 2


def test_a_replayed_step_gives_what_the_first_gave(backend: TensorRTBackend) -> None:
    """A graph reads what is in the pinned arrays when it is replayed."""
    tokens, lengths = np.array([3, 4, 5]), np.zeros(3, np.int64)
    first = backend.decode(tokens, lengths).whole(np.arange(3)).copy()
    backend.decode(tokens[::-1].copy(), lengths)
    again = backend.decode(tokens, lengths).whole(np.arange(3))
    np.testing.assert_array_equal(first, again)


def test_steps_that_cannot_be_recorded_run_all_the_same(backend: TensorRTBackend) -> None:
    """Each time anew, with its own shapes."""
    tokens, lengths = np.array([3, 4, 5]), np.zeros(3, np.int64)
    expected = backend.decode(tokens, lengths).whole(np.arange(3)).copy()
    assert isinstance(backend._device, Processor)
    backend._graphs.clear()
    backend._device.records = False
    for count in (3, 1, 3, 2, 3):
        found = backend.decode(tokens[:count], lengths[:count]).whole(np.arange(count))
        np.testing.assert_array_equal(found, expected[:count])


def test_candidates_are_the_likeliest_of_all_logits(backend: TensorRTBackend) -> None:
    """In order, with the normaliser of the whole row."""
    ranked = backend.decode(np.array([3, 4, 5]), np.zeros(3, np.int64))
    ids, top, normaliser = ranked.ids.copy(), ranked.logits.copy(), ranked.normaliser.copy()
    logits = ranked.whole(np.arange(3))
    assert ids.shape == top.shape == (3, min(64, logits.shape[1]))
    np.testing.assert_array_equal(top, -np.sort(-logits, axis=1)[:, : top.shape[1]])
    np.testing.assert_array_equal(np.take_along_axis(logits, ids, axis=1), top)
    np.testing.assert_allclose(normaliser, sampler.log_sum_exp(logits), atol=1e-5)


def test_whole_rows_are_fetched_in_any_order(backend: TensorRTBackend) -> None:
    """Those that are asked for, and no others."""
    ranked = backend.decode(np.array([3, 4, 5]), np.zeros(3, np.int64))
    everything = ranked.whole(np.arange(3)).copy()
    np.testing.assert_array_equal(ranked.whole(np.array([2, 0])), everything[[2, 0]])


def test_a_slot_may_be_full_to_the_last_position_of_the_model(tmp_path: Path) -> None:
    """A row that only fills up stays within what positions there are."""
    stored = checkpoint.load(tiny.write(tmp_path))
    context = stored.shape.context_tokens
    backend = on_processor(stored, slots=2, context_tokens=context, buckets=(2,))
    tokens = np.arange(context) % 50
    expected = backend.prefill(1, 0, tokens, 1)
    backend.decode(np.array([3]), np.array([0]))
    again = backend.prefill(1, context - 1, tokens[-1:], 1)
    np.testing.assert_allclose(again, expected, atol=1e-5)


def test_a_card_that_is_too_small_says_so(tmp_path: Path) -> None:
    """Nothing is half allocated and then used."""
    stored = checkpoint.load(tiny.write(tmp_path))
    with pytest.raises(MemoryError):
        on_processor(stored, slots=4, context_tokens=64, buckets=(4,), size_bytes=10_000)


def answers(backend: Backend) -> dict[int, list[tuple[int, float]]]:
    """Return tokens and log-probabilities of a dozen requests of every kind."""
    rng = np.random.default_rng(5)
    shared = rng.integers(0, 50, 20)
    kinds = [
        Sampling(),
        Sampling(temperature=0.8, top_k=8, seed=3),
        Sampling(temperature=0.8, top_p=0.9, seed=4),
        Sampling(repetition_penalty=1.3),
    ]
    limits = Limits(max_running=4, kv_tokens=4 * 64, chunk_tokens=12)
    engine = Engine(backend, limits)
    for i in range(12):
        tokens = np.append(shared[: 20 * (i % 2)], rng.integers(0, 50, 3 + 2 * i))
        sampling, rank = kinds[i % len(kinds)], int(rng.integers(0, 3))
        engine.add(
            Request(
                id=i, tokens=tokens, max_tokens=3 + i % 5, sampling=sampling, rank=rank,
                top_logprobs=i % 3,
            )
        )  # fmt: skip
    found: dict[int, list[tuple[int, float]]] = {}
    while not engine.idle:
        for out in engine.step().outputs:
            assert isinstance(out, Generated)
            found.setdefault(out.id, []).append((out.token, round(out.logprob, 3)))
    return found


def test_a_whole_engine_gives_the_answers_of_onnx_runtime(tmp_path: Path) -> None:
    """Requests that share beginnings, wait, yield and sample: the same tokens on both."""
    stored = checkpoint.load(tiny.write(tmp_path))
    ort = OrtBackend(decoder.build(stored), stored.shape, slots=4, context_tokens=64, threads=1)
    ours = on_processor(stored, slots=4, context_tokens=64, buckets=(2, 4))
    expected = answers(ort)
    assert len(expected) == 12
    assert answers(ours) == expected
