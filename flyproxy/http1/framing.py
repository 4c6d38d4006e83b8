"""A head's lines against each other: one Host, one framing, and what Connection says of the rest.

Each line was already found good by itself; what is decided here is decided for every message, never remembered.
Worst case: a head of `header_count` lines named by Connection is filtered once.
"""

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.fields import (
    CLOSE,
    CONNECTION,
    CONTENT_LENGTH_KIND,
    DROP,
    EXPECT,
    HOST,
    KEEP_ALIVE,
    OWNED,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    UPGRADES,
    Field,
)
from flyproxy.http1.grammar import Authority, host_and_port
from flyproxy.http1.head import CRLF, RequestHead, ResponseHead

_LISTS = frozenset((b"x-forwarded-for", b"forwarded", b"via"))
_BODILESS = frozenset((204, 304))


def settle_request(
    method: bytes,
    target: bytes,
    minor: int,
    authority: Authority | None,
    lines: list[bytes],
    fields: list[Field],
    size: int,
) -> RequestHead:
    """The head these parts make; raises 400 or 501 when they contradict each other (RFC 9112 3.2, 6.1, 6.3).

    authority   that of an absolute-form target
    lines       the lines that go on; may be changed and is kept
    fields      all others, in the order they came
    """
    if len(fields) == 1 and minor and authority is None:
        only = fields[0]
        if only.kind == HOST:  # most requests: nothing else to weigh
            block = block_of(only.value, lines)
            return RequestHead(
                method, target, 1, only.meaning, block, None, -1, False, True, False, None, False, size, True
            )
    host: Field | None = None
    coding: Field | None = None
    upgrade: bytes | None = None
    names: frozenset[bytes] | None = None
    owned: dict[bytes, bytes] | None = None
    expect: Field | None = None
    content_length = -1
    options = 0
    te_trailers = False
    for field in fields:
        kind = field.kind
        if kind == HOST:
            if host is not None:
                raise HttpFault(400, "two Host headers")
            host = field
        elif kind == CONNECTION:
            options |= field.number
            if field.names:
                names = field.names if names is None else names | field.names
        elif kind == CONTENT_LENGTH_KIND:
            if content_length >= 0:
                raise HttpFault(400, "two Content-Length headers")
            content_length = field.number
        elif kind == TRANSFER_ENCODING:
            if coding is not None:
                raise HttpFault(400, "two Transfer-Encoding headers")
            coding = field
        elif kind == OWNED:
            owned = _own(owned, field)
        elif kind == UPGRADE:
            upgrade = field.meaning if upgrade is None else upgrade + b", " + field.meaning
        elif kind == EXPECT:
            expect = field
        elif kind == TE:
            te_trailers = te_trailers or _wants_trailers(field.value)
    if coding is not None:
        _check_coding(coding, content_length, minor)
    has_body = coding is not None or content_length > 0
    if names is not None:
        lines = _without(lines, names)
    if minor == 0 or has_body or not options & UPGRADES:
        upgrade = None
    if expect is not None and minor == 1 and has_body:
        lines.append(expect.line)
    else:
        expect = None
    if host is None:
        if minor == 1:
            raise HttpFault(400, "the Host header is missing")
        name, sent = (authority.host, authority.sent) if authority is not None else (b"", b"")
    else:
        name, sent = host.meaning, host.value
        if authority is not None:
            _check_agreement(authority, sent)
    keep_alive = not options & CLOSE and (minor == 1 or bool(options & KEEP_ALIVE))
    announced = coding is not None or content_length >= 0
    plain = minor == 1 and not announced and owned is None and upgrade is None and not te_trailers
    return RequestHead(
        method,
        target,
        minor,
        name,
        block_of(sent, lines),
        owned,
        content_length,
        coding is not None,
        keep_alive,
        expect is not None,
        upgrade,
        te_trailers,
        size,
        plain,
    )


def block_of(host: bytes, lines: list[bytes]) -> bytes:
    """The header lines of a request that goes on: its Host first, unless there is none."""
    if not lines:
        return b"Host: %b\r\n" % host if host else b""
    return b"".join((b"Host: ", host, CRLF, CRLF.join(lines), CRLF)) if host else CRLF.join(lines) + CRLF


