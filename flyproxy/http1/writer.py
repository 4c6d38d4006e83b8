"""Heads back to bytes. What comes in was checked where it came from; here it is only put together."""

from collections.abc import Iterable, Sequence

REASONS: dict[int, bytes] = {
    100: b"Continue",
    101: b"Switching Protocols",
    103: b"Early Hints",
    200: b"OK",
    201: b"Created",
    202: b"Accepted",
    204: b"No Content",
    206: b"Partial Content",
    301: b"Moved Permanently",
    302: b"Found",
    303: b"See Other",
    304: b"Not Modified",
    307: b"Temporary Redirect",
    308: b"Permanent Redirect",
    400: b"Bad Request",
    401: b"Unauthorized",
    403: b"Forbidden",
    404: b"Not Found",
    405: b"Method Not Allowed",
    408: b"Request Timeout",
    409: b"Conflict",
    411: b"Length Required",
    413: b"Content Too Large",
    414: b"URI Too Long",
    417: b"Expectation Failed",
    421: b"Misdirected Request",
    426: b"Upgrade Required",
    429: b"Too Many Requests",
    431: b"Request Header Fields Too Large",
    499: b"Client Closed Request",
    500: b"Internal Server Error",
    501: b"Not Implemented",
    502: b"Bad Gateway",
    503: b"Service Unavailable",
    504: b"Gateway Timeout",
    505: b"HTTP Version Not Supported",
}
"""Reason phrases of RFC 9110 (and 499) for answers of our own."""

_STATUS_LINES = {status: b"HTTP/1.1 %d %b\r\n" % (status, reason) for status, reason in REASONS.items()}


def response_bytes(
    status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes, *, head_only: bool = False
) -> bytes:
    """A whole answer of our own, with its Content-Length; `head_only` answers a HEAD: same head, no body.

    1xx, 204 and 304 carry neither body nor Content-Length. headers: names and values without CR, LF or NUL.
    """
    start = _STATUS_LINES.get(status) or b"HTTP/1.1 %d Unassigned\r\n" % status
    lines = [b"%b: %b" % header for header in headers]
    if status < 200 or status in (204, 304):
        return _head(start, lines, b"")
    head = _head(start, lines, b"Content-Length: %d\r\n" % len(body))
    return head if head_only else head + body


def _head(start: bytes, lines: Sequence[bytes], suffix: bytes) -> bytes:
    if not lines:
        return b"%b%b\r\n" % (start, suffix)
    return b"%b%b\r\n%b\r\n" % (start, b"\r\n".join(lines), suffix)
