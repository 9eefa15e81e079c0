"""What days look like survives a restart, in the journal."""

from pathlib import Path

import numpy as np
import pytest

from router_svc.core.seasons import SLOT_S, Seasons
from router_svc.history import History
from router_svc.journal import Journal

NOW_S = 40 * 86_400.0
MODELS = ("a", "b")
INSERT = (
    "INSERT INTO decisions (id, time_s, tenant, policy, plan, kind, propensity, explored, "
    "expected_quality, source, features, embedding, candidates) "
    "VALUES (?, ?, '', '', ?, '', 1.0, 0, 0.5, '', '', x'', '')"
)


async def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    """By the next process, from the same file."""
    journal, seasons = Journal(tmp_path / "j"), Seasons(2)
    for slot in range(3 * 288):
        seasons.learn(slot, np.array([2.0, float(slot % 288)]))
    await History(journal, seasons, MODELS).save()
    await journal.close()
    journal, again = Journal(tmp_path / "j"), Seasons(2)
    await History(journal, again, MODELS).restore()
    await journal.close()
    usual = seasons.rates(3.5 * 86_400.0)

    assert usual is not None
    assert again.rates(3.5 * 86_400.0) == pytest.approx(usual)


async def test_an_older_journal_tells_its_decisions(tmp_path: Path) -> None:
    """Where nothing was saved yet: every decision counts for its plan's first model."""
    journal, seasons = Journal(tmp_path / "j"), Seasons(2)
    rows = [
        (
            f"{day}-{i}",
            NOW_S - day * 86_400.0 + 43_200.0 + i,
            "cascade(b, a)" if i % 3 else "single(a)",
        )
        for day in range(1, 6)
        for i in range(300)
    ]
    await journal.ask(lambda db: db.executemany(INSERT, rows))
    await History(journal, seasons, MODELS).restore(NOW_S)
    await journal.close()
    noon, night = seasons.rates(NOW_S + 43_200.0 + 150.0), seasons.rates(NOW_S + 7200.0)

    assert noon is not None
    assert night is not None
    assert noon == pytest.approx([1.0 / 3.0, 2.0 / 3.0], rel=0.1)
    assert night.max() < 0.05
    assert seasons.learned * SLOT_S == pytest.approx(4 * 86_400.0, abs=2 * SLOT_S)


async def test_another_fleet_begins_anew(tmp_path: Path) -> None:
    """Streams are models: other models have no past here."""
    journal, seasons = Journal(tmp_path / "j"), Seasons(2)
    for slot in range(3 * 288):
        seasons.learn(slot, np.ones(2))
    await History(journal, seasons, MODELS).save()
    other = Seasons(2)
    await History(journal, other, ("a", "c")).restore()
    await journal.close()

    assert other.rates(3.5 * 86_400.0) is None


async def test_nothing_new_is_not_written(tmp_path: Path) -> None:
    """A router whose season stands still leaves the journal alone."""
    journal, seasons = Journal(tmp_path / "j"), Seasons(2)
    await History(journal, seasons, MODELS).save()
    rows = await journal.ask(lambda db: db.execute("SELECT COUNT(*) FROM state").fetchall())
    await journal.close()

    assert rows == [(0,)]
