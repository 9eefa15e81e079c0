"""Metadata as calls on a stream carry it."""

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from zeta.inference.v1 import call_service_pb2 as pb

Value: TypeAlias = str | bytes

_MOST_BYTES: Final = 16 * 1024
"""Of a call's metadata; gRPC's own limit for that of a call of its own."""
_KEY: Final = re.compile(r"[0-9a-z_.-]+")
_TEXT: Final = re.compile(rb"[ -~]*")


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


def checked(headers: Iterable[pb.CallHeader]) -> tuple[tuple[str, Value], ...]:
    """As `read`. Raises ValueError for what gRPC would not have let through."""
    size_bytes = 0
    for h in headers:
        size_bytes += len(h.key) + len(h.value)
        if not _KEY.fullmatch(h.key):
            raise ValueError(f"a header's name is lower case, digits, '_', '.', '-': {h.key!r:.80}")
        if not h.key.endswith("-bin") and not _TEXT.fullmatch(h.value):
            raise ValueError(f"header {h.key!r:.80} holds more than printable ASCII")
    if size_bytes > _MOST_BYTES:
        raise ValueError(f"{size_bytes} bytes of metadata; {_MOST_BYTES} are allowed")
    return read(headers)
