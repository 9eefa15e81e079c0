"""Tickets in the router's books, by a manual clock."""

import asyncio
import sqlite3
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from zeta.inference.v1 import inference_service_pb2 as inference_pb

from router_svc import wire
from router_svc.core.breaker import Breaker
from router_svc.fleet import Fleet
from router_svc.journal import Journal
from router_svc.learner import Learner
from router_svc.policies import Policies
from router_svc.profiler import Profiler
from router_svc.router import ZetaDynamicRouter
from router_svc.tickets import Issued, Tickets
from services.kit.config import Policy, Router
from services.kit.errors import OverloadedError, UnavailableError
from services.kit.tickets import Keyring
from tests.unit.router_svc.fixtures import ManualClock, ask, features, models

LIFE_S = 5.0
ASKED = inference_pb.GenerateRequest(prompt="what is 2 + 2?")
SETTINGS = Router(
    max_in_flight=2,
    max_queued=1,
    policies={"balanced": Policy(explore_ratio=0.0)},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Office:
    """A router that makes tickets, and its clock."""

    tickets: Tickets
    router: ZetaDynamicRouter
    clock: ManualClock
    journal: Journal

    async def issue(self) -> Issued:
        """Make a ticket."""
        return await self.tickets.issue(ask(), ASKED)

    def in_flight(self) -> float:
        """Return the requests that count as running."""
        return float(self.router.fleet.replicas().loads.own.sum())

    async def status(self, issued: Issued) -> str:
        """Return what the journal says became of a ticket."""
        query = "SELECT status FROM outcomes WHERE id = ?"

        def read(db: sqlite3.Connection) -> str:
            row = db.execute(query, (issued.decision.id,)).fetchone()
            return str(row[0]) if row else ""

        return await self.journal.ask(read)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    """Two replicas of one model."""
    (tmp_path / "keys").write_text(f"one {b64encode(bytes(32)).decode()}\n")
    clock, described = ManualClock(), models({"a": 2})

    async def profile(text: str) -> object:
        return features(text)

    fleet = Fleet(described, SETTINGS, clock)
    for name in fleet.names:
        fleet.health(name, serving=True)
    journal = Journal(tmp_path / "journal.sqlite3")
    router = ZetaDynamicRouter(
        SETTINGS,
        fleet=fleet,
        learner=Learner(described, SETTINGS.half_life_outcomes),
        profiler=Profiler(
            profile,  # type: ignore[arg-type] # as good as an embedder's
            serves=lambda: False,
            timeout_s=1.0,
            cache_entries=1,
            breaker=Breaker(failures=3, open_s=1.0),
            clock=clock,
        ),
        policies=Policies(SETTINGS.policies, "balanced"),
        journal=journal,
        rng=np.random.default_rng(0),
        clock=clock,
    )
    keyring = Keyring(tmp_path / "keys")
    tickets = Tickets(router, keyring, LIFE_S, clock=clock, wall=lambda: 1e9)
    yield Office(tickets=tickets, router=router, clock=clock, journal=journal)
    await journal.close()


def finished(total_s: float = 0.5) -> wire.Outcome:
    """An answer of ten tokens."""
    said = inference_pb.Finished(
        reason=inference_pb.FINISH_REASON_STOP,
        usage=inference_pb.Usage(prompt_tokens=5, completion_tokens=10),
    )
    said.timings.time_to_first_token.FromNanoseconds(int(total_s / 2 * 1e9))
    said.timings.total.FromNanoseconds(int(total_s * 1e9))
    return wire.Outcome(status="OK", finished=said)


async def test_a_ticket_counts_until_it_is_reported(office: Office) -> None:
    """In the replica's load; the report takes it off, and the journal has the outcome."""
    issued = await office.issue()
    assert office.in_flight() == 1.0
    assert issued.replica in {"a-0", "a-1"}
    assert issued.expires_s == 1e9 + LIFE_S

    office.clock.now_s += 1.0
    assert await office.tickets.report(issued.token.encode(), finished())

    assert office.in_flight() == 0.0
    assert await office.status(issued) == "OK"


async def test_tickets_take_admission_like_calls(office: Office) -> None:
    """As many as may run at once; the next waits, and whoever there is no room for is refused."""
    first, _ = await office.issue(), await office.issue()
    third = office.tickets.issue(ask(), ASKED)
    waiting = asyncio.ensure_future(third)
    await asyncio.sleep(0)
    with pytest.raises(OverloadedError):
        await office.issue()
    assert not waiting.done()

    await office.tickets.report(first.token.encode(), wire.Outcome(status="CANCELLED"))

    assert (await waiting).token
    assert office.in_flight() == 2.0


async def test_the_prompt_counts_until_it_should_be_through(office: Office) -> None:
    """Nobody tells when the first token came, so the prediction has to do."""
    await office.issue()
    assert office.router.fleet.replicas().loads.waiting_prompt_tokens.sum() > 0.0

    office.clock.now_s += LIFE_S
    await office.tickets.expire()

    assert office.router.fleet.replicas().loads.waiting_prompt_tokens.sum() == 0.0
    assert office.in_flight() == 1.0


async def test_an_unreported_ticket_stops_counting(office: Office) -> None:
    """Not while a call that began at the last moment is likely to run; then all of it is let go."""
    first, _ = await office.issue(), await office.issue()
    office.clock.now_s += LIFE_S
    await office.tickets.expire()
    assert office.in_flight() == 2.0

    office.clock.now_s += 60.0
    await office.tickets.expire()

    assert office.in_flight() == 0.0
    assert await office.status(first) == "UNREPORTED"
    assert (await office.issue()).token


async def test_a_late_report_is_still_learned_from(office: Office) -> None:
    """It replaces what was written down, and takes nothing off twice."""
    issued = await office.issue()
    office.clock.now_s += LIFE_S + 60.0
    await office.tickets.expire()

    assert await office.tickets.report(issued.token.encode(), finished(30.0))

    assert office.in_flight() == 0.0
    assert await office.status(issued) == "OK"
    (belief,) = [b for b in office.router.learner.beliefs() if b[2] > 0.0]
    assert belief[2] == pytest.approx(30.0)


async def test_a_report_counts_once(office: Office) -> None:
    """Whatever a second one says."""
    issued = await office.issue()
    office.clock.now_s += 1.0
    await office.tickets.report(issued.token.encode(), finished())

    assert not await office.tickets.report(
        issued.token.encode(), wire.Outcome(status="STREAM_BROKEN")
    )
    assert await office.status(issued) == "OK"


async def test_a_refused_ticket_teaches_nothing(office: Office) -> None:
    """The load is let go, the replica's circuit stays as it was, no time is learned."""
    issued = await office.issue()
    for _ in range(4):
        await office.tickets.report(issued.token.encode(), wire.Outcome(status="REFUSED"))

    assert office.in_flight() == 0.0
    assert await office.status(issued) == "REFUSED"
    assert not [b for b in office.router.learner.beliefs() if b[2] > 0.0]
    assert office.router.fleet.replicas().circuit_closed.all()


async def test_an_answer_closes_a_circuit(office: Office) -> None:
    """A replica that direct calls alone reach is not avoided for ever after it failed once."""
    fleet = office.router.fleet
    fleet.health("a-1", serving=False)
    lease = fleet.begin("a-0", 1.0, 1.0)
    for _ in range(SETTINGS.breaker_failures):
        fleet.failed(lease)
    fleet.end(lease)
    assert not fleet.replicas().circuit_closed[0]
    office.clock.now_s += SETTINGS.breaker_open_s

    issued = await office.issue()
    office.clock.now_s += 1.0
    await office.tickets.report(issued.token.encode(), finished())

    assert fleet.replicas().circuit_closed[0]


async def test_where_nobody_serves_nothing_is_held(office: Office) -> None:
    """A refusal gives its place back."""
    for name in office.router.fleet.names:
        office.router.fleet.health(name, serving=False)
    for _ in range(4):
        with pytest.raises(UnavailableError):
            await office.issue()

    assert office.in_flight() == 0.0
