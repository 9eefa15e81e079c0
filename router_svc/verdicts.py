"""What feedback is about: decisions at hand or in the journal, and what was learned from them.

Feedback counts once; what it taught is saved now and then, and learned again after a router died.
"""

import asyncio
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import structlog

from router_svc import metrics, records
from router_svc.core.plan import kind_of
from router_svc.journal import Journal
from router_svc.learner import Learner, Remembered, packed, unpacked
from router_svc.run import Run
from services.kit.errors import UnavailableError, UnknownDecisionError

log = structlog.get_logger()

_RECENT: Final = 10_000
"""Answers kept at hand for feedback; older ones, and what has none, are read from the journal."""
_REPLAYED: Final = 10_000
"""Feedback that a start learns again at most, newest kept: a second or two."""
_COLUMNS: Final = len(records.REMEMBERED.split(","))
_FEEDBACK_SINCE: Final = """
    SELECT f.score, f.source, f.other_decision_id,
        d.features, d.embedding, d.pieces, d.kind, d.expected_quality, d.tenant, d.time_s, o.steps,
        e.features, e.embedding, e.pieces, e.kind, e.expected_quality, e.tenant, e.time_s, p.steps
    FROM feedback f JOIN decisions d ON d.id = f.decision_id
    LEFT JOIN outcomes o ON o.id = d.id
    LEFT JOIN decisions e ON e.id = f.other_decision_id LEFT JOIN outcomes p ON p.id = e.id
    WHERE f.time_s > ? ORDER BY f.time_s DESC LIMIT ?
"""


