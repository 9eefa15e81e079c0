"""Metadata as calls on a stream carry it."""

from collections.abc import Iterable
from typing import TypeAlias

from zeta.inference.v1 import call_service_pb2 as pb

Value: TypeAlias = str | bytes


def written(metadata: Iterable[tuple[str, Value]]) -> list[pb.CallHeader]:
    """Return *metadata* as it is sent."""
    return [
        pb.CallHeader(key=key, value=value.encode() if isinstance(value, str) else value)
        for key, value in metadata
    ]


def read(headers: Iterable[pb.CallHeader]) -> tuple[tuple[str, Value], ...]:
    """Return what *headers* say: bytes under names that end in "-bin", else text."""
    return tuple(
        (h.key, h.value if h.key.endswith("-bin") else h.value.decode(errors="replace"))
        for h in headers
    )
