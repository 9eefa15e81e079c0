"""`zeta eval responses`: votes and cascades of real answers against single models."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Final

import numpy as np
import typer
from rich.table import Table

from zeta_client.cli import shell
from zeta_client.outcomes import responses as answered
from zeta_client.outcomes.responses import Ensemble
from zeta_client.outcomes.table import TableError

_SHOWN: Final = 5


def responses(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE.parquet", help="gold, and resp__MODEL or ans__MODEL each"),
    ],
    *,
    models: Annotated[
        str, typer.Option(metavar="A,B,C", help="Only these; default: those that answered most")
    ] = "",
    where: Annotated[str, typer.Option(metavar="COLUMN=VALUE", help="Only these rows")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Which half prices, which is judged")] = 0,
    as_json: shell.Json = False,
) -> None:
    """Replay votes and cascades of answers that models really gave, priced on the other half."""
    wanted = [name for each in models.split(",") if (name := each.strip())]
    try:
        table = answered.read(file, models=wanted, where=where)
    except TableError as error:
        shell.fail(str(error))
    except OSError as error:
        shell.fail(shell.of_system(error, file))
    found = answered.replay(table, np.random.default_rng(seed))
    by_kind = {
        kind: sorted((e for e in found if e.plan.startswith(kind)), key=lambda e: -e.accuracy)
        for kind in ("single", "vote", "agree")
    }
    votes = by_kind["vote"]
    errors = {
        "foreseen": float(np.mean([abs(v.foreseen - v.accuracy) for v in votes] or [0.0])),
        "independent": float(np.mean([abs(v.independent - v.accuracy) for v in votes] or [0.0])),
    }
    if as_json:
        kinds = {kind: [_plain(e) for e in each] for kind, each in by_kind.items()}
        shell.emit({"n": len(table.answers), **kinds, "vote_error": errors})
        return
    shell.out().print(_shown(by_kind))
    shell.out().print(
        f"{len(table.answers)} prompts; a vote's accuracy is foreseen to "
        f"{errors['foreseen']:.3f} on average by learned agreement, "
        f"to {errors['independent']:.3f} if models are taken to err independently"
    )


def _plain(ensemble: Ensemble) -> dict[str, float | str]:
    """Leave out what is not foreseen: JSON has no NaN."""
    return {k: v for k, v in asdict(ensemble).items() if not (isinstance(v, float) and np.isnan(v))}


def _shown(by_kind: dict[str, list[Ensemble]]) -> Table:
    """Tabulate the best of each kind."""
    shown = Table("plan")
    for title in ("right", "calls", "foreseen", "if independent"):
        shown.add_column(title, justify="right")
    for each in by_kind.values():
        for e in each[:_SHOWN]:
            guesses = ("" if np.isnan(x) else f"{x:.3f}" for x in (e.foreseen, e.independent))
            shown.add_row(e.plan, f"{e.accuracy:.3f}", f"{e.calls:.2f}", *guesses)
    return shown