def settle_response(
    status: int,
    reason: bytes,
    minor: int,
    lines: list[bytes],
    fields: list[Field],
    size: int,
    request_method: bytes,
) -> ResponseHead:
    """The answer these parts make to a request of this method (RFC 9112 6.3).

    Raises HttpFault when they contradict each other; the caller turns its status into 502. `Content-Length: 0` on a
    204 or 1xx is forbidden but common and leaves no doubt: it is dropped. Anything else there is refused.
    """
    coding: Field | None = None
    upgrade: bytes | None = None
    names: frozenset[bytes] | None = None
    content_length = -1
    options = 0
    for field in fields:
        kind = field.kind
        if kind == DROP:
            continue
        if kind == CONTENT_LENGTH_KIND:
            if content_length >= 0:
                raise HttpFault(400, "two Content-Length headers")
            content_length = field.number
        elif kind == CONNECTION:
            options |= field.number
            if field.names:
                names = field.names if names is None else names | field.names
        elif kind == TRANSFER_ENCODING:
            if coding is not None:
                raise HttpFault(400, "two Transfer-Encoding headers")
            coding = field
        elif kind == UPGRADE:
            upgrade = field.meaning if upgrade is None else upgrade + b", " + field.meaning
    if coding is not None:
        _check_coding(coding, content_length, minor)
    if names is not None:
        lines = _without(lines, names)
    has_body = status >= 200 and status not in _BODILESS and request_method != b"HEAD"
    keep_alive = not options & CLOSE and (minor == 1 or bool(options & KEEP_ALIVE))
    if has_body:
        if content_length < 0 and coding is None:
            keep_alive = False
        upgrade = None
    elif status < 200 or status == 204:
        if coding is not None or content_length > 0:
            raise HttpFault(400, "an answer that has no body announces one")
        content_length = -1
        if status != 101:
            upgrade = None
        elif upgrade is None or not options & UPGRADES or minor == 0:
            raise HttpFault(400, "a 101 that names no protocol")
        else:
            keep_alive = False
    else:
        upgrade = None
    if content_length >= 0:
        framing = b"Content-Length: %d\r\n" % content_length
    else:
        framing = b"Transfer-Encoding: chunked\r\n" if coding is not None else b""
    start = b"HTTP/1.1 %d %b\r\n" % (status, reason)
    if lines:
        start = b"".join((start, CRLF.join(lines), CRLF))
    if status < 200 or (has_body and content_length < 0):
        extent = -1
    else:
        extent = size + content_length if has_body else size
    chunked = coding is not None
    dated = any(line[:5].lower() == b"date:" for line in lines)
    return ResponseHead(
        status, reason, minor, start, content_length, chunked, keep_alive, upgrade, size, has_body, extent, framing,
        dated,
    )  # fmt: skip


def _check_coding(coding: Field, content_length: int, minor: int) -> None:
    if content_length >= 0:
        raise HttpFault(400, "both Content-Length and Transfer-Encoding")
    if minor == 0:
        raise HttpFault(400, "Transfer-Encoding in an HTTP/1.0 message")
    if not coding.number:
        raise HttpFault(501, "the only Transfer-Encoding spoken here is chunked")


def _own(owned: dict[bytes, bytes] | None, field: Field) -> dict[bytes, bytes]:
    if owned is None:
        return {field.name: field.value}
    before = owned.get(field.name)
    owned[field.name] = field.value if before is None or field.name not in _LISTS else before + b", " + field.value
    return owned


def _wants_trailers(value: bytes) -> bool:
    return any(element.strip(b" \t").lower() == b"trailers" for element in value.split(b","))


def _without(lines: list[bytes], names: frozenset[bytes]) -> list[bytes]:
    """The lines whose header is not among `names`, lower case (RFC 9110 7.6.1)."""
    return [line for line in lines if line.partition(b":")[0].lower() not in names]


def _check_agreement(authority: Authority, sent: bytes) -> None:
    """Refuse a Host that is not the target's authority; a default port may be left out (RFC 9112 3.2.2)."""
    host, port = host_and_port(sent)
    if host != authority.host or (port or authority.default_port) != authority.port:
        raise HttpFault(400, "the request target names another host than the Host header")
