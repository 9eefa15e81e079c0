"""What every command shares holds for all of them."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from zeta_client.cli import embed, shell

_INTERRUPTED_WHILE_LOADING = """
import sys
class Impatient:
    def find_spec(name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Impatient)
from zeta_client.cli import main
main()
"""


def test_what_users_write_is_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets and colons are printed as they came, in lines and in tables."""
    odd = "[bold]a[/x] :smile:"
    shell.out().print(odd)
    shell.notes().print(odd)
    shell.out().print(embed._table([odd], np.eye(1, 4, dtype=np.float32)))
    said = capsys.readouterr()

    assert said.out.count(odd) == 2
    assert said.err == f"{odd}\n"


def test_an_interrupted_command_ends_without_a_word() -> None:
    """Ctrl-C in the middle of work that is no call."""

    @shell.ends_on_interrupt
    def command() -> None:
        raise KeyboardInterrupt

    with pytest.raises(typer.Exit) as end:
        command()

    assert end.value.exit_code == shell.INTERRUPTED


def test_ctrl_c_while_the_program_is_loaded_is_no_traceback() -> None:
    """A second is long enough to change one's mind."""
    done = subprocess.run(
        [sys.executable, "-c", _INTERRUPTED_WHILE_LOADING],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert (done.returncode, done.stdout, done.stderr) == (shell.INTERRUPTED, "", "")


def test_a_full_disk_is_named_with_what_to_do() -> None:
    """The file where there is one: nothing is shown above it."""
    full = OSError(errno.ENOSPC, "No space left on device")

    assert shell.of_system(full) == "No space left on device; make room and try again"
    assert shell.of_system(full, Path("out")) == (
        "No space left on device: out; make room and try again"
    )
    assert shell.of_system(OSError(errno.EACCES, "Denied", "x"), Path("out")) == "Denied: x"
