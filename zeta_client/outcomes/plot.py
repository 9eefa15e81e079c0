"""Draw a replay: quality against cost, and the regret of the online pass."""

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from router_svc.core import evaluate
from zeta_client import plots
from zeta_client.outcomes.figures import Curves
from zeta_client.outcomes.replay import Online
from zeta_client.outcomes.table import Outcomes, TableError


def check(path: Path) -> None:
    """Raise TableError where no plot could be written to *path*, before any work is done."""
    if said := plots.trouble(path, install="pyarrow matplotlib"):
        raise TableError(said)


def draw(path: Path, table: Outcomes, shape: Curves, passed: Online) -> None:
    """Write both plots side by side."""
    figure = import_module("matplotlib.figure").Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    _draw_cost(left, shape)
    _draw_regret(right, table, shape, passed)
    figure.savefig(path, dpi=150)


def _draw_cost(axes: Any, shape: Curves) -> None:
    axes.plot(*evaluate.hull(shape.single_cost, shape.single_quality), "--", label="Zero router")
    axes.plot(*evaluate.hull(shape.cost, shape.quality), label="routed, folds")
    axes.scatter(shape.single_cost, shape.single_quality, s=12)
    for name, x, y in zip(shape.singles, shape.single_cost, shape.single_quality, strict=True):
        axes.annotate(name, (x, y), fontsize=6)
    axes.set(xlabel="mean cost of an answer", ylabel="mean score", title="quality against cost")
    axes.legend()


def _draw_regret(axes: Any, table: Outcomes, shape: Curves, passed: Online) -> None:
    """Draw what was lost so far against the oracle: the router, and each of the best models."""
    came = table.scores[passed.order]
    best = np.nanmax(came, axis=1)
    axes.plot(np.cumsum(best - passed.scores), label="routed, online")
    for place in np.argsort(-shape.single_quality)[:3].tolist():
        name = shape.singles[place]
        alone = came[:, table.models.index(name)]
        lost = np.where(np.isnan(alone), 0.0, best - alone)
        axes.plot(np.cumsum(lost), "--", linewidth=1, label=name)
    axes.set(xlabel="prompts", ylabel="score lost to the oracle", title="regret, cold start")
    axes.legend()
