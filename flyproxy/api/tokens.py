"""`data_dir/tokens`: who may ask what. One JSON object a line, only the SHA-256 of each token, mode 0600.

The command line writes (under a lock, the whole file replaced at once), the running proxy reads it again when it
changed, so nobody need be told. A token is 256 random bits, so a plain hash is enough; it is compared with every entry
in constant time. A line that cannot be understood (a slip of somebody's editor) lets nobody in and keeps nobody else
out; the log names it, and the command line writes nothing over it.
"""

import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import orjson

from flyproxy.clock import Clock
from flyproxy.errors import FlyproxyError

OPERATOR_ORGANIZATION = "_operator"
TOKENS_MAX = 1000
"""Tokens in the file; a new one is refused beyond. Short-lived ones leave it when they have expired."""
TOKEN_BYTES_MAX = 512
"""Longer ones are not looked up."""
FILE_BYTES_MAX = 1024 * 1024
"""A larger file is not read; TOKENS_MAX records take a third of this."""
TIME_MS_MAX = 253_402_300_799_000
"""The end of the year 9999."""

_LOG = logging.getLogger("flyproxy.api")
_SLUG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", re.ASCII)


class Scope(StrEnum):
    """What a token may do. WRITE includes READ; OPERATOR includes both, for every organization."""

    READ = "read"
    WRITE = "write"
    OPERATOR = "operator"


class TokenFileError(FlyproxyError):
    """The file cannot be read, written or understood; the sentence names it and the mend."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one token stands for."""

    id: str
    organization: str
    scope: Scope
    sha256: str
    created_ms: int
    expires_ms: int | None = None
    """None: never."""

    def allows(self, organization: str, scope: Scope = Scope.READ) -> bool:
        """Whether it may do this to that organization."""
        if self.scope is Scope.OPERATOR:
            return True
        return self.organization == organization and scope in (Scope.READ, self.scope)


