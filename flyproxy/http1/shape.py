"""Bounds of a head, and what can be said of one that is not complete yet.

A head may come in a thousand pieces, and each piece asks again: what is done here is a few searches at memory speed
over at most `head_bytes`, never a pattern. So a slow client costs little, and a hopeless one is refused at the byte
that made it so instead of at its deadline. Whatever is refused here is refused for the complete head too.
"""

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.grammar import TOKEN, header_line_fault, unusual_request_line
from flyproxy.http1.limits import HeadLimits

CRLF = b"\r\n"
_VERSIONS = (b" HTTP/1.1", b" HTTP/1.0")
_STATUS_LINE_START = b"HTTP/1."


def start_of_request(buffer: bytes | bytearray, limits: HeadLimits) -> int:
    """Where the request line begins: behind the empty lines a client may have sent. Raises 400 beyond the bound."""
    start = 0
    while buffer.startswith(CRLF, start):
        start += 2
        if start > 2 * limits.leading_empty_lines:
            raise HttpFault(400, "too many empty lines before the request line", "leading_empty_lines")
    return start


def check_bounds(head: bytes, first_line_bytes: int, size: int, limits: HeadLimits) -> None:
    """Refuse a complete head (without its last CRLFCRLF) that is beyond a bound: 414 or 431."""
    if first_line_bytes > limits.line_bytes:
        raise HttpFault(414, "the first line is too long", "line_bytes")
    if size > limits.head_bytes:
        raise HttpFault(431, "the head is too large", "head_bytes")
    if head.count(CRLF) > limits.header_count:
        raise HttpFault(431, "there are too many header lines", "header_count")


def check_begun_request(buffer: bytes | bytearray, start: int, limits: HeadLimits) -> None:
    """Refuse a beginning that no further byte can make good."""
    first = buffer[start : start + 1]
    if not first:
        return
    if first == b"\r":
        if len(buffer) > start + 1:
            raise HttpFault(400, "a CR stands without its LF")
    elif first == b"\n":
        raise HttpFault(400, "a line ends in LF without CR")
    elif TOKEN.fullmatch(first) is None:
        raise HttpFault(400, "this is no HTTP request")
    end = _check_begun(buffer, start, limits)
    if end >= 0 and not buffer.startswith(_VERSIONS, max(end - 9, 0)):
        unusual_request_line(bytes(buffer[start:end]))


def check_begun_response(buffer: bytes | bytearray, limits: HeadLimits) -> None:
    """Refuse a beginning that no further byte can make an answer; the caller turns the status into 502."""
    if not _STATUS_LINE_START.startswith(buffer[: len(_STATUS_LINE_START)]):
        raise HttpFault(400, "the answer does not begin with a status line")
    _check_begun(buffer, 0, limits)


def _check_begun(buffer: bytes | bytearray, start: int, limits: HeadLimits) -> int:
    """Bounds and line ends of a beginning; where its first line ends, or -1."""
    size = len(buffer)
    line_ends = buffer.count(CRLF, start)
    half_line_end = 1 if buffer.endswith(b"\r") else 0
    first_line_end = buffer.find(CRLF, start) if line_ends else -1
    if (first_line_end if line_ends else size - half_line_end) - start > limits.line_bytes:
        raise HttpFault(414, "the first line is too long", "line_bytes")
    if size >= limits.head_bytes:
        raise HttpFault(431, "the head is too large", "head_bytes")
    if line_ends > limits.header_count + 1:
        raise HttpFault(431, "there are too many header lines", "header_count")
    if size - start > limits.line_bytes:
        *whole, last = buffer[start:].split(CRLF)
        if len(last) - half_line_end > limits.line_bytes or max(map(len, whole), default=0) > limits.line_bytes:
            raise HttpFault(431, "a header line is too long", "line_bytes")
    if buffer.count(b"\n", start) != line_ends:
        raise header_line_fault(b"a:\n")
    if buffer.count(b"\r", start) != line_ends + half_line_end:
        raise header_line_fault(b"a:\r")
    if 0 in buffer:
        raise HttpFault(400, "a header's value holds a control character")
    return first_line_end
