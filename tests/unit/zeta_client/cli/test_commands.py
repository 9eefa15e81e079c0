"""The program's promises that need no fleet."""

import json
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.kit.errors import OverloadedError, UnavailableError
from zeta_client.cli.app import app
from zeta_client.cli.export import _written
from zeta_client.cli.shell import default_config, sentence

WRONG = """
surprise = 1
[router]
listen = "nowhere"
default_policy = "best"
[[models]]
name = "Big Model"
dir = "somewhere"
replicas = [{ listen = "127.0.0.1:1", thread = 2 }]
"""


@pytest.fixture
def zeta() -> CliRunner:
    """Return what runs the program in this process."""
    return CliRunner()


def test_every_command_explains_itself(zeta: CliRunner) -> None:
    """The help names all commands."""
    shown = zeta.invoke(app, ["--help"]).stdout

    for command in ("demo", "up", "ask", "route", "embed", "feedback", "top", "bench"):
        assert command in shown
    for command in ("model", "eval", "config"):
        assert command in shown


def test_shells_can_complete_commands(zeta: CliRunner) -> None:
    """A shell that asks for what begins with "as" is told of `ask`."""
    asked = {"_ZETA_COMPLETE": "complete_bash", "COMP_WORDS": "zeta as", "COMP_CWORD": "1"}
    result = zeta.invoke(app, env=asked, prog_name="zeta")

    assert result.stdout.split() == ["ask"]


def test_the_shipped_configuration_is_right(zeta: CliRunner) -> None:
    """The default configuration passes its own check."""
    result = zeta.invoke(app, ["config", "check", "--json"])

    assert result.exit_code == 0
    assert json.loads(result.stdout) == {
        "file": str(default_config()),
        "ok": True,
        "mistakes": [],
    }


def test_every_mistake_is_found_at_once(zeta: CliRunner, tmp_path: Path) -> None:
    """Each mistake is a line that begins with the path of its key, and the exit code is 1."""
    file = tmp_path / "wrong.toml"
    file.write_text(WRONG)
    result = zeta.invoke(app, ["config", "check", str(file)])

    assert result.exit_code == 1
    keys = {line.removeprefix(f"{file}: ").split(":")[0] for line in result.stdout.splitlines()}
    assert keys == {
        *("surprise", "router.listen", "models[0].name", "models[0].replicas[0].thread"),
    }
    assert result.stderr.startswith("error: 4 mistakes")


def test_mistakes_as_json(zeta: CliRunner, tmp_path: Path) -> None:
    """With --json the mistakes are one object, and the exit code still says that there are some."""
    file = tmp_path / "wrong.toml"
    file.write_text(WRONG)
    result = zeta.invoke(app, ["config", "check", "--json", str(file)])

    assert result.exit_code == 1
    assert len(json.loads(result.stdout)["mistakes"]) == 4


@pytest.mark.parametrize("command", ["up", "demo", "top", "ask hello"])
def test_a_missing_configuration_is_one_message(
    zeta: CliRunner, tmp_path: Path, command: str
) -> None:
    """Without its file no command starts anything, and each says what is missing."""
    file = tmp_path / "none.toml"
    result = zeta.invoke(app, [*command.split(), "--config", str(file)])

    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{file}: No such file" in result.stderr


def test_top_names_a_telemetry_service_that_hangs(zeta: CliRunner) -> None:
    """Something listens and says nothing: after a while that is said, in a sentence."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        result = zeta.invoke(app, ["top", "--once", "--telemetry", address])

    assert (result.exit_code, result.stdout) == (1, "")
    assert "telemetry gives no answer for 2 s; start a fleet" in result.stderr
    assert "--telemetry HOST:PORT" in result.stderr


@pytest.mark.parametrize("command", ["ask", "route", "embed"])
def test_a_text_that_is_no_text_is_one_sentence(zeta: CliRunner, command: str) -> None:
    """Bytes that are not UTF-8 reach a program as lone surrogates; nothing is asked."""
    result = zeta.invoke(app, [command, "\udcff"])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: '\\udcff' is no Unicode text; send UTF-8\n"


@pytest.mark.parametrize(
    "options", [["--max-tokens", "99999999999"], ["--seed", str(2**64)], ["--deadline", "1e12"]]
)
def test_a_number_out_of_range_is_refused(zeta: CliRunner, options: list[str]) -> None:
    """By its option's name, as a mistake in the command line: exit code 2."""
    result = zeta.invoke(app, ["ask", "hello", *options])

    assert (result.exit_code, result.stdout) == (2, "")
    assert options[0] in result.stderr


def test_an_export_that_cannot_be_written_names_the_file(zeta: CliRunner, tmp_path: Path) -> None:
    """The one that was asked for, and not what would have been written first."""
    (tmp_path / "router.sqlite3").touch()
    file = tmp_path / "missing" / "out.jsonl"
    result = zeta.invoke(app, ["export", str(file), "--state-dir", str(tmp_path)])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.endswith(f": {file}\n")


def test_an_export_into_a_pipe_leaves_it_one(tmp_path: Path) -> None:
    """As into /dev/stdout; only a file is replaced."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor() as threads:
        read = threads.submit(pipe.read_text)
        count = _written(pipe, iter([{"score": 1.0}, {"score": 0.0}]))

    assert (count, read.result()) == (2, '{"score": 1.0}\n{"score": 0.0}\n')
    assert pipe.is_fifo()


@pytest.mark.parametrize("command", [["config", "check"], ["config", "check", "--json"]])
def test_a_full_disk_under_the_output_is_one_sentence(command: list[str]) -> None:
    """Also for commands that do not ask a fleet."""
    program = "from zeta_client.cli import main; main()"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program, *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )

    assert done.returncode == 1
    assert done.stderr == "error: No space left on device; make room and try again\n"


@pytest.mark.parametrize("command", [["ask", "hi"], ["top", "--once"]])
def test_an_empty_address_is_refused(zeta: CliRunner, command: list[str]) -> None:
    """A script whose variable is not set must not reach another fleet."""
    result = zeta.invoke(app, [*command, "--target", ""])

    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: the address must be HOST:PORT or unix:PATH, got ''\n"


def test_top_says_how_to_name_a_telemetry_service(zeta: CliRunner) -> None:
    """--target names a router: who looks for telemetry is told of the option for it."""
    result = zeta.invoke(app, ["top", "--once", "--telemetry", "127.0.0.1:1"])

    assert (result.exit_code, result.stdout) == (1, "")
    assert "telemetry: nothing answers at 127.0.0.1:1; start a fleet" in result.stderr
    assert "--telemetry HOST:PORT" in result.stderr


def test_a_sentence_ends_with_what_to_do() -> None:
    """Errors that can be helped say how."""
    assert sentence(OverloadedError("full", retry_after_s=2.0)) == "full; try again in 2.0 s"
    assert "zeta up" in sentence(UnavailableError("nothing answers at 127.0.0.1:1"))
