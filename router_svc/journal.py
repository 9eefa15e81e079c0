"""The router's memory on disk: decisions, outcomes, feedback, learned state; SQLite, WAL.

One thread owns the connection. Work queues up and is committed in batches, off the event loop.
A disk that is full or read-only costs entries, which are counted and logged; serving goes on.
"""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeAlias, TypeVar

import structlog

from router_svc import metrics
from services.kit.errors import ConfigError

log = structlog.get_logger()

T = TypeVar("T")
Work: TypeAlias = Callable[[sqlite3.Connection], Any]
_Batch: TypeAlias = list[tuple[Work, Future[Any] | None]]

_BATCH: Final = 512
_MAX_QUEUED: Final = 50_000
_LOG_EVERY_S: Final = 30.0
_GATHER_S: Final = 0.1

MIGRATIONS: Final = (
    """
    CREATE TABLE decisions (
        id TEXT PRIMARY KEY, time_s REAL NOT NULL, tenant TEXT NOT NULL, policy TEXT NOT NULL,
        plan TEXT NOT NULL, kind TEXT NOT NULL, propensity REAL NOT NULL,
        explored INTEGER NOT NULL, expected_quality REAL NOT NULL, source TEXT NOT NULL,
        features TEXT NOT NULL, embedding BLOB NOT NULL, candidates TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX decisions_by_time ON decisions (time_s);
    CREATE TABLE outcomes (
        id TEXT PRIMARY KEY, time_s REAL NOT NULL, status TEXT NOT NULL, ttft_s REAL NOT NULL,
        total_s REAL NOT NULL, steps TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE feedback (
        id TEXT PRIMARY KEY, decision_id TEXT NOT NULL, time_s REAL NOT NULL, score REAL NOT NULL,
        source TEXT NOT NULL, other_decision_id TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE state (
        name TEXT PRIMARY KEY, time_s REAL NOT NULL, data BLOB NOT NULL
    ) WITHOUT ROWID;
    """,
    "CREATE INDEX feedback_by_decision ON feedback (decision_id);",
    # What each decision was made of, so that it can be made again; '' in older ones.
    "ALTER TABLE decisions ADD COLUMN made_of TEXT NOT NULL DEFAULT '';",
    """
    CREATE TABLE texts (
        id TEXT PRIMARY KEY, prompt TEXT NOT NULL, answer TEXT NOT NULL
    ) WITHOUT ROWID;
    """,
    # How each prompt was worded, as hashes; x'' in older ones: of those nothing is known.
    "ALTER TABLE decisions ADD COLUMN pieces BLOB NOT NULL DEFAULT x'';",
)
"""Scripts that lead from each version of the file to the next; `user_version` counts them."""


class Journal:
    """An open journal. Raises ConfigError for a file that is damaged or of a later version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: SimpleQueue[_Batch | None] = SimpleQueue()
        self._gathered: _Batch = []
        self._given = self._written = 0
        """Work that was added, by the event loop; work that is done with, by the thread."""
        self._quiet_until_s = 0.0
        metrics.JOURNAL_BROKEN.set(0)
        self._connection = self._open()
        self._thread = threading.Thread(target=self._write, name="journal", daemon=True)
        self._thread.start()

    def add(self, work: Work) -> None:
        """Run *work* on the connection some time soon; what fails is counted, not raised.

        To be called on the event loop. Work is handed over a few times a second, all at once,
        because each hand-over wakes the thread, and the event loop pays for that.
        """
        if self._given - self._written >= _MAX_QUEUED:
            metrics.JOURNAL_LOST.inc()
            return
        if not self._gathered:
            asyncio.get_running_loop().call_later(_GATHER_S, self._hand_over)
        self._gather(work, None)

    async def ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run *work* after all that was added before, and return what it returns.

        Raises sqlite3.Error where the journal cannot be read or written.
        """
        answer: Future[T] = Future()
        self._gather(work, answer)
        self._hand_over()
        return await asyncio.wrap_future(answer)

    async def close(self) -> None:
        """Write what is queued, then close."""
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _gather(self, work: Work, answer: Future[Any] | None) -> None:
        self._gathered.append((work, answer))
        self._given += 1

    def _hand_over(self) -> None:
        if self._gathered:
            self._queue.put(self._gathered)
            self._gathered = []

    def _open(self) -> sqlite3.Connection:
        try:
            return _connect(self._path)
        except sqlite3.OperationalError as error:
            metrics.JOURNAL_BROKEN.set(1)
            log.error("journal unusable, memory only", path=str(self._path), error=str(error))  # noqa: TRY400 - the cause is in the message
            return _connect(":memory:")
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"{self._path}: not a journal of this router ({error}); move it away to start anew"
            ) from error

    def _write(self) -> None:
        """Run batches until told to stop."""
        while True:
            batch, more = self._batch()
            if batch:
                self._commit(batch)
                self._written += len(batch)
            if not more:
                self._connection.close()
                return

    def _batch(self) -> tuple[_Batch, bool]:
        """Return what there is, and whether more may come."""
        batch: _Batch = []
        items = self._queue.get()
        try:
            while items is not None:
                batch += items
                if len(batch) >= _BATCH:
                    return batch, True
                items = self._queue.get_nowait()
        except Empty:
            return batch, True
        return batch, False

    def _commit(self, batch: _Batch) -> None:
        """Run *batch* in one transaction; one item's failure is its own, the commit's is all's."""
        # From here on nobody can cancel; whoever did so before has no use for the work.
        batch = [(w, a) for w, a in batch if a is None or a.set_running_or_notify_cancel()]
        results: list[tuple[Future[Any], Any]] = []
        try:
            self._connection.execute("BEGIN")
            for work, answer in batch:
                result = self._run(work, answer)
                if answer is not None and not answer.done():
                    results.append((answer, result))
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            self._broken(error, len(batch))
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            for _, answer in batch:
                if answer is not None and not answer.done():
                    answer.set_exception(error)
            return
        metrics.JOURNAL_BROKEN.set(0)
        for answer, result in results:
            answer.set_result(result)

    def _run(self, work: Work, answer: Future[Any] | None) -> Any:
        try:
            return work(self._connection)
        except sqlite3.OperationalError:
            raise
        except Exception as error:  # noqa: BLE001 - the asker's to see, or the log's
            if answer is not None:
                answer.set_exception(error)
            else:
                self._broken(error, 1)
            return None

    def _broken(self, error: Exception, entries: int) -> None:
        metrics.JOURNAL_LOST.inc(entries)
        metrics.JOURNAL_BROKEN.set(1)
        now_s = time.monotonic()
        if now_s >= self._quiet_until_s:
            self._quiet_until_s = now_s + _LOG_EVERY_S
            log.error("journal not written", error=str(error), entries=entries)


def _connect(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
    try:
        _migrate(connection, str(path))
    except BaseException:
        connection.close()
        raise
    return connection


def _migrate(connection: sqlite3.Connection, path: str) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > len(MIGRATIONS):
        raise ConfigError(
            f"{path}: written by a later version of Zeta (schema {version}, "
            f"known here: {len(MIGRATIONS)}); update Zeta or move the file away"
        )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    # What is forgotten is overwritten, not only unlinked: it may be somebody's text.
    connection.execute("PRAGMA secure_delete = ON")
    for number, script in enumerate(MIGRATIONS[version:], version + 1):
        connection.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT;")
