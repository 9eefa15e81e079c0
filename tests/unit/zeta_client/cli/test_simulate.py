"""`zeta simulate` is one object on stdout, the same for the same seed."""

import json
from pathlib import Path

from typer.testing import CliRunner

from zeta_client.cli.app import app
from zeta_client.cli.shell import default_config

SCENARIO = str(default_config().with_name("simulate.toml"))


def test_the_same_seed_gives_the_same_json(tmp_path: Path) -> None:
    """Two runs, byte for byte; the plot is there."""
    short = tmp_path / "short.toml"
    text = Path(SCENARIO).read_text().replace("duration_s = 30.0", "duration_s = 4.0")
    short.write_text(text.partition("[[failures]]")[0])
    command = ["simulate", str(short), "--compare", "routed,all:p2c", "--json", "--seed", "5"]
    plotted = ["--plot", str(tmp_path / "out.svg")]
    first = CliRunner().invoke(app, [*command, *plotted])
    second = CliRunner().invoke(app, command)

    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout
    assert set(json.loads(first.stdout)["runs"]) == {"routed", "all:p2c"}
    assert (tmp_path / "out.svg").stat().st_size > 1000


def test_a_plot_on_a_full_disk_loses_no_figures(tmp_path: Path) -> None:
    """They are told first; then what went wrong, and the exit code says that something did."""
    short, full = tmp_path / "short.toml", tmp_path / "out.svg"
    text = Path(SCENARIO).read_text().replace("duration_s = 30.0", "duration_s = 1.0")
    short.write_text(text.partition("[[failures]]")[0])
    full.symlink_to("/dev/full")
    command = ["simulate", str(short), "--json", "--plot", str(full)]
    result = CliRunner().invoke(app, command)

    assert result.exit_code == 1
    assert set(json.loads(result.stdout)["runs"]) == {"routed"}
    assert result.stderr == (f"error: No space left on device: {full}; make room and try again\n")


def test_a_mistake_is_a_sentence(tmp_path: Path) -> None:
    """A file that is not there, and a way that is not known."""
    for arguments, expected in [
        ([str(tmp_path / "none.toml")], "No such file"),
        ([SCENARIO, "--compare", "best"], "no policy 'best'"),
    ]:
        result = CliRunner().invoke(app, ["simulate", *arguments])
        assert result.exit_code == 1
        assert expected in result.stderr
