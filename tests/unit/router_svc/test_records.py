"""What the journal keeps of a decision is what feedback on it finds again."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from router_svc import records
from router_svc.core.decide import decide
from router_svc.core.features import EMBEDDING_SIZE, Features
from router_svc.core.types import Policy
from router_svc.journal import Journal
from router_svc.profiler import Profiled
from tests.unit.router_svc.fixtures import ask, candidates, features


async def kept(profile: Features, path: Path, *, older: bool = False) -> Features:
    """Write a decision about *profile* down and read it back."""
    made = decide(ask(), candidates([0.5]), Policy(), np.random.default_rng(0), gains={})
    profiled = Profiled(features=profile, source="service")
    journal = Journal(path)
    journal.add(records.decision("d-1", 1.0, made=made, ask=ask(), profiled=profiled))
    if older:
        journal.add(lambda db: db.execute("UPDATE decisions SET pieces = x''"))
    query = f"SELECT {records.REMEMBERED} FROM decisions LEFT JOIN outcomes USING (id)"  # noqa: S608 - our own names
    (row,) = await journal.ask(lambda db: db.execute(query).fetchall())
    await journal.close()
    return records.remembered(row).features


async def test_features_come_back_as_they_were(tmp_path: Path) -> None:
    """Every number that a prediction reads: what a table expected is expected again."""
    vector = np.arange(EMBEDDING_SIZE).astype(np.float32) / EMBEDDING_SIZE
    profile = replace(features("Is 7 x 8 = 56?"), embedding=vector.astype(np.float64))
    again = await kept(profile, tmp_path / "j.sqlite3")

    for name in ("embedding", "tasks", "lexical", "pieces"):
        np.testing.assert_array_equal(getattr(again, name), getattr(profile, name))
    assert again.difficulty == profile.difficulty
    assert again.expected_output_tokens == profile.expected_output_tokens
    assert again.prompt_tokens == profile.prompt_tokens
    assert again.source == profile.source


async def test_an_older_decision_has_no_pieces(tmp_path: Path) -> None:
    """Written before they were kept, it is read as one of which no wording is known."""
    again = await kept(features(), tmp_path / "j.sqlite3", older=True)

    assert again.pieces.shape == (0,)
