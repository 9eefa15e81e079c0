"""`zeta export`: judged answers as JSON Lines, to fine-tune models on."""

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final, TextIO

import typer

from services.kit import config as kit_config
from zeta_client.cli import shell
from zeta_client.cli.up import StateDir
from zeta_client.fleet.processes import in_state_dir

_JUDGED: Final = """
    SELECT texts.id, decisions.time_s, prompt, answer, steps, AVG(score)
    FROM texts JOIN decisions USING (id) JOIN outcomes USING (id)
    JOIN feedback ON decision_id = texts.id AND other_decision_id = ''
    WHERE status = 'OK' AND decisions.time_s >= ?
    GROUP BY texts.id HAVING AVG(score) >= ? ORDER BY decisions.time_s, texts.id
"""


def export(
    file: Annotated[Path, typer.Argument(metavar="OUT.jsonl", help="Replaced as a whole")],
    *,
    model: Annotated[str, typer.Option(metavar="NAME", help="Only this model's answers")] = "",
    min_score: Annotated[float, typer.Option(min=0, max=1, metavar="S")] = 0.0,
    since: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"], help="UTC")
    ] = None,
    state_dir: StateDir = None,
    config: shell.ConfigFile = None,
    as_json: shell.Json = False,
) -> None:
    """Write prompt, answer and score of what callers consented to have trained on.

    Reads the router's journal, also while the router runs. Answers without feedback are left out.
    """
    settings = shell.load(config)
    if state_dir is not None:
        settings = in_state_dir(settings, state_dir)
    journal = kit_config.state_dir(settings) / settings.router.journal
    if not journal.is_file():
        shell.fail(f"there is no journal at {journal}; name the state with --state-dir")
    since_s = since.replace(tzinfo=UTC).timestamp() if since else 0.0
    try:
        count = _written(file, _rows(journal, model, min_score, since_s))
    except sqlite3.Error as error:
        shell.fail(f"{journal}: {error}; it belongs to another version, or is damaged")
    except OSError as error:
        error.filename = None  # a name of ours, beside it
        shell.fail(shell.of_system(error, file))
    if as_json:
        shell.emit({"file": str(file), "answers": count})
    else:
        shell.say(f"{count} answers in {file}")


def _rows(journal: Path, model: str, min_score: float, since_s: float) -> Iterator[dict[str, Any]]:
    uri = f"{journal.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as db:
        for row in db.execute(_JUDGED, (since_s, min_score)):
            decision_id, at_s, prompt, answer, steps, score = row
            by = next((s["model"] for s in json.loads(steps) if s["chosen"]), "")
            if not model or by == model:
                yield {
                    "prompt": json.loads(prompt),
                    "answer": answer,
                    "score": score,
                    "model": by,
                    "decision_id": decision_id,
                    "time": datetime.fromtimestamp(at_s, UTC).isoformat(),
                }


def _written(file: Path, rows: Iterator[dict[str, Any]]) -> int:
    """Write *rows*; a *file* is either replaced by all of them or left as it was.

    A pipe or a device, such as /dev/stdout, is written to.
    """
    file = file.resolve()
    if file.exists() and not file.is_file():
        with file.open("w", encoding="utf-8") as lines:
            return _lines(lines, rows)
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as lines:
            count = _lines(lines, rows)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return count


def _lines(lines: TextIO, rows: Iterator[dict[str, Any]]) -> int:
    count = 0
    for row in rows:
        lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        count += 1
    return count
