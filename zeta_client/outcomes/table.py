"""Read a table of real outcomes: prompts, and what each model made of them.

Read are a prompt column and, per model, `score__NAME`, `out_tokens__NAME` and `cost__NAME`;
nothing else is, so that no label of a data set can help. N = prompts, M = models.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from router_svc.core.evaluate import Floats

_SCORE, _TOKENS, _COST = "score__", "out_tokens__", "cost__"
_USUAL_PROMPTS: Final = ("prompt", "question", "query", "input", "text", "instruction")
_SIZE: Final = re.compile(r"(?<![\d.a-z])(?:(\d+)x)?(\d+(?:\.\d+)?)b(?![a-z\d])")
_UNKNOWN_SIZE: Final = 200.0
_USD_PER_M_TOKENS_PER_B: Final = 0.01
"""What hosts of open models ask, about, per million tokens and billion active parameters."""


class TableError(ValueError):
    """The file is no table of outcomes, or not one that can be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """What every model made of every prompt."""

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    scores: Floats
    """(N, M) in [0, 1]; NaN where the model was not run."""
    costs: Floats
    """(N, M) of an answer, in dollars or in proportion to them; always finite."""
    notes: tuple[str, ...]
    """What a reader of the figures should know."""


def read(
    path: Path,
    *,
    models: Sequence[str] = (),
    prompt_column: str = "",
    limit: int = 0,
    seed: int = 0,
) -> Outcomes:
    """Read *path*; of more than *limit* rows (0: all) a sample drawn by *seed*.

    Raises TableError, which says what to do about it.
    """
    file = _open(path)
    names = list(file.schema_arrow.names)
    wanted = _models(names, models)
    prompt = prompt_column or _prompt_column(file, names)
    if prompt not in names:
        raise TableError(
            f"{path}: no column {prompt!r}; columns of text: {_listed(_texts(file))}: "
            "name one with --prompt-column"
        )
    kept = [prefix + m for prefix in (_SCORE, _TOKENS, _COST) for m in wanted]
    table = file.read(columns=[prompt, *(name for name in kept if name in names)])
    return _outcomes(table, prompt, wanted, limit=limit, seed=seed)


def usd_per_token(model: str) -> float | None:
    """Price a token by the size that the name tells, such as 7b or 8x7b; None where it tells none.

    Of a mixture of experts two are taken to be active.
    """
    sizes = [
        float(size) * (2.0 if experts else 1.0) for experts, size in _SIZE.findall(model.lower())
    ]
    return sizes[0] * _USD_PER_M_TOKENS_PER_B / 1e6 if sizes else None


def _open(path: Path) -> Any:
    if not path.is_file():
        raise TableError(f"{path}: there is no such file; give a parquet file of outcomes")
    try:
        parquet = import_module("pyarrow.parquet")
    except ImportError as error:
        raise TableError("reading parquet needs pyarrow: pip install pyarrow matplotlib") from error
    try:
        return parquet.ParquetFile(path)
    except (ValueError, OSError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise TableError(f"{path}: not a parquet file ({_first_line(error)})") from error


def _models(columns: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    known = [name.removeprefix(_SCORE) for name in columns if name.startswith(_SCORE)]
    if not known:
        raise TableError(
            f"no column is named {_SCORE}MODEL; the columns are {_listed(columns)}: "
            "rename those with scores"
        )
    if unknown := [name for name in wanted if name not in known]:
        raise TableError(f"--models: no scores of {_listed(unknown)}; there are {_listed(known)}")
    chosen = tuple(dict.fromkeys(wanted or known))
    if len(chosen) < 2:  # noqa: PLR2004 - one model leaves nothing to route
        raise TableError(f"only one model, {chosen[0]}: routing needs two or more")
    return chosen


def _prompt_column(file: Any, columns: Sequence[str]) -> str:
    """Find the prompt column: `prompt`, else the only one with a usual name."""
    usual = [name for name in _USUAL_PROMPTS if name in columns]
    if usual[:1] == ["prompt"] or len(usual) == 1:
        return usual[0]
    raise TableError(
        f"no column is named prompt; columns of text: {_listed(_texts(file))}: "
        "name the prompts' with --prompt-column"
    )


def _texts(file: Any) -> list[str]:
    return [f.name for f in file.schema_arrow if "string" in str(f.type).split(",")[0]]


def _outcomes(
    table: Any, prompt: str, models: tuple[str, ...], *, limit: int, seed: int
) -> Outcomes:
    texts = table.column(prompt).to_pylist()
    if wrong := next((t for t in texts if not isinstance(t, str | None)), None):
        raise TableError(f"column {prompt!r} holds {wrong!r}, not text: see --prompt-column")
    scores = _matrix(table, _SCORE, models)
    _check(scores, models)
    usable = np.array([bool(t and t.strip()) for t in texts]) & ~np.isnan(scores).all(axis=1)
    rows, notes = np.flatnonzero(usable), []
    if len(rows) < len(texts):
        notes.append(f"{len(texts) - len(rows)} rows without prompt or score are left out")
    if 0 < limit < len(rows):
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:limit])
    scores = scores[rows]
    notes += _gaps(scores, models)
    costs, told = _costs(table, rows, models)
    return Outcomes(
        prompts=tuple(texts[i] for i in rows.tolist()),
        models=models,
        scores=scores,
        costs=costs,
        notes=(*notes, *told),
    )


