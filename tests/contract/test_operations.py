"""The operations manual explains every configuration key."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from services.kit import config

MANUAL = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def keys(section: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    """Yield the path of every key below *section*, as the manual writes it."""
    for field in msgspec.structs.fields(section):
        inner = next((s for s in structs_in(field.type)), None)
        if inner:
            yield from keys(inner, f"{path}{field.name}.")
        else:
            yield path + field.name


def structs_in(kind: Any) -> Iterator[type[msgspec.Struct]]:
    """Yield the section that a key's type is, or holds."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        yield kind
    for argument in get_args(kind):
        yield from structs_in(argument)


@pytest.mark.parametrize("key", list(keys(config.FleetConfig)))
def test_every_key_is_explained(key: str) -> None:
    """A key that an operator can set is in the manual's tables."""
    assert f"`{key}`" in MANUAL
