"""Votes and cascades on tables of answers, against what is known of them."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from zeta_client.cli.app import app
from zeta_client.outcomes import responses
from zeta_client.outcomes.table import TableError

pyarrow = pytest.importorskip("pyarrow", reason="the extra zeta[eval] is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


def written(file: Path, **columns: Sequence[str | None]) -> Path:
    """Write a table."""
    parquet.write_table(pyarrow.table(columns), file)
    return file


def drawn(rng: np.random.Generator, quality: float, count: int) -> list[str]:
    """Answers that are "1" with probability *quality*, and otherwise one of many others."""
    wrong = rng.integers(2, 1000, count)
    return [
        f"#### {1 if ok else w}" for ok, w in zip(rng.random(count) < quality, wrong, strict=True)
    ]


def test_independent_models_gain_what_theory_says(tmp_path: Path) -> None:
    """Two of three are right with 0.784; where all differ, the first voter's answer stands."""
    rng = np.random.default_rng(1)
    count = 4000
    file = written(
        tmp_path / "t.parquet",
        gold=["1"] * count,
        **{f"resp__{m}": drawn(rng, 0.7, count) for m in "abc"},
    )
    found = responses.replay(responses.read(file), np.random.default_rng(0))
    by_plan = {e.plan: e for e in found}
    assert by_plan["single(a)"].accuracy == pytest.approx(0.7, abs=0.03)
    vote = by_plan["vote(a, b, c)"]
    assert vote.accuracy == pytest.approx(0.784 + 0.189 / 3, abs=0.03)
    assert vote.foreseen == pytest.approx(vote.independent, abs=0.02)
    cascade = by_plan["agree(a, b) else c"]
    assert cascade.accuracy == pytest.approx(0.49 + 0.51 * 0.7, abs=0.03)
    assert cascade.calls == pytest.approx(2.51, abs=0.03)


def test_models_that_fail_together_are_foreseen_to_gain_nothing(tmp_path: Path) -> None:
    """Independence would promise them a gain that is not there."""
    answers = drawn(np.random.default_rng(1), 0.7, 2000)
    file = written(
        tmp_path / "t.parquet", gold=["1"] * 2000, **{f"ans__{m}": answers for m in "abc"}
    )
    (vote,) = [
        e
        for e in responses.replay(responses.read(file), np.random.default_rng(0))
        if e.plan.startswith("vote")
    ]
    assert abs(vote.foreseen - vote.accuracy) < 0.03
    assert vote.independent - vote.accuracy > 0.05


def test_rows_are_chosen_and_models_left_out_that_hardly_answered(tmp_path: Path) -> None:
    """Prompts that some model did not answer are left out too."""
    file = written(
        tmp_path / "t.parquet",
        task=["x"] * 20 + ["y"] * 20,
        gold=["1"] * 40,
        resp__a=["1"] * 40,
        resp__b=["1"] * 39 + [None],
        resp__c=["1"] + [None] * 39,
    )
    whole = responses.read(file)
    assert (whole.models, len(whole.answers)) == (("a", "b"), 39)
    assert len(responses.read(file, where="task=x").answers) == 20
    with pytest.raises(TableError, match="column gold"):
        responses.read(file, where="task=z")
    with pytest.raises(TableError, match="resp__d"):
        responses.read(file, models=["a", "d"])


def test_the_command_prints_one_object(tmp_path: Path) -> None:
    """And one sentence where there is nothing to read."""
    rng = np.random.default_rng(1)
    file = written(
        tmp_path / "t.parquet",
        gold=["1"] * 40,
        **{f"resp__{m}": drawn(rng, 0.7, 40) for m in "abc"},
    )
    said = CliRunner().invoke(app, ["eval", "responses", str(file), "--json"])
    found = json.loads(said.stdout)
    assert found["n"] == 40
    assert {"single", "vote", "agree", "vote_error"} <= found.keys()
    none = CliRunner().invoke(app, ["eval", "responses", str(tmp_path / "no.parquet")])
    assert none.exit_code == 1
    assert "no.parquet: there is no such file" in none.stderr
