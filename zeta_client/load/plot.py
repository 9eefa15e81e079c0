"""Draw a comparison: how latency is distributed, how goodput and right answers went over time."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from services.kit.errors import ConfigError
from zeta_client import plots
from zeta_client.load.figures import Objective
from zeta_client.load.send import OK, Result

_BINS = 30


def check(path: Path) -> None:
    """Raise ConfigError where no plot could be written to *path*, before any work is done."""
    if said := plots.trouble(path, install="matplotlib"):
        raise ConfigError(said)


def draw(
    path: Path, runs: Mapping[str, Sequence[Result]], objective: Objective, duration_s: float
) -> None:
    """Write the plots side by side."""
    judged = any(r.right is not None for results in runs.values() for r in results)
    size = (10 + 5 * judged, 5)
    figure = import_module("matplotlib.figure").Figure(figsize=size, layout="constrained")
    times, *rates = figure.subplots(1, 2 + judged)
    edges = np.linspace(0.0, duration_s, _BINS + 1)

    def over_time(axes: Any, counted: Sequence[Result], style: str, name: str) -> None:
        count, _ = np.histogram([r.at_s for r in counted], edges)
        axes.step(edges[:-1], count / (edges[1] - edges[0]), style, where="post", label=name)

    for name, results in runs.items():
        total_s = np.sort([r.total_s if r.status == OK else np.inf for r in results])
        times.step(total_s, np.arange(1, len(results) + 1) / max(len(results), 1), label=name)
        good = [r for r in results if objective.met(r)]
        for axes, counted in zip(rates, (good, [r for r in good if r.right]), strict=False):
            over_time(axes, counted, "", name)
    for axes in rates:
        over_time(axes, next(iter(runs.values())), "k:", "offered")
    if objective.total_s:
        times.axvline(objective.total_s, color="k", linestyle=":")
    times.set(xscale="log", xlabel="seconds from when it was due", ylabel="share of all requests")
    for axes, which in zip(rates, ("good requests", "good and right requests"), strict=False):
        axes.set(xlabel="due at, seconds", ylabel=f"{which} per second")
    # Above them: inside, it would lie on the lines that it names.
    lines = rates[0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper center", ncols=len(runs) + 1)
    figure.savefig(path, dpi=150)
