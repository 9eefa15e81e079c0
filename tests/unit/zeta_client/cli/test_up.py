"""Where a fleet of a command's own keeps its state, and when that goes."""

from contextlib import suppress
from pathlib import Path

import pytest
import typer

from zeta_client.cli import shell
from zeta_client.cli.up import state_in


def used(named: Path | None, end: BaseException | None) -> Path:
    """Keep something in the folder, and end like this; return which folder it was."""
    folders = []

    def command() -> None:
        with state_in(named, "zeta-test-") as folder:
            folders.append(folder)
            (folder / "log").write_text("why")
            if end is not None:
                raise end

    with suppress(typer.Exit, KeyboardInterrupt):
        command()
    return folders[0]


def test_a_folder_that_was_named_stays(tmp_path: Path) -> None:
    """It is the user's."""
    assert used(tmp_path, None) == tmp_path
    assert (tmp_path / "log").exists()


@pytest.mark.parametrize("end", [None, typer.Exit(shell.INTERRUPTED), KeyboardInterrupt()])
def test_a_folder_of_our_own_goes(end: BaseException | None) -> None:
    """Also after Ctrl-C."""
    assert not used(None, end).exists()


def test_the_logs_of_a_failure_stay() -> None:
    """The error names them."""
    folder = used(None, typer.Exit(1))

    assert (folder / "log").read_text() == "why"
    (folder / "log").unlink()
    folder.rmdir()