class Verdicts:
    """Remembers decisions for the *learner*. Owned by the event loop."""

    def __init__(self, learner: Learner, journal: Journal) -> None:
        self._learner, self._journal = learner, journal
        self._recent: OrderedDict[str, Remembered] = OrderedDict()
        self.patience_s = 0.0
        """How long an unknown decision may take to reach the journal from another worker."""
        self._followed_s = 0.0
        """When the learned state was saved that was taken over last."""

    def answered(self, run: Run) -> None:
        """Keep what feedback on an answer needs to know at hand, in the place of the oldest."""
        decision = run.decision
        alone, alone_quality = decision.alone()
        self._recent[run.id] = Remembered(
            features=run.features,
            kind=kind_of(decision.plan),
            expected_quality=decision.quality,
            tenant=run.ask.tenant,
            decided_s=run.decided_s,
            steps=run.steps,
            alone=alone,
            alone_quality=alone_quality,
        )
        if len(self._recent) > _RECENT:
            self._recent.popitem(last=False)

    async def feedback(
        self, decision_id: str, score: float, *, feedback_id: str, source: str, other_id: str = ""
    ) -> bool:
        """Learn from an answer's *score* in [0, 1], or how far it is preferred to *other_id*'s.

        Returns False where *feedback_id* was counted before; without one, where *source* judged
        that answer before. Raises UnknownDecisionError.
        """
        about = await self._remember(decision_id)
        other = await self._remember(other_id) if other_id else None
        source = source or "user"
        row = (
            feedback_id or f"{decision_id}/{source}",
            decision_id,
            time.time(),
            score,
            source,
            other_id,
        )
        if not await self._counts(row):
            return False
        if other is None:
            self._learner.feedback(about, score, source)
        else:
            self._learner.preference(about, other, score, source)
        metrics.FEEDBACK.labels(source.partition(":")[0][:32]).inc()
        return True

    async def forget_texts(self, decision_id: str) -> bool:
        """Delete an answer's prompt and text from the journal; False where none were kept."""
        # The answer that has just ended is written down by work that was added before.
        try:
            return await self._journal.ask(records.forgetting_texts(decision_id)) > 0
        except sqlite3.Error as error:
            raise UnavailableError("the journal cannot be written", retry_after_s=5.0) from error

    async def save(self) -> None:
        """Write what was learned to the journal, if there is anything new."""
        if not self._learner.dirty:
            return
        self._learner.dirty = False
        at_s, arrays = time.time(), self._learner.to_arrays()
        try:
            await self._journal.ask(
                lambda db: db.execute(
                    "INSERT OR REPLACE INTO state VALUES ('learned', ?, ?)",
                    (at_s, packed(arrays)),
                )
            )
        except sqlite3.Error as error:
            self._learner.dirty = True
            log.warning("learned state not saved", error=str(error))

    async def restore(self, first: Callable[[], None] = lambda: None) -> None:
        """Read back what was learned; what cannot be read is learned anew from the feedback.

        Where nothing was saved, *first* makes the beginning.
        """
        rows = await self._journal.ask(
            lambda db: db.execute(
                "SELECT time_s, data FROM state WHERE name = 'learned'"
            ).fetchall()
        )
        saved_s = 0.0
        for at_s, data in rows:
            try:
                self._learner.restore(unpacked(data))
            except (ValueError, KeyError) as error:
                log.warning("learned state not restored", error=str(error))
            else:
                saved_s = at_s
        if not saved_s:
            first()
        replayed = await self._replay(saved_s)
        log.info("learned state restored", saved=bool(saved_s), feedback_since=replayed)

    async def follow(self) -> bool:
        """Take over what another worker learned from feedback; False where it has not saved since.

        Raises sqlite3.Error, ValueError or KeyError where that cannot be read.
        """
        since_s = self._followed_s
        rows = await self._journal.ask(
            lambda db: db.execute(
                "SELECT time_s, data FROM state WHERE name = 'learned' AND time_s > ?", (since_s,)
            ).fetchall()
        )
        for at_s, data in rows:
            # It is megabytes, and nobody else should wait for them.
            self._learner.restore(await asyncio.to_thread(unpacked, data), taught=True)
            self._followed_s = at_s
        return bool(rows)

    async def _replay(self, since_s: float) -> int:
        """Learn from the feedback that came after the last save: a router that was killed."""
        rows = await self._journal.ask(
            lambda db: db.execute(_FEEDBACK_SINCE, (since_s, _REPLAYED)).fetchall()
        )
        for score, source, other_id, *about in reversed(rows):
            if not other_id:
                self._learner.feedback(records.remembered(about[:_COLUMNS]), score, source)
            elif about[_COLUMNS] is not None:
                one = records.remembered(about[:_COLUMNS])
                other = records.remembered(about[_COLUMNS:])
                self._learner.preference(one, other, score, source)
        return len(rows)

    async def _remember(self, decision_id: str) -> Remembered:
        if (about := self._recent.get(decision_id)) is not None:
            return about
        query = (
            f"SELECT {records.REMEMBERED} FROM decisions "  # noqa: S608 - our own names
            "LEFT JOIN outcomes USING (id) WHERE decisions.id = ?"
        )
        try:
            rows = await self._journal.ask(lambda db: db.execute(query, (decision_id,)).fetchall())
            if not rows and self.patience_s:
                await asyncio.sleep(self.patience_s)
                rows = await self._journal.ask(
                    lambda db: db.execute(query, (decision_id,)).fetchall()
                )
        except sqlite3.Error as error:
            raise UnavailableError("the journal cannot be read", retry_after_s=5.0) from error
        if not rows:
            raise UnknownDecisionError(f"no decision {decision_id[:80]!r}")
        return records.remembered(rows[0])

    async def _counts(self, row: tuple[str, str, float, float, str, str]) -> bool:
        """Write the feedback down, unless its id is there already."""
        try:
            written = await self._journal.ask(
                lambda db: (
                    db.execute(
                        "INSERT OR IGNORE INTO feedback VALUES (?, ?, ?, ?, ?, ?)", row
                    ).rowcount
                )
            )
        except sqlite3.Error as error:
            # Without a journal nobody can say whether it was counted before.
            raise UnavailableError("the journal cannot be written", retry_after_s=5.0) from error
        return written == 1
