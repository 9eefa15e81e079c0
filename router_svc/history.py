"""What days and weeks look like, in the journal: saved, read back, or made from old decisions."""

import sqlite3
import time
from collections.abc import Iterable
from itertools import groupby
from operator import itemgetter
from typing import Final

import numpy as np
import structlog

from router_svc.core.seasons import SLOT_S, Seasons
from router_svc.core.types import Floats
from router_svc.journal import Journal
from router_svc.learner import Arrays, packed, unpacked

log = structlog.get_logger()

_BACK_S: Final = 28 * 86_400.0
"""Old decisions are read so far back, once."""
_COUNTS: Final = """
    SELECT CAST(time_s / ? AS INTEGER) AS slot, plan, COUNT(*) FROM decisions
    WHERE time_s > ? GROUP BY slot, plan ORDER BY slot
"""


class History:
    """Keeps *seasons*, one stream per model of *models*. Owned by the event loop."""

    def __init__(self, journal: Journal, seasons: Seasons, models: tuple[str, ...]) -> None:
        self._journal, self._seasons, self._models = journal, seasons, models
        self._saved = 0

    async def restore(self, now_s: float | None = None) -> None:
        """Read back what was saved; where nothing was, learn from the journal's decisions."""
        rows = await self._journal.ask(
            lambda db: db.execute("SELECT data FROM state WHERE name = 'seasons'").fetchall()
        )
        for (data,) in rows:
            try:
                self._take(unpacked(data))
            except (ValueError, KeyError) as error:
                log.warning("seasons not restored", error=str(error))
            else:
                return
        await self._relive(time.time() if now_s is None else now_s)

    def _take(self, arrays: Arrays) -> None:
        if tuple(arrays["models"].tolist()) != self._models:
            raise ValueError("the fleet has other models")
        self._seasons.restore(arrays)

    async def save(self) -> None:
        """Write the seasons down, if there is anything new."""
        if self._saved == self._seasons.learned:
            return
        arrays = {**self._seasons.to_arrays(), "models": np.array(self._models)}
        learned, at_s = self._seasons.learned, time.time()
        try:
            await self._journal.ask(
                lambda db: db.execute(
                    "INSERT OR REPLACE INTO state VALUES ('seasons', ?, ?)",
                    (at_s, packed(arrays)),
                )
            )
            self._saved = learned
        except sqlite3.Error as error:
            log.warning("seasons not saved", error=str(error))

    async def _relive(self, now_s: float) -> None:
        rows = await self._journal.ask(
            lambda db: db.execute(_COUNTS, (SLOT_S, now_s - _BACK_S)).fetchall()
        )
        counts = {slot: self._counted(group) for slot, group in groupby(rows, key=itemgetter(0))}
        # The first and the last slot were not seen whole; where nothing came, nothing did.
        for slot in range(min(counts, default=0) + 1, max(counts, default=0)):
            self._seasons.learn(slot, counts.get(slot, np.zeros(len(self._models))) / SLOT_S)

    def _counted(self, rows: Iterable[tuple[int, str, int]]) -> Floats:
        """Count decisions by the first model of their plans, such as "vote(a, b, c)"."""
        counts = np.zeros(len(self._models))
        for _, plan, number in rows:
            first = plan.partition("(")[2].rstrip(")").partition(", ")[0]
            if first in self._models:
                counts[self._models.index(first)] += number
        return counts
