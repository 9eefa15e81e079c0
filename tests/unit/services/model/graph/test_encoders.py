"""An encoder's vectors are those of `transformers`, and what is unclear is refused."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from services.kit.errors import ConfigError
from services.model import importer, solo, text
from services.model.backends.ort import OrtBackend
from services.model.engine.engine import Engine
from services.model.engine.types import Embedded, Limits, Request
from services.model.graph import checkpoint, decoder, encoder, reference, runnable
from services.model.graph.dialects import DIALECTS, DialectName
from services.model.graph.precision import Precision
from tests.unit.services.model import tiny_encoder
from tests.unit.services.model.graph import encoders, parity

SLOTS, CONTEXT = 3, 96
Floats = NDArray[np.float32]


@pytest.fixture(scope="module")
def said() -> Mapping[str, NDArray[Any]]:
    """Return all that `transformers` said."""
    with np.load(encoders.FILE) as stored:
        return dict(stored)


def vectors(folder: Path, backend: OrtBackend, *, chunk: int) -> Floats:
    """Embed the reference's texts, all at once, as (N, D) of unit length."""
    limits = Limits(max_running=SLOTS, kv_tokens=SLOTS * CONTEXT, chunk_tokens=chunk)
    engine, words, found = Engine(backend, limits), text.load(folder), encoder.find(folder)
    pool = (found or encoder.read(folder)).pool
    for i, one in enumerate(encoders.TEXTS):
        engine.add(Request(id=i, tokens=words.encode(one, special=True), pool=pool))
    rows = dict[int, Floats]()
    while not engine.idle:
        rows |= {o.id: o.vector for o in engine.step().outputs if isinstance(o, Embedded)}
    stacked = np.stack([rows[i] for i in range(len(encoders.TEXTS))])
    out: Floats = stacked / np.linalg.norm(stacked, axis=1, keepdims=True)
    return out


@pytest.mark.parametrize("chunk", [CONTEXT, 7])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("pool", encoders.POOLS)
def test_vectors_are_those_of_transformers(
    said: Mapping[str, NDArray[Any]], tmp_path: Path, pool: str, dialect: DialectName, chunk: int
) -> None:
    """However texts are pooled and cut, in both dialects, without an output projection."""
    folder = tiny_encoder.write(tmp_path, pool=pool)
    assert parity.digest(folder) == said["digest"], "make encoders.npz again"
    stored = checkpoint.load(folder)
    assert stored.shape.headless
    backend = OrtBackend(
        decoder.build(stored, dialect=dialect), stored.shape, slots=SLOTS, context_tokens=CONTEXT,
        threads=1, dialect=dialect,
    )  # fmt: skip
    np.testing.assert_allclose(vectors(folder, backend, chunk=chunk), said[pool], atol=1e-4)


def test_an_imported_encoder_gives_the_same_vectors(
    said: Mapping[str, NDArray[Any]], tmp_path: Path
) -> None:
    """The import keeps how to pool, and refuses to generate."""
    importer.convert(tiny_encoder.write(tmp_path / "hf", pool="mean"), tmp_path / "out", "fp32")
    stored = runnable.load(tmp_path / "out")
    assert stored.encoder == encoder.find(tmp_path / "hf")
    backend = OrtBackend(stored.graph, stored.shape, slots=SLOTS, context_tokens=CONTEXT, threads=1)
    found = vectors(tmp_path / "out", backend, chunk=CONTEXT)
    np.testing.assert_allclose(found, said["mean"], atol=1e-4)
    with pytest.raises(ConfigError, match="embeds only"):
        solo.generate(tmp_path / "out", solo.Asked(prompt="Hi"))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_encoder_imported_for_tensorrt_agrees(
    said: Mapping[str, NDArray[Any]], tmp_path: Path, precision: Precision
) -> None:
    """The other dialect's graph keeps how to pool; hidden states are float32 at its edge."""
    source = tiny_encoder.write(tmp_path / "hf", pool="mean")
    importer.convert(source, tmp_path / "out", precision, dialect="trt")
    stored = runnable.load(tmp_path / "out", "trt")
    backend = OrtBackend(
        stored.graph, stored.shape, slots=SLOTS, context_tokens=CONTEXT, threads=1, dialect="trt"
    )
    found = vectors(tmp_path / "out", backend, chunk=CONTEXT)
    within = 1e-4 if precision == "fp32" else 0.02
    np.testing.assert_allclose(found, said["mean"], atol=within)


