"""Who may call this replica: anybody, or the router and callers with a ticket from it."""

import time
from collections.abc import Callable

from zeta.inference.v1.inference_service_pb2 import GenerateRequest

from services.kit import rpc
from services.kit.errors import (
    TicketExpiredError,
    TicketInvalidError,
    TicketMismatchError,
    TicketUsedError,
    UnauthenticatedError,
)
from services.kit.tickets import SKEW_S, TICKET_KEY, Claims, Keyring, digest_of


class Gate:
    """Checks tickets for *replica*; without *required*, callers may come without one.

    Each ticket is good once. Which ones were used is forgotten with the process, so tickets that
    are older than it are refused. *clock* is seconds since 1970.
    """

    def __init__(
        self,
        replica: str,
        keyring: Keyring | None = None,
        *,
        required: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._replica, self._keyring, self._required = replica, keyring, required
        self._clock, self._started_s = clock, clock()
        self._used: dict[str, float] = {}
        """When each ticket that was used expires, by its decision, oldest use first."""

    def let_in(self, context: rpc.Context) -> None:
        """Check who calls anything but `Generate`: no ticket is for that.

        Raises UnauthenticatedError, TicketMismatchError.
        """
        claims = self._claims(context)
        if self._required and claims and claims.replica:
            raise TicketMismatchError("a ticket is for Generate alone")

    def generate(self, request: GenerateRequest, context: rpc.Context) -> Claims | None:
        """Check who calls `Generate`; return what the ticket says, None without one.

        Raises UnauthenticatedError, TicketMismatchError, TicketUsedError.
        """
        claims = self._claims(context)
        if claims is None or not claims.replica:
            return None
        if claims.replica != self._replica:
            raise TicketMismatchError(
                f"the ticket is for {claims.replica!r}; this is {self._replica!r}"
            )
        if claims.issued_s < self._started_s:
            raise TicketExpiredError("the ticket is older than this process; ask for another")
        if claims.digest != digest_of(request):
            raise TicketMismatchError(
                "the ticket is for another request: send what was given to Route, unchanged"
            )
        self._use(claims)
        return claims

    def _claims(self, context: rpc.Context) -> Claims | None:
        token = rpc.metadata_of(context, TICKET_KEY)
        if token and self._keyring:
            return self._keyring.verify(token, self._clock())
        if self._required:
            raise UnauthenticatedError(
                f"{self._replica} takes calls from the router, or with a ticket from its Route"
            )
        if token:
            raise TicketInvalidError(f"{self._replica} has no keys to check a ticket with")
        return None

    def _use(self, claims: Claims) -> None:
        now_s = self._clock()
        for decision_id, expires_s in list(self._used.items()):
            if expires_s + SKEW_S >= now_s:
                break
            del self._used[decision_id]
        if claims.decision_id in self._used:
            raise TicketUsedError("the ticket was used before; ask for another")
        self._used[claims.decision_id] = claims.expires_s
