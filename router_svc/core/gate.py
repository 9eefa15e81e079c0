"""Who may go to the models now, who waits for a place there, and who is refused.

Requests wait here, where class, deadline and tenant count, and not in a model's own queue: one goes
when a replica that it wants has a place, and is asked anew then what it would do. A replica has as
many places as requests run on it at once, and a few more, so that none of its slots stands empty
while the next request is on its way. Critical requests find a place wherever fewer critical ones
than that are: the model's engine stops others for them.

R = replicas, M = models. Time is an argument; what waits, and how it is told, is the shell's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import inf
from typing import Final, Generic, TypeAlias, TypeVar

import numpy as np

from router_svc.core.clip import clipped
from router_svc.core.promises import Known, Promises
from router_svc.core.queue import Ticket, WaitQueue
from router_svc.core.types import Bools, Floats, Ints, Places, Priority

T = TypeVar("T")

_SWEEP_S: Final = 0.05
"""Who cannot make it any more is looked for so often."""
_LEAST_WAIT_S: Final = 1e-3
_SIZES: Final = 0.5, 3.0
"""How much of a usual call's time at a place another is taken to need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vacancy:
    """Where there are places for one class."""

    full: Bools
    """(R,) Replicas that have none."""
    room: Bools
    """(M,) Models of which some replica has one, or that nobody serves: no use in waiting."""
    pace_s: Floats
    """(M,) How often a place of a model comes free while all are taken."""
    call_s: Floats
    """(M,) How long a call of a model takes in the mean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Generic[T]):
    """What a request would do now."""

    value: T
    """What becomes of it, if it goes or is refused."""
    model: int = -1
    """The model where it waits for a place; -1: it does not wait."""
    wanted: int = -1
    """The model that had no place in time, where it is refused for that."""
    service_s: float = 0.0
    """Median of what it takes there, where it waits or is refused for want of a place."""
    takes: tuple[str, ...] = ()
    """Replicas on which it takes a place at once where it goes, one of each time it is named."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[T]):
    ticket: Ticket
    choose: "Choose[T]"


