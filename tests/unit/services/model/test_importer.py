"""Imported models: the same answers, all or nothing, and a reason for every refusal."""

import json
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from services.kit.config import Model, Replica
from services.kit.errors import ConfigError
from services.model import importer, process
from services.model.backends.ort import OrtBackend
from services.model.graph import checkpoint, decoder, manifest, runnable
from services.model.graph.decoder import PRECISIONS, Precision
from services.model.graph.dialects import DIALECTS, DialectName
from services.model.graph.manifest import DATA, GRAPH
from services.model.servicer import Model as Served
from tests.unit.services.model import tiny

FEWEST_COSINE: dict[Precision, float] = {
    "fp32": 0.99999, "fp16": 0.99999, "bf16": 0.9999, "int8": 0.997, "int4": 0.85,
}  # fmt: skip
"""Measured on random weights, the hardest there are: 1, 1, 0.99996, 0.9989, 0.881 at worst."""

BLOCKS = {"intermediate_size": 64}
"""TensorRT wants rows of whole blocks of numbers."""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A checkpoint in three shards."""
    return tiny.write(tmp_path / "hf", shards=3)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where to import to."""
    return tmp_path / "out"


def served(folder: Path) -> Served:
    """Load *folder* as a model process does."""
    replicas = (Replica(listen="127.0.0.1:0"),)
    return process.load(Model(name="tiny", dir=str(folder), replicas=replicas), "tiny-0")[0]


