"""`zeta eval outcomes` from the file to the figures, with the real encoder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from router_svc import warm
from router_svc.core.features import lexical_profile
from router_svc.learner import Learner, priors_of
from services.embedding.adapters import read
from services.embedding.checkpoint import open_checkpoint
from services.kit.config import load
from zeta_client.cli.app import app
from zeta_client.cli.shell import default_config
from zeta_client.tasks import generate

pyarrow = pytest.importorskip("pyarrow", reason="the extra zeta[eval] is not installed")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the shipped configuration with a state directory of its own."""
    folder = tmp_path_factory.mktemp("eval")
    text = default_config().read_text().replace("~/.local/state/zeta/pocket", str(folder / "state"))
    (folder / "fleet.toml").write_text(text)
    return folder / "fleet.toml"


def written(file: Path, **columns: Sequence[Any]) -> Path:
    """Write a table of pocket tasks: the one model can do those of code, the other the rest."""
    tasks = list({task.prompt: task for task in generate(70, split="heldout", seed=1)}.values())
    tasks = tasks[:60]
    code = [float(task.kind == "code") for task in tasks]
    rows: dict[str, Sequence[Any]] = {
        "prompt": [task.prompt for task in tasks],
        "score__coder-7b": code,
        "score__general-4b": [1.0 - c for c in code],
    }
    parquet.write_table(pyarrow.table(rows | columns), file)
    return file


def evaluated(config: Path, file: Path, *options: str) -> Result:
    """Run the command in this process."""
    return CliRunner().invoke(
        app, ["eval", "outcomes", str(file), "--config", str(config), *options]
    )


def test_the_figures_are_one_json_object(config: Path, tmp_path: Path) -> None:
    """With --json stdout is one line with the promised keys; a second run says the same."""
    file = written(tmp_path / "table.parquet")
    first, second = (evaluated(config, file, "--json", "--folds", "3") for _ in range(2))
    found, again = json.loads(first.stdout), json.loads(second.stdout)

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert found["n"] == 60
    assert found["routed_cv"] > found["best_single"]
    assert found["oracle"] == 1.0
    timed = {"decisions_per_s", "p50_ms", "p99_ms"}
    assert {k: v for k, v in found.items() if k not in timed} == {
        k: v for k, v in again.items() if k not in timed
    }


def test_a_person_gets_tables_and_what_to_do_next(config: Path, tmp_path: Path) -> None:
    """Without --json the figures stand in tables, with notes and next steps."""
    shown = evaluated(config, written(tmp_path / "table.parquet"), "--limit", "40")

    assert shown.exit_code == 0
    for part in ("40 prompts, 2 models", "oracle", "aiq_zero", "ece", "apgr", "note:", "next:"):
        assert part in shown.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--models", "huge,coder-7b"), "no scores of huge"),
        (("--prompt-column", "body"), "columns of text: prompt"),
        (("--folds", "61"), "60 different prompts are too few for --folds 61"),
        (("--plot", "curve.txt"), "curve.txt"),
        (("--plot", "no/such/folder/curve.png"), "no/such/folder"),
        (("--save", "no/such/folder/state"), "--save no/such/folder/state: there is no such"),
        (("--adapters", "no/such/folder/a.npz"), "--adapters no/such/folder/a.npz: there is no"),
    ],
)
def test_a_mistake_is_one_sentence(
    config: Path, tmp_path: Path, options: tuple[str, ...], said: str
) -> None:
    """What is wrong goes to stderr with what to do, stdout stays empty, the exit code is 1."""
    if "--plot" in options:
        pytest.importorskip("matplotlib", reason="the extra zeta[eval] is not installed")
    failed = evaluated(config, written(tmp_path / "table.parquet"), "--json", *options)

    assert (failed.exit_code, failed.stdout) == (1, "")
    assert failed.stderr.startswith("error: ")
    assert said in failed.stderr


def test_the_plot_is_written(config: Path, tmp_path: Path) -> None:
    """--plot leaves a picture where it was asked for."""
    pytest.importorskip("matplotlib", reason="the extra zeta[eval] is not installed")
    picture = tmp_path / "curves.png"
    drawn = evaluated(config, written(tmp_path / "table.parquet"), "--plot", str(picture))

    assert drawn.exit_code == 0, drawn.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_adapters_are_learned_and_what_they_gain_is_said(config: Path, tmp_path: Path) -> None:
    """The embedding service takes the file; without the option there are no such figures."""
    saved, file = tmp_path / "adapters.npz", written(tmp_path / "table.parquet")
    done = evaluated(config, file, "--adapters", str(saved), "--json")
    found = json.loads(done.stdout)

    assert 0.0 < found["neighbours_error_adapted"] < 0.3
    assert found["neighbours_error_adapted"] != found["neighbours_error"] > 0.0
    assert "neighbours_error" not in json.loads(evaluated(config, file, "--json").stdout)
    sha256 = open_checkpoint("").sha256
    adapters = read(str(saved), encoder_sha256=sha256, dimensions=384)
    assert set(adapters) == {"coder-7b", "general-4b"}


def test_what_a_table_teaches_is_saved_for_a_router(config: Path, tmp_path: Path) -> None:
    """A router of a fleet with these models begins with the file, and expects what it says."""
    saved = tmp_path / "state"
    done = evaluated(config, written(tmp_path / "table.parquet"), "--save", str(saved))

    assert done.exit_code == 0, done.stderr
    models = load(config).models
    learner = Learner(models, 1000.0)
    before = learner.predictors.quality.predict(lexical_profile("What is 1 + 2?"))[1].copy()
    warm.start(learner, saved, priors_of(models))
    after = learner.predictors.quality.predict(lexical_profile("What is 1 + 2?"))[1]
    assert (after < before).any()
