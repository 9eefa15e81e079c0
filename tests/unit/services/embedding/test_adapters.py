"""The file of adapters is read as it was written, or refused with what to do."""

from pathlib import Path

import numpy as np
import pytest

from services.embedding.adapters import read, write
from services.kit.errors import ConfigError

ENCODER = "ab" * 32
DIRECTIONS = np.array([[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]], np.float32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "adapters.npz"
    write(path, ("coder", "other"), DIRECTIONS, encoder_sha256=ENCODER)
    return path


def test_what_was_written_is_read(file: Path) -> None:
    """A model about which nothing was learned has none, and nothing lies beside the file."""
    found = read(str(file), encoder_sha256=ENCODER, dimensions=3)
    assert list(found) == ["coder"]
    assert found["coder"].tolist() == DIRECTIONS[0].tolist()
    assert [p.name for p in file.parent.iterdir()] == [file.name]


def test_without_a_file_nothing_is_adapted() -> None:
    """The key is empty by default."""
    assert read("", encoder_sha256=ENCODER, dimensions=3) == {}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": np.array("zeta warm start")}, "no file of adapters"),
        ({"version": np.array(7)}, "of version 7, not 1"),
        ({"encoder": np.array("cd" * 32)}, "learned for encoder cdcdcdcd"),
        ({"directions": DIRECTIONS[:, :2]}, "shape"),
        ({"directions": 2 * DIRECTIONS}, "length"),
        ({"directions": np.nan * DIRECTIONS}, "length"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    file: Path, change: dict[str, np.ndarray], said: str
) -> None:
    """With the file, the mistake and the command that makes a right one."""
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(file, **{**arrays, **change})
    with pytest.raises(ConfigError, match=said) as refused:
        read(str(file), encoder_sha256=ENCODER, dimensions=3)
    assert f"embedding.adapters: {file}" in str(refused.value)
    assert "--adapters" in str(refused.value)


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 broken", b"text"])
def test_a_damaged_or_missing_file_is_refused(tmp_path: Path, data: bytes) -> None:
    """No traceback."""
    path = tmp_path / "adapters.npz"
    with pytest.raises(ConfigError, match="No such file"):
        read(str(path), encoder_sha256=ENCODER, dimensions=3)
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=r"embedding\.adapters"):
        read(str(path), encoder_sha256=ENCODER, dimensions=3)
