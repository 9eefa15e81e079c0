"""Journals are read, checked and judged as they lie there."""

import asyncio
import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from router_svc import recorded, records
from router_svc.core.decide import VERSION, decide
from router_svc.core.offpolicy import evaluate
from router_svc.core.types import Policy
from router_svc.journal import MIGRATIONS, Journal
from router_svc.profiler import Profiled
from services.kit.errors import ConfigError
from tests.unit.router_svc.fixtures import ask, candidates, features
from zeta_client.cli.app import app

NOW, BEFORE = f'"version":{VERSION}', '"version":0'

CURIOUS = Policy(explore_ratio=0.4, max_calls=1)
COUNT, TRUTH = 600, (0.3, 0.8)


def _judged(row: tuple[object, ...], db: sqlite3.Connection) -> None:
    db.execute("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?)", row)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 decisions between a model that is believed in and one that is better, with scores."""
    path = tmp_path_factory.mktemp("journal") / "router.sqlite3"
    asyncio.run(_write(path))
    return path


@pytest.fixture
def journal(original: Path, tmp_path: Path) -> Path:
    """A copy of it to do anything with."""
    return Path(shutil.copy(original, tmp_path))


async def _write(path: Path) -> None:
    rng = np.random.default_rng(4)
    opened = Journal(path)
    for n in range(COUNT):
        found = candidates([0.5 + 0.1 * rng.random(), 0.4], sharpness=3.0)
        made, name = decide(ask(), found, CURIOUS, rng, gains={}), f"d{n}"
        profiled = Profiled(features=features(), source="lexical")
        opened.add(records.decision(name, float(n), made=made, ask=ask(), profiled=profiled))
        model = "ab".index(str(made.plan)[-3])
        row = (name, name, float(n), float(rng.random() < TRUTH[model]), "user", "")
        opened.add(partial(_judged, row))
    await opened.close()


def replayed(*options: str | Path) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(app, ["replay", *map(str, options)])


def test_every_decision_comes_out_the_same(journal: Path) -> None:
    """And the command says so with exit code 0."""
    assert [recorded.difference(each) for each in recorded.decisions(journal)] == [""] * COUNT
    done = replayed(journal, "--check")
    assert done.exit_code == 0, done.output
    assert "600 of 600" in done.stdout


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("propensity = propensity * (1 - 1e-15)", "propensity"),
        ("made_of = replace(made_of, '\"draw\":0.', '\"draw\":0.0')", "plan"),
        ("expected_quality = 0.25", "expected quality 0.25, now"),
        ("made_of = ''", "before decisions were journaled whole"),
        (f"made_of = replace(made_of, '{NOW}', '{BEFORE}')", "version 0"),
        (f"made_of = '{{{NOW}}}'", "ask"),
    ],
)
def test_what_was_changed_is_named(journal: Path, change: str, said: str) -> None:
    """One bit is enough; the exit code is 1."""
    with closing(sqlite3.connect(journal)) as db, db:
        db.execute(f"UPDATE decisions SET {change} WHERE explored")  # noqa: S608 - our own text
    done = replayed(journal, "--check", "--json")
    found = json.loads(done.stdout)
    assert done.exit_code == 1
    assert 0 < len(found["differing"]) <= COUNT - found["same"]
    assert any(said in what for what in found["differing"].values())


def test_another_policy_is_estimated_near_the_truth(journal: Path) -> None:
    """Asking always the one or the other model: the truth lies in every interval."""
    for model, truth in zip("ab", TRUTH, strict=True):
        found = evaluate(recorded.logged(recorded.decisions(journal), recorded.always(model)))
        assert found.decisions == COUNT
        for each in (found.ips, found.snips, found.dr):
            assert each.low < truth < each.high
        assert found.support == 1.0


def test_the_policy_in_force_is_what_was_scored(journal: Path) -> None:
    """Every weight is one."""
    found = recorded.logged(recorded.decisions(journal), recorded.under(CURIOUS))
    np.testing.assert_allclose(found.weight, 1.0)
    np.testing.assert_allclose(found.support, 1.0)


def test_what_could_never_be_seen_is_said(journal: Path) -> None:
    """A policy of ensembles, on a log without any."""
    votes = replace(CURIOUS, max_calls=3, explore_ratio=0.0)
    found = evaluate(recorded.logged(recorded.decisions(journal), recorded.under(votes)))
    assert found.support < 1.0
    assert any("could never have been seen" in each for each in found.warnings)


def test_the_command_estimates(journal: Path) -> None:
    """As a table with its warnings, and as JSON."""
    shown = replayed(journal, "--policy", "always:b")
    assert shown.exit_code == 0, shown.output
    assert "doubly robust" in shown.stdout
    found = json.loads(replayed(journal, "--policy", "always:b", "--json").stdout)
    assert found["dr"]["low"] < TRUTH[1] < found["dr"]["high"]
    assert found["policy"] == "always:b"


def test_mistakes_are_sentences(journal: Path, tmp_path: Path) -> None:
    """A wrong file, an older one, a policy that nobody has, a model that was no candidate."""
    (tmp_path / "text").write_text("hello, this is no database" * 50)
    older = tmp_path / "older"
    with closing(sqlite3.connect(older)) as db:
        db.executescript(f"{MIGRATIONS[0]}; PRAGMA user_version = 1")
    for options, said in (
        ((tmp_path / "none",), "no such file"),
        ((tmp_path / "text",), "not a journal"),
        ((older, "--check"), "schema 1"),
        ((journal, "--policy", "bold"), "no policy 'bold'"),
        ((journal, "--policy", "always:z"), "no decision can be judged"),
    ):
        failed = replayed(*options)
        assert failed.exit_code == 1
        assert failed.stderr.startswith("error: ")
        assert said in failed.stderr
    with pytest.raises(ConfigError, match="no such file"):
        next(recorded.decisions(tmp_path / "none"))


def test_what_was_made_of_is_plain_json(journal: Path) -> None:
    """Anybody can read it."""
    with closing(sqlite3.connect(journal)) as db:
        text = db.execute("SELECT made_of FROM decisions LIMIT 1").fetchone()[0]
    assert set(msgspec.json.decode(text)) >= {
        "version",
        "ask",
        "candidates",
        "policy",
        "draw",
        "plan",
    }
