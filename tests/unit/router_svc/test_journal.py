"""The journal on disk."""

import asyncio
import sqlite3
import threading
from functools import partial
from pathlib import Path

import pytest

from router_svc import metrics
from router_svc.journal import MIGRATIONS, Journal
from router_svc.records import forgetting
from services.kit.aio import cancelled
from services.kit.errors import ConfigError

INSERT = "INSERT INTO state VALUES (?, 0.0, x'00')"


def insert(name: str, db: sqlite3.Connection) -> None:
    """Write *name* down."""
    db.execute(INSERT, (name,))


async def names(journal: Journal) -> list[str]:
    """What is in the state table."""
    rows = await journal.ask(lambda db: db.execute("SELECT name FROM state").fetchall())
    return sorted(row[0] for row in rows)


async def test_what_is_added_is_there_after_a_restart(tmp_path: Path) -> None:
    """Closing writes what is queued."""
    journal = Journal(tmp_path / "j.sqlite3")
    for i in range(1500):
        journal.add(partial(insert, f"{i:04}"))
    await journal.close()
    again = Journal(tmp_path / "j.sqlite3")
    assert await names(again) == [f"{i:04}" for i in range(1500)]
    await again.close()


def decision_at(name: str, at_s: float, db: sqlite3.Connection) -> None:
    """Write a decision of that time down, with its outcome and feedback."""
    blanks = ", ".join(["''"] * 10)
    db.execute(f"INSERT INTO decisions VALUES (?, ?, {blanks}, '', '', x'')", (name, at_s))  # noqa: S608 - our own text
    db.execute("INSERT INTO outcomes VALUES (?, ?, '', 0.0, 0.0, '[]')", (name, at_s))
    db.execute("INSERT INTO feedback VALUES (?, ?, ?, 1.0, 'user', '')", (f"f-{name}", name, at_s))


def column(table: str, key: str, db: sqlite3.Connection) -> list[str]:
    """Every value of *key*."""
    rows = db.execute(f"SELECT {key} FROM {table} ORDER BY 1")  # noqa: S608 - our own names
    return [row[0] for row in rows]


async def test_old_decisions_go_with_all_that_belongs_to_them(tmp_path: Path) -> None:
    """The oldest first, as many as asked for; what is younger stays whole."""
    journal = Journal(tmp_path / "j.sqlite3")
    for number in range(5):
        journal.add(partial(decision_at, str(number), float(number)))
    assert [await journal.ask(forgetting(3.0, 2)) for _ in range(3)] == [2, 1, 0]
    for table, key in (("decisions", "id"), ("outcomes", "id"), ("feedback", "decision_id")):
        left = await journal.ask(partial(column, table, key))
        assert left == ["3", "4"]
    await journal.close()


async def test_a_file_of_every_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    """What was in it is still there."""
    for version in range(1, len(MIGRATIONS) + 1):
        path = tmp_path / f"{version}.sqlite3"
        with sqlite3.connect(path) as db:
            for script in MIGRATIONS[:version]:
                db.executescript(script)
            db.execute(f"PRAGMA user_version = {version}")
            insert("kept", db)
        db.close()
        journal = Journal(path)
        assert await names(journal) == ["kept"]
        now = await journal.ask(lambda db: db.execute("PRAGMA user_version").fetchone())
        assert now == (len(MIGRATIONS),)
        await journal.close()


async def test_one_bad_entry_costs_itself_only(tmp_path: Path) -> None:
    """Its neighbours in the batch are written; whoever asked hears of it."""
    journal = Journal(tmp_path / "j.sqlite3")
    journal.add(lambda db: db.execute(INSERT, ("a",)))
    journal.add(lambda db: db.execute(INSERT, ("a",)))
    journal.add(lambda db: db.execute(INSERT, ("b",)))
    with pytest.raises(sqlite3.IntegrityError):
        await journal.ask(lambda db: db.execute(INSERT, ("b",)))
    assert await names(journal) == ["a", "b"]
    await journal.close()


async def test_an_asker_who_leaves_costs_nobody_else(tmp_path: Path) -> None:
    """Work that began is finished, work that did not is dropped, and the thread lives on."""
    journal = Journal(tmp_path / "j.sqlite3")
    begun, go_on = threading.Event(), threading.Event()

    def slow(db: sqlite3.Connection) -> None:
        begun.set()
        assert go_on.wait(20)
        insert("begun", db)

    first = asyncio.create_task(journal.ask(slow))
    assert await asyncio.to_thread(begun.wait, 20)
    second = asyncio.create_task(journal.ask(partial(insert, "not begun")))
    await asyncio.sleep(0)
    await cancelled(first)
    await cancelled(second)
    go_on.set()

    assert await names(journal) == ["begun"]
    await journal.close()


async def test_a_disk_that_cannot_be_written_costs_entries_not_service(tmp_path: Path) -> None:
    """They are counted; when it can be written again, all is well."""
    journal = Journal(tmp_path / "j.sqlite3")
    lost = metrics.JOURNAL_LOST._value.get()
    await journal.ask(lambda db: db.execute("PRAGMA query_only = ON"))
    journal.add(lambda db: db.execute(INSERT, ("a",)))
    with pytest.raises(sqlite3.OperationalError):
        await journal.ask(lambda db: db.execute(INSERT, ("b",)))
    assert metrics.JOURNAL_LOST._value.get() >= lost + 2
    assert metrics.JOURNAL_BROKEN._value.get() == 1.0
    await journal.ask(lambda db: db.execute("PRAGMA query_only = OFF"))
    await journal.ask(lambda db: db.execute(INSERT, ("c",)))
    assert await names(journal) == ["c"]
    assert metrics.JOURNAL_BROKEN._value.get() == 0.0
    await journal.close()


async def test_a_folder_that_is_not_there_leaves_memory(tmp_path: Path) -> None:
    """The router serves all the same."""
    journal = Journal(tmp_path / "none" / "j.sqlite3")
    await journal.ask(lambda db: db.execute(INSERT, ("a",)))
    assert await names(journal) == ["a"]
    await journal.close()


def test_a_damaged_file_stops_the_start(tmp_path: Path) -> None:
    """With what to do."""
    path = tmp_path / "j.sqlite3"
    path.write_bytes(b"this is no database, however long it may be. " * 100)
    with pytest.raises(ConfigError, match="move it away"):
        Journal(path)


def test_a_file_of_a_later_version_stops_the_start(tmp_path: Path) -> None:
    """Nothing is written to it."""
    path = tmp_path / "j.sqlite3"
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    db.close()
    with pytest.raises(ConfigError, match="later version"):
        Journal(path)