def test_fewer_bits_change_directions_little(
    said: Mapping[str, NDArray[Any]], tmp_path: Path
) -> None:
    """Vectors of 8-bit weights point where those of 32 bits do, within 2 %."""
    importer.convert(tiny_encoder.write(tmp_path / "hf"), tmp_path / "out", "int8")
    stored = runnable.load(tmp_path / "out")
    backend = OrtBackend(stored.graph, stored.shape, slots=SLOTS, context_tokens=CONTEXT, threads=1)
    cosines = (vectors(tmp_path / "out", backend, chunk=CONTEXT) * said["last"]).sum(axis=1)
    assert cosines.min() > 0.98


def test_logits_do_not_mind_an_encoder(tmp_path: Path) -> None:
    """A decoder that also pools computes the logits that it computes without."""
    stored = checkpoint.load(tiny_encoder.write(tmp_path, bare=False))
    backend = OrtBackend(decoder.build(stored), stored.shape, slots=2, context_tokens=64, threads=1)
    tokens = np.arange(20)
    np.testing.assert_allclose(
        backend.prefill(0, 0, tokens, 20), reference.logits(stored, tokens), atol=1e-4
    )
    np.testing.assert_allclose(
        backend.hidden(1, 0, tokens, 20), reference.hidden_states(stored, tokens), atol=1e-4
    )
    after = backend.decode(np.array([3, 3]), np.array([20, 20]))
    np.testing.assert_allclose(after[0], after[1], atol=1e-5)


def test_the_makers_say_how(tmp_path: Path) -> None:
    """Pooling, scaling, prompts and the longest text are read."""
    folder = tiny_encoder.write(
        tmp_path, pool="mean", normalise=False, default_prompt="query", max_tokens=24
    )
    assert encoder.find(folder) == encoder.Encoder(
        pool="mean", normalise=False, prompts=tiny_encoder.PROMPTS, default_prompt="query",
        max_tokens=24,
    )  # fmt: skip
    tiny_encoder.put(folder / "1_Pooling" / "config.json", {"pooling_mode": "cls"})
    assert (found := encoder.find(folder)) is not None
    assert found.pool == "first"


DENSE = [{"type": "a.Transformer", "path": ""}, {"type": "a.Dense", "path": "1_Dense"}]
MODES = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
WRONG: Sequence[tuple[str, object, str]] = [
    ("modules.json", DENSE, "Dense; supported"),
    ("modules.json", {"a": 1}, "modules.json"),
    ("1_Pooling/config.json", MODES, "pools by mean_tokens, max_tokens; known"),
    ("1_Pooling/config.json", {"include_prompt": True}, "pools by nothing"),
    ("1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": False}, "leaves the"),
    ("config_sentence_transformers.json", {"default_prompt_name": "x"}, "no prompt 'x'"),
    ("config_sentence_transformers.json", {"prompts": {"q": 3}}, "prompts"),
    ("sentence_bert_config.json", {"max_seq_length": "long"}, "max_tokens"),
]


@pytest.mark.parametrize(("file", "content", "message"), WRONG)
def test_what_would_give_other_vectors_is_refused(
    tmp_path: Path, file: str, content: object, message: str
) -> None:
    """The message names the file and what is wrong with it."""
    folder = tiny_encoder.write(tmp_path)
    tiny_encoder.put(folder / file, content)
    with pytest.raises(ConfigError, match=message):
        checkpoint.load(folder)


def test_a_long_text_keeps_what_ends_it(tmp_path: Path) -> None:
    """The token whose hidden state is the text's is there, whatever had to go."""
    words = text.load(tiny_encoder.write(tmp_path))
    whole, cut = words.encode_within("abcdef", 7)
    assert (len(whole), cut) == (7, False)
    short, cut = words.encode_within("abcdefg", 7)
    assert cut
    assert short.tolist() == whole.tolist()
