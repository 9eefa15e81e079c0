"""Tickets and the keys behind them."""

from base64 import b64encode
from pathlib import Path

import pytest
from zeta.inference.v1.inference_service_pb2 import (
    PRIORITY_CRITICAL,
    TASK_KIND_CODE,
    GenerateRequest,
    Preference,
)

from services.kit.errors import ConfigError, TicketExpiredError, TicketInvalidError
from services.kit.tickets import SKEW_S, Claims, Keyring, Passes, digest_of, read

CLAIMS = Claims(replica="a-0", issued_s=100.0, expires_s=105.0, decision_id="d", digest="ff")


class Clock:
    """A clock that is set."""

    now_s = 0.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now_s


def line(name: str, byte: int) -> str:
    """A key in a file."""
    return f"{name} {b64encode(bytes([byte]) * 32).decode()}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file with one key."""
    path = tmp_path / "keys"
    path.write_text(line("one", 1))
    return path


def test_what_is_signed_is_read_back(file: Path) -> None:
    """A ticket says what was put into it, to whoever has the key, and is plain ASCII."""
    token = Keyring(file).sign(CLAIMS)

    assert token.isascii()
    assert Keyring(file).verify(token, 104.0) == CLAIMS


def test_a_ticket_lives_until_it_expires(file: Path) -> None:
    """Clocks may be apart by a little; after that it is refused, and can still be read."""
    keyring = Keyring(file)
    token = keyring.sign(CLAIMS)
    keyring.verify(token, 105.0 + SKEW_S)

    with pytest.raises(TicketExpiredError, match=r"expired 1\.5 s ago"):
        keyring.verify(token, 106.5)
    assert keyring.read(token) == CLAIMS


def test_any_change_is_noticed(file: Path) -> None:
    """Whichever character is altered, the ticket is refused."""
    keyring = Keyring(file)
    token = keyring.sign(CLAIMS)

    for i, character in enumerate(token):
        altered = token[:i] + ("A" if character != "A" else "B") + token[i + 1 :]
        with pytest.raises(TicketInvalidError):
            keyring.verify(altered, 100.0)


@pytest.mark.parametrize("token", ["", "x", "v1", "v1..", "v1.one", "v1.one.e30", "v2.one.e30.x"])
def test_what_is_no_ticket_is_refused(file: Path, token: str) -> None:
    """Anything may come as metadata."""
    with pytest.raises(TicketInvalidError):
        Keyring(file).verify(token, 100.0)


def test_another_key_of_the_same_name_is_no_help(file: Path, tmp_path: Path) -> None:
    """Knowing the key's name and the format does not make a ticket."""
    forged = tmp_path / "forged"
    forged.write_text(line("one", 2))

    with pytest.raises(TicketInvalidError, match="another key"):
        Keyring(file).verify(Keyring(forged).sign(CLAIMS), 100.0)


def test_claims_of_another_kind_are_refused(file: Path) -> None:
    """What a later version signed is a refusal, not a fault."""
    keyring = Keyring(file)
    strange = Claims(replica="a-0", issued_s="soon", expires_s=1.0)  # type: ignore[arg-type]

    with pytest.raises(TicketInvalidError, match="another version"):
        keyring.read(keyring.sign(strange))


def test_keys_are_replaced_while_old_tickets_live(file: Path) -> None:
    """New key beside the old, new key first, old key gone: each ticket holds as long as its key."""
    clock = Clock()
    signer, checker = Keyring(file, clock), Keyring(file, clock)
    old = signer.sign(CLAIMS)

    file.write_text(line("two", 2) + line("one", 1))
    clock.now_s += 1.0
    new = signer.sign(CLAIMS)
    assert new.startswith("v1.two.")
    assert checker.verify(old, 100.0) == checker.verify(new, 100.0) == CLAIMS

    file.write_text(line("two", 2))
    clock.now_s += 1.0
    assert checker.verify(new, 100.0) == CLAIMS
    with pytest.raises(TicketInvalidError, match="'one' is not known"):
        checker.verify(old, 100.0)


def test_a_key_that_is_not_known_is_looked_for_at_once(file: Path, tmp_path: Path) -> None:
    """Whoever has read the new file first does not have to wait for the others."""
    checker = Keyring(file, Clock())
    other = tmp_path / "other"
    other.write_text(line("two", 2))
    file.write_text(line("one", 1) + line("two", 2))

    assert checker.verify(Keyring(other).sign(CLAIMS), 100.0) == CLAIMS


def test_a_broken_file_changes_nothing(file: Path) -> None:
    """Keys stay as they were while the file cannot be read."""
    clock = Clock()
    keyring = Keyring(file, clock)
    for broken in ("nonsense", ""):
        file.write_text(broken)
        clock.now_s += 1.0
        assert keyring.verify(keyring.sign(CLAIMS), 100.0) == CLAIMS
    file.unlink()
    clock.now_s += 1.0
    assert keyring.verify(keyring.sign(CLAIMS), 100.0) == CLAIMS


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no key"),
        ("# only words\n", "holds no key"),
        ("one\n", "line 1: must be a name"),
        ("o.ne QUJD\n", "line 1: must be a name"),
        ("one QUJD\n", "line 1: the key has 3 bytes; 32 are needed"),
        ("one !\n", "line 1: the key"),
        (line("one", 1) + "\n" + line("one", 2), "line 3: the name 'one' is given twice"),
        ("schlüssel QUJD\n", "cannot read"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, says: str) -> None:
    """A start stops with the line and what is wrong with it."""
    path = tmp_path / "keys"
    path.write_text(text)

    with pytest.raises(ConfigError, match=rf"tickets\.keys: .*{says}"):
        read(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message says which file."""
    with pytest.raises(ConfigError, match="cannot read"):
        Keyring(tmp_path / "none")


def test_the_digest_holds_all_that_costs() -> None:
    """Prompt, limits, tenant and priority count; what only a router reads does not."""
    asked = GenerateRequest(prompt="hi", max_tokens=4, tenant="t", model="a")
    same = GenerateRequest(
        prompt="hi",
        max_tokens=4,
        tenant="t",
        task_kind=TASK_KIND_CODE,
        preference=Preference(policy="fast"),
        consent_to_train=True,
    )
    others = [
        GenerateRequest(prompt="hi", max_tokens=5, tenant="t"),
        GenerateRequest(prompt="hi", max_tokens=4),
        GenerateRequest(prompt="ho", max_tokens=4, tenant="t"),
        GenerateRequest(prompt="hi", max_tokens=4, tenant="t", priority=PRIORITY_CRITICAL),
        GenerateRequest(prompt="hi", max_tokens=4, tenant="t", samples=2),
    ]

    assert digest_of(asked) == digest_of(same)
    assert len({digest_of(each) for each in [asked, *others]}) == 1 + len(others)


def test_a_pass_is_shown_again_until_half_its_life_is_over(file: Path) -> None:
    """It is made anew long before it expires, so that it never does on the way."""
    wall, clock = Clock(), Clock()
    keyring = Keyring(file, clock)
    passes = Passes(keyring, wall)
    wall.now_s = 1000.0
    ((key, first),) = passes.metadata()
    wall.now_s += 5.0
    again = passes.metadata()[0][1]
    wall.now_s += 5.0
    renewed = passes.metadata()[0][1]

    file.write_text(line("two", 2) + line("one", 1))
    clock.now_s += 1.0
    assert passes.metadata()[0][1].startswith("v1.two."), "a new key renews it at once"
    assert key == "zeta-ticket"
    assert first == again != renewed
    assert keyring.verify(renewed, 1019.0).replica == ""
