"""Where a graph's constants go: into the graph, or into a file beside it.

Protocol buffers end at 2 GB. A file beside the graph does not, it can be written piece by piece,
and ONNX Runtime maps it instead of copying it.
"""

import hashlib
import math
from collections.abc import Iterable
from typing import Any, BinaryIO, Protocol

import ml_dtypes
import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Pieces = Iterable[NDArray[Any]]

_INSIDE_BYTES = 1024
"""Up to here a constant stays in the graph, where shapes can be inferred from it."""
_PAGE_BYTES = 4096
"""Where a mapped tensor may begin."""


class Store(Protocol):
    """Keeps constants."""

    def keep(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], pieces: Pieces
    ) -> TensorProto:
        """Take a constant, *pieces* of it one after another in memory order."""
        ...


class Inside:
    """Keeps constants in the graph."""

    def keep(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], pieces: Pieces
    ) -> TensorProto:
        """As `Store.keep`."""
        out = np.empty(math.prod(shape), dtype)
        at = 0
        for piece in pieces:
            out[at : at + piece.size] = piece.ravel()
            at += piece.size
        assert at == out.size, f"{name}: {at} numbers for a shape of {shape}"
        return numpy_helper.from_array(out.reshape(shape), name)


class Beside:
    """Writes constants to a file as they come, and keeps its SHA-256."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        self._file, self._location = file, location
        self.size_bytes = 0
        self.sha256 = hashlib.sha256()

    def keep(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], pieces: Pieces
    ) -> TensorProto:
        """As `Store.keep`; raises OSError where the file cannot be written."""
        length = -(-math.prod(shape) * _bits(dtype) // 8)
        if length <= _INSIDE_BYTES:
            return Inside().keep(name, dtype, shape, pieces)
        self._write(bytes(-self.size_bytes % _PAGE_BYTES))
        offset = self.size_bytes
        for piece in pieces:
            self._write(_raw(np.ascontiguousarray(piece, dtype)))
        assert self.size_bytes - offset == length, f"{name}: wrong size for {shape}"
        return self._pointer(name, dtype, shape, {"offset": offset, "length": length})

    def _write(self, content: bytes | memoryview) -> None:
        self._file.write(content)
        self.sha256.update(content)
        self.size_bytes += len(content) if isinstance(content, bytes) else content.nbytes

    def _pointer(
        self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...], place: dict[str, int]
    ) -> TensorProto:
        tensor = TensorProto(
            name=name,
            dims=shape,
            data_type=helper.np_dtype_to_tensor_dtype(dtype),
            data_location=TensorProto.EXTERNAL,
        )
        for key, value in {"location": self._location, **place}.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor


def _bits(dtype: np.dtype[Any]) -> int:
    return 4 if dtype == ml_dtypes.int4 else 8 * dtype.itemsize


def _raw(piece: NDArray[Any]) -> memoryview:
    """Return *piece* as ONNX stores it: of two numbers of 4 bits the first is in the low half."""
    if piece.dtype != ml_dtypes.int4:
        return piece.view(np.uint8).data
    halves = piece.view(np.uint8).ravel() & 15
    assert halves.size % 2 == 0, "an odd number of halves has no place for the last one"
    return (halves[0::2] | halves[1::2] << 4).data
