"""Read safetensors files tensor by tensor: nothing is held but what was asked for.

The format: eight bytes of header length, the header (a JSON object: dtype, shape and place of each
tensor), then the tensors, one behind the other and without gaps. A file that is not exactly so is
refused: a download that broke off must not become a model.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from services.kit.errors import ConfigError

Floats = NDArray[np.float32]

READABLE: Mapping[str, np.dtype[Any]] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F64": np.dtype(np.float64),
}
"""By the format's name. Other types are those of checkpoints that somebody quantised."""
_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8}
_BITS |= {
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "C64": 64,
}
_LENGTH_BYTES = 8
_MOST_HEADER_BYTES = 100_000_000
_BLOCK_ELEMENTS = 1 << 22
"""Elements that are converted at a time: 16 MiB of float32."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a tensor lies."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset_bytes: int


class Weights(Mapping[str, Floats]):
    """Weights by name, read as float32 each time they are asked for."""

    def __init__(
        self, places: Mapping[str, Place], on_read: Callable[[int], None] = lambda _: None
    ) -> None:
        self._places = dict(places)
        self._on_read = on_read
        """Called with the bytes of the file that were read."""

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Floats:
        out = np.empty(self.shape(name), np.float32)
        for start, rows in self.blocks(name):
            out[start : start + len(rows)] = rows
        return out

    def place(self, name: str) -> Place:
        """Return where *name* lies. Raises KeyError."""
        return self._places[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of *name* without reading it. Raises KeyError."""
        return self._places[name].shape

    def blocks(self, name: str) -> Iterator[tuple[int, Floats]]:
        """Yield *name* in pieces: first row and rows, cut along the first dimension."""
        place = self._places[name]
        width = math.prod(place.shape[1:])
        step = max(1, _BLOCK_ELEMENTS // max(width, 1))
        for start in range(0, place.shape[0], step):
            stop = min(start + step, place.shape[0])
            stored = _read(place, start * width, (stop - start) * width)
            self._on_read(stored.nbytes)
            rows = stored.reshape(stop - start, *place.shape[1:])
            yield start, rows.astype(np.float32, copy=False)

    def watched(self, on_read: Callable[[int], None]) -> "Weights":
        """Return the same weights; *on_read* is told what is read of them."""
        return Weights(self._places, on_read)

    def without(self, name: str) -> "Weights":
        """Return the same weights but one."""
        return Weights({k: v for k, v in self._places.items() if k != name}, self._on_read)

    def renamed(self, name_of: Callable[[str], str]) -> "Weights":
        """Return the same weights under other names."""
        return Weights({name_of(k): v for k, v in self._places.items()}, self._on_read)


def files_of(folder: Path) -> list[Path]:
    """Return the weight files of *folder*. Raises ConfigError where one is missing or a pickle."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.exists():
        return [single]
    if index.exists():
        return _indexed(index)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = sorted(p.name for kind in _PICKLES for p in folder.glob(kind))
        if pickles:
            raise ConfigError(
                f"{folder}: {pickles[0]} is a pickle, and reading one runs whatever it holds; "
                "convert the weights to safetensors"
            )
        raise ConfigError(f"{folder}: no *.safetensors; convert the weights to safetensors")
    return files


def weights_of(folder: Path) -> Weights:
    """Return the weights of *folder*, unread. Raises ConfigError."""
    places: dict[str, Place] = {}
    for file in files_of(folder):
        for name, place in header(file).items():
            if name in places:
                raise ConfigError(
                    f"{folder}: {name} is in {places[name].file.name} and in {file.name}; "
                    "keep the files of one model only"
                )
            places[name] = place
    return Weights(places)


def header(file: Path) -> dict[str, Place]:
    """Return what *file* says of its tensors, checked against its size. Raises ConfigError."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
            if length > min(size - _LENGTH_BYTES, _MOST_HEADER_BYTES):
                raise _broken(file, f"{size} bytes are too few for its header")
            content = json.loads(stream.read(length), object_pairs_hook=_no_twins)
    except OSError as error:
        raise _broken(file, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise _broken(file, f"its header is no JSON object: {error}") from error
    if not isinstance(content, dict):
        raise _broken(file, "its header is no JSON object")
    content.pop("__metadata__", None)
    spans = {name: _span(file, name, entry) for name, entry in content.items()}
    _check_spans(file, list(spans.values()), size - _LENGTH_BYTES - length)
    return {
        name: Place(
            file=file, dtype=entry["dtype"], shape=tuple(entry["shape"]),
            offset_bytes=_LENGTH_BYTES + length + spans[name][0],
        )
        for name, entry in content.items()
    }  # fmt: skip


def _read(place: Place, first: int, count: int) -> NDArray[Any]:
    """Read *count* elements. A copy, not a map: pages of a map would count as memory in use."""
    dtype = READABLE[place.dtype]
    try:
        stored: NDArray[Any] = np.fromfile(
            place.file, dtype, count, offset=place.offset_bytes + first * dtype.itemsize
        )
    except OSError as error:
        raise _broken(place.file, error.strerror or str(error)) from error
    if len(stored) != count:
        raise _broken(place.file, "it became shorter while it was read")
    return stored


def _indexed(index: Path) -> list[Path]:
    try:
        placed = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = sorted(set(placed.values()))
        inside = all(Path(name).name == name for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(
            f"{index}: cannot be read: {type(error).__name__}: {error}; fetch the file again"
        ) from error
    if not names or not inside:
        raise ConfigError(f"{index}: names files that are not beside it; fetch the file again")
    files = [index.parent / name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise ConfigError(
            f"{index.parent}: {len(missing)} of {len(files)} shards missing, {missing[0]} first; "
            "fetch it again"
        )
    return files


def _span(file: Path, name: str, entry: Any) -> tuple[int, int]:
    """Return where a tensor begins and ends, if shape, type and place agree."""
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(start), int(stop)]}:
            sizes = all(type(n) is int and n >= 0 for n in shape) and 0 <= start <= stop
            bits = _BITS.get(dtype)
            if sizes and (bits is None or math.prod(shape) * bits == (stop - start) * 8):
                return start, stop
    raise _broken(file, f"its header is wrong about {name!r}: {str(entry)[:200]}")


def _check_spans(file: Path, spans: list[tuple[int, int]], size_bytes: int) -> None:
    """Refuse tensors that overlap, leave gaps, or do not end where the file does."""
    end = 0
    for start, stop in sorted(spans):
        if start != end:
            raise _broken(file, f"a tensor begins at byte {start}, where {end} is expected")
        end = stop
    if end != size_bytes:
        raise _broken(file, f"it holds {size_bytes} bytes of tensors, its header says {end}")


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _broken(file: Path, reason: str) -> ConfigError:
    return ConfigError(f"{file}: cannot be read: {reason}; fetch the file again")
