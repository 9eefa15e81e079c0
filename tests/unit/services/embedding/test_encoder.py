"""The encoder: its graph against plain NumPy, its 8 bits against fp32, its cache."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from services.embedding.checkpoint import open_checkpoint, read_weights
from services.embedding.core.pooling import unit
from services.embedding.encoder import OnnxEncoder, converted, load, open_session
from services.kit.config import Embedding
from services.kit.errors import ConfigError
from tests.unit.services.embedding import tiny
from tests.unit.services.embedding.bert import hidden_states
from zeta_client.tasks import generate

TEXTS = (
    "hi",
    "How many apples are left when 3 of 12 are eaten?",
    "def f(xs): return [x for x in xs if x > 0]",
    "The quick brown fox jumps over the lazy dog. " * 12,
)


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((a * b).sum(axis=1), np.float32)


@pytest.fixture(scope="session")
def exact(tmp_path_factory: pytest.TempPathFactory) -> OnnxEncoder:
    """Open the same model in fp32."""
    checkpoint = open_checkpoint("")
    session = open_session(
        converted(checkpoint, "fp32", tmp_path_factory.mktemp("fp32")), threads=1
    )
    return OnnxEncoder("fp32", checkpoint, session, max_tokens=128)


def encode(encoder: OnnxEncoder, texts: list[str]) -> NDArray[np.float32]:
    return np.concatenate([encoder.run([encoder.prepare(text).ids]) for text in texts])


@pytest.mark.parametrize("text", TEXTS)
def test_the_graph_computes_what_numpy_does(exact: OnnxEncoder, text: str) -> None:
    """The fp32 graph agrees with an independent forward pass to 1e-4."""
    checkpoint = open_checkpoint("")
    ids = exact.prepare(text).ids
    hidden = hidden_states(read_weights(checkpoint), ids, layers=6, heads=12)
    expected = unit(np.asarray(hidden.mean(axis=0, keepdims=True), np.float32))

    np.testing.assert_allclose(exact.run([ids]), expected, atol=1e-4)


def test_eight_bits_keep_the_direction(minilm: OnnxEncoder, exact: OnnxEncoder) -> None:
    """Cosine to fp32 is at least .99 for 95 of 100 prompts."""
    texts = [task.prompt for task in generate(120, split="heldout", seed=3)]
    texts += [text[:400] for text in TEXTS]

    similar = cosines(encode(minilm, texts), encode(exact, texts))

    assert np.percentile(similar, 5) >= 0.99


def test_a_vector_does_not_depend_on_its_batch(minilm: OnnxEncoder) -> None:
    """Alone, or padded next to texts forty times as long: the same within 1e-3."""
    together = minilm.run([minilm.prepare(text).ids for text in TEXTS])

    np.testing.assert_allclose(together, encode(minilm, list(TEXTS)), atol=1e-3)


def test_meaning_is_closer_than_wording(minilm: OnnxEncoder) -> None:
    """A paraphrase lies nearer than a sentence that shares its words."""
    texts = ["How do I reset my password?", "I forgot my login secret", "How do I bake my bread?"]
    asked, same, other = encode(minilm, texts)

    assert asked @ same > asked @ other


def test_long_texts_keep_head_and_tail(minilm: OnnxEncoder) -> None:
    """All tokens are counted, at most `max_tokens` run, the special ones at both ends stay."""
    text = "start " + "middle " * 500 + "end"
    prepared = minilm.prepare(text)

    assert prepared.truncated
    assert prepared.tokens == 502
    assert len(prepared.ids) == 128
    assert prepared.ids[0] == minilm.prepare("x").ids[0]
    assert prepared.ids[-2:] == minilm.prepare("end").ids[-2:]


@pytest.mark.parametrize("pooling", ["pooling_mode_mean_tokens", "pooling_mode_cls_token"])
def test_any_bert_directory_can_be_configured(tmp_path: Path, pooling: str) -> None:
    """Another model is converted, pooled and shortened by what its own files say."""
    folder = tiny.write(tmp_path, pooling=pooling)
    checkpoint = open_checkpoint(str(folder))
    session = open_session(converted(checkpoint, "fp32", tmp_path), threads=1)
    encoder = OnnxEncoder("tiny", checkpoint, session, max_tokens=128)
    long = encoder.prepare("a b c d e f g h i j " * 9)
    ids = encoder.prepare("a c e").ids
    hidden = hidden_states(
        read_weights(checkpoint), ids, layers=tiny.LAYERS, heads=tiny.HEADS
    ).astype(np.float32)
    pooled = hidden.mean(axis=0) if pooling == "pooling_mode_mean_tokens" else hidden[0]

    np.testing.assert_allclose(encoder.run([ids]), unit(pooled[None]), atol=1e-4)
    assert len(long.ids) == tiny.POSITIONS
    assert np.isfinite(encoder.run([long.ids])).all()


def settings(folder: Path) -> Embedding:
    return Embedding(dir=str(tiny.write(folder)), max_tokens=16)


def cached(folder: Path) -> Path:
    (path,) = (folder / "cache").iterdir()
    return path


def test_a_second_start_finds_the_conversion(tmp_path: Path) -> None:
    """The cache holds one whole file, which is read and not written again."""
    load(settings(tmp_path), tmp_path / "cache")
    before = cached(tmp_path).stat()
    load(settings(tmp_path), tmp_path / "cache")

    assert cached(tmp_path).stat().st_ino == before.st_ino


@pytest.mark.parametrize("keep_ratio", [0.0, 0.5, 1.0])
def test_a_damaged_conversion_is_made_again(tmp_path: Path, keep_ratio: float) -> None:
    """Empty, cut short or with a wrong byte: the next start repairs it."""
    load(settings(tmp_path), tmp_path / "cache")
    whole = cached(tmp_path).read_bytes()
    kept = bytearray(whole[: int(len(whole) * keep_ratio)])
    if kept:
        kept[-1] ^= 0xFF
    cached(tmp_path).write_bytes(kept)

    encoder = load(settings(tmp_path), tmp_path / "cache")

    assert cached(tmp_path).read_bytes() == whole
    assert encoder.run([(2, 4, 3)]).shape == (1, tiny.WIDTH)


def test_other_weights_have_another_conversion(tmp_path: Path) -> None:
    """The cache is found by what was converted, not by where it lay."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    tiny.write(tmp_path / "one")
    tiny.write(tmp_path / "two", prefix="bert.")
    for name in ("one", "two"):
        load(Embedding(dir=str(tmp_path / name)), tmp_path / "cache")

    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_missing_weight_is_named(tmp_path: Path) -> None:
    """A directory whose weights are of another model stops the start."""
    folder = tiny.write(tmp_path, prefix="distilled.")

    with pytest.raises(ConfigError, match=r"lacks 'embeddings\.word"):
        load(Embedding(dir=str(folder)), tmp_path / "cache")


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    """Not a traceback, but what to look for."""
    (tiny.write(tmp_path) / "tokenizer.json").unlink()

    with pytest.raises(ConfigError, match=r"tokenizer\.json"):
        load(Embedding(dir=str(tmp_path)), tmp_path / "cache")
