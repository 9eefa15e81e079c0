"""Mistakes in the options of `zeta bench` are sentences, before anything is started."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from zeta_client.cli import app


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--compare", "nothing"], "no policy 'nothing'"),
        (["--mix", "poetry=1"], "--mix poetry=1: expected code or"),
        (["--mix", "code=much"], "'much' is not a number"),
        (["--mix", "code=0"], "must not all be 0"),
        (["--priorities", "urgent"], "expected batch or"),
        (["--burst", "3"], "expected FACTOR,EVERY_S,FOR_S"),
        (["--burst", "3,2,4"], "FOR_S in"),
        (["--trace", "nowhere.csv"], "nowhere.csv: No such file"),
        (["--rate", "0.01", "--duration", "0.1"], "give a higher --rate"),
        (["--plot", "picture.doc"], "must end with one of"),
        (["--target", "127.0.0.1:9", "--duration", "1", "--compare", "balanced:p2c"], "zeta up"),
    ],
)
def test_a_mistake_is_a_sentence(options: list[str], expected: str) -> None:
    """It quotes the value and says what was expected; exit code 1, no traceback."""
    result = CliRunner().invoke(app, ["bench", *options])

    assert result.exit_code == 1
    assert expected in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_a_burst_and_a_trace_exclude_each_other(tmp_path: Path) -> None:
    """Nobody could say which of them arrivals should follow."""
    file = tmp_path / "t.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n2,3,4\n")
    result = CliRunner().invoke(app, ["bench", "--trace", str(file), "--burst", "2,2,1"])

    assert result.exit_code == 1
    assert "give one of them" in result.stderr