class TokenFile:
    """The tokens of one data directory; cheap to ask, safe to share between processes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.path = path
        self._clock = clock
        self._seen: tuple[int, int, int, int] | None = None
        self._grants: tuple[Grant, ...] = ()
        self._damage = ""
        """What is wrong with the first line that is no record."""
        self._said = ""

    def check(self, token: str) -> Grant | None:
        """The grant of a token, None for a stranger's or an expired one. Raises TokenFileError; that and damaged lines
        are said in the log, once."""
        try:
            self._refresh()
        except TokenFileError as fault:
            self._say(str(fault))
            raise
        self._say(self._damage)
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
        found: Grant | None = None
        for grant in self._in_force():
            if hmac.compare_digest(grant.sha256, digest):
                found = grant
        return found if len(token) <= TOKEN_BYTES_MAX else None

    def list(self) -> tuple[Grant, ...]:
        """Every token that is in force, oldest first. Raises TokenFileError, also for a damaged line."""
        self._refresh()
        if self._damage:
            raise TokenFileError(self._damage)
        return self._in_force()

    def _in_force(self) -> tuple[Grant, ...]:
        now_ms = self._clock.now_ms()
        return tuple(grant for grant in self._grants if grant.expires_ms is None or grant.expires_ms > now_ms)

    def mint(self, organization: str, scope: Scope, *, lifetime_s: float | None = None) -> str:
        """A new token's text, which is kept nowhere. Raises TokenFileError."""
        if not _SLUG.fullmatch(organization):
            raise TokenFileError(f"{organization!r} is no organization's name")
        now_ms = self._clock.now_ms()
        token = f"fp_{organization}_{secrets.token_hex(32)}"
        grant = Grant(
            id=secrets.token_hex(4),
            organization=organization,
            scope=scope,
            sha256=hashlib.sha256(token.encode()).hexdigest(),
            created_ms=now_ms,
            expires_ms=None if lifetime_s is None else now_ms + int(lifetime_s * 1000),
        )
        with self._locked():
            grants = self.list()
            if len(grants) >= TOKENS_MAX:
                raise TokenFileError(f"{self.path} holds {len(grants)} tokens, its most; revoke one first")
            self._write((*grants, grant))
        return token

    def revoke(self, id_or_token: str) -> Grant | None:
        """Take a token out, by its id or by itself; None when there is no such token. Raises TokenFileError."""
        digest = hashlib.sha256(id_or_token.encode("utf-8", "surrogatepass")).hexdigest()
        with self._locked():
            grants = self.list()
            gone = next((grant for grant in grants if digest == grant.sha256 or id_or_token == grant.id), None)
            if gone is not None:
                self._write(tuple(grant for grant in grants if grant is not gone))
        return gone

    def _refresh(self) -> None:
        try:
            status = os.stat(self.path)
            seen = (
                status.st_ino,
                status.st_mtime_ns,
                status.st_ctime_ns,
                status.st_size,
            )  # ctime: a copy can keep mtime
            if seen == self._seen:
                return
            self._grants, self._damage = _records(self.path, self._text(status))
            self._seen = seen
        except FileNotFoundError:
            self._grants, self._damage, self._seen = (), "", None
        except OSError as fault:
            raise TokenFileError(f"cannot read {self.path}: {fault.strerror}") from None

    def _text(self, status: os.stat_result) -> bytes:
        if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for its writer
            raise TokenFileError(f"cannot read {self.path}: it is not a file")
        with self.path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
        if len(text) > FILE_BYTES_MAX:
            raise TokenFileError(f"cannot read {self.path}: it is larger than {FILE_BYTES_MAX} bytes")
        return text

    def _say(self, sentence: str) -> None:
        if sentence and sentence != self._said:
            _LOG.error("%s", sentence)
        self._said = sentence

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One writer at a time. The lock is a file of its own, since the tokens' file is replaced."""
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._give_to_owner(lock)
        except OSError as fault:
            raise TokenFileError(f"cannot write in {self.path.parent}: {fault.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, grants: tuple[Grant, ...]) -> None:
        fresh = self.path.with_name(self.path.name + ".new")
        try:
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as out:
                self._give_to_owner(out.fileno())
                out.write(b"".join(orjson.dumps(asdict(grant)) + b"\n" for grant in grants))
                out.flush()
                os.fsync(out.fileno())
            os.replace(fresh, self.path)
        except OSError as fault:
            raise TokenFileError(f"cannot write {self.path}: {fault.strerror}") from None

    def _give_to_owner(self, descriptor: int) -> None:
        """What root makes for a proxy that runs as somebody else is that one's."""
        if os.geteuid() == 0:
            owner = os.stat(self.path.parent)
            os.fchown(descriptor, owner.st_uid, owner.st_gid)


def _records(path: Path, text: bytes) -> tuple[tuple[Grant, ...], str]:
    """The grants, and a sentence about the first line that holds none."""
    grants: list[Grant] = []
    damage = ""
    for number, line in enumerate(text.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            grants.append(_grant(orjson.loads(line)))
        except (ValueError, KeyError, TypeError):
            damage = damage or f"{path}:{number}: not a token's record; take the line out"
    return tuple(grants), damage


def _grant(members: dict[str, object]) -> Grant:
    created_ms, expires_ms = members["created_ms"], members.get("expires_ms")
    if not isinstance(created_ms, int) or not isinstance(expires_ms, int | None):
        raise TypeError
    if not (0 <= created_ms <= TIME_MS_MAX and 0 <= (expires_ms or 0) <= TIME_MS_MAX):
        raise ValueError
    digest = str(members["sha256"])
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError
    return Grant(
        id=str(members["id"]),
        organization=str(members["organization"]),
        scope=Scope(str(members["scope"])),
        sha256=digest,
        created_ms=created_ms,
        expires_ms=expires_ms,
    )
