"""What a head says. A head exists only when all its lines were checked, so whoever holds one may pass its bytes on."""

from dataclasses import dataclass


@dataclass(slots=True)
class RequestHead:
    """One request's head (RFC 9112 3), taken apart as a front door needs it."""

    method: bytes
    target: bytes
    """As it goes on: origin-form, or b"*" for OPTIONS. An absolute-form was turned into one of these."""
    minor: int
    """The 1 in HTTP/1.1, or 0."""
    host: bytes
    """Lower case, without port or final dot, IPv6 in brackets; b"" only for HTTP/1.0 without Host."""
    host_line_value: bytes
    """The Host value as it was sent, to go on."""
    lines: list[bytes]
    """Header lines as they were sent, without CRLF, that may go on: not Host, nothing hop-by-hop or named by
    Connection, no framing, nothing proxy-owned. `Expect: 100-continue` is among them when `expect_continue` is."""
    owned: dict[bytes, bytes] | None
    """Proxy-owned headers the client sent: lower-case name to the last value (lists such as X-Forwarded-For: all
    values joined by ", "); None when there were none."""
    content_length: int
    """Bytes; -1 without a Content-Length."""
    chunked: bool
    keep_alive: bool
    expect_continue: bool
    """The client waits for a 100 before it sends its body; never for HTTP/1.0 or without a body."""
    upgrade: bytes | None
    """Lower-case Upgrade value, e.g. b"websocket"; only with `Connection: upgrade`, HTTP/1.1 and no body."""
    te_trailers: bool
    """The client said `TE: trailers`."""
    size: int
    """Bytes of the head in the buffer: empty lines in front and the empty line behind included."""


@dataclass(slots=True)
class ResponseHead:
    """One answer's head (RFC 9112 4), read against the request it answers."""

    status: int
    """100 to 599."""
    reason: bytes
    minor: int
    lines: list[bytes]
    """As in RequestHead; framing lines are left out, to be written anew from the fields below."""
    content_length: int
    """As announced, -1 if it was not; with `has_body` false it only tells what a GET would have got."""
    chunked: bool
    """As announced; see content_length."""
    keep_alive: bool
    """The connection may serve another request after this answer; false for a body that ends at close, and for 101."""
    upgrade: bytes | None
    """Lower-case Upgrade value of a 101, else None."""
    size: int
    has_body: bool
    """False for answers to HEAD and for 1xx, 204 and 304: no body byte may follow. True with neither length nor
    chunked: the body ends when the connection does."""
