"""What one header line means to a front door, looked at alone. Lines against each other: framing.py.

A line is either FORWARD, to go on as the bytes it is, or a Field somebody has to look at. Both are values that depend
on nothing but the line's bytes and the reader's settings, which is what lets the parser keep them.
"""

import re
from dataclasses import dataclass

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.grammar import (
    AS_APPS_READ,
    CONTENT_LENGTH,
    HEADER_LINE,
    TCHAR,
    TOKEN,
    header_line_fault,
    host_and_port,
)
from flyproxy.http1.limits import HeadLimits

FORWARD, DROP, HOST, CONNECTION, CONTENT_LENGTH_KIND, TRANSFER_ENCODING, UPGRADE, EXPECT, TE, OWNED = range(10)

CLOSE, KEEP_ALIVE, UPGRADES = 1, 2, 4

# Named by Connection or not, these concern one connection only (RFC 9110 7.6.1, and the older Keep-Alive and Proxy-*).
# Trailer stays: chunked bodies go on as they are, trailers too.
_HOP_BY_HOP = {
    b"connection": CONNECTION,
    b"content-length": CONTENT_LENGTH_KIND,
    b"transfer-encoding": TRANSFER_ENCODING,
    b"upgrade": UPGRADE,
    b"te": TE,
    b"keep-alive": DROP,
    b"proxy-connection": DROP,
    b"proxy-authenticate": DROP,
    b"proxy-authorization": DROP,
    b"http2-settings": DROP,
}
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"host"))
_NEVER_NAMED = FRAMING | {b"expect"}
_OPTIONS = {b"close": CLOSE, b"keep-alive": KEEP_ALIVE, b"upgrade": UPGRADES}
_PROTOCOL = re.compile(rb"[" + TCHAR + rb"]++(?:/[" + TCHAR + rb"]++)?")

SECRET = frozenset((b"authorization", b"cookie", b"set-cookie", b"x-api-key", b"x-auth-token"))
"""Lines that are never remembered: they are somebody's secret, and rarely come twice."""


@dataclass(frozen=True, slots=True)
class Field:
    """One header line that is not simply passed on."""

    kind: int
    name: bytes
    """Lower case."""
    value: bytes
    """As sent, without the white space around it."""
    line: bytes
    meaning: bytes = b""
    """Host's name and Upgrade's protocols in lower case."""
    number: int = 0
    """Content-Length's value; Connection's CLOSE | KEEP_ALIVE | UPGRADES; 1 for a Transfer-Encoding of `chunked`."""
    names: frozenset[bytes] = frozenset()
    """Headers a Connection line names, lower case, beyond those that never go on anyway."""


FORWARDED = Field(FORWARD, b"", b"", b"")
"""The one verdict of every line that goes on as it is; compare with `is`."""


def kinds(owned: frozenset[bytes], dropped: frozenset[bytes], *, request: bool) -> dict[bytes, int]:
    """Of the headers that do not simply go on, by lower-case name; Transfer-Encoding and the like among them."""
    special = dict.fromkeys(dropped, DROP) | dict.fromkeys(owned, OWNED) | _HOP_BY_HOP
    return special | {b"host": HOST, b"expect": EXPECT} if request else special


class FieldReader:
    """Gives the meaning of single header lines under fixed settings; keeps nothing.

    Whether a good line is FORWARDED depends on its name alone.
    """

    def __init__(
        self, limits: HeadLimits, owned: frozenset[bytes], *, request: bool, dropped: frozenset[bytes] = frozenset()
    ) -> None:
        """`owned` and `dropped` are lower-case names; lines of the latter never go on."""
        self._line_bytes = limits.line_bytes
        self._owned = owned
        self._request = request
        self._kinds = kinds(owned, dropped, request=request)
        self._look_alikes = frozenset(self._kinds) if request else frozenset[bytes]()

    def read(self, line: bytes) -> tuple[Field, bytes]:
        """The meaning of one line without CRLF, and its header's name in lower case. Raises 400, 417, 431, 501."""
        match = HEADER_LINE.fullmatch(line)
        if match is None or len(line) > self._line_bytes:
            raise self.fault(line)
        name = match[1].lower()
        return self.field(name, match[2], line), name

    def fault(self, line: bytes) -> HttpFault:
        """Why a line that no reader takes is refused."""
        if len(line) > self._line_bytes:
            return HttpFault(431, "a header line is too long", "line_bytes")
        return header_line_fault(line)

    def field(self, name: bytes, value: bytes, line: bytes) -> Field:
        """The meaning of a line already taken apart; name in lower case."""
        kind = self._kinds.get(name, FORWARD)
        if kind == FORWARD:
            if self._look_alikes and not name.replace(b"-", b"").isalnum():
                return self._look_alike(name, line)
            return FORWARDED
        value = value.rstrip(b" \t")
        if kind == HOST:
            return Field(kind, name, value.removesuffix(b":"), line, host_and_port(value)[0])
        elif kind == CONNECTION:
            return self._connection(name, value.lower(), line)
        elif kind == CONTENT_LENGTH_KIND:
            if CONTENT_LENGTH.fullmatch(value) is None:
                raise HttpFault(400, "Content-Length is not one plain decimal number")
            return Field(kind, name, value, line, number=int(value))
        elif kind == TRANSFER_ENCODING:
            return Field(kind, name, value, line, number=int(value.lower() == b"chunked"))
        elif kind == UPGRADE:
            return Field(kind, name, value, line, self._upgrade(value.lower()))
        elif kind == EXPECT and value.lower() != b"100-continue":
            raise HttpFault(417, "only 100-continue can be expected")
        return Field(kind, name, value, line)

    def _connection(self, name: bytes, value: bytes, line: bytes) -> Field:
        flags, names = 0, set()
        for option in _elements(value):
            if TOKEN.fullmatch(option) is None:
                raise HttpFault(400, "Connection is not a list of words")
            if option in _NEVER_NAMED or option in self._owned:
                raise HttpFault(400, "Connection names a header that is not the client's to remove")
            flags |= _OPTIONS.get(option, 0)
            if option not in self._kinds and option != b"close":
                names.add(option)
        return Field(CONNECTION, name, value, line, number=flags, names=frozenset(names))

    def _upgrade(self, value: bytes) -> bytes:
        protocols = _elements(value)
        if not protocols or any(_PROTOCOL.fullmatch(protocol) is None for protocol in protocols):
            raise HttpFault(400, "Upgrade is not a list of protocols")
        if self._request and b"h2c" in protocols:
            raise HttpFault(501, "HTTP/2 without TLS is not spoken here")
        return b", ".join(protocols)

    def _look_alike(self, name: bytes, line: bytes) -> Field:
        """A name that apps may take for one of ours: its framing is refused, the rest does not go on."""
        alias = name.translate(AS_APPS_READ)
        if alias in FRAMING:
            raise HttpFault(400, "a header's name imitates a framing header")
        return Field(DROP, name, b"", line) if alias in self._look_alikes else FORWARDED


def _elements(value: bytes) -> list[bytes]:
    """A comma list's elements; empty ones are ignored (RFC 9110 5.6.1.2)."""
    return [element for part in value.split(b",") if (element := part.strip(b" \t"))]