class Gate(Generic[T]):
    """The places of M models. Mutable, one owner."""

    def __init__(
        self, model_of: Ints, models: int, limit: int, vacancy: Callable[[Priority], Vacancy]
    ) -> None:
        """Let at most *limit* wait; *vacancy* says where a class finds places now."""
        self._model_of, self._limit, self._vacancy = model_of, limit, vacancy
        self._queues = [WaitQueue() for _ in range(models)]
        self._waiting: dict[int, _Waiting[T]] = {}
        self._promises = Promises(models)
        self._swept_s = -inf

    def __len__(self) -> int:
        return len(self._waiting)

    def full(self, priority: Priority) -> bool:
        """Whether there is no room for a newcomer of that class to wait."""
        return len(self._waiting) >= self._limit and self._last_below(priority) is None

    def leads(self, ticket: Ticket) -> bool:
        """Whether *ticket* waits, and is the next one where it does."""
        waiting = self._waiting.get(ticket.number)
        return waiting is not None and self._queues[waiting.ticket.model].leads(waiting.ticket)

    def places(self, ticket: Ticket, now_s: float) -> Places | None:
        """Return what stands between *ticket*, which comes, and the replicas, None for nothing."""
        return self._places(ticket, now_s, self._vacancy(ticket.priority))

    def push(self, ticket: Ticket, choose: "Choose[T]", choice: Choice[T]) -> Ticket | None:
        """Have *ticket* wait as it chose; return who is refused for want of room: perhaps itself.

        It is asked to *choose* again when it is its turn.
        """
        refused = None
        if len(self._waiting) >= self._limit and ticket.promised_s == inf:
            refused = self._last_below(ticket.priority)
            if refused is None:
                return replace(ticket, model=choice.model)
            self.remove(refused)
        self._push(_Waiting(ticket, choose), choice)
        return refused

    def going(self, now_s: float) -> Iterator[tuple[Ticket, Choice[T]]]:
        """Take out, one after the other, who goes or is refused now.

        Only as many are asked to choose as there are places; whoever is let go is to have taken
        its place before the next one is asked for.
        """
        for model, queue in enumerate(self._queues):
            while (priority := queue.first_class()) is not None:
                vacancy = self._vacancy(priority)
                if not vacancy.room[model]:
                    break
                ticket = queue.pop()
                assert ticket is not None
                waiting = self._waiting.pop(ticket.number)
                places = self._places(ticket, now_s, vacancy, turn=model)
                choice = waiting.choose(places)
                if choice.model < 0:
                    yield ticket, choice
                    continue
                self._push(waiting, choice)
                if choice.model == model:
                    break

    def late(self, now_s: float) -> list[Ticket]:
        """Take out those who are not likely to be in time any more."""
        if not self._waiting or now_s < self._swept_s + _SWEEP_S:
            return []
        self._swept_s, found = now_s, list[Ticket]()
        for model, queue in enumerate(self._queues):
            if (priority := queue.first_class()) is not None:
                pace_s = self._vacancy(priority).pace_s
                found += queue.late(now_s, float(pace_s[model]))
        for ticket in found:
            self.remove(ticket)
        return found

    def remove(self, ticket: Ticket) -> bool:
        """Take *ticket* out; False where it does not wait."""
        if (waiting := self._waiting.pop(ticket.number, None)) is None:
            return False
        return self._queues[waiting.ticket.model].remove(waiting.ticket)

    def promised(self, ticket: Ticket, now_s: float) -> Ticket:
        """Return *ticket* with the place that it was promised when it was refused, if any."""
        at_s = self._promises.keep(ticket.known, now_s)
        return ticket if at_s is None else replace(ticket, promised_s=at_s)

    def due(self, known: Known, now_s: float) -> bool:
        """Whether a place was promised for now to what is *known* so."""
        return self._promises.due(known, now_s)

    def returns(self, known: Known, now_s: float) -> bool:
        """Whether it was refused before and told to come back, now or later."""
        return self._promises.seen(known, now_s)

    def retry_after_s(
        self, ticket: Ticket, model: int, now_s: float, *, service_s: float = 0.0
    ) -> float:
        """Promise a place at *model* to *ticket*, which is refused and would take *service_s*.

        -1: no model is known that it wants; 0: nor how long it takes.
        """
        vacancy = self._vacancy(ticket.priority)
        wait_s = vacancy.pace_s * [queue.ahead(ticket) for queue in self._queues]
        at = model if model >= 0 else int(wait_s.argmax())
        size = clipped(service_s / float(vacancy.call_s[at]), *_SIZES) if service_s else 1.0
        return self._promises.make(
            ticket.known,
            at,
            wait_s=float(wait_s[at]),
            span_s=size * float(vacancy.pace_s[at]),
            now_s=now_s,
        )

    def _places(
        self, ticket: Ticket, now_s: float, vacancy: Vacancy, *, turn: int = -1
    ) -> Places | None:
        """Return the places of *ticket*; nobody is ahead of it at the model whose *turn* it is."""
        if not self._waiting and not vacancy.full.any():
            return None
        ahead = np.array([q.ahead(ticket) if len(q) else 0 for q in self._queues], dtype=float)
        if ticket.promised_s == inf:
            until_s = now_s + (ahead + 1.0) * vacancy.pace_s
            ahead += np.floor(self._promises.owed(now_s, until_s) + 0.5)
        if turn >= 0:
            ahead[turn] = 0.0
        wait_s = np.maximum(ahead * vacancy.pace_s, _LEAST_WAIT_S)
        full = vacancy.full | (ahead > 0.0)[self._model_of]
        return Places(full=full, wait_s=wait_s, promised=ticket.promised_s < inf)

    def _push(self, waiting: _Waiting[T], choice: Choice[T]) -> None:
        latest_s = waiting.ticket.due_s - choice.service_s
        ticket = replace(waiting.ticket, latest_s=latest_s, model=choice.model)
        self._queues[choice.model].push(ticket)
        self._waiting[ticket.number] = replace(waiting, ticket=ticket)

    def _last_below(self, priority: Priority) -> Ticket | None:
        found = [last for q in self._queues if (last := q.last_below(priority)) is not None]
        return max(found, key=lambda t: (-t.priority, t), default=None)


Choose: TypeAlias = Callable[[Places | None], Choice[T]]
"""What a request would do, given what stands between it and the replicas."""


def nothing_in_the_way(model_of: Ints, models: int) -> Places:
    """Return the places of a request for which one is kept."""
    return Places(full=np.zeros(len(model_of), dtype=np.bool_), wait_s=np.zeros(models))
