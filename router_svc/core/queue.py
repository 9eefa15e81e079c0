"""Who is next: by class, then in turn across tenants, then by the earliest deadline.

Pure data structure: time is an argument, waiting is the shell's.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from router_svc.core.types import Priority


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Ticket:
    """One waiting request; tickets of a tenant sort by deadline, then by arrival."""

    deadline_at_s: float
    """Infinite without a deadline."""
    number: int
    """Ascends with arrival; names the ticket."""
    priority: Priority = field(compare=False)
    tenant: str = field(compare=False)


class WaitQueue:
    """A bounded queue of tickets. Mutable, one owner."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._classes: dict[Priority, OrderedDict[str, list[Ticket]]] = {
            p: OrderedDict() for p in sorted(Priority, reverse=True)
        }
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, ticket: Ticket) -> Ticket | None:
        """Queue *ticket*; return who is refused for want of room, if anyone: perhaps itself.

        A full queue refuses the lowest class first, and in it whoever would have been last.
        """
        refused = None
        if self._count >= self._limit:
            refused = self._last_below(ticket.priority)
            if refused is None:
                return ticket
            self.remove(refused)
        heappush(self._classes[ticket.priority].setdefault(ticket.tenant, []), ticket)
        self._count += 1
        return refused

    def pop(self) -> Ticket | None:
        """Take out who is next; its tenant then goes to the back of its class."""
        for tenants in self._classes.values():
            for tenant, heap in tenants.items():
                ticket = heappop(heap)
                self._count -= 1
                tenants.move_to_end(tenant)
                if not heap:
                    del tenants[tenant]
                return ticket
        return None

    def remove(self, ticket: Ticket) -> bool:
        """Take *ticket* out, wherever it stands; False where it is not queued."""
        tenants = self._classes[ticket.priority]
        heap = tenants.get(ticket.tenant, [])
        if ticket not in heap:
            return False
        heap.remove(ticket)
        heapify(heap)
        self._count -= 1
        if not heap:
            del tenants[ticket.tenant]
        return True

    def _last_below(self, priority: Priority) -> Ticket | None:
        for lower in sorted(Priority):
            if lower >= priority:
                return None
            waiting = [t for heap in self._classes[lower].values() for t in heap]
            if waiting:
                return max(waiting)
        return None
