"""What is written is whole, or was never there."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.kit.files import write_whole


def test_a_file_is_replaced(tmp_path: Path) -> None:
    """By all of the new, and nothing stays beside it."""
    file = tmp_path / "state"
    file.write_bytes(b"before")
    write_whole(file, b"after")

    assert file.read_bytes() == b"after"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_stays_one(tmp_path: Path) -> None:
    """What it leads to is replaced."""
    file, link = tmp_path / "state", tmp_path / "link"
    file.write_bytes(b"before")
    link.symlink_to(file)
    write_whole(link, b"after")

    assert (file.read_bytes(), link.is_symlink()) == (b"after", True)


def test_a_pipe_is_written_to(tmp_path: Path) -> None:
    """It cannot be replaced, nor can a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as threads:
        read = threads.submit(pipe.read_bytes)
        write_whole(pipe, b"data")

    assert read.result() == b"data"
    assert pipe.is_fifo()


def test_what_cannot_be_written_leaves_everything_as_it_was(tmp_path: Path) -> None:
    """Here a folder is in the way: no half of the file is left beside it."""
    folder = tmp_path / "state"
    (folder / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match=r"state'$"):
        write_whole(folder, b"data")
    with pytest.raises(OSError, match=r"missing/state'$"):
        write_whole(tmp_path / "missing" / "state", b"data")

    assert list(tmp_path.iterdir()) == [folder]
