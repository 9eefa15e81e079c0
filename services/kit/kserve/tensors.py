"""Tensors of the protocol ⇄ Python values; sizes are checked before anything is read.

Shapes are [n] or [n, k]. Raw elements are little endian, BYTES each after its length in four
bytes (the binary tensor extension of the open inference protocol v2).
"""

import math
import struct
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from zeta.kserve.v2 import grpc_inference_service_pb2 as pb

from services.kit.errors import invalid

Scalar: TypeAlias = bool | int | float | bytes
MAX_ELEMENTS: Final = 1024
_MAX_DIMENSIONS: Final = 2
_QUOTED: Final = 80
_NUMPY: Final = {
    "BOOL": "?",
    "INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
_FIELDS: Final = {
    "BOOL": "bool_contents",
    "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}  # fmt: skip
_DATATYPES: Final = ("BYTES", *_NUMPY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One input."""

    datatype: str
    shape: tuple[int, ...]
    values: Sequence[Scalar]
    """In row-major order."""

    def row(self, i: int, rows: int) -> Sequence[Scalar]:
        """Return what the tensor says about prompt *i* of *rows*: its own row, or the only one.

        Raises ValueError where it has neither one row nor so many.
        """
        own = self.shape[0]
        if own not in {1, rows}:
            raise ValueError(f"must have 1 row or {rows}, as text_input, got {own}")
        size = len(self.values) // own
        start = size * i if own == rows else 0
        return self.values[start : start + size]


def quoted(name: str) -> str:
    """Quote *name*, which may be as long as a message."""
    return repr(name if len(name) <= _QUOTED else f"{name[:_QUOTED]}…")


def read(request: pb.ModelInferRequest, known: Container[str]) -> Mapping[str, Tensor]:
    """Read the inputs, by name. Raises InvalidRequestError for the first that is wrong."""
    raws, found = request.raw_input_contents, dict[str, Tensor]()
    if raws and len(raws) != len(request.inputs):
        raise invalid(
            "raw_input_contents",
            f"must have one entry for each of {len(request.inputs)} inputs, got {len(raws)}",
        )
    for i, given in enumerate(request.inputs):
        if given.name not in known:
            raise invalid(f"inputs[{i}].name", f"no input is called {quoted(given.name)}")
        if given.name in found:
            raise invalid(f"inputs[{i}].name", f"{given.name} is there already")
        found[given.name] = _tensor(given, raws[i] if raws else None)
    return found


def add(
    response: pb.ModelInferResponse, name: str, datatype: str, shape: Sequence[int],
    values: Sequence[Scalar], *, raw: bool,
) -> None:  # fmt: skip
    """Add an output, its elements as bytes or not."""
    output = response.outputs.add(name=name, datatype=datatype, shape=shape)
    if not raw:
        getattr(output.contents, _FIELDS[datatype]).extend(values)
    elif datatype == "BYTES":
        strings = [value for value in values if isinstance(value, bytes)]
        parts = [part for s in strings for part in (struct.pack("<I", len(s)), s)]
        response.raw_output_contents.append(b"".join(parts))
    else:
        response.raw_output_contents.append(np.array(values, _NUMPY[datatype]).tobytes())


def _tensor(given: pb.ModelInferRequest.InferInputTensor, raw: bytes | None) -> Tensor:
    if given.datatype not in _DATATYPES:
        raise invalid(
            f"{given.name}.datatype",
            f"must be one of {', '.join(_DATATYPES)}, got {quoted(given.datatype)}",
        )
    if given.parameters:
        raise invalid(
            f"{given.name}.parameters", "shared memory is not served: send the elements themselves"
        )
    count = _count(given)
    values = _plain(given, count) if raw is None else _raw(given, raw, count)
    return Tensor(datatype=given.datatype, shape=tuple(given.shape), values=values)


def _count(given: pb.ModelInferRequest.InferInputTensor) -> int:
    """Return the number of elements that the shape promises."""
    shape = list(given.shape[: _MAX_DIMENSIONS + 1])
    if not 1 <= len(shape) <= _MAX_DIMENSIONS or min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS:
        raise invalid(
            f"{given.name}.shape",
            f"must be [n] or [n, k] with 1 to {MAX_ELEMENTS} elements, got {shape}",
        )
    return math.prod(shape)


def _plain(given: pb.ModelInferRequest.InferInputTensor, count: int) -> Sequence[Scalar]:
    field = _FIELDS.get(given.datatype)
    if field is None:
        raise invalid(f"{given.name}.contents", f"{given.datatype} is sent in raw_input_contents")
    values: Sequence[Scalar] = getattr(given.contents, field)
    if len(values) != count:
        raise invalid(
            f"{given.name}.contents.{field}",
            f"must have the {count} elements of shape {list(given.shape)}, got {len(values)}",
        )
    return list(values)


def _raw(given: pb.ModelInferRequest.InferInputTensor, raw: bytes, count: int) -> Sequence[Scalar]:
    if given.datatype == "BYTES":
        return _strings(given.name, raw, count)
    dtype = np.dtype(_NUMPY[given.datatype])
    if len(raw) != count * dtype.itemsize:
        raise invalid(
            given.name,
            f"{given.datatype} of shape {list(given.shape)} takes {count * dtype.itemsize} bytes, "
            f"got {len(raw)}",
        )
    values: list[Scalar] = np.frombuffer(raw, dtype).tolist()
    return values


def _strings(name: str, raw: bytes, count: int) -> Sequence[Scalar]:
    values, at = list[Scalar](), 0
    while len(values) < count and at + 4 <= len(raw):
        (size,) = struct.unpack_from("<I", raw, at)
        values.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    if len(values) != count or at != len(raw):
        raise invalid(
            name, f"{len(raw)} bytes are not {count} strings, each after its length in 4 bytes"
        )
    return values
