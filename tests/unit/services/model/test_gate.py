"""Who may call a replica."""

from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from zeta.inference.v1.inference_service_pb2 import GenerateRequest

from services.kit.errors import (
    TicketExpiredError,
    TicketInvalidError,
    TicketMismatchError,
    TicketUsedError,
    UnauthenticatedError,
)
from services.kit.tickets import TICKET_KEY, Claims, Keyring, Passes, digest_of
from services.model.gate import Gate

ASKED = GenerateRequest(prompt="hi", max_tokens=4)
BEGAN_S = 1000.0


class Clock:
    """A clock that is set."""

    now_s = BEGAN_S

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


@dataclass(slots=True)
class Caller:
    """What a call brings along."""

    tokens: list[str] = field(default_factory=list)

    def invocation_metadata(self) -> list[tuple[str, str]]:
        """Return its metadata."""
        return [(TICKET_KEY, token) for token in self.tokens]


def by(*tokens: str) -> Any:
    """A call with a ticket, or with none."""
    return Caller(list(tokens))


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    """One key."""
    file = tmp_path / "keys"
    file.write_text(f"one {b64encode(bytes(32)).decode()}\n")
    return Keyring(file)


def claims(decision_id: str = "d", **others: Any) -> Claims:
    """Claims of a good ticket, unless *others* say otherwise."""
    good: dict[str, Any] = {
        "replica": "a-0",
        "issued_s": BEGAN_S + 1.0,
        "expires_s": BEGAN_S + 6.0,
        "digest": digest_of(ASKED),
    }
    return Claims(decision_id=decision_id, **(good | others))


def test_an_open_gate_lets_everybody_in(keyring: Keyring) -> None:
    """Without a ticket nothing is said; with one it is checked and read."""
    gate = Gate("a-0", keyring, clock=Clock())

    assert gate.generate(ASKED, by()) is None
    gate.let_in(by())
    said = gate.generate(ASKED, by(keyring.sign(claims())))
    assert said is not None
    assert said.decision_id == "d"


def test_a_closed_gate_wants_a_ticket(keyring: Keyring) -> None:
    """Whoever comes without one is told where to get it."""
    gate = Gate("a-0", keyring, required=True, clock=Clock())

    with pytest.raises(UnauthenticatedError, match="a ticket from its Route"):
        gate.generate(ASKED, by())
    with pytest.raises(UnauthenticatedError, match="a ticket from its Route"):
        gate.let_in(by())


def test_the_router_has_a_pass(keyring: Keyring) -> None:
    """It is good for every call, again and again, and is not a decision's."""
    clock = Clock()
    gate = Gate("a-0", keyring, required=True, clock=clock)
    ((_, token),) = Passes(keyring, clock).metadata()

    for _ in range(2):
        gate.let_in(by(token))
        assert gate.generate(ASKED, by(token)) is None


def test_a_ticket_is_for_generate_alone(keyring: Keyring) -> None:
    """Nobody scores or embeds with it."""
    gate = Gate("a-0", keyring, required=True, clock=Clock())

    with pytest.raises(TicketMismatchError, match="Generate alone"):
        gate.let_in(by(keyring.sign(claims())))


@pytest.mark.parametrize(
    ("others", "error"),
    [
        ({"replica": "a-1"}, TicketMismatchError),
        ({"digest": digest_of(GenerateRequest(prompt="ho"))}, TicketMismatchError),
        ({"expires_s": BEGAN_S - 2.0}, TicketExpiredError),
        ({"issued_s": BEGAN_S - 0.1}, TicketExpiredError),
    ],
    ids=["another replica", "another request", "too late", "before this process"],
)
@pytest.mark.parametrize("required", [False, True], ids=["open", "closed"])
def test_a_ticket_for_something_else_is_refused(
    keyring: Keyring,
    others: dict[str, Any],
    error: type[Exception],
    required: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """Also where callers may come without one: a wrong ticket is never overlooked."""
    gate = Gate("a-0", keyring, required=required, clock=Clock())

    with pytest.raises(error):
        gate.generate(ASKED, by(keyring.sign(claims(**others))))


def test_a_ticket_is_good_once(keyring: Keyring) -> None:
    """Used again it is refused for as long as it would be valid, and is then expired."""
    clock = Clock()
    gate, token = Gate("a-0", keyring, clock=clock), keyring.sign(claims())
    gate.generate(ASKED, by(token))

    clock.now_s = BEGAN_S + 6.9
    gate.generate(ASKED, by(keyring.sign(claims("other", expires_s=BEGAN_S + 8.0))))
    with pytest.raises(TicketUsedError):
        gate.generate(ASKED, by(token))

    clock.now_s = BEGAN_S + 7.1
    gate.generate(ASKED, by(keyring.sign(claims("third", expires_s=BEGAN_S + 9.0))))
    with pytest.raises(TicketExpiredError):
        gate.generate(ASKED, by(token))


def test_used_tickets_are_forgotten_once_expired(keyring: Keyring) -> None:
    """What is remembered is bounded by what is valid."""
    clock = Clock()
    gate = Gate("a-0", keyring, clock=clock)
    for i in range(100):
        clock.now_s = BEGAN_S + i
        good = claims(str(i), issued_s=clock.now_s, expires_s=clock.now_s + 5.0)
        gate.generate(ASKED, by(keyring.sign(good)))

    assert len(gate._used) <= 8


def test_without_keys_a_ticket_cannot_be_checked() -> None:
    """It is refused, so that nobody takes it for accepted."""
    with pytest.raises(TicketInvalidError, match="no keys"):
        Gate("a-0").generate(ASKED, by("v1.one.e30.x"))
