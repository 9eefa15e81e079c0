"""The laws of `services.model.backends.base`, for every backend."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.model.backends.base import Backend, fetched
from services.model.backends.cuda import CudaBackend
from services.model.backends.fake import FakeBackend
from services.model.backends.ort import OrtBackend
from services.model.backends.paced import Paced
from services.model.graph import checkpoint, decoder
from services.model.graph.checkpoint import FAMILIES, Checkpoint, Shape
from services.model.graph.dialects import DIALECTS, DialectName
from tests.unit.services.model import tiny
from tests.unit.services.model.backends.trt.processor import on_processor

Make = Callable[[], Backend]
Floats = NDArray[np.float64]
SLOTS = 4


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """An architecture."""
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def stored(request: pytest.FixtureRequest, family: str, tmp_path: Path) -> Checkpoint:
    """A small random checkpoint of each architecture."""
    return checkpoint.load(tiny.write(tmp_path, family=family, tied=request.param))


@pytest.fixture(params=["fake", "paced", "cuda", *DIALECTS, "tensorrt"])
def backend(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backend:
    """One of the backends, empty."""
    fake = FakeBackend(slots=SLOTS, context_tokens=64, vocabulary=50)
    if request.param == "fake":
        return fake
    if request.param == "paced":
        return Paced(fake, step_s=1e-5, step_s_per_running=1e-6, prefill_s_per_token=1e-6)
    stored = checkpoint.load(tiny.write(tmp_path_factory.mktemp("ort")))
    if request.param == "cuda":
        return cuda(stored)
    if request.param == "tensorrt":
        # All but the card itself; batches of 1 and 3 are filled up to 2 and 4.
        return on_processor(stored, slots=SLOTS, context_tokens=64, buckets=(2, 4))
    return ort(stored, request.param)


@pytest.fixture
def tolerance() -> float:
    """How far two ways to the same logits may differ."""
    return 1e-5


def ort(stored: Checkpoint, dialect: DialectName) -> OrtBackend:
    """Put *stored* on ONNX Runtime, in either dialect."""
    model = decoder.build(stored, dialect=dialect)
    return OrtBackend(
        model, stored.shape, slots=SLOTS, context_tokens=64, threads=1, dialect=dialect
    )


def cuda(stored: Checkpoint) -> CudaBackend:
    """Put *stored* on what is made for cards, in ordinary memory."""
    return CudaBackend(
        decoder.build(stored), stored.shape, slots=SLOTS, context_tokens=64, device="cpu"
    )


def prompt(count: int, seed: int) -> NDArray[np.int64]:
    """Return random token ids (T,)."""
    return np.random.default_rng(seed).integers(0, 50, count)


def test_a_prompt_in_pieces_gives_the_logits_of_the_whole(
    backend: Backend, tolerance: float
) -> None:
    """Chunked prefill changes nothing."""
    tokens = prompt(23, 1)
    whole = backend.prefill(0, 0, tokens, len(tokens))
    pieces = [
        backend.prefill(1, start, tokens[start:stop], stop - start)
        for start, stop in ((0, 7), (7, 8), (8, 20), (20, 23))
    ]
    np.testing.assert_allclose(np.concatenate(pieces), whole, atol=tolerance)


def test_decoding_gives_the_logits_of_prefilling(backend: Backend, tolerance: float) -> None:
    """Token by token, and all at once, are the same computation."""
    tokens = prompt(12, 2)
    whole = backend.prefill(0, 0, tokens, len(tokens))
    for at, token in enumerate(tokens):
        step = fetched(backend.decode(np.array([token]), np.array([at])))
        np.testing.assert_allclose(step[0], whole[at], atol=tolerance)


def test_a_row_of_a_batch_is_the_sequence_alone(backend: Backend, tolerance: float) -> None:
    """Sequences of different lengths share a step without touching one another."""
    prompts = [prompt(count, 3 + count) for count in (5, 17, 1, 30)]
    for slot, tokens in enumerate(prompts):
        backend.prefill(slot, 0, tokens, 0)
    lengths = np.array([len(p) for p in prompts])
    together = fetched(backend.decode(np.array([7, 8, 9, 10]), lengths)).copy()
    for slot, tokens in enumerate(prompts):
        alone = backend.prefill(0, 0, np.append(tokens, 7 + slot), 1)
        np.testing.assert_allclose(together[slot], alone[0], atol=tolerance)


def test_a_copied_sequence_goes_on_in_its_new_slot(backend: Backend, tolerance: float) -> None:
    """Copying a slot moves all that a sequence is, whatever was there before."""
    tokens = prompt(9, 4)
    backend.prefill(0, 0, prompt(40, 5), 0)
    backend.prefill(2, 0, tokens, 0)
    backend.copy(2, 0, len(tokens))
    moved = fetched(backend.decode(np.array([11]), np.array([len(tokens)]))).copy()
    alone = backend.prefill(1, 0, np.append(tokens, 11), 1)
    np.testing.assert_allclose(moved, alone, atol=tolerance)


def test_swapped_sequences_go_on_in_each_others_slots(backend: Backend, tolerance: float) -> None:
    """Swapping moves both of two sequences of different lengths."""
    prompts = [prompt(9, 9), prompt(21, 10)]
    for slot, tokens in zip((0, 1), reversed(prompts), strict=True):
        backend.prefill(slot, 0, tokens, 0)
    backend.swap(0, 1, 21)
    lengths = np.array([len(p) for p in prompts])
    moved = fetched(backend.decode(np.array([11, 12]), lengths)).copy()
    for i, tokens in enumerate(prompts):
        alone = backend.prefill(2, 0, np.append(tokens, 11 + i), 1)
        np.testing.assert_allclose(moved[i], alone[0], atol=tolerance)


def test_a_beginning_is_lent_without_a_trace(backend: Backend, tolerance: float) -> None:
    """A sequence that goes on from another's beginning gives the logits of being fed whole."""
    shared, rest = prompt(30, 11), prompt(6, 12)
    backend.prefill(1, 0, np.append(shared, prompt(9, 13)), 0)
    backend.copy(1, 0, len(shared))
    lent = backend.prefill(0, len(shared), rest, len(rest))
    whole = backend.prefill(2, 0, np.append(shared, rest), len(rest))
    np.testing.assert_allclose(lent, whole, atol=tolerance)


