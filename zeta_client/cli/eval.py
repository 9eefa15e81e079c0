"""`zeta eval outcomes`: how well quality is learned, replayed on a table of real outcomes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.progress import Progress
from rich.table import Table

from router_svc import warm
from router_svc.core import evaluate
from router_svc.core.evaluate import Ints
from router_svc.core.features import Features
from router_svc.core.quality import Quality
from router_svc.learner import priors_of
from services.embedding import adapters as embedding_adapters
from services.embedding.checkpoint import open_checkpoint
from services.embedding.core import adapter
from services.kit import config as kit_config
from services.kit import log as kit_log
from services.kit.config import FleetConfig
from services.kit.errors import ConfigError
from zeta_client.cli import shell
from zeta_client.outcomes import adapted, figures, plot, replay
from zeta_client.outcomes import table as outcome_table
from zeta_client.outcomes.figures import Curves
from zeta_client.outcomes.profiles import profiled
from zeta_client.outcomes.replay import Folded, Online
from zeta_client.outcomes.table import Outcomes, TableError


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """Everything that a replay found."""

    table: Outcomes
    folded: Folded
    features: list[Features]
    fold: Ints
    """(N,)."""
    online: Online
    curves: Curves


def outcomes(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.parquet", help="A prompt column, and score__MODEL each")
    ],
    *,
    models: Annotated[
        str, typer.Option(metavar="A,B,C", help="Only these; default: all with scores")
    ] = "",
    prompt_column: Annotated[str, typer.Option(metavar="NAME", help="Default: prompt")] = "",
    folds: Annotated[int, typer.Option(min=2, help="Parts, each predicted from the others")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of folds, order and exploration")] = 0,
    limit: Annotated[
        int, typer.Option(min=0, help="At most so many rows, drawn by the seed; 0: all")
    ] = 0,
    picture: Annotated[
        Path | None, typer.Option("--plot", metavar="OUT.png", help="Draw cost and regret")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="STATE", help="Save what all rows teach, for router.warm_start"),
    ] = None,
    adapters: Annotated[
        Path | None,
        typer.Option(metavar="OUT.npz", help="Save adapters of embeddings for embedding.adapters"),
    ] = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Learn quality from a table of real outcomes: in folds, and online from feedback alone."""
    settings = shell.load(config)
    kit_log.configure("eval", "warning")
    wanted = [name for each in models.split(",") if (name := each.strip())]
    try:
        if picture:
            plot.check(picture)
        _check("--save", save)
        _check("--adapters", adapters)
        table = outcome_table.read(
            file, models=wanted, prompt_column=prompt_column, limit=limit, seed=seed
        )
        found = _replayed(table, settings, folds, seed)
        if save:
            _saved(save, found, settings)
        gained = _adapters(adapters, found, settings) if adapters else {}
        if picture:
            plot.draw(picture, table, found.curves, found.online)
    except (TableError, ConfigError) as error:
        shell.fail(str(error))
    except OSError as error:
        shell.fail(shell.of_system(error, file))
    summary = {**figures.summary(table, found.folded, found.online, found.curves), **gained}
    if as_json:
        shell.emit(summary)
    else:
        _report(found, summary, picture)


def _check(option: str, file: Path | None) -> None:
    """Raise TableError where *file* could not be written, before any work is done."""
    if file is not None and not file.resolve().parent.is_dir():
        raise TableError(f"{option} {file}: there is no such folder; make it first")


def _replayed(table: Outcomes, settings: FleetConfig, folds: int, seed: int) -> Replayed:
    """Profile the prompts, then replay them both ways."""
    _, group = np.unique(np.array(table.prompts, dtype=object), return_inverse=True)
    different = int(group.max()) + 1
    if different < folds:
        raise TableError(f"{different} different prompts are too few for --folds {folds}")
    rng = np.random.default_rng(seed)
    fold = evaluate.folds(group, folds, rng)
    with shell.progress() as progress:
        features = _profiled(table, settings, progress)
        bar = progress.add_task(f"{folds} folds", total=len(features))
        found = replay.folded(
            table,
            features,
            fold,
            lambda done: progress.advance(bar, done),
        )
        then = progress.add_task("online, cold start", total=len(features))
        passed = replay.online(
            features,
            table.scores,
            Quality(table.models, {}, half_life_outcomes=settings.router.half_life_outcomes),
            explore_ratio=settings.router.policies[settings.router.default_policy].explore_ratio,
            rng=rng,
            advance=lambda done: progress.advance(then, done),
        )
    shape = figures.curves(table, found)
    return Replayed(
        table=table, features=features, fold=fold, folded=found, online=passed, curves=shape
    )


