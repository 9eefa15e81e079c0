"""What votes and cascades of real answers would have come to: replayed on a table of responses.

A row per prompt: `gold`, the right answer, and `resp__MODEL`, the text of each model's answer, or
`ans__MODEL`, what was parsed out of it. B = prompts that every model answered, M = models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router_svc.core.agreement import Agreement, Member
from router_svc.core.answer import normalised
from router_svc.core.merge import tally
from router_svc.core.voting import vote_quality, vote_weight
from zeta_client.outcomes.table import TableError

Floats = NDArray[np.float64]
_PREFIXES = ("resp__", "ans__")
_ONE_TASK = np.array([1.0, 0.0, 0.0, 0.0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """Answers in their common form."""

    models: tuple[str, ...]
    answers: tuple[tuple[str, ...], ...]
    """B rows of M."""
    right: NDArray[np.bool_]
    """(B, M)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """How a plan did on the second half of the prompts, priced from the first."""

    plan: str
    accuracy: float
    calls: float
    """Model calls per prompt, on average."""
    foreseen: float = float("nan")
    """Accuracy that the learned agreement foresees."""
    independent: float = float("nan")
    """Accuracy if models erred independently."""


def read(file: Path, *, models: Sequence[str] = (), where: str = "") -> Responses:
    """Read *file*; *where* COLUMN=VALUE keeps some rows. Raises TableError, OSError."""
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as missing:
        raise TableError("reading tables needs pyarrow: pip install 'zeta[eval]'") from missing
    try:
        rows: list[dict[str, Any]] = parquet.read_table(file).to_pylist()
    except FileNotFoundError:
        raise TableError(f"{file}: there is no such file") from None
    except (ValueError, OSError) as error:
        raise TableError(f"{file}: not a parquet table: {error}") from error
    column, _, value = where.partition("=")
    rows = [row for row in rows if not where or str(row.get(column)) == value]
    if not rows or "gold" not in rows[0]:
        raise TableError(
            f"{file}: needs rows and a column gold" + (f" where {where}" if where else "")
        )
    columns = {name: _column(rows, name) for name in models or _models(rows)}
    kept = [row for row in rows if all(row[c] for c in columns.values())]
    if len(kept) < 10 or len(columns) < 2:  # noqa: PLR2004 - less says nothing
        raise TableError(f"{file}: {len(kept)} prompts that all of {', '.join(columns)} answered")
    answers = tuple(tuple(normalised(row[c]) for c in columns.values()) for row in kept)
    gold = [normalised(str(row["gold"])) for row in kept]
    right = np.array([[a == g for a in row] for row, g in zip(answers, gold, strict=True)])
    return Responses(models=tuple(columns), answers=answers, right=right)


def replay(found: Responses, rng: np.random.Generator) -> list[Ensemble]:
    """Price on one half what is then done on the other: singles, votes of three, cascades."""
    order = rng.permutation(len(found.answers))
    past, now = order[: len(order) // 2], order[len(order) // 2 :]
    quality = found.right[past].mean(axis=0)
    together = _agreement(found, past, quality)
    singles = [
        Ensemble(plan=f"single({m})", accuracy=float(found.right[now, i].mean()), calls=1.0)
        for i, m in enumerate(found.models)
    ]
    votes = [
        _vote(found, now, np.array(group), quality, together)
        for group in combinations(range(len(found.models)), 3)
    ]
    cascades = [
        _cascade(found, now, trio)
        for trio in permutations(range(len(found.models)), 3)
        if trio[0] < trio[1]
    ]
    return [*singles, *votes, *cascades]


def _agreement(found: Responses, past: NDArray[np.intp], quality: Floats) -> Floats:
    """Learn the correlation of success as the router would, from one half; (M, M)."""
    learned = Agreement(found.models)
    for b in past.tolist():
        learned.learn(
            _ONE_TASK,
            [
                Member(model=m, quality=float(quality[i]), score=float(found.right[b, i]))
                for i, m in enumerate(found.models)
            ],
        )
    return learned.correlation(_ONE_TASK)


def _vote(
    found: Responses,
    now: NDArray[np.intp],
    group: NDArray[np.intp],
    quality: Floats,
    together: Floats,
) -> Ensemble:
    """Have *group* vote, weighted by its quality on the other half."""
    q = quality[group]
    weights = [vote_weight(each) for each in q.tolist()]
    right = 0
    for b in now.tolist():
        said = {v: found.answers[b][i] for v, i in enumerate(group.tolist())}
        winner = next(iter(tally(said, weights).values()))[0]
        right += bool(found.right[b, group[winner]])
    pairs = together[np.ix_(group, group)][~np.eye(len(group), dtype=bool)]
    shared = max(float(pairs.mean()), 0.0)
    return Ensemble(
        plan=f"vote({', '.join(found.models[i] for i in group)})",
        accuracy=right / len(now),
        calls=float(len(group)),
        foreseen=vote_quality(q.tolist(), shared),
        independent=vote_quality(q.tolist(), 0.0),
    )


def _cascade(found: Responses, now: NDArray[np.intp], trio: tuple[int, ...]) -> Ensemble:
    """Ask two; where they differ, a third: a table has no log-probabilities to accept by."""
    one, two, then = trio
    agree = np.array([found.answers[b][one] == found.answers[b][two] for b in now.tolist()])
    right = np.where(agree, found.right[now, one], found.right[now, then])
    names = found.models
    return Ensemble(
        plan=f"agree({names[one]}, {names[two]}) else {names[then]}",
        accuracy=float(right.mean()),
        calls=float(2.0 + (~agree).mean()),
    )


def _models(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Name the models that answered nine tenths of the prompts that the busiest answered."""
    names = {c.partition("__")[2] for c in rows[0] if c.startswith(_PREFIXES)}
    counts = {n: sum(bool(row[_column(rows, n)]) for row in rows) for n in sorted(names)}
    most = max(counts.values(), default=0)
    return [name for name, count in counts.items() if count >= 0.9 * most]


def _column(rows: Sequence[dict[str, Any]], model: str) -> str:
    for prefix in _PREFIXES:
        if f"{prefix}{model}" in rows[0]:
            return f"{prefix}{model}"
    raise TableError(f"no column resp__{model} or ans__{model}")
