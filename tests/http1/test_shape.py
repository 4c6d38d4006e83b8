"""Every bound of a head: at it all is well, one beyond is refused, at the byte that made it so."""

from collections.abc import Callable

import pytest

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import (
    CachedRequestParser,
    RequestParser,
    StrictRequestParser,
    request_parser,
    response_parser,
)

LIMITS = HeadLimits(head_bytes=400, line_bytes=100, header_count=5, leading_empty_lines=1)
BOTH = pytest.mark.parametrize("make", [StrictRequestParser, CachedRequestParser])
Make = Callable[[HeadLimits, frozenset[bytes]], RequestParser]


def _head(*lines: bytes, target: bytes = b"/") -> bytes:
    return b"".join(line + b"\r\n" for line in (b"GET " + target + b" HTTP/1.1", b"Host: a", *lines, b""))


def _fault(parser: RequestParser, raw: bytes) -> HttpFault:
    with pytest.raises(HttpFault) as refused:
        parser.parse(raw)
    return refused.value


def _read_byte_by_byte(parser: RequestParser, raw: bytes) -> bool:
    return all(parser.parse(raw[:length]) is None for length in range(len(raw))) and parser.parse(raw) is not None


def _refused_at(parser: RequestParser, raw: bytes) -> tuple[int, int, str]:
    """How many bytes it took to refuse this, given one by one, and the status; the same as for all at once."""
    for length in range(len(raw) + 1):
        try:
            assert parser.parse(raw[:length]) is None
        except HttpFault as early:
            whole = _fault(parser, raw)
            return length, whole.status if early.status == whole.status else -1, early.limit
    pytest.fail("never refused")


@BOTH
def test_a_request_line_at_the_bound_is_read_and_beyond_it_a_414(make: Make) -> None:
    parser = make(LIMITS, frozenset())
    assert _read_byte_by_byte(parser, _head(target=b"/" + b"a" * 86))
    assert _refused_at(parser, _head(target=b"/" + b"a" * 87)) == (101, 414, "line_bytes")


@BOTH
def test_a_header_line_at_the_bound_is_read_and_beyond_it_a_431(make: Make) -> None:
    parser = make(LIMITS, frozenset())
    assert _read_byte_by_byte(parser, _head(b"A: " + b"b" * 97))
    start = len(_head()) - 2
    assert _refused_at(parser, _head(b"A: " + b"b" * 98)) == (start + 101, 431, "line_bytes")


@BOTH
def test_as_many_headers_as_the_bound_are_read_and_one_more_is_a_431(make: Make) -> None:
    parser = make(LIMITS, frozenset())
    assert _read_byte_by_byte(parser, _head(*[b"A: b"] * 4))
    raw = _head(*[b"A: b"] * 5)
    assert _refused_at(parser, raw) == (len(raw) - 2, 431, "header_count")


@BOTH
def test_a_head_at_the_bound_is_read_and_beyond_it_a_431(make: Make) -> None:
    parser = make(LIMITS, frozenset())
    filling = [b"A: " + b"b" * 90] * 3
    rest = 400 - len(_head(*filling)) - len(b"A: \r\n")
    assert _read_byte_by_byte(parser, _head(*filling, b"A: " + b"b" * rest))
    assert _refused_at(parser, _head(*filling, b"A: " + b"b" * (rest + 1))) == (400, 431, "head_bytes")


@BOTH
def test_empty_lines_in_front_are_tolerated_up_to_the_bound(make: Make) -> None:
    parser = make(LIMITS, frozenset())
    head = parser.parse(b"\r\n" + _head())
    assert head is not None
    assert head.size == len(_head()) + 2
    assert _refused_at(parser, b"\r\n\r\n" + _head()) == (4, 400, "leading_empty_lines")


@BOTH
def test_a_body_or_a_next_head_does_not_count_for_the_head(make: Make) -> None:
    parser = make(LIMITS, frozenset())
    assert parser.parse(_head() + b"\n\x00" * 1000) is not None


@pytest.mark.parametrize(
    ("raw", "at"),
    [
        (b"\x16\x03\x01", 1),
        (b"\n", 1),
        (b"\rG", 2),
        (b"GET / HTTP/1.1\n", 15),
        (b"GET / HTTP/1.1\r\nHost: a\n", 24),
        (b"GET / HTTP/1.1\r\nHost: a\rX", 25),
        (b"GET / HTTP/1.1\r\nHost: \x00", 23),
        (b"HELO there\r\n", 12),
        (b"GET /\r\n", 7),
        (b"GET / HTTP/2.3\r\n", 16),
    ],
)
def test_the_hopeless_is_refused_at_the_byte_that_made_it_so(raw: bytes, at: int) -> None:
    for length in range(at):
        assert request_parser(LIMITS, frozenset()).parse(raw[:length]) is None
    with pytest.raises(HttpFault):
        request_parser(LIMITS, frozenset()).parse(raw[:at])


@pytest.mark.parametrize(
    "raw", [b"<", b"HTTP/2", b"HTTP/1.1 200 OK\n", b"HTTP/1.1 200 OK\r\nA: b\x00", b"\r", b"HTTP/1.1 2\rx"]
)
def test_a_hopeless_answer_is_a_502_at_once(raw: bytes) -> None:
    parser = response_parser(LIMITS)
    assert parser.parse(raw[:-1], b"GET") is None
    with pytest.raises(HttpFault) as refused:
        parser.parse(raw, b"GET")
    assert refused.value.status == 502


@pytest.mark.parametrize(
    ("raw", "at"),
    [
        (b"HTTP/1.1 200 " + b"a" * 90 + b"\r\n\r\n", 101),
        (b"HTTP/1.1 200 OK\r\nA: " + b"b" * 100 + b"\r\n\r\n", 17 + 101),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 6 + b"\r\n", 17 + 36),
        (b"HTTP/1.1 200 OK\r\n" + (b"A: " + b"b" * 90 + b"\r\n") * 5 + b"\r\n", 400),
    ],
)
def test_an_answer_beyond_a_bound_is_a_502_at_once(raw: bytes, at: int) -> None:
    parser = response_parser(LIMITS)
    assert parser.parse(raw[: at - 1], b"GET") is None
    for length in (at, len(raw) - 2, len(raw)):
        with pytest.raises(HttpFault) as refused:
            parser.parse(raw[:length], b"GET")
        assert refused.value.status == 502


def test_a_growing_buffer_may_be_a_bytearray() -> None:
    parser = request_parser(LIMITS, frozenset())
    buffer = bytearray()
    for byte in _head(b"A: b"):
        assert parser.parse(buffer) is None
        buffer.append(byte)
    head = parser.parse(buffer)
    assert head is not None
    assert (head.lines, type(head.lines[0]), type(head.target)) == ([b"A: b"], bytes, bytes)
    answer = bytearray(b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n")
    assert response_parser(LIMITS).parse(answer, b"GET") is not None
    assert response_parser(LIMITS).parse(answer[:5], b"GET") is None
