"""Mistakes in the options of `zeta bench` are sentences, before anything is started."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zeta_client.cli.app import app
from zeta_client.cli.bench import groups
from zeta_client.load.figures import Objective, summary
from zeta_client.load.send import Result


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
        (["--burst", "inf,10,2"], "--burst inf,10,2: FACTOR"),
        (["--burst", "2,inf,inf"], "--burst 2,inf,inf: FACTOR"),
        (["--tenants", "a=1,=2"], "--tenants =2: expected a name"),
        (["--trace", "nowhere.csv"], "nowhere.csv: No such file"),
        (["--rate", "0.01", "--duration", "0.1"], "give a higher --rate"),
        (["--plot", "picture.doc"], "must end with one of"),
        (["--target", "127.0.0.1:9", "--duration", "1", "--compare", "balanced:p2c"], "zeta up"),
        (["--target", "127.0.0.1:9", "--duration", "1"], "zeta up"),
        (["--rate", "1e9", "--duration", "1"], "1e+09 requests per second for 1 s are more than"),
        (["--burst", "9e9,9e9,1"], "more than 1,000,000; lower the rate"),
    ],
)
def test_a_mistake_is_a_sentence(options: list[str], expected: str) -> None:
    """It quotes the value and says what was expected; exit code 1, no traceback."""
    result = CliRunner().invoke(app, ["bench", *options])

    assert result.exit_code == 1
    assert expected in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_classes_and_tenants_are_told_apart_where_there_are_several() -> None:
    """Who of them was shed is what they are given for."""
    one = Result(
        at_s=0.0, kind="code", priority="batch", status="OK", ttft_s=0.1, total_s=0.5, tokens=5,
        model="m", plan="single(m)", right=True, late_s=0.001, decision_id="d",
    )  # fmt: skip
    shed = replace(one, priority="standard", status="OVERLOADED")
    several = summary([one, shed], Objective(), 1.0)

    (table,) = groups({"routed": several})
    assert [list(column.cells) for column in table.columns][1:4] == [
        ["batch", "standard"],
        ["1", "1"],
        ["100.0%", "0.0%"],
    ]
    assert list(table.columns[-1].cells) == ["", "1 overloaded"]
    assert not list(groups({"routed": summary([one], Objective(), 1.0)}))


def test_a_burst_and_a_trace_exclude_each_other(tmp_path: Path) -> None:
    """Nobody could say which of them arrivals should follow."""
    file = tmp_path / "t.csv"
    file.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n1,2,3\n2,3,4\n")
    result = CliRunner().invoke(app, ["bench", "--trace", str(file), "--burst", "2,2,1"])

    assert result.exit_code == 1
    assert "give one of them" in result.stderr
