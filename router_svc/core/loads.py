"""The load of replicas as it is known at one moment: one array, a column for each replica.

What a request meets there that does not depend on the request itself is part of it, so that times
are predicted for all replicas with a few operations. `Load` keeps such an array and writes anew
what changes; `loads_of` makes one from figures, the same to the last bit. N = replicas.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from router_svc.core.clip import ONE, ZERO, Floats, constant

Ints: TypeAlias = NDArray[np.intp]

RUNNING: Final = 0
"""Requests in the running batch."""
REQUESTS: Final = 1
"""All requests, those that wait among them."""
BUSY: Final = 2
"""1 where any runs, else 0."""
QUEUE: Final = 3
"""Steps that pass before another one gets its slot."""
PROMPT: Final = 4
"""Prompt tokens still to feed."""
BATCH: Final = 5
"""Requests that a step has, another one among them."""
MET: Final = slice(BUSY, BATCH + 1)
"""What another request meets: the four above, each of which has its price in time."""
REMAINING: Final = 6
"""Mean output tokens still expected per running request."""
MOST: Final = 7
"""Requests that run at once, at most."""
OWN: Final = 8
"""Requests that this router sent."""
READ_S: Final = 9
"""When the report behind it was read."""
HELD_S: Final = 10
"""How old a report can be that holds until told otherwise; infinite for others."""
ROWS: Final = 11
_UNKNOWN_AGE: Final = constant(60.0)
"""What is given as the age of a report that never came, in seconds."""


class ReplicaLoads:
    """Load of N replicas, own requests in flight included. A value: nobody changes it.

    As what pricers look at, a plain class: it is made for every decision.
    """

    __slots__ = ("figures", "known_s", "model", "now_s", "replica")

    def __init__(
        self, replica: Ints, model: Ints, figures: Floats, now_s: float, known_s: float
    ) -> None:
        self.replica = replica
        """Index into `Latency.replicas` (N,)."""
        self.model = model
        """Index into `Latency.models` (N,)."""
        self.figures = figures
        """(`ROWS`, N) Rows as named above."""
        self.now_s = now_s
        self.known_s = known_s
        """Until when telemetry was heard of."""

    @property
    def running(self) -> Floats:
        """Requests in the running batch (N,)."""
        return self._of(RUNNING)

    @property
    def requests(self) -> Floats:
        """All requests there, those that wait among them (N,)."""
        return self._of(REQUESTS)

    @property
    def waiting(self) -> Floats:
        """Requests not running yet (N,)."""
        waiting: Floats = self.figures[REQUESTS] - self.figures[RUNNING]
        return waiting

    @property
    def waiting_prompt_tokens(self) -> Floats:
        """Prompt tokens still to feed (N,)."""
        return self._of(PROMPT)

    @property
    def remaining_tokens(self) -> Floats:
        """Mean output tokens still expected per running request (N,)."""
        return self._of(REMAINING)

    @property
    def max_running(self) -> Floats:
        """Requests that run at once, at most (N,)."""
        return self._of(MOST)

    @property
    def own(self) -> Floats:
        """Requests in flight that this router sent (N,)."""
        return self._of(OWN)

    @property
    def report_age_s(self) -> Floats:
        """How long ago the figures were last known to be true (N,); infinite: no report."""
        return ages_s(self.figures[READ_S], self.figures[HELD_S], self.now_s, self.known_s)

    @property
    def age_s(self) -> Floats:
        """Age of the report behind the figures, a minute at most (N,)."""
        age: Floats = np.minimum(self.report_age_s, _UNKNOWN_AGE)
        return age

    def age_of(self, i: int) -> float:
        """Return `report_age_s` of replica *i* alone."""
        read_s, held_s = self.figures.item(READ_S, i), self.figures.item(HELD_S, i)
        age: float = max(self.now_s - max(read_s, self.known_s - held_s), 0.0)
        return age

    def use_of(self, i: int) -> tuple[float, float]:
        """Return how many requests replica *i* has, and how many it runs at once."""
        return self.figures.item(REQUESTS, i), self.figures.item(MOST, i)

    def beside(self, requests: int) -> "ReplicaLoads":
        """Return what another request meets where so many more come with it."""
        more, most = self.requests + requests, np.maximum(self.max_running, self.running)
        figures = self.figures.copy()
        figures[REQUESTS], figures[RUNNING] = more, np.minimum(more, most)
        _derive(figures)
        return ReplicaLoads(self.replica, self.model, figures, self.now_s, self.known_s)

    def row(self, i: int) -> "ReplicaLoads":
        """Return replica *i* alone, to remember with a dispatch and `learn` from."""
        row = slice(i, i + 1)
        figures = self.figures[:, row].copy()
        return ReplicaLoads(self.replica[row], self.model[row], figures, self.now_s, self.known_s)

    def _of(self, row: int) -> Floats:
        found: Floats = self.figures[row]
        return found


def loads_of(
    *,
    replica: Ints,
    model: Ints,
    running: Floats,
    waiting: Floats,
    waiting_prompt_tokens: Floats,
    remaining_tokens: Floats,
    max_running: Floats,
    age_s: Floats,
    own: Floats | None = None,
) -> ReplicaLoads:
    """Put figures (N,) of *replica* together; none of the requests is *own* where not given."""
    figures = np.zeros((ROWS, len(replica)))
    figures[RUNNING], figures[REQUESTS] = running, running + waiting
    figures[PROMPT], figures[REMAINING] = waiting_prompt_tokens, remaining_tokens
    figures[MOST], figures[OWN] = max_running, ZERO if own is None else own
    figures[READ_S], figures[HELD_S] = -age_s, np.inf
    _derive(figures)
    return ReplicaLoads(replica, model, figures, 0.0, 0.0)


def ages_s(read_s: Floats, held_s: Floats, now_s: float, known_s: float) -> Floats:
    """How old reports are at *now_s*, of which those that hold were true at *known_s*; (N,)."""
    now, known = np.array(now_s), np.array(known_s)
    ages: Floats = np.maximum(now - np.maximum(read_s, known - held_s), ZERO)
    return ages


def _derive(figures: Floats) -> None:
    """Fill in what follows from the other rows."""
    slots = np.maximum(figures[MOST], ONE)
    figures[BUSY] = figures[RUNNING] > ZERO
    figures[BATCH] = np.minimum(figures[RUNNING] + ONE, slots)
    queued = np.maximum(figures[REQUESTS] + ONE - slots, ZERO)
    figures[QUEUE] = queued / slots * figures[REMAINING]
