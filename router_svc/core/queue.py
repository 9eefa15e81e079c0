"""Who is next at one place: by class, then tenants by deficit round robin, then earliest deadline.

Equal deadlines: the easier request first. Deficit round robin (Shreedhar and Varghese, 1995) counts
tokens, so that a tenant of long requests gets no more than one of short ones. Pure data structure:
time is an argument, waiting is the shell's.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from math import inf
from typing import Final

from router_svc.core.promises import Known
from router_svc.core.types import Priority

_QUANTUM_TOKENS: Final = 64.0
"""What a tenant is credited with in its turn: about a short request, so that turns are short."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Ticket:
    """One waiting request; tickets of a tenant sort by deadline, difficulty, arrival.

    Who was refused and told to come back now goes before those who were not.
    """

    promised_s: float = inf
    """Since when a place is promised to it; infinite if none is."""
    due_s: float
    """When its answer is due; infinite without a deadline."""
    difficulty: float = 0.0
    number: int
    """Ascends with arrival; names the ticket."""
    known: Known = field(compare=False, default=Known(key=0))
    """By what it is known again when it comes back."""
    model: int = field(compare=False, default=-1)
    """Where it waits."""
    priority: Priority = field(compare=False)
    tenant: str = field(compare=False)
    tokens: float = field(compare=False, default=1.0)
    """Expected work: of the prompt and of the answer."""
    latest_s: float = field(compare=False, default=inf)
    """A request that has not begun by then is likelier late than not."""


@dataclass(slots=True)
class _Tenant:
    """Tickets of one tenant in one class, in order, and the tokens that it has to its credit."""

    tickets: list[Ticket] = field(default_factory=list)
    credit: float = 0.0


class WaitQueue:
    """Tickets in order. Mutable, one owner."""

    def __init__(self) -> None:
        self._classes: dict[Priority, OrderedDict[str, _Tenant]] = {
            p: OrderedDict() for p in sorted(Priority, reverse=True)
        }
        self._count = 0
        self._soonest_s = inf
        """No `latest_s` of those that wait is sooner; that of one who left may be."""

    def __len__(self) -> int:
        return self._count

    def push(self, ticket: Ticket) -> None:
        """Queue *ticket*."""
        insort(self._classes[ticket.priority].setdefault(ticket.tenant, _Tenant()).tickets, ticket)
        self._count += 1
        self._soonest_s = min(self._soonest_s, ticket.latest_s)

    def pop(self) -> Ticket | None:
        """Take out who is next; its tenant pays for it."""
        for tenants in self._classes.values():
            while tenants:
                name, tenant = next(iter(tenants.items()))
                ticket = tenant.tickets[0]
                if len(tenants) == 1 or tenant.credit >= ticket.tokens:
                    tenant.credit -= ticket.tokens
                    self.remove(ticket)
                    return ticket
                tenant.credit += _QUANTUM_TOKENS
                tenants.move_to_end(name)
        return None

    def remove(self, ticket: Ticket) -> bool:
        """Take *ticket* out, wherever it stands; False where it is not queued."""
        tenants = self._classes[ticket.priority]
        waiting = tenants[ticket.tenant].tickets if ticket.tenant in tenants else []
        place = bisect_left(waiting, ticket)
        if place == len(waiting) or waiting[place].number != ticket.number:
            return False
        del waiting[place]
        self._count -= 1
        if not waiting:
            del tenants[ticket.tenant]
        return True

    def first_class(self) -> Priority | None:
        """Return the class of who is next, None where nobody waits."""
        return next((p for p, tenants in self._classes.items() if tenants), None)

    def leads(self, ticket: Ticket) -> bool:
        """Whether nobody of its class and tenant goes before *ticket*, nor any higher class."""
        mine = self._classes[ticket.priority].get(ticket.tenant)
        first = mine is not None and mine.tickets[0].number == ticket.number
        return first and self.first_class() == ticket.priority

    def ahead(self, ticket: Ticket) -> int:
        """Count who would go before *ticket*, were all of equal length."""
        found = 0
        for priority, tenants in self._classes.items():
            if priority == ticket.priority:
                mine = tenants.get(ticket.tenant)
                before = bisect_left(mine.tickets, ticket) if mine else 0
                others = (t for name, t in tenants.items() if name != ticket.tenant)
                return found + before + sum(min(len(t.tickets), before + 1) for t in others)
            found += sum(len(tenant.tickets) for tenant in tenants.values())
        return found

    def late(self, now_s: float, pace_s: float) -> list[Ticket]:
        """Return who is likely to be late at one request every *pace_s*, those gone left out."""
        if now_s + self._count * pace_s <= self._soonest_s:
            return []
        late, place, self._soonest_s = [], 0, inf
        for ticket in self._in_turn():
            if now_s + place * pace_s > ticket.latest_s:
                late.append(ticket)
            else:
                place += 1
            self._soonest_s = min(self._soonest_s, ticket.latest_s)
        return late

    def last_below(self, priority: Priority) -> Ticket | None:
        """Return the last of the lowest class below *priority*, None where there is nobody."""
        for lower, tenants in reversed(self._classes.items()):
            if lower >= priority:
                return None
            if tenants:
                return max(tenant.tickets[-1] for tenant in tenants.values())
        return None

    def _in_turn(self) -> Iterator[Ticket]:
        """Yield all in the order in which they go, were all of equal length."""
        for tenants in self._classes.values():
            for turn in zip_longest(*(tenant.tickets for tenant in tenants.values())):
                yield from (ticket for ticket in turn if ticket is not None)