def _saved(file: Path, found: Replayed, settings: FleetConfig) -> None:
    """Learn all rows over the configured expectations, and save what a router can begin with."""
    priors = priors_of(settings.models)
    quality = Quality(
        found.table.models, priors, half_life_outcomes=settings.router.half_life_outcomes
    )
    quality.learn_table(found.features, found.table.scores)
    warm.write(file, quality, priors)


def _adapters(file: Path, found: Replayed, settings: FleetConfig) -> dict[str, float]:
    """Learn adapters from all rows and save them; return what they gain on rows not seen."""
    vectors, scores = adapted.topics(found.features), found.table.scores
    compared = adapted.compared(vectors, scores, found.fold)
    sha256 = open_checkpoint(settings.embedding.dir).sha256
    directions = adapter.learn(vectors, scores)
    embedding_adapters.write(file, found.table.models, directions, encoder_sha256=sha256)
    return {
        "neighbours_error": adapted.error(compared.plain, scores),
        "neighbours_error_adapted": adapted.error(compared.adapted, scores),
    }


def _profiled(table: Outcomes, settings: FleetConfig, progress: Progress) -> list[Features]:
    bar = progress.add_task("profiling", total=None)
    return profiled(
        table.prompts,
        settings.embedding,
        kit_config.state_dir(settings) / "cache",
        lambda done, total: progress.update(bar, completed=done, total=total),
    )


def _report(
    found: Replayed, summary: Mapping[str, float | int | str | None], picture: Path | None
) -> None:
    """Print all figures, what to keep in mind, and what to do next."""
    console = shell.out()
    console.print(_quality(found.table, summary))
    console.print(_figures(found, summary))
    for note in found.table.notes:
        console.print(f"note: {note}")
    if picture:
        console.print(f"plots: {picture}")
    console.print(
        "next: --models A,B,C for a smaller pool, --seed N for other folds, "
        "--plot OUT.png for curves, --json for scripts",
    )


def _quality(table: Outcomes, summary: Mapping[str, float | int | str | None]) -> Table:
    """Tabulate mean scores, from chance to the oracle."""
    shown = Table(f"{summary['n']} prompts, {len(table.models)} models")
    shown.add_column("mean score", justify="right")
    shown.add_column("against the best single", justify="right")
    best = float(summary["best_single"] or 0.0)
    rows = {
        "a model at random": "random",
        f"best single: {summary['best_single_model']}": "best_single",
        "routed, learned in folds": "routed_cv",
        "routed online, all of the pass": "online_mean",
        "routed online, last quarter": "online_last_quarter",
        "oracle": "oracle",
    }
    for title, key in rows.items():
        value = float(summary[key] or 0.0)
        style = "bold" if key == "routed_cv" else ""
        shown.add_row(title, f"{value:.4f}", f"{(value - best) * 100:+.1f} points", style=style)
    return shown


def _figures(found: Replayed, summary: Mapping[str, float | int | str | None]) -> Table:
    """Tabulate what is no mean score."""
    shown = Table("figure")
    shown.add_column("", justify="right")
    shown.add_column("meaning")
    error = evaluate.calibration_error(found.folded.predicted, found.table.scores)
    rows: list[tuple[str, object, str]] = [
        ("aiq", summary["aiq"], "quality averaged over cost, routed"),
        ("aiq_zero", summary["aiq_zero"], "the same, drawing between models blindly"),
        ("ece", error, "calibration error of predicted quality, in folds"),
        (
            "apgr",
            summary.get("apgr"),
            "share of the pair's gap recovered, over all shares of calls",
        ),
        ("cpt50", summary.get("cpt50"), "share of strong calls that recovers half of the gap"),
        ("cpt80", summary.get("cpt80"), "and that recovers 80 %"),
        (
            "neighbours_error",
            summary.get("neighbours_error"),
            "squared error of scores by nearest neighbours, in folds",
        ),
        (
            "neighbours_error_adapted",
            summary.get("neighbours_error_adapted"),
            "the same with embeddings adapted to each model",
        ),
        ("p50_ms", summary["p50_ms"], "time to predict and decide, median"),
        ("p99_ms", summary["p99_ms"], "99th percentile"),
        ("decisions_per_s", summary["decisions_per_s"], "online, learning included"),
    ]
    for name, value, meaning in rows:
        if isinstance(value, float):
            shown.add_row(name, f"{value:.0f}" if value > 100 else f"{value:.4f}", meaning)  # noqa: PLR2004 - four digits
    return shown
