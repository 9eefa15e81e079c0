"""Bounded admission: who goes to the models, who waits for a place there, who is refused."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import inf
from typing import Any, Final, TypeVar

import numpy as np

from router_svc import metrics
from router_svc.core.gate import Choice, Choose, Gate, Vacancy
from router_svc.core.patience import MOST_S
from router_svc.core.promises import Known
from router_svc.core.queue import Ticket
from router_svc.core.types import Ask, Places, Priority
from router_svc.fleet import Fleet
from router_svc.run import NobodyError
from services.kit.errors import OverloadedError, ZetaError
from services.kit.orca import Use

T = TypeVar("T")

_LOOKS_AGAIN_S: Final = 0.1
"""While somebody waits, the gate is looked at so often, even if nothing is heard."""
_LOOKS_FOR_NEWS_S: Final = 0.5
_FIRST_GUESS_S: Final = 0.5
"""Assumed length of a request before any has ended."""
_LEARNED: Final = 0.05


class Admission:
    """Who runs and who waits. Owned by the event loop; *clock* is monotonic seconds.

    The last of the gate's models stands for the router itself, which runs so many at once.
    """

    def __init__(
        self, fleet: Fleet, max_in_flight: int, max_queued: int, clock: Callable[[], float]
    ) -> None:
        self._fleet, self._clock = fleet, clock
        self._most, self._running, self._mean_s = max_in_flight, 0, _FIRST_GUESS_S
        self._router = len(fleet.models)
        model_of = np.append(fleet.model_of, self._router)
        self._gate: Gate[Any] = Gate(model_of, self._router + 1, max_queued, self._vacancy)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._going: dict[int, tuple[str, ...]] = {}
        """Where each holds places that was let go and has not begun yet, by ticket."""
        self._numbers = count()
        self._looks: asyncio.Handle | None = None
        self._looks_soon = False
        fleet.freed = self.look

    def check(self, ask: Ask) -> None:
        """Refuse at once whoever could not even wait. Raises OverloadedError."""
        if self._gate.full(ask.priority) and not self._gate.due(_known(ask), self._clock()):
            raise self._refusal(self._ticket(ask, 0.0, 0.0))

    def returns(self, ask: Ask) -> bool:
        """Whether *ask* was refused before, and so was seen to come."""
        return self._gate.returns(_known(ask), self._clock())

    @asynccontextmanager
    async def slot(self, ask: Ask) -> AsyncIterator[None]:
        """Hold one of the router's own places. Raises OverloadedError."""

        def choose(places: Places | None) -> Choice[ZetaError | None]:
            waits = places is not None and bool(places.full[-1])
            return Choice(value=None, model=self._router if waits else -1)

        async with self.place(ask, choose):
            yield

    @asynccontextmanager
    async def place(
        self, ask: Ask, choose: Choose[T | ZetaError], *, tokens: float = 1.0, difficulty: float = 0
    ) -> AsyncIterator[T]:
        """Hold a place where *choose* wants one, and be given what it chose in the end.

        Raises ZetaError: what it chose, or OverloadedError for whoever there is no room for.
        """
        value = await self._settled(self._ticket(ask, tokens, difficulty), choose)
        if isinstance(value, ZetaError):
            raise value
        self._running += 1
        began_s = self._clock()
        try:
            yield value
        finally:
            self._running -= 1
            self._mean_s += _LEARNED * (self._clock() - began_s - self._mean_s)
            self.look()

    def places(self, ask: Ask) -> Places | None:
        """Return what would stand between *ask* and the replicas, None for nothing."""
        return self._places(self._ticket(ask, 0.0, 0.0))

    def use(self) -> Use:
        """Say how much of it is taken."""
        figures = {"running": float(self._running), "queue_depth": float(len(self._gate))}
        return Use(slots=self._most, figures=figures)

    def look(self) -> None:
        """See, in the loop's next turn, whether somebody can go who waits."""
        if self._waiting and not self._looks_soon:
            if self._looks is not None:
                self._looks.cancel()
            self._looks = asyncio.get_running_loop().call_soon(self._look)
            self._looks_soon = True

    async def _settled(self, ticket: Ticket, choose: Choose[T | ZetaError]) -> T | ZetaError:
        """Return what becomes of *ticket*.

        Who waits for a place is not refused because the only replica that it can use restarts; who
        comes meanwhile is.
        """
        ticket = self._gate.promised(ticket, self._clock())
        choice = choose(self._places(ticket))
        if choice.model < 0:
            return self._told(ticket, choice)
        value, ends_s = await self._queued(ticket, choose, choice), inf
        while isinstance(value, NobodyError) and value.away:
            ends_s = min(ends_s, self._clock() + MOST_S)
            if self._clock() >= ends_s:
                return value
            await asyncio.wait({self._fleet.next_change()}, timeout=_LOOKS_FOR_NEWS_S)
            choice = choose(self._places(ticket))
            value = self._told(ticket, choice)
            if choice.model >= 0:
                value, ends_s = await self._queued(ticket, choose, choice), inf
        return value

    async def _queued(
        self, ticket: Ticket, choose: Choose[T | ZetaError], choice: Choice[T | ZetaError]
    ) -> T | ZetaError:
        critical = ticket.priority is Priority.CRITICAL
        refused = self._gate.push(ticket, partial(_own, choose), choice)
        if refused is not None and refused.number == ticket.number:
            return self._refusal(refused)
        if refused is not None:
            self._settle(refused, self._refusal(refused))
        mine = self._waiting[ticket.number] = asyncio.get_running_loop().create_future()
        metrics.QUEUED.set(len(self._gate))
        # Behind others it would be looked at in vain: nobody has gone since they were.
        if refused is not None or self._gate.leads(ticket):
            self.look()
        try:
            value: T | ZetaError | _Broke = await mine
        except asyncio.CancelledError:
            # Where the caller is gone at the moment of its turn, it is the next one's.
            self.look()
            raise
        finally:
            self._waiting.pop(ticket.number, None)
            self._gate.remove(ticket)
            self._fleet.release(self._going.pop(ticket.number, ()), critical=critical)
            metrics.QUEUED.set(len(self._gate))
        if isinstance(value, _Broke):
            raise value.error
        return value

    def _places(self, ticket: Ticket) -> Places | None:
        # Mostly there is room everywhere, and this is on every request's way.
        free = not len(self._gate) and self._running + len(self._going) < self._most
        if free and not self._fleet.crowded(ticket.priority):
            return None
        return self._gate.places(ticket, self._clock())

    def _look(self) -> None:
        """Let go as many as there are places for: what they answer with goes in one turn, too."""
        self._looks, self._looks_soon = None, False
        for ticket in self._gate.late(self._clock()):
            self._settle(ticket, self._refusal(ticket))
        for ticket, choice in self._gate.going(self._clock()):
            value = self._told(ticket, choice)
            if self._settle(ticket, value) and not isinstance(value, ZetaError):
                self._hold(ticket, choice)
        if len(self._gate):
            loop = asyncio.get_running_loop()
            self._looks = loop.call_later(_LOOKS_AGAIN_S, self._look)

    def _hold(self, ticket: Ticket, choice: Choice[object]) -> None:
        """Take the places of who was let go, until it begins, which is in the loop's next turn."""
        self._going[ticket.number] = choice.takes
        self._fleet.hold(choice.takes, critical=ticket.priority is Priority.CRITICAL)

    def _settle(self, ticket: Ticket, value: object) -> bool:
        """Tell *ticket* what becomes of it; False where it has gone."""
        if there := not (waiting := self._waiting[ticket.number]).done():
            waiting.set_result(value)
        return there

    def _vacancy(self, priority: Priority) -> Vacancy:
        found = self._fleet.vacancy(priority)
        free = self._running + len(self._going) < self._most
        return Vacancy(
            full=_and(found.full if free else np.ones_like(found.full), not free),
            room=_and(found.room if free else np.zeros_like(found.room), free),
            pace_s=_and(found.pace_s, self._mean_s / self._most),
            call_s=_and(found.call_s, self._mean_s),
        )

    def _ticket(self, ask: Ask, tokens: float, difficulty: float) -> Ticket:
        return Ticket(
            due_s=inf if ask.deadline_s is None else self._clock() + ask.deadline_s,
            difficulty=difficulty,
            number=next(self._numbers),
            known=_known(ask),
            priority=ask.priority,
            tenant=ask.tenant,
            tokens=tokens,
        )

    def _refusal(self, ticket: Ticket) -> OverloadedError:
        metrics.REFUSED.labels(ticket.priority.name.lower()).inc()
        return OverloadedError(
            f"{self._running} requests run and {len(self._gate)} wait; "
            f"one more of class {ticket.priority.name} would not be answered in time",
            retry_after_s=self._gate.retry_after_s(ticket, ticket.model, self._clock()),
        )

    def _told(self, ticket: Ticket, choice: Choice[T]) -> T:
        """Return what becomes of *ticket*; where it is refused, with a time that is kept."""
        if choice.wanted >= 0 and isinstance(choice.value, OverloadedError):
            metrics.REFUSED.labels(ticket.priority.name.lower()).inc()
            choice.value.retry_after_s = self._gate.retry_after_s(
                ticket, choice.wanted, self._clock(), service_s=choice.service_s
            )
        return choice.value


@dataclass(frozen=True, slots=True)
class _Broke:
    """A choice that a mistake of ours broke: its request's own, and of nobody else who waits."""

    error: Exception


def _own(choose: Choose[Any], places: Places | None) -> Choice[Any]:
    """Choose; what goes wrong does so for this request alone."""
    try:
        return choose(places)
    except Exception as error:  # noqa: BLE001 - raised where the request is answered
        return Choice(value=_Broke(error))


def _known(ask: Ask) -> Known:
    """Return what *ask* is known by when it comes back."""
    asked = (ask.tenant, ask.session, ask.text, ask.characters, ask.priority)
    return Known(key=hash(asked), caller=ask.caller)


def _and(values: np.ndarray[Any, Any], last: float) -> np.ndarray[Any, Any]:
    """Return *values* (N,) and *last*; (N + 1,). `np.append` takes six times as long."""
    joined = np.empty(len(values) + 1, values.dtype)
    joined[:-1] = values
    joined[-1] = last
    return joined
