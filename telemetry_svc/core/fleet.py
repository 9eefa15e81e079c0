"""The fleet's state, and what of it a watcher has not seen.

A report holds for as long as its agent's stream is open and keeps giving signs of life: agents
tell what changes, and no news is no change. When the stream breaks, what it said begins to age.

A watcher is one number here: the last change it was told. Entries lie in the order of their
last change, so news are the entries at the end; nothing is kept per watcher, however slow.
Law: a watcher that applies every `News` in order knows the same fleet as one that asks now.
"""

from collections import deque
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, TypeVar

Report = TypeVar("Report")


SIGN_OF_LIFE_S = 5.0
"""How often an agent reports a replica that did not change."""


class Health(Enum):
    """What a replica's silence or its words amount to."""

    SERVING = "serving"
    DRAINING = "draining"
    DEAD = "dead"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a replica counts as silent and as gone, and how much is kept."""

    silent_after_s: float
    gone_after_s: float
    held_for_s: float = 3 * SIGN_OF_LIFE_S
    """A stream that is open and gives no sign of life for so long holds nothing any more."""
    max_replicas: int = 1024
    max_behind: int = 4096
    """Changes that a watcher may miss before it gets a snapshot instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Generic[Report]):
    """One replica as last heard of."""

    name: str
    report: Report
    stream: int
    """The stream that the report came by; later ones have greater numbers."""
    seq: int
    health: Health
    received_s: float
    """Monotonic: when the report came, or was last known to be true."""
    held_s: float | None
    """How old the figures can be while the report holds; None where it does not."""
    change: int
    """The fleet's change in which the entry became what it is."""

    def age_s(self, now_s: float) -> float:
        """Return how long ago the figures were last known to be true."""
        age_s = max(0.0, now_s - self.received_s)
        return age_s if self.held_s is None else min(age_s, self.held_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class News(Generic[Report]):
    """What a watcher is to be told."""

    change: int
    """Up to which change this goes."""
    complete: bool
    """True: the whole fleet, to replace all that the watcher knows."""
    entries: tuple[Entry[Report], ...]
    removed: tuple[str, ...] = ()
    """Names that are none of *entries*."""


class Fleet(Generic[Report]):
    """Every replica's last report. The report itself is not looked into."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._entries: dict[str, Entry[Report]] = {}
        self._removed: deque[tuple[int, str]] = deque(maxlen=limits.max_behind)
        self.change = 0
        """Ascends with every change."""

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    @property
    def entries(self) -> tuple[Entry[Report], ...]:
        """Every replica, the one whose last change is oldest first."""
        return tuple(self._entries.values())

    def get(self, name: str) -> Entry[Report] | None:
        """Return what is known of a replica."""
        return self._entries.get(name)

    @property
    def full(self) -> bool:
        """Whether no further replica is taken in."""
        return len(self) >= self._limits.max_replicas

    def take(
        self,
        name: str,
        report: Report,
        *,
        stream: int,
        seq: int,
        health: Health,
        now_s: float,
        held_s: float | None = None,
    ) -> bool:
        """Take a report in; False where it is older than what is known.

        A replica belongs to the latest stream that reported it: an agent that starts again
        counts from 1 on a new stream, and what the old one still sends is late.
        """
        known = self._entries.get(name)
        if known and (stream, seq) <= (known.stream, known.seq):
            return False
        self._put(
            Entry(
                name=name,
                report=report,
                stream=stream,
                seq=seq,
                health=health,
                received_s=now_s,
                held_s=held_s,
                change=0,
            )
        )
        return True

    def sweep(self, now_s: float) -> bool:
        """Mark who has fallen silent and forget who is gone; say whether anything changed."""
        before = self.change
        for entry in self.entries:
            silence_s = now_s - entry.received_s
            if entry.held_s is not None and silence_s <= self._limits.held_for_s:
                continue
            if silence_s > self._limits.gone_after_s:
                self._remove(entry.name)
            elif silence_s > self._limits.silent_after_s and entry.health is not Health.SILENT:
                self._put(replace(entry, health=Health.SILENT, held_s=None))
        return self.change > before

    def lost(self, stream: int, *, alive_s: float) -> bool:
        """Note that a stream broke, which was last known to live at *alive_s*.

        What it held begins to age from there; say whether it held anything.
        """
        held = [e for e in self.entries if e.stream == stream and e.held_s is not None]
        for entry in held:
            since_s = max(entry.received_s, alive_s)
            self._put(replace(entry, received_s=since_s, held_s=None))
        return bool(held)

    def news(self, since: int | None) -> News[Report]:
        """Return what changed after the change *since*; None for the whole fleet.

        Also the whole fleet for who is more than `max_behind` changes behind.
        """
        if since is None or self.change - since > self._limits.max_behind:
            return News(change=self.change, complete=True, entries=self.entries)
        return News(
            change=self.change,
            complete=False,
            entries=self._changed(since),
            removed=self._gone(since),
        )

    def _changed(self, since: int) -> tuple[Entry[Report], ...]:
        changed = []
        for entry in reversed(self._entries.values()):
            if entry.change <= since:
                break
            changed.append(entry)
        return tuple(reversed(changed))

    def _gone(self, since: int) -> tuple[str, ...]:
        gone = []
        for change, name in reversed(self._removed):
            if change <= since:
                break
            if name not in self._entries and name not in gone:
                gone.append(name)
        return tuple(reversed(gone))

    def _put(self, entry: Entry[Report]) -> None:
        """Move the entry to the end, where what changed last is."""
        self._entries.pop(entry.name, None)
        self.change += 1
        self._entries[entry.name] = replace(entry, change=self.change)

    def _remove(self, name: str) -> None:
        del self._entries[name]
        self.change += 1
        self._removed.append((self.change, name))
