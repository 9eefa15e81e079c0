"""What an imported directory says of itself, and whether it still is so.

OUT/manifest.json          written last: without it the directory is nothing
    model.onnx             the graph
    model.onnx.data        its weights
    config.json, tokenizer.json, …   as they came
"""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from services.kit.errors import ConfigError
from services.model.graph.decoder import VERSION, Precision
from services.model.graph.dialects import DialectName

NAME, GRAPH, DATA = "manifest.json", "model.onnx", "model.onnx.data"
_RUNTIMES: Mapping[DialectName, str] = {"ort": "ONNX Runtime", "trt": "TensorRT"}
_PIECE_BYTES = 1 << 22


class File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file as it was written."""

    sha256: str
    size_bytes: int


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the runnable model compared with a float32 computation from the source."""

    positions: int
    top1_ratio: float
    """Positions at which both have the same likeliest token."""
    cosine: float
    """Of the logits, mean over positions."""


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a runnable model comes from and what belongs to it."""

    builder: int
    """Version of the graph builder."""
    dialect: DialectName
    """What kind of runtime the graph is for."""
    precision: Precision
    versions: dict[str, str]
    """Of the libraries that wrote it."""
    source: dict[str, File]
    """What it was made from."""
    files: dict[str, File]
    """What belongs to it."""
    check: Check


def is_imported(folder: Path) -> bool:
    """Tell an imported directory, also a damaged one, from a checkpoint."""
    return any((folder / name).exists() for name in (NAME, GRAPH, DATA))


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest of *folder*."""
    encoded = msgspec.json.encode(manifest, order="sorted")
    (folder / NAME).write_bytes(msgspec.json.format(encoded, indent=2) + b"\n")


def read(folder: Path) -> Manifest:
    """Read the manifest of *folder*, and refuse another builder's. Raises ConfigError."""
    try:
        found = msgspec.json.decode((folder / NAME).read_bytes(), type=Manifest)
    except OSError as error:
        raise _broken(folder, f"{NAME}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _broken(folder, f"{NAME}: {error}") from error
    if found.builder != VERSION:
        raise _broken(folder, f"it was made by builder {found.builder}, this is builder {VERSION}")
    if not {GRAPH, DATA, "config.json", "tokenizer.json"} <= found.files.keys():
        raise _broken(folder, f"{NAME} does not list every file")
    return found


def refuse_other(folder: Path, manifest: Manifest, dialect: DialectName) -> None:
    """Refuse a graph that the runtime of *dialect* does not read. Raises ConfigError."""
    if manifest.dialect != dialect:
        raise ConfigError(
            f"{folder}: it was imported for {_RUNTIMES[manifest.dialect]}, and "
            f"{_RUNTIMES[dialect]} is to run it; import the model for that: "
            f"zeta model import HF_DIR OUT_DIR --dialect {dialect}"
        )


def verify(folder: Path, manifest: Manifest, *, weights: bool = False) -> None:
    """Compare the files of *folder* with *manifest*. Raises ConfigError.

    Hashing the weights takes seconds for each gigabyte: without *weights* their size is compared.
    """
    for name, said in manifest.files.items():
        path = folder / name
        if Path(name).name != name or not path.is_file():
            raise _broken(folder, f"{name} is missing")
        size_bytes = path.stat().st_size
        if size_bytes != said.size_bytes:
            raise _broken(folder, f"{name} has {size_bytes} bytes, {said.size_bytes} were written")
        if (weights or name != DATA) and described(path).sha256 != said.sha256:
            raise _broken(folder, f"{name} is not what was written")


def described(path: Path, on_read: Callable[[int], None] = lambda _: None) -> File:
    """Return size and SHA-256 of *path*; *on_read* is told of the bytes. Raises OSError."""
    digest, size_bytes = hashlib.sha256(), 0
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE_BYTES):
            digest.update(piece)
            size_bytes += len(piece)
            on_read(len(piece))
    return File(sha256=digest.hexdigest(), size_bytes=size_bytes)


def _broken(folder: Path, reason: str) -> ConfigError:
    return ConfigError(
        f"{folder}: {reason}; import the model again: zeta model import HF_DIR OUT_DIR"
    )