def _check(scores: Floats, models: Sequence[str]) -> None:
    wrong = np.argwhere(~(np.isnan(scores) | ((scores >= 0.0) & (scores <= 1.0))))
    if len(wrong):
        row, i = wrong[0].tolist()
        raise TableError(
            f"column {_SCORE}{models[i]}, row {row}: the score {scores[row, i]:g} is not in [0, 1] "
            f"({len(wrong)} such scores): scale them"
        )
    if len(scores) == 0:
        raise TableError("the table has no rows")


def _gaps(scores: Floats, models: Sequence[str]) -> list[str]:
    """Refuse models without any score; tell of those that were not run everywhere."""
    share = np.mean(~np.isnan(scores), axis=0)
    if never := [m for m, s in zip(models, share.tolist(), strict=True) if s == 0.0]:
        raise TableError(f"no score at all of {_listed(never)}: leave them out with --models")
    some = [f"{m} ({s:.0%})" for m, s in zip(models, share.tolist(), strict=True) if s < 1.0]
    if not some:
        return []
    note = (
        "no candidate where not run; compared as best single only if run on nine tenths of the "
        "prompts that the most-run model has"
    )
    return [f"not run on every prompt: {_listed(some)}: {note}"]


def _costs(table: Any, rows: NDArray[np.intp], models: Sequence[str]) -> tuple[Floats, list[str]]:
    """Cost per answer (N, M): as given, else tokens times the price of the model's size."""
    if (given := _known(table, _COST, rows, models)) is not None:
        return given, []
    partly = any(name.startswith(_COST) for name in table.column_names)
    notes = [f"costs of only some models are given ({_COST}MODEL): ignored"] if partly else []
    prices = [usd_per_token(m) for m in models]
    if unsized := [m for m, price in zip(models, prices, strict=True) if price is None]:
        notes.append(
            f"no size in the name of {_listed(unsized)}: priced as {_UNKNOWN_SIZE:.0f} B; "
            f"columns {_COST}MODEL would tell"
        )
    usd = np.array([price or _UNKNOWN_SIZE * _USD_PER_M_TOKENS_PER_B / 1e6 for price in prices])
    if (tokens := _known(table, _TOKENS, rows, models)) is not None:
        return tokens * usd, notes
    notes.append("no costs and no lengths: every answer is priced by its model's size alone")
    return np.tile(usd, (len(rows), 1)), notes


def _known(table: Any, prefix: str, rows: NDArray[np.intp], models: Sequence[str]) -> Floats | None:
    """Return a figure per answer (N, M), a model's mean where it is missing.

    None where there is a model without any.
    """
    if not all(prefix + m in table.column_names for m in models):
        return None
    found = _matrix(table, prefix, models)[rows]
    known = np.isfinite(found)
    if not known.any(axis=0).all():
        return None
    mean = np.where(known, found, 0.0).sum(axis=0) / known.sum(axis=0)
    return np.where(known, found, mean)


def _matrix(table: Any, prefix: str, models: Sequence[str]) -> Floats:
    columns = []
    for model in models:
        name = prefix + model
        if name not in table.column_names:
            raise TableError(f"column {name!r} is missing")
        try:
            column = table.column(name).cast("float64").to_numpy()
        except (ValueError, NotImplementedError) as error:
            raise TableError(f"column {name!r} holds no numbers: {_first_line(error)}") from error
        columns.append(np.array(column, dtype=np.float64))
    return np.stack(columns, axis=1)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:12]) or "none"
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")  # noqa: PLR2004 - a line's worth


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
