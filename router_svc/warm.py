"""What a first start begins with: a table's lessons, or another router's.

A file is what `zeta eval outcomes --save` wrote, or a journal. It is read once, where a router
has learned nothing yet, and what is learned later is never overwritten by it.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
from numpy.typing import NDArray

from router_svc.core.quality import Quality
from router_svc.learner import Learner, packed, unpacked
from services.kit.errors import ConfigError
from services.kit.files import write_whole

log = structlog.get_logger()

Priors = Mapping[str, Mapping[str, float]]

FORMAT: Final = "zeta warm start"
VERSION: Final = 1
_JOURNAL: Final = b"SQLite format 3\0"


def write(path: Path, quality: Quality, priors: Priors) -> None:
    """Save what *quality* learned over *priors*, whole or not at all. Raises OSError."""
    state = {f"quality.{name}": array for name, array in quality.to_arrays().items()}
    head = {
        "format": np.array(FORMAT),
        "version": np.array(VERSION),
        "priors": np.array(sorted(_lines(priors, quality.models)), dtype=np.str_),
    }
    write_whole(path, packed({**head, **state}))


def start(learner: Learner, path: Path, priors: Priors) -> None:
    """Begin with what *path* holds. Raises ConfigError, which says what to do about it."""
    try:
        data = path.read_bytes()
        if data.startswith(_JOURNAL):
            learner.restore(unpacked(_journaled(path)))
        else:
            _begin(learner.predictors.quality, unpacked(data), priors)
    except OSError as error:
        raise ConfigError(f"router.warm_start: {path}: {error.strerror}") from error
    except (ValueError, KeyError, sqlite3.Error) as error:
        raise ConfigError(
            f"router.warm_start: {path}: {error}; make it with "
            "`zeta eval outcomes FILE --save STATE`, or leave the key out"
        ) from error
    learner.dirty = True
    log.info("warm start", file=str(path))


def _begin(quality: Quality, arrays: Mapping[str, NDArray[Any]], priors: Priors) -> None:
    if str(arrays.get("format")) != FORMAT:
        raise ValueError("no state of learning")
    if int(arrays["version"]) != VERSION:
        raise ValueError(f"of version {arrays['version']}, not {VERSION}")
    state = {k.partition(".")[2]: v for k, v in arrays.items() if k.startswith("quality.")}
    common = set(state["models"].tolist()) & set(quality.models)
    if not common:
        raise ValueError(
            f"knows {', '.join(state['models'].tolist())}, and the fleet has "
            f"{', '.join(quality.models)}: no model in common"
        )
    theirs = {line for line in arrays["priors"].tolist() if line.partition(" ")[0] in common}
    if theirs != _lines(priors, common):
        raise ValueError("learned over other models.priors than the configuration's")
    quality.restore(state)


def _lines(priors: Priors, models: Any) -> set[str]:
    """Write priors as comparable lines."""
    return {f"{m} {t} {p:.6f}" for m in models for t, p in priors.get(m, {}).items()}


def _journaled(path: Path) -> bytes:
    """Return the learned state of another router's journal."""
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT data FROM state WHERE name = 'learned'").fetchall()
    if not rows:
        raise ValueError("a journal without anything learned")
    return bytes(rows[0][0])
