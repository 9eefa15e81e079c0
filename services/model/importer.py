"""Turn a Hugging Face directory into one that is ready to run, or leave nothing.

Everything is written to a directory beside the target, checked there, and moved in one step.
Weights go from file to file a few megabytes at a time, or a matrix at a time where it has to be
turned; see `graph.decoder` for what each precision stores.
"""

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np

from services.kit.errors import ConfigError
from services.model import text
from services.model.backends.base import Logits
from services.model.backends.ort import OrtBackend
from services.model.graph import checkpoint, decoder, manifest, reference
from services.model.graph.checkpoint import Checkpoint
from services.model.graph.decoder import Precision
from services.model.graph.dialects import DialectName
from services.model.graph.manifest import Check, File, Manifest
from services.model.graph.shards import READABLE, files_of
from services.model.graph.store import Beside

Progress = Callable[[str, int, int], None]
"""Told the stage, the bytes done and the bytes in all."""

_REQUIRED = ("config.json", "tokenizer.json")
_OPTIONAL = (
    *("generation_config.json", "tokenizer_config.json", "special_tokens_map.json"),
    *("chat_template.jinja", "LICENSE", "README.md"),
)
_LIBRARIES = ("zeta", "numpy", "onnx", "onnxruntime")
_CHECKED_TOKENS = 16
_FEWEST_COSINE: Mapping[Precision, float] = {
    "fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int8": 0.98, "int4": 0.6,
}  # fmt: skip
"""Below, the weights were written wrongly: rounding alone costs a tenth of the distance to 1."""


@dataclass(slots=True)
class _Meter:
    """Adds bytes up and tells of them."""

    told: Progress
    stage: str
    total: int
    done: int = 0

    def add(self, count: int) -> None:
        self.done += count
        # A tied table may be read twice.
        self.told(self.stage, min(self.done, self.total), self.total)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Graph:
    """What is written, and where."""

    folder: Path
    precision: Precision
    dialect: DialectName


def convert(
    source: Path,
    target: Path,
    precision: Precision,
    *,
    dialect: DialectName = "ort",
    progress: Progress = lambda *_: None,
    threads: int = 1,
) -> Manifest:
    """Import *source* as the new directory *target* and return its manifest.

    *dialect*: for which kind of runtime; see `graph.dialects`.

    Raises ConfigError that says what is wrong with *source* or *target*; then, as after any other
    exception, *target* is as it was.
    """
    if precision not in decoder.PRECISIONS:
        known = ", ".join(decoder.PRECISIONS)
        raise ConfigError(f"precision {precision!r} is not supported; supported: {known}")
    stored = checkpoint.load(source)
    text.load(source, vocabulary=stored.shape.vocabulary)
    target = target.absolute()
    with _complaining(target), _in_one_step(target) as folder:
        graph = _Graph(folder=folder, precision=precision, dialect=dialect)
        _refuse_full_disk(target.parent, stored, precision)
        origin = _copy(source, folder, progress)
        _build(stored, graph, progress)
        check = _check(stored, graph, progress, threads)
        files = {path.name: manifest.described(path) for path in sorted(folder.iterdir())}
        found = Manifest(
            builder=decoder.VERSION,
            dialect=dialect,
            precision=precision,
            versions={name: version(name) for name in _LIBRARIES},
            source=origin,
            files=files,
            check=check,
        )
        manifest.write(folder, found)
        manifest.verify(folder, manifest.read(folder))
        _flush(folder)
    return found


def _copy(source: Path, folder: Path, progress: Progress) -> dict[str, File]:
    """Copy what is no weight, and describe everything that is used."""
    used = [source / name for name in _REQUIRED]
    used += [source / name for name in _OPTIONAL if (source / name).is_file()]
    for path in used:
        shutil.copyfile(path, folder / path.name)
    files = [*used, *files_of(source)]
    meter = _Meter(progress, "reading", sum(path.stat().st_size for path in files))
    return {path.name: manifest.described(path, meter.add) for path in files}