def logits(folder: Path, count: int = 40, dialect: DialectName = "ort") -> np.ndarray:
    """Return the logits (T, V) of random tokens."""
    stored = runnable.load(folder, dialect)
    backend = OrtBackend(
        stored.graph, stored.shape, slots=1, context_tokens=64, threads=1, dialect=dialect
    )
    tokens = np.random.default_rng(5).integers(0, 256, count)
    return backend.prefill(0, 0, tokens, count)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean cosine of rows."""
    cosines = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return float(cosines.mean())


def nothing_but(folder: Path, *names: str) -> bool:
    """Tell whether *folder* holds exactly *names*, hidden ones included."""
    return {path.name for path in folder.iterdir()} == set(names)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("family", sorted(checkpoint.FAMILIES))
def test_every_precision_computes_about_the_same(
    tmp_path: Path, family: str, precision: Precision, *, tied: bool
) -> None:
    """As close to float32 as was measured, on the kernels that serve."""
    source = tiny.write(tmp_path / "hf", family=family, tied=tied)
    found = importer.convert(source, tmp_path / "out", precision)

    assert found.check.cosine >= FEWEST_COSINE[precision]
    assert alike(logits(tmp_path / "out"), logits(source)) >= FEWEST_COSINE[precision]
    assert served(tmp_path / "out").precision == precision


@pytest.mark.parametrize("precision", PRECISIONS)
def test_an_import_for_tensorrt_computes_about_the_same(
    tmp_path: Path, precision: Precision
) -> None:
    """Checked like the others, whatever its type, and with weights beside it."""
    source = tiny.write(tmp_path / "hf", changes=BLOCKS)
    found = importer.convert(source, tmp_path / "out", precision, dialect="trt")

    assert (found.dialect, found.precision) == ("trt", precision)
    # Norms and angles are rounded as well.
    fewest = {**FEWEST_COSINE, "bf16": 0.9998}[precision]
    assert found.check.cosine >= fewest
    whole = logits(tmp_path / "out", dialect="trt")
    assert alike(whole, logits(source, dialect="trt")) >= fewest


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_room_on_the_disk_is_foreseen(
    tmp_path: Path, dialect: DialectName, precision: Precision
) -> None:
    """What is asked of the disk is what will be written, but for norms and biases."""
    wide = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64}
    changes = {**wide, "max_position_embeddings": 4096}
    source = tiny.write(tmp_path / "hf", changes=changes)
    found = importer.convert(source, tmp_path / "out", precision, dialect=dialect)
    foreseen = decoder.written_bytes(checkpoint.load(source).shape, precision, dialect)
    assert foreseen == pytest.approx(found.files[DATA].size_bytes, rel=0.04)


@pytest.mark.parametrize(
    ("made_for", "opened_as", "named"), [("ort", "trt", "TensorRT"), ("trt", "ort", "ONNX Runtime")]
)
def test_a_model_for_another_runtime_is_refused(
    source: Path, target: Path, made_for: DialectName, opened_as: DialectName, named: str
) -> None:
    """With the command to run."""
    importer.convert(source, target, "fp16", dialect=made_for)
    reason = f"out: it was imported for .*{named} is to run it; .*--dialect {opened_as}$"
    with pytest.raises(ConfigError, match=reason):
        runnable.load(target, opened_as)


def test_a_model_for_tensorrt_does_not_serve_on_onnx_runtime(source: Path, target: Path) -> None:
    """A model process says so when it starts."""
    importer.convert(source, target, "fp16", dialect="trt")
    with pytest.raises(ConfigError, match=r"zeta model import HF_DIR OUT_DIR --dialect ort$"):
        served(target)


def test_rows_that_blocks_do_not_fill_are_refused_for_tensorrt(source: Path, target: Path) -> None:
    """Its parser would refuse them, minutes later; the message says what to choose."""
    with pytest.raises(ConfigError, match="rows of 48 numbers cannot be cut into blocks of 32"):
        importer.convert(source, target, "int4", dialect="trt")
    assert not target.exists()


def test_shards_are_one_model(tmp_path: Path, source: Path, target: Path) -> None:
    """Imported from three files or from one, not a byte differs."""
    importer.convert(source, target, "fp32")
    importer.convert(tiny.write(tmp_path / "whole"), tmp_path / "again", "fp32")

    for name in (GRAPH, DATA):
        assert (target / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_bfloat16_checkpoints_are_imported(tmp_path: Path, target: Path) -> None:
    """Most published weights are stored so, and stored so again they do not change."""
    source = tiny.write(tmp_path / "hf")
    path = source / "model.safetensors"
    save_file({k: v.astype(ml_dtypes.bfloat16) for k, v in load_file(path).items()}, path)
    importer.convert(source, target, "bf16")
    np.testing.assert_array_equal(logits(target), logits(source))


def test_what_is_imported_serves_like_the_checkpoint(source: Path, target: Path) -> None:
    """A model process takes either directory."""
    importer.convert(source, target, "fp32")
    before, after = served(source), served(target)
    assert (after.vocabulary, after.context_tokens) == (before.vocabulary, before.context_tokens)
    assert (after.stop_ids, after.parameters) == (before.stop_ids, before.parameters)


def test_the_manifest_says_where_it_comes_from(source: Path, target: Path) -> None:
    """Every file that was used, by its hash, and every file that was written."""
    found = importer.convert(source, target, "int4")
    assert manifest.read(target) == found
    assert set(found.source) == {path.name for path in source.iterdir()} - {
        "model.safetensors.index.json"
    }
    assert found.source["config.json"] == manifest.described(source / "config.json")
    assert set(found.files) | {"manifest.json"} == {path.name for path in target.iterdir()}
    manifest.verify(target, found, weights=True)


def test_progress_goes_from_nothing_to_all(source: Path, target: Path) -> None:
    """Each stage ends where it said that it would."""
    told: list[tuple[str, int, int]] = []
    importer.convert(source, target, "fp32", progress=lambda *said: told.append(said))
    assert list(dict.fromkeys(stage for stage, _, _ in told)) == [
        "reading", "converting", "checking",
    ]  # fmt: skip
    for stage in ("reading", "converting", "checking"):
        done = [(at, total) for name, at, total in told if name == stage]
        assert done == sorted(done)
        assert done[-1][0] == done[-1][1]


@pytest.mark.parametrize(
    ("dialect", "precision"), [("ort", "fp32"), ("ort", "int4"), ("trt", "bf16"), ("trt", "int4")]
)
def test_memory_holds_a_matrix_not_the_model(
    tmp_path: Path, dialect: DialectName, precision: Precision
) -> None:
    """Sixteen layers take no more than the largest weight, half of it, and one output."""
    changes = {"num_hidden_layers": 16, "hidden_size": 256, "intermediate_size": 1024}
    source = tiny.write(tmp_path / "hf", changes=changes)
    largest = 1024 * 256 * 4
    tracemalloc.start()
    try:
        importer.convert(source, tmp_path / "out", precision, dialect=dialect)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    written = 2 * largest  # two matrices side by side
    assert (source / "model.safetensors").stat().st_size > 8 * largest
    assert peak < 1.5 * largest + 2 * written + (4 << 20)


# What is refused.


def drop(name: str) -> Callable[[Path], None]:
    """Return what deletes a file."""
    return lambda folder: (folder / name).unlink()


def configure(**changes: object) -> Callable[[Path], None]:
    """Return what changes keys of config.json."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def rewrite(edit: Callable[[dict[str, np.ndarray]], object]) -> Callable[[Path], None]:
    """Return what changes the weights of the first shard."""

    def change(folder: Path) -> None:
        path = folder / "model-00001-of-00003.safetensors"
        weights = load_file(path)
        edit(weights)
        save_file(weights, path)

    return change


