"""Plots show what a way did, and what of it was right."""

from dataclasses import replace
from pathlib import Path

import pytest

from zeta_client.load import plot
from zeta_client.load.figures import Objective
from zeta_client.load.send import OK, Result

ANSWER = Result(
    at_s=0.5,
    kind="code",
    priority="standard",
    status=OK,
    ttft_s=0.1,
    total_s=0.2,
    tokens=3,
    model="m",
    plan="single",
    right=False,
    late_s=0.0,
    decision_id="d",
)


@pytest.mark.parametrize(("right", "drawn"), [(False, True), (None, False)])
def test_right_answers_are_drawn_where_they_are_known(
    tmp_path: Path, *, right: bool | None, drawn: bool
) -> None:
    """Goodput alone flatters who answers fast and wrong."""
    pytest.importorskip("matplotlib")
    file = tmp_path / "out.svg"
    runs = {"routed": [replace(ANSWER, right=right)], "all:p2c": []}
    plot.draw(file, runs, Objective(), 1.0)

    said = file.read_text()
    assert "good requests per second" in said
    assert ("good and right requests per second" in said) is drawn