def _build(stored: Checkpoint, graph: _Graph, progress: Progress) -> None:
    meter = _Meter(progress, "converting", _stored_bytes(stored))
    watched = replace(stored, weights=stored.weights.watched(meter.add))
    with (graph.folder / manifest.DATA).open("wb") as data:
        store = Beside(data, manifest.DATA)
        model = decoder.build(watched, graph.precision, store, dialect=graph.dialect)
    (graph.folder / manifest.GRAPH).write_bytes(model.SerializeToString(deterministic=True))


def _check(stored: Checkpoint, graph: _Graph, progress: Progress, threads: int) -> Check:
    """Run the written graph, and compare it with the source. Raises ConfigError."""
    shape = stored.shape
    count = min(_CHECKED_TOKENS, shape.context_tokens)
    tokens = np.random.default_rng(0).integers(0, shape.vocabulary, count)
    meter = _Meter(progress, "checking", _stored_bytes(stored))
    expected = reference.logits(replace(stored, weights=stored.weights.watched(meter.add)), tokens)
    try:
        backend = OrtBackend(
            graph.folder / manifest.GRAPH, shape, slots=1, context_tokens=count, threads=threads,
            frugal=True, dialect=graph.dialect,
        )  # fmt: skip
        found = backend.prefill(0, 0, tokens, count)
    except Exception as error:  # the runtime's own errors share no class
        raise ConfigError(f"the imported model does not run: {error}") from error
    return _compared(found, expected, graph.precision)


def _compared(found: Logits, expected: Logits, precision: Precision) -> Check:
    if not np.isfinite(found).all() or not np.isfinite(expected).all():
        raise ConfigError("the imported model's logits are no numbers; fetch the files again")
    a, b = (x - x.mean(axis=1, keepdims=True) for x in (found, expected))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    # Logits that are all the same have no direction: equal ones agree.
    cosines = np.where(norms > 0, (a * b).sum(axis=1) / np.where(norms > 0, norms, 1), 1.0)
    check = Check(
        positions=len(found),
        top1_ratio=float((found.argmax(axis=1) == expected.argmax(axis=1)).mean()),
        cosine=round(float(cosines.mean()), 6),
    )
    if check.cosine < _FEWEST_COSINE[precision]:
        raise ConfigError(
            f"the imported model computes something else: cosine {check.cosine} of its logits with "
            f"float32, at least {_FEWEST_COSINE[precision]} is expected; choose more bits"
        )
    return check


def _stored_bytes(stored: Checkpoint) -> int:
    places = [stored.weights.place(name) for name in checkpoint.expected(stored.shape)]
    return sum(math.prod(p.shape) * READABLE[p.dtype].itemsize for p in places)


@contextmanager
def _in_one_step(target: Path) -> Iterator[Path]:
    """Yield a directory that becomes *target* if all goes well and vanishes otherwise."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"{target}: is there already; name a new directory")
    target.parent.mkdir(parents=True, exist_ok=True)
    name = {"prefix": f".{target.name}.", "suffix": ".partial"}
    folder = Path(tempfile.mkdtemp(dir=target.parent, **name))
    try:
        yield folder
        folder.chmod(0o755)  # others serve what one imports
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _complaining(target: Path) -> Iterator[None]:
    """Turn what the machine refuses into a ConfigError."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{error.filename or target}: {error.strerror or error}; nothing was imported"
        ) from error
    except MemoryError as error:
        raise ConfigError(f"{target}: not enough memory; nothing was imported") from error


def _refuse_full_disk(parent: Path, stored: Checkpoint, precision: Precision) -> None:
    needed, free = decoder.written_bytes(stored.shape, precision), shutil.disk_usage(parent).free
    if needed > free:
        raise ConfigError(
            f"{parent}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free; "
            "make room or choose fewer bits"
        )


def _flush(folder: Path) -> None:
    """Have the disk hold everything before the directory gets its name."""
    for path in [*folder.iterdir(), folder]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
