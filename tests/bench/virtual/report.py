"""What runs of several seeds came to: figures, and a table of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from tests.bench.virtual.run import Found
from zeta_client.load import figures
from zeta_client.load.figures import Objective
from zeta_client.load.send import OK


def summary(found: Sequence[Found], objective: Objective, duration_s: float) -> dict[str, Any]:
    """Return the figures of each way over all of *found*, runs of *duration_s* seconds each.

    Besides those of `zeta bench`: `idle_right_ratio`, how many of the requests that were answered
    the router answers right that has nothing else to do.
    """
    idle = [right for each in found for right in each.idle]
    told = {}
    for name in found[0].runs:
        results = [result for each in found for result in each.runs[name]]
        same = [right for r, right in zip(results, idle, strict=True) if r.status == OK]
        told[name] = {
            **figures.summary(results, objective, duration_s * len(found)),
            "idle_right_ratio": float(np.mean(same)) if same else None,
        }
    return told


def known_per_s(found: Sequence[Found], duration_s: float) -> tuple[float, float]:
    """Return goodput for who knows all beforehand: as found, and the most that it can be."""
    whole_s = duration_s * len(found)
    return sum(f.known.found for f in found) / whole_s, sum(f.known.most for f in found) / whole_s


def table(told: Mapping[str, Mapping[str, Any]], title: str) -> Table:
    """Tabulate the figures of each way."""
    shown = Table(title)
    for column in ("good/s", "right", "right, good/s", "against idle", "returned, good"):
        shown.add_column(column, justify="right")
    for column in ("total p50", "p99"):
        shown.add_column(column, justify="right")
    shown.add_column("not answered")
    for name, run in told.items():
        shown.add_row(
            name,
            f"{run['goodput_per_s']:.2f}",
            *(_right(run) if run["answered"] else ("", "", "")),
            f"{run['returned']}, {run['returned_good']}" if run["returned"] else "",
            *("" if (s := run["total_s"][q]) is None else f"{s:.2f} s" for q in ("p50", "p99")),
            ", ".join(f"{n} {reason.lower()}" for reason, n in run["shed"].items()),
        )
    return shown


def _right(run: Mapping[str, Any]) -> tuple[str, str, str]:
    points = 100.0 * (run["right_ratio"] - run["idle_right_ratio"])
    return (
        f"{run['right_ratio']:.1%}",
        f"{run['good_and_right_per_s']:.2f}",
        f"{points:+.1f} points",
    )
