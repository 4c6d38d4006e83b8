"""A connection's next head is compared with its last: that must never change what the next one says."""

from collections.abc import Callable

from hypothesis import example, given, settings
from hypothesis import strategies as st

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.head import RequestHead, ResponseHead
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import (
    CachedRequestParser,
    CachedResponseParser,
    StrictRequestParser,
    StrictResponseParser,
    request_parser,
    response_parser,
)

LIMITS = HeadLimits(head_bytes=600, line_bytes=200, header_count=8)
OWNED = frozenset((b"x-forwarded-for", b"via"))
DROPPED = frozenset((b"server",))
FUZZ = settings(max_examples=400, deadline=None, derandomize=True)

FIRSTS = st.sampled_from(
    [
        *(
            b"GET / HTTP/1.1",
            b"GET /%20a?b=%c HTTP/1.1",
            b"GET /%2 HTTP/1.1",
            b"GET /a?b=c HTTP/1.1",
            b"POST /x HTTP/1.1",
            b"HEAD / HTTP/1.1",
            b"GET / HTTP/1.0",
        ),
        *(
            b"PURGE / HTTP/1.1",
            b"GET http://a/ HTTP/1.1",
            b"TRACE / HTTP/1.1",
            b"GET /\x00 HTTP/1.1",
            b"GET  / HTTP/1.1",
        ),
        b"GET /" + b"x" * 200 + b" HTTP/1.1",
    ]
)
STATUSES = st.sampled_from(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified"),
        *(b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 100 Continue", b"HTTP/1.1 099 x", b"HTTP/1.1 200 \x01"),
    ]
)
LINES = st.sampled_from(
    [
        *(b"Host: a", b"host: a", b"Host: b", b"Host:a", b"Accept: */*", b"Accept: text/html", b"Accept:"),
        b"Cookie: a=b",
        *(b"Cookie: \x01", b"Cookie: \r", b"Cookie: x\ny", b"Cookie", b"Cookie : a", b"Connection: keep-alive"),
        *(b"Connection: close", b"Connection: accept", b"Content-Length: 3", b"Content-Length: 5"),
        b"Content-Length: +5",
        b"Content-Length: 05",
        *(b"Content-Length: 5 ", b"Content-Length:", b"Transfer-Encoding: chunked", b"Via: 1.1 x", b"X_A: b", ),
        b"TE: trailers",
        *(b"Server: x", b"Server: y", b"Date: now", b"Date: then", b"Expect: 100-continue", b"Upgrade: h2c", ),
        b"\xe4: b",
        b"Accept: " + b"x" * 200,
    ]
)  # fmt: skip
HEADERS = st.lists(LINES, max_size=5)
MOSTLY = st.sampled_from([b"Host: a", b"Accept: */*", b"Cookie: a=b", b"Connection: keep-alive", b"Date: now"])
ORDINARY = st.lists(MOSTLY, max_size=3).map(lambda lines: [b"Host: a", *lines])
ANSWER = st.lists(
    st.sampled_from(
        [
            b"Server: x",
            b"Date: now",
            b"Content-Length: 3",
            b"Content-Length: 003",
            b"Connection: keep-alive",
            b"Set-Cookie: a",
        ]
    ),
    max_size=4,
)
Change = tuple[int, bytes]


def changed(lines: list[bytes], changes: list[Change]) -> list[bytes]:
    """The same head but for a line or two."""
    lines = list(lines)
    for position, line in changes:
        if lines:
            lines[position % len(lines)] = line
    return lines


def joined(first: bytes, lines: list[bytes], rest: bytes = b"") -> bytes:
    return b"\r\n".join([first, *lines, b"", b""]) + rest


def outcome(parse: Callable[[], RequestHead | ResponseHead | None]) -> object:
    try:
        return parse()
    except HttpFault as fault:
        return fault.status, fault.reason


CHANGES = st.lists(st.tuples(st.integers(0, 5), LINES), max_size=2)


