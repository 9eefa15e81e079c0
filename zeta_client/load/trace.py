"""Read an arrival trace: a CSV file with the columns TIMESTAMP, ContextTokens, GeneratedTokens.

That is the shape of the Azure LLM inference traces of 2023. TIMESTAMP is a date and time in ISO
form, with or without a zone and with any number of decimals, or a number of seconds.
"""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not found:
        raise ConfigError(f"{path}: the trace holds no request")
    return sorted(found, key=lambda line: line.at_s)


def _line(path: Path, number: int, row: Mapping[str, str | None]) -> Line:
    values = [row[name] or "" for name in COLUMNS]
    try:
        at_s, prompt, output = _seconds(values[0]), int(values[1]), int(values[2])
    except ValueError as error:
        raise ConfigError(f"{path}, line {number}: {error}") from error
    if prompt < 0 or output < 0:
        raise ConfigError(f"{path}, line {number}: tokens must not be negative: {values}")
    return Line(at_s=at_s, prompt_tokens=prompt, output_tokens=output)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        pass
    when = datetime.fromisoformat(text)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