def pickled(folder: Path) -> None:
    """Replace the weights by a pickle."""
    for path in folder.glob("model*"):
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def index_elsewhere(folder: Path) -> None:
    """Let the index name a file outside the directory."""
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": {"a": "../../secret.safetensors"}}))


Damage = Callable[[Path], object]
REFUSED: dict[str, tuple[Damage, str]] = {
    "no directory": (lambda folder: folder.rename(folder / "../x"), "no such model directory"),
    "shard": (drop("model-00002-of-00003.safetensors"), "1 of 3 shards missing, model-00002-of-"),
    "configuration": (drop("config.json"), r"config\.json: No such file"),
    "tokenizer": (drop("tokenizer.json"), r"tokenizer\.json: cannot be read"),
    "architecture": (configure(model_type="mamba"), "'mamba' is not supported"),
    "quantised": (configure(quantization_config={"bits": 4}), "quantised already"),
    "rope": (configure(rope_scaling={"type": "longrope", "factor": 2}), "'longrope' is not supp"),
    "shape": (configure(intermediate_size=64), r"is \(.*\), config\.json says"),
    "layers": (configure(num_hidden_layers=9), r"weights are missing, model\.layers\.2"),
    "endless": (configure(num_hidden_layers=10**9), "num_hidden_layers = 1000000000"),
    "pickle": (pickled, r"pytorch_model\.bin is a pickle"),
    "index": (index_elsewhere, "names files that are not beside it"),
    "dtype": (
        rewrite(lambda w: w.update({k: v.astype(np.int8) for k, v in w.items()})),
        "is I8; readable: F32, F16, BF16",
    ),
    "twice": (
        lambda folder: rewrite(
            lambda w: w.update(load_file(folder / "model-00002-of-00003.safetensors"))
        )(folder),
        r"is in model-00001.* and in model-00002",
    ),
    "no number": (
        rewrite(lambda w: w["model.embed_tokens.weight"].fill(np.nan)),
        "holds what is no number",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_broken_is_refused_with_the_reason(source: Path, target: Path, what: str) -> None:
    """And nothing is left, not even under another name."""
    damage, reason = REFUSED[what]
    damage(source)
    with pytest.raises(ConfigError, match=reason):
        importer.convert(source, target, "int4")
    assert not target.exists()
    assert not list(target.parent.glob(".*"))


def test_numbers_too_large_for_a_precision_are_refused(tmp_path: Path, target: Path) -> None:
    """Infinity in place of a weight would be no model; the message says what to choose."""
    source = tiny.write(tmp_path / "hf")
    path = source / "model.safetensors"
    weights = {k: v.astype(np.float32) for k, v in load_file(path).items()}
    weights["model.embed_tokens.weight"][3, 3] = 1e5
    save_file(weights, path)
    with pytest.raises(ConfigError, match="too large for float16: import with --precision bf16"):
        importer.convert(source, target, "fp16")
    assert importer.convert(source, target, "bf16").precision == "bf16"


def test_numbers_too_large_for_a_scale_are_refused(tmp_path: Path, target: Path) -> None:
    """Scales are halves."""
    source = tiny.write(tmp_path / "hf")
    path = source / "model.safetensors"
    weights = {k: v.astype(np.float32) for k, v in load_file(path).items()}
    weights["model.layers.0.mlp.down_proj.weight"][3, 3] = 1e8
    save_file(weights, path)
    with pytest.raises(ConfigError, match="too large for int8: import with --precision bf16"):
        importer.convert(source, target, "int8")


def test_an_existing_directory_is_left_alone(source: Path, target: Path) -> None:
    """What somebody has there is not overwritten; an empty directory is taken."""
    target.mkdir()
    importer.convert(source, target, "fp32")
    before = (target / "manifest.json").read_bytes()
    with pytest.raises(ConfigError, match="out: is there already; name a new directory"):
        importer.convert(source, target, "int8")
    assert (target / "manifest.json").read_bytes() == before


def test_an_interruption_leaves_nothing(source: Path, target: Path) -> None:
    """Ctrl-C at any stage."""

    def interrupt(at: str) -> importer.Progress:
        def told(stage: str, done: int, total: int) -> None:
            if stage == at and done > total // 2:
                raise KeyboardInterrupt

        return told

    for stage in ("reading", "converting", "checking"):
        with pytest.raises(KeyboardInterrupt):
            importer.convert(source, target, "fp32", progress=interrupt(stage))
        assert nothing_but(target.parent, "hf")


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Let every write beyond *size_bytes* of a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing(source: Path, target: Path) -> None:
    """The write fails in the middle of the weights."""
    with (
        files_of_at_most(50_000),
        pytest.raises(ConfigError, match="File too large; nothing was imported"),
    ):
        importer.convert(source, target, "fp32")
    assert nothing_but(target.parent, "hf")


def cut(name: str) -> Callable[[Path], None]:
    """Return what cuts the end of a file off."""

    def change(folder: Path) -> None:
        (folder / name).write_bytes((folder / name).read_bytes()[:-9])

    return change


def flip(name: str) -> Callable[[Path], None]:
    """Return what changes a byte in the middle of a file."""

    def change(folder: Path) -> None:
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)

    return change


def older(folder: Path) -> None:
    """Let the manifest be another builder's."""
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"builder": ', '"builder": 9'))


DAMAGED: dict[str, tuple[Damage, str]] = {
    "no manifest": (drop("manifest.json"), "manifest.json: No such file"),
    "half a manifest": (cut("manifest.json"), "manifest.json: Input data was truncated"),
    "no graph": (drop(GRAPH), "model.onnx is missing"),
    "no weights": (drop(DATA), "model.onnx.data is missing"),
    "short weights": (cut(DATA), r"model.onnx.data has \d+ bytes, \d+ were written"),
    "another graph": (flip(GRAPH), "model.onnx is not what was written"),
    "another tokenizer": (flip("tokenizer.json"), "tokenizer.json is not what was written"),
    "another builder": (older, "it was made by builder 9"),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_import_is_refused(source: Path, target: Path, what: str) -> None:
    """With what is wrong, and that importing again is the remedy."""
    importer.convert(source, target, "int8")
    damage, reason = DAMAGED[what]
    damage(target)
    with pytest.raises(ConfigError, match=f"{reason}.*import the model again"):
        served(target)