@FUZZ
@given(FIRSTS, st.one_of(ORDINARY, HEADERS), st.lists(st.tuples(FIRSTS, CHANGES), max_size=4), st.binary(max_size=3))
@example(b"GET / HTTP/1.1", [b"Host: a", b"Cookie: a=b"], [(b"GET / HTTP/1.1", [(1, b"Cookie: \r")])], b"")
@example(b"GET / HTTP/1.1", [b"Accept: */*", b"host: a"], [(b"GET / HTTP/1.1", [(0, b"Accept: text/html")])], b"")
def test_a_request_says_the_same_whatever_came_before(
    first: bytes, lines: list[bytes], following: list[tuple[bytes, list[Change]]], rest: bytes
) -> None:
    strict, cached = StrictRequestParser(LIMITS, OWNED), CachedRequestParser(LIMITS, OWNED)
    usual = request_parser(LIMITS, OWNED)  # the typed one, where it was built
    before: RequestHead | None = None
    for start, changes in [(first, []), *following]:
        raw = joined(start, changed(lines, changes), rest)
        expected = outcome(lambda raw=raw: strict.parse(raw))  # type: ignore[misc]
        assert outcome(lambda raw=raw: usual.parse(raw)) == expected  # type: ignore[misc]
        got = outcome(lambda raw=raw, before=before: cached.parse(raw, before))  # type: ignore[misc]
        assert got == expected
        before = got if isinstance(got, RequestHead) else None


@FUZZ
@given(
    STATUSES,
    st.one_of(ANSWER, HEADERS),
    st.lists(st.tuples(STATUSES, CHANGES), max_size=4),
    st.sampled_from([b"", b"hello"]),
    st.sampled_from([b"GET", b"HEAD"]),
)
@example(
    b"HTTP/1.1 200 OK",
    [b"Content-Length: 3", b"Date: now"],
    [(b"HTTP/1.1 200 OK", [(1, b"Date: then")]), (b"HTTP/1.1 200 OK", [(0, b"Content-Length: 5")])],
    b"hello",
    b"GET",
)
def test_an_answer_says_the_same_whatever_came_before(
    first: bytes, lines: list[bytes], following: list[tuple[bytes, list[Change]]], rest: bytes, method: bytes
) -> None:
    strict, cached = StrictResponseParser(LIMITS, DROPPED), CachedResponseParser(LIMITS, DROPPED)
    usual = response_parser(LIMITS, DROPPED)
    before: ResponseHead | None = None
    for start, changes in [(first, []), *following]:
        raw = joined(start, changed(lines, changes), rest)
        expected = outcome(lambda raw=raw: strict.parse(raw, method))  # type: ignore[misc]
        assert outcome(lambda raw=raw: usual.parse(raw, method)) == expected  # type: ignore[misc]
        got = outcome(lambda raw=raw, before=before: cached.parse(raw, method, before))  # type: ignore[misc]
        assert got == expected
        before = got if isinstance(got, ResponseHead) else None


def test_the_same_names_are_read_without_looking_at_them_again() -> None:
    cached = CachedRequestParser(HeadLimits(), OWNED)
    first = cached.parse(b"GET /1 HTTP/1.1\r\nHost: a\r\nCookie: 1\r\n\r\n")
    cached._sort_out = None  # type: ignore[assignment]  # what looks at single lines
    second = cached.parse(b"GET /2 HTTP/1.1\r\nHost: b\r\nCookie: 2\r\n\r\n", first)
    assert second is not None
    assert (second.target, second.host, second.block) == (b"/2", b"b", b"Host: b\r\nCookie: 2\r\n")
    third = cached.parse(b"GET /3 HTTP/1.1\r\nHost: b\r\nCookie: 2\r\n\r\n", second)
    assert third is second
    assert (third.target, third.block) == (b"/3", b"Host: b\r\nCookie: 2\r\n")


def test_a_head_that_is_too_long_is_not_kept() -> None:
    cached = CachedRequestParser(HeadLimits(), OWNED)
    head = cached.parse(b"GET /1 HTTP/1.1\r\nHost: a\r\nCookie: " + b"x" * 3000 + b"\r\n\r\n")
    assert head is not None
    assert head.tail == b""
