"""Tickets: short-lived permissions, signed by a router, to call one replica directly.

`v1.KEY_ID.CLAIMS.MAC`: the claims are JSON in base64url, the code is HMAC-SHA256 over all that
stands before it. A key has a name, so that old and new ones can be in force side by side.
"""

import hmac
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec
import structlog
from zeta.inference.v1.inference_service_pb2 import GenerateRequest

from services.kit.errors import ConfigError, TicketExpiredError, TicketInvalidError

log = structlog.get_logger()

TICKET_KEY: Final = "zeta-ticket"
"""The metadata in which a caller shows its ticket."""
SKEW_S: Final = 1.0
"""How far the clocks of a router and a replica may be apart."""
_VERSION: Final = "v1"
_KEY_BYTES: Final = 32
_LONGEST: Final = 4096
_LOOKS_AGAIN_S: Final = 1.0
_PASS_LIFE_S: Final = 20.0


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """What a ticket says. Times are seconds since 1970."""

    replica: str
    """The only one that may take it; empty: it is the router's own pass, good everywhere."""
    issued_s: float
    expires_s: float
    """The call has to begin before."""
    decision_id: str = ""
    digest: str = ""
    """`digest_of` the request that was decided on."""


class Keyring:
    """The keys in a file, one per line: a name and 32 bytes or more in base64.

    The first signs and all verify. The file is read again when it has changed, looked at once a
    second, so that keys can be replaced while everything runs. A later version of it that
    cannot be read is logged, and the keys stay as they are. *clock* is monotonic seconds.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._clock = path, clock
        self._looked_s, self._stamp = clock(), _stamp(path)
        self._keys = read(path)

    @property
    def signer(self) -> str:
        """Name of the key that signs now."""
        return next(iter(self._current()))

    def sign(self, claims: Claims) -> str:
        """Make a ticket."""
        name, key = next(iter(self._current().items()))
        body = urlsafe_b64encode(msgspec.json.encode(claims)).decode().rstrip("=")
        signed = f"{_VERSION}.{name}.{body}"
        return f"{signed}.{_code(key, signed)}"

    def verify(self, token: str, now_s: float) -> Claims:
        """Return what *token* says, at *now_s* since 1970.

        Raises TicketInvalidError for one that no key here made, TicketExpiredError.
        """
        claims = self.read(token)
        if now_s > claims.expires_s + SKEW_S:
            late_s = now_s - claims.expires_s
            raise TicketExpiredError(f"the ticket expired {late_s:.1f} s ago; ask for another")
        return claims

    def read(self, token: str) -> Claims:
        """Return what *token* says, expired or not. Raises TicketInvalidError."""
        signed, _, code = token.rpartition(".")
        version, name, body = (*signed.split("."), "", "", "")[:3]
        if version != _VERSION or len(token) > _LONGEST:
            raise TicketInvalidError(f"not a ticket: {token[:20]!r}")
        if (key := self._current().get(name) or self._looked().get(name)) is None:
            raise TicketInvalidError(f"the ticket's key {name[:40]!r} is not known here")
        if not hmac.compare_digest(_code(key, signed).encode(), code.encode()):
            raise TicketInvalidError("the ticket was altered, or made with another key")
        try:
            return msgspec.json.decode(urlsafe_b64decode(f"{body}==="), type=Claims)
        except msgspec.MsgspecError as error:
            raise TicketInvalidError(f"the ticket was made by another version: {error}") from error

    def _current(self) -> Mapping[str, bytes]:
        return self._looked() if self._clock() - self._looked_s >= _LOOKS_AGAIN_S else self._keys

    def _looked(self) -> Mapping[str, bytes]:
        """Look at the file, also before it is time to where a key is not known."""
        self._looked_s = self._clock()
        if (stamp := _stamp(self._path)) != self._stamp:
            self._stamp = stamp
            self._replace()
        return self._keys

    def _replace(self) -> None:
        try:
            self._keys = read(self._path)
        except ConfigError as error:
            log.error("ticket keys not replaced", error=str(error))  # noqa: TRY400 - said in full
        else:
            log.info("ticket keys replaced", keys=list(self._keys))


class Passes:
    """The router's own passes: each is shown with many calls, and renewed in time.

    A new key renews it at once.

    *wall* is seconds since 1970.
    """

    def __init__(self, keyring: Keyring, wall: Callable[[], float] = time.time) -> None:
        self._keyring, self._wall = keyring, wall
        self._token, self._signer, self._renewed_s = "", "", 0.0

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return what goes with a call."""
        now_s, signer = self._wall(), self._keyring.signer
        young = 0.0 <= now_s - self._renewed_s < _PASS_LIFE_S / 2
        if not young or signer != self._signer:
            self._signer = signer
            claims = Claims(replica="", issued_s=now_s, expires_s=now_s + _PASS_LIFE_S)
            self._token, self._renewed_s = self._keyring.sign(claims), now_s
        return ((TICKET_KEY, self._token),)


def read(path: Path) -> dict[str, bytes]:
    """Return the keys in *path* by name, in its order. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"tickets.keys: cannot read {str(path)!r}: {error}") from error
    keys: dict[str, bytes] = {}
    for number, line in enumerate(lines, 1):
        words, where = line.split(), f"tickets.keys: {path}, line {number}"
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2 or not words[0].replace("-", "").isalnum():  # noqa: PLR2004 - as below
            raise ConfigError(f"{where}: must be a name (letters, digits, -) and a key")
        if words[0] in keys:
            raise ConfigError(f"{where}: the name {words[0]!r} is given twice")
        keys[words[0]] = _secret(words[1], where)
    if not keys:
        raise ConfigError(f"tickets.keys: {path} holds no key; make one: openssl rand -base64 32")
    return keys


def digest_of(request: GenerateRequest) -> str:
    """Return the SHA-256 of all of *request* but what a router reads for itself.

    So tenant, priority, `max_tokens` and every other limit are what was decided on. Both sides
    parse the request and write it anew: how a caller's language orders its bytes does not matter.
    """
    copy = GenerateRequest()
    copy.CopyFrom(request)
    for field in ("model", "preference", "task_kind", "consent_to_train"):
        copy.ClearField(field)
    return sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def _secret(text: str, where: str) -> bytes:
    try:
        key = urlsafe_b64decode(text.replace("+", "-").replace("/", "_"))
    except (NotBase64, ValueError) as error:
        raise ConfigError(f"{where}: the key is not base64: {error}") from error
    if len(key) < _KEY_BYTES:
        raise ConfigError(f"{where}: the key has {len(key)} bytes; {_KEY_BYTES} are needed")
    return key


def _code(key: bytes, signed: str) -> str:
    made = hmac.digest(key, signed.encode(), "sha256")
    return urlsafe_b64encode(made).decode().rstrip("=")


def _stamp(path: Path) -> tuple[int, int]:
    """Return what changes with the file, whether it is written over or another takes its place."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_ino