def test_a_slot_is_reused_without_a_trace(backend: Backend, tolerance: float) -> None:
    """What a slot held before does not show in the next sequence."""
    backend.prefill(0, 0, prompt(50, 6), 0)
    tokens = prompt(10, 7)
    reused = backend.prefill(0, 0, tokens, 1)
    fresh = backend.prefill(3, 0, tokens, 1)
    np.testing.assert_allclose(reused, fresh, atol=tolerance)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_step_leaves_the_other_slots_alone(
    backend: Backend, tolerance: float, count: int
) -> None:
    """What slots behind the batch hold, be they full to the last token, is there afterwards."""
    kept = [prompt(n, 40 + n) for n in (7, 20, 63, 64)]
    for slot, tokens in enumerate(kept):
        backend.prefill(slot, 0, tokens, 0)
    for at in range(3):
        backend.decode(np.arange(count), np.full(count, at))
    for slot in range(count, SLOTS):
        last = len(kept[slot]) - 1
        again = backend.prefill(slot, last, kept[slot][last:], 1)
        np.testing.assert_allclose(again, backend.prefill(0, 0, kept[slot], 1), atol=tolerance)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_onnx_decoder_equals_a_decoder_written_in_numpy(
    stored: Checkpoint, dialect: DialectName
) -> None:
    """The graph computes each architecture as it is defined."""
    tokens = prompt(20, 8)
    logits = ort(stored, dialect).prefill(0, 0, tokens, len(tokens))
    np.testing.assert_allclose(logits, reference(stored, tokens), atol=1e-4)


def reference(stored: Checkpoint, tokens: NDArray[np.int64]) -> Floats:
    """Return the logits (T, V) after each of *tokens* (T,), in float64, the plain way."""
    w = {name: weight.astype(np.float64) for name, weight in stored.weights.items()}
    shape = stored.shape
    x = w["model.embed_tokens.weight"][tokens]
    for i in range(shape.layers):
        layer = f"model.layers.{i}"
        h = rms(x, w[f"{layer}.input_layernorm.weight"], shape.norm_epsilon)
        x = x + attention(w, f"{layer}.self_attn", h, shape)
        h = rms(x, w[f"{layer}.post_attention_layernorm.weight"], shape.norm_epsilon)
        gate, up = (h @ w[f"{layer}.mlp.{n}_proj.weight"].T for n in ("gate", "up"))
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{layer}.mlp.down_proj.weight"].T
    x = rms(x, w["model.norm.weight"], shape.norm_epsilon)
    out = w["model.embed_tokens.weight" if shape.tied else "lm_head.weight"]
    logits: Floats = x @ out.T
    return logits


def rms(x: Floats, weight: Floats, epsilon: float) -> Floats:
    """Divide by the root of the mean square."""
    out: Floats = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + epsilon) * weight
    return out


def attention(w: dict[str, Floats], name: str, h: Floats, shape: Shape) -> Floats:
    """Attend causally, each group of query heads to its key head."""
    count, width = len(h), shape.head_dim
    q, k, v = (
        (h @ w[f"{name}.{n}_proj.weight"].T + w.get(f"{name}.{n}_proj.bias", 0.0)).reshape(
            count, -1, width
        )
        for n in ("q", "k", "v")
    )
    if shape.family.qk_norm:
        q = rms(q, w[f"{name}.q_norm.weight"], shape.norm_epsilon)
        k = rms(k, w[f"{name}.k_norm.weight"], shape.norm_epsilon)
    q, k = rotated(q, shape.rope_theta), rotated(k, shape.rope_theta)
    mixed = np.empty_like(q)
    for head in range(shape.heads):
        group = head // (shape.heads // shape.kv_heads)
        scores = q[:, head] @ k[:, group].T / np.sqrt(width)
        scores[np.triu_indices(count, 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        mixed[:, head] = weights / weights.sum(axis=1, keepdims=True) @ v[:, group]
    out: Floats = mixed.reshape(count, -1) @ w[f"{name}.o_proj.weight"].T
    return out


def rotated(x: Floats, theta: float) -> Floats:
    """Turn each pair (j, j + D/2) of (T, H, D) by an angle that grows with the position."""
    count, _, width = x.shape
    angles = np.outer(np.arange(count), theta ** (-np.arange(0, width, 2) / width))[:, None]
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            second * np.cos(angles) + first * np.sin(angles),
        ],
        axis=-1,
    )
