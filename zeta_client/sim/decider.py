"""What a simulation asks of whoever decides where requests go."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from router_svc.core.features import Features
from router_svc.core.types import Priority
from router_svc.fleet import Lease
from zeta_client.sim.server import Job

Ended: TypeAlias = Literal["well", "late", "lost"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What a router is told of a request."""

    number: int
    kind: str
    priority: Priority
    tenant: str
    prompt_tokens: int
    due_s: float
    """When the answer is; infinite without a deadline."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not served, and when a retry is worth it."""

    reason: str
    retry_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """Where a request went; *lease* and *features* are the router's own."""

    replica: int
    plan: str
    lease: Lease | None = None
    features: Features | None = None
    expected_tokens: float = 0.0


class Decider(Protocol):
    """Chooses replicas, by their number, and learns what becomes of requests."""

    def begin(self, question: Question, failed: frozenset[int]) -> Sent | Refused | None:
        """Choose, or say why not; None: it waits."""
        ...

    def settled(self) -> Iterator[tuple[int, Sent | Refused]]:
        """Say who waits no longer, by its number, and where it goes or why it does not."""
        ...

    def first(self, sent: Sent) -> None:
        """Note a first token."""
        ...

    def end(self, sent: Sent, job: Job, *, ended: Ended) -> None:
        """Note that a request has ended."""
        ...

    def healthy(self, replica: int, *, serving: bool) -> None:
        """Note that a replica came or went."""
        ...

    def reported(self, replica: int, requests: int, prompt_tokens: float, most: int) -> None:
        """Take in a report."""
        ...

    def look_ahead(self) -> Mapping[int, int]:
        """Foresee what comes, and return new slots of replicas; called every `forecast.STEP_S`."""
        ...
