"""Draw a comparison: how latency is distributed, and how goodput went over time."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

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
    """Write both plots side by side."""
    figure = import_module("matplotlib.figure").Figure(figsize=(12, 5), layout="constrained")
    left, right = figure.subplots(1, 2)
    edges = np.linspace(0.0, duration_s, _BINS + 1)
    for name, results in runs.items():
        total_s = np.sort([r.total_s if r.status == OK else np.inf for r in results])
        left.step(total_s, np.arange(1, len(results) + 1) / max(len(results), 1), label=name)
        good, _ = np.histogram([r.at_s for r in results if objective.met(r)], edges)
        right.step(edges[:-1], good / (edges[1] - edges[0]), where="post", label=name)
    every = next(iter(runs.values()))
    due, _ = np.histogram([r.at_s for r in every], edges)
    right.step(edges[:-1], due / (edges[1] - edges[0]), "k:", where="post", label="offered")
    if objective.total_s:
        left.axvline(objective.total_s, color="k", linestyle=":")
    left.set(xscale="log", xlabel="seconds from when it was due", ylabel="share of all requests")
    right.set(xlabel="due at, seconds", ylabel="good requests per second")
    left.legend()
    right.legend()
    figure.savefig(path, dpi=150)
