"""Read an arrival trace: a CSV file with the columns TIMESTAMP, ContextTokens, GeneratedTokens.

That is the shape of the Azure LLM inference traces of 2023. TIMESTAMP is a date and time in ISO
form, with or without a zone and with any number of decimals, or a number of seconds.
"""

import csv
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from pathlib import Path
from typing import Final

from services.kit.errors import ConfigError

COLUMNS: Final = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One request of a trace."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


def read(path: Path) -> list[Line]:
    """Return the requests of *path*, the earliest first. Raises ConfigError naming the line."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"{path}: no column {missing[0]}; a trace is a CSV file with the columns "
                    + ", ".join(COLUMNS)
                )
            found = [_line(path, rows.line_num, row) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: not a CSV file in UTF-8: {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
    if not found:
        raise ConfigError(f"{path}: the trace holds no request")
    return sorted(found, key=lambda line: line.at_s)


def _line(path: Path, number: int, row: Mapping[str, str | None]) -> Line:
    at_s, prompt, output = (row[name] or "" for name in COLUMNS)
    try:
        return Line(
            at_s=_seconds(at_s),
            prompt_tokens=_tokens(COLUMNS[1], prompt),
            output_tokens=_tokens(COLUMNS[2], output),
        )
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: {error}") from None


def _tokens(column: str, text: str) -> int:
    """Raises ValueError where *text* is no number of tokens."""
    if not (text.strip().isascii() and text.strip().isdigit()):
        raise ValueError(f"{column} must be a whole number, at least 0, got {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> float:
    """Raises ValueError where *text* is no moment."""
    with suppress(ValueError):
        if isfinite(seconds := float(text)):
            return seconds
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"TIMESTAMP must be a date and time such as 2023-11-16 18:15:46.68, or seconds, "
            f"got {text[:40]!r}"
        ) from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
