"""Plans on disk: which one fits, and whether it is whole.

    PLAN_DIR/<key>.plan           one per model, precision, shapes, card and TensorRT version
             timings-<card>.cache what TensorRT measured, kept from build to build

A file is `MAGIC`, the length and the hash of a header, the header (JSON), and the content. The
header carries the content's hash and everything that the content depends on; a file appears in one
step, when it is complete. TensorRT runs what a plan says: whoever may write these files may run
code, so files that every user may write are refused.
"""

import fcntl
import hashlib
import mmap
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from services.kit.errors import ConfigError

MAGIC = b"ZETAPLAN\x01"
"""Its last byte is raised with every change of `build` that makes plans outdated."""
_FIXED = struct.Struct("<9sI32s")
_MOST_HEADER_BYTES = 1 << 16
_PIECE_BYTES = 1 << 26
_HASHING_THREADS = 4


class Card(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What plans and timings depend on beside the model."""

    gpu: str
    capability: str
    """Compute capability, as 9.0."""
    tensorrt: str
    cuda: int
    """The driver's CUDA major version: within it, drivers may change."""

    def __str__(self) -> str:
        return f"{self.gpu} ({self.capability}), TensorRT {self.tensorrt}, CUDA {self.cuda}"


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a plan depends on."""

    model: str
    """SHA-256 of the graph as it is given to TensorRT, and of its weights."""
    precision: str
    builder: int
    """Version of the graph builder."""
    prefill: tuple[int, ...]
    """Most rows, tokens and wanted positions."""
    decode: tuple[int, ...]
    """Most rows."""
    cache_tokens: int
    streaming: bool
    """Weights may stay in the host's memory."""
    card: Card

    @property
    def name(self) -> str:
        """A file name for it."""
        return hashlib.sha256(_json(self)).hexdigest()[:32] + ".plan"


class _Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    about: Key | None
    """None for timings."""
    card: Card
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Found:
    """The content of a file, mapped."""

    content: memoryview
    about: Key | None
    card: Card


def read(path: Path) -> Found:
    """Return what is in *path*. Raises ConfigError for what is not whole, or not ours."""
    try:
        with path.open("rb") as file:
            _refuse_shared(file.fileno(), path)
            header, start = _header(file.read(_FIXED.size + _MOST_HEADER_BYTES))
            mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (ValueError, struct.error, msgspec.MsgspecError) as error:
        raise ConfigError(f"{path}: not a plan of Zeta's: {error}; delete the file") from error
    content = mapped[start:]
    if len(content) != header.size_bytes or _sha256(content) != header.sha256:
        raise ConfigError(f"{path}: cut off or changed; delete the file")
    return Found(content, header.about, header.card)


def write(path: Path, content: memoryview, card: Card, about: Key | None = None) -> None:
    """Write *content* as *path*, whole or not at all. Raises ConfigError."""
    header = _Header(about=about, card=card, size_bytes=len(content), sha256=_sha256(content))
    encoded = _json(header)
    temporary = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(_FIXED.pack(MAGIC, len(encoded), hashlib.sha256(encoded).digest()))
            file.write(encoded)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; make room, or name another plan_dir"
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)


def find(folder: Path, key: Key) -> Found | None:
    """Return the plan for *key*, None where there is none. Raises ConfigError for a bad one."""
    path = folder / key.name
    if not path.exists():
        return None
    found = read(path)
    if found.about != key:
        there = found.about.card if found.about else found.card
        raise ConfigError(
            f"{path}: built for another model, shape or card ({there}); this is {key.card}: delete "
            "the file, it is built again"
        )
    return found


def others(folder: Path, key: Key) -> Iterator[str]:
    """Yield for which other cards the same model has plans in *folder*."""
    for path in sorted(folder.glob("*.plan")):
        try:
            with path.open("rb") as file:
                header, _ = _header(file.read(_FIXED.size + _MOST_HEADER_BYTES))
        except (OSError, ValueError, struct.error, msgspec.MsgspecError):
            continue
        if header.about and header.about.model == key.model and header.card != key.card:
            yield str(header.card)


@contextmanager
def locked(folder: Path, key: Key) -> Iterator[None]:
    """Let one process build a plan; others wait for it. Raises ConfigError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / f".{key.name}.lock").open("w")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}; name another plan_dir") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def timings(folder: Path, card: Card) -> Path:
    """Return where the timings of *card* are."""
    return folder / f"timings-{hashlib.sha256(_json(card)).hexdigest()[:16]}.cache"


def _header(beginning: bytes) -> tuple[_Header, int]:
    """Return the header and where the content starts. Raises ValueError and others."""
    magic, length, digest = _FIXED.unpack(beginning[: _FIXED.size])
    start = _FIXED.size + length
    encoded = beginning[_FIXED.size : start]
    if magic != MAGIC or hashlib.sha256(encoded).digest() != digest:
        raise ValueError("it begins otherwise")
    return msgspec.json.decode(encoded, type=_Header), start


def _refuse_shared(handle: int, path: Path) -> None:
    if os.fstat(handle).st_mode & stat.S_IWOTH:
        raise ConfigError(f"{path}: every user may write it; chmod o-w it, or delete it")


def _sha256(content: memoryview) -> str:
    """Return the hash of the hashes of pieces: several processors share the work."""
    pieces = [
        content[at : at + _PIECE_BYTES] for at in range(0, max(len(content), 1), _PIECE_BYTES)
    ]
    with ThreadPoolExecutor(_HASHING_THREADS) as pool:
        digests = pool.map(lambda piece: hashlib.sha256(piece).digest(), pieces)
    return hashlib.sha256(b"".join(digests)).hexdigest()


def _json(value: msgspec.Struct) -> bytes:
    return msgspec.json.encode(value, order="deterministic")
