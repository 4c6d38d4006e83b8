"""No two readers may disagree: our parsers with each other, and none of ours takes what h11 or llhttp refuse.

A head that one reader takes and the next refuses, or reads differently, is how requests are smuggled. Heads are built
from good and evil pieces, then broken at random. Where we read what another refuses, the reason is written here.
"""

import os
import re
from collections.abc import Callable

import h11
import httptools
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from flyproxy.http1.body import ChunkedBody
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.head import RequestHead, ResponseHead
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import (
    CachedRequestParser,
    CachedResponseParser,
    StrictRequestParser,
    StrictResponseParser,
)

LIMITS = HeadLimits(head_bytes=2000, line_bytes=300, header_count=12)
OWNED = frozenset((b"x-forwarded-for", b"via"))
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))
"""What `make fuzz` asks for: that many for each test, others each time, the failing one printed with its seed."""
FUZZ = settings(max_examples=EXAMPLES or 300, deadline=None, derandomize=not EXAMPLES, print_blob=True)

# One of each lives through all examples, so remembered lines of one head meet the next.
STRICT, CACHED = StrictRequestParser(LIMITS, OWNED), CachedRequestParser(LIMITS, OWNED)
STRICT_ANSWERS, CACHED_ANSWERS = StrictResponseParser(LIMITS), CachedResponseParser(LIMITS)


def _mostly(good: list[bytes], evil: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of the good ones, and in a tenth of the cases one of the evil."""
    return st.integers(0, 9).flatmap(lambda roll: st.sampled_from(good if roll else evil))


METHODS = _mostly([b"GET", b"POST", b"HEAD", b"OPTIONS", b"PROPFIND"], [b"TRACE", b"CONNECT", b"get", b"G(T", b""])
TARGETS = _mostly(
    [b"/", b"/a?b=c", b"/%00|{}", b"*", b"http://a.example/x", b"https://A.example:443"],
    [b"http://b/", b"a", b"/\\", b"/#", b"*/", b""],
)
VERSIONS = _mostly([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"], [b"HTTP/1.2", b"HTTP/2.0", b"http/1.1", b""])
NAMES = _mostly(
    [
        *(b"Content-Length", b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"TE", b"Trailer"),
        *(b"Cookie", b"X-Forwarded-For", b"Via", b"Accept", b"A", b"Keep-Alive", b"X_A"),
    ],
    [b"Host", b"Content_Length", b"X A", b"A ", b" A", b"", b"\xe4"],
)
VALUES = _mostly(
    [
        *(b"5", b"0", b"chunked", b"Chunked", b"close", b"keep-alive", b"upgrade, a", b"websocket", b"trailers"),
        *(b"100-continue", b"", b"b\tc", b"\xc3\xa4"),
    ],
    [
        *(b"5, 5", b"+5", b"gzip, chunked", b"host", b"h2c", b"\x00", b"b\rc", b"b\nc", b"b\r\n c", b"\x7f"),
        b"x" * 320,
    ],
)
COLONS = _mostly([b": ", b":", b":\t"], [b" : ", b" "])
ENDS = _mostly([b"\r\n"], [b"\n", b"\r", b"\r\r\n", b"\r\n\r\n"])
# Pairs that belong together, so that most heads hold something that is understood.
EVERYDAY = st.sampled_from(
    [
        *(b"Content-Length: 5", b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Connection: close"),
        *(b"Connection: keep-alive, a", b"Connection: upgrade", b"Upgrade: websocket", b"Expect: 100-continue"),
        *(b"TE: trailers", b"X-Forwarded-For: 1.2.3.4", b"Via: 1.1 x", b"A: b", b"Accept: */*", b"Cookie: a=b"),
    ]
)
HEADERS = st.builds(lambda name, colon, value: name + colon + value, NAMES, COLONS, VALUES)
HOSTS = _mostly(
    [b"Host: a.example", b"host:A.example:443 ", b"Host: [::1]:80"], [b"Host: b", b"Host:", b"Host: a,b", b"A: b"]
)
HEADER_LISTS = st.one_of(
    st.builds(lambda host, lines: [host, *lines], HOSTS, st.lists(EVERYDAY, max_size=4)),
    st.builds(lambda host, lines: [*lines, host], HOSTS, st.lists(st.one_of(EVERYDAY, HEADERS), max_size=3)),
    st.lists(HEADERS, max_size=3),
    st.lists(EVERYDAY, min_size=11, max_size=14),
)
STATUS_LINES = _mostly(
    [
        *(b"HTTP/1.1 200 OK", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 x", b"HTTP/1.1 404"),
        *(b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 x", b"HTTP/1.1 599 "),
    ],
    [
        *(b"HTTP/1.1 600 x", b"HTTP/2 200 x", b"HTTP/1.1  200 OK", b"HTTP/1.1 20 OK", b"ICY 200 OK", b""),
        *(b"HTTP/1.1 200 O\x00K", b"<html>"),
    ],
)
Broken = list[tuple[int, int, bytes]]
BREAKS: st.SearchStrategy[Broken] = st.one_of(
    st.just([]),
    st.just([]),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 1), st.binary(max_size=2)), max_size=2),
)
LINE_ENDS: st.SearchStrategy[list[bytes]] = st.one_of(st.just([]), st.just([]), st.lists(ENDS, max_size=6))


def _assemble(first: bytes, lines: list[bytes], ends: list[bytes], breaks: Broken, *, start: bytes = b"") -> bytes:
    parts = [start]
    for number, line in enumerate([first, *lines, b""]):
        parts += [line, ends[number] if number < len(ends) else b"\r\n"]
    raw = b"".join(parts)
    for position, removed, inserted in breaks:
        raw = raw[:position] + inserted + raw[position + removed :]
    return raw


REQUESTS = st.builds(
    lambda method, target, version, lines, ends, breaks, start: _assemble(
        b" ".join((method, target, version)), lines, ends, breaks, start=start
    ),
    METHODS,
    TARGETS,
    VERSIONS,
    HEADER_LISTS,
    LINE_ENDS,
    BREAKS,
    _mostly([b""], [b"\r\n", b"\r\n\r\n\r\n"]),
)
ANSWERS = st.builds(_assemble, STATUS_LINES, HEADER_LISTS, LINE_ENDS, BREAKS)


def _outcome(parse: Callable[[bytes], RequestHead | ResponseHead | None], raw: bytes) -> object:
    try:
        return parse(raw)
    except HttpFault as fault:
        return fault.status, fault.reason


@FUZZ
@given(raw=REQUESTS)
@example(raw=b"GET / HTTP/1.1\r\nHost: a\r\nA: b\r\r\n\r\n")
@example(raw=b"GET / HTTP/1.1\r\n\r\n")
def test_the_memory_never_changes_what_a_request_says(raw: bytes) -> None:
    expected = _outcome(STRICT.parse, raw)
    event(type(expected).__name__)
    assert _outcome(CACHED.parse, raw) == expected
    assert _outcome(CachedRequestParser(LIMITS, OWNED).parse, raw) == expected


@FUZZ
@given(raw=ANSWERS, method=st.sampled_from([b"GET", b"HEAD"]))
def test_the_memory_never_changes_what_an_answer_says(raw: bytes, method: bytes) -> None:
    expected = _outcome(lambda buffer: STRICT_ANSWERS.parse(buffer, method), raw)
    event(type(expected).__name__)
    assert _outcome(lambda buffer: CACHED_ANSWERS.parse(buffer, method), raw) == expected


@FUZZ
@given(raw=REQUESTS)
def test_a_head_that_comes_in_pieces_is_the_same_head(raw: bytes) -> None:
    whole = _outcome(STRICT.parse, raw)
    for length in range(len(raw)):
        early = _outcome(CACHED.parse, raw[:length])
        if early is not None:
            assert isinstance(early, RequestHead) == isinstance(whole, RequestHead)
            assert early == whole or not isinstance(whole, RequestHead)
            break


@FUZZ
@given(raw=REQUESTS)
def test_what_goes_on_is_read_the_same_by_the_next(raw: bytes) -> None:
    """Every line that goes on is a whole header line for the strictest reader, and frames nothing."""
    head = _outcome(STRICT.parse, raw)
    if not isinstance(head, RequestHead):
        return
    again = STRICT.parse(b"\r\n".join((b"GET " + b"/" + b" HTTP/1.1", b"Host: a", *head.lines, b"", b"")))
    assert again is not None
    assert (again.content_length, again.chunked, again.owned, again.upgrade) == (-1, False, None, None)
    assert again.lines == [line for line in head.lines if not line.lower().startswith(b"expect:")]


@FUZZ
@given(raw=REQUESTS)
@example(raw=b"GET /a|b?{} HTTP/1.1\r\nHost: a\r\nA: \xff\r\n\r\n")
def test_we_refuse_what_h11_refuses(raw: bytes) -> None:
    head = _outcome(STRICT.parse, raw)
    if not isinstance(head, RequestHead):
        return
    if raw.startswith(b"\r\n"):
        # h11 refuses empty lines in front; RFC 9112 2.2 asks servers to ignore at least one. They never go on.
        raw = raw.lstrip(b"\r\n")
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    assert request.method == head.method
    host = dict(request.headers).get(b"host")
    assert host is None or head.block.startswith(b"Host: %b\r\n" % host)


@FUZZ
@given(raw=REQUESTS)
def test_we_refuse_what_llhttp_refuses(raw: bytes) -> None:
    head = _outcome(STRICT.parse, raw)
    if not isinstance(head, RequestHead) or head.method not in (b"GET", b"POST", b"HEAD", b"OPTIONS", b"PROPFIND"):
        # llhttp knows a fixed list of methods; RFC 9110 9.1 leaves it open, and extension methods pass.
        return
    if re.match(rb"[^\n]* HTTP/1\.[2-9]\r\n", raw.lstrip(b"\r\n")):
        # llhttp knows a fixed list of versions; RFC 9110 2.5 asks to read a later 1.x as 1.1, and 1.1 goes on.
        return
    seen = _llhttp(raw[: head.size])
    assert seen is not None
    assert int(seen.get_http_version()[2]) == head.minor
    assert seen.get_method() == head.method


@FUZZ
@given(raw=ANSWERS, method=st.sampled_from([b"GET", b"HEAD"]))
def test_we_refuse_the_answers_that_h11_refuses(raw: bytes, method: bytes) -> None:
    head = _outcome(lambda buffer: STRICT_ANSWERS.parse(buffer, method), raw)
    if not isinstance(head, ResponseHead) or head.status == 101:
        # h11 refuses a 101 that its own request did not ask for; whether it was asked for is the edge's to know.
        return
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method=method, target=b"/", headers=[(b"Host", b"a")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(raw)
    answer = connection.next_event()
    assert isinstance(answer, h11.Response | h11.InformationalResponse)
    assert answer.status_code == head.status


@FUZZ
@given(raw=ANSWERS)
def test_we_refuse_the_answers_that_llhttp_refuses(raw: bytes) -> None:
    head = _outcome(lambda buffer: STRICT_ANSWERS.parse(buffer, b"GET"), raw)
    if not isinstance(head, ResponseHead):
        return
    parser = httptools.HttpResponseParser(object())
    try:
        parser.feed_data(raw[: head.size])
    except httptools.HttpParserUpgrade:
        assert re.search(rb"(?i)upgrade", raw)
    assert parser.get_status_code() == head.status


CHUNKS = st.sampled_from(
    [
        *(b"5\r\nhello\r\n", b"1;a=b\r\nx\r\n", b"A\r\n0\r\n\r\n\r\n\r\n7\r\n", b'2;a="b c";d\r\nxy\r\n'),
        *(
            b"0x1\r\nx\r\n",
            b"1 \r\nx\r\n",
            b"1\nx\n",
            b"1\r\nxy\r\n",
            b"1;\nx\r\n",
            b"-1\r\nx\r\n",
            b"1;a=\rb\r\nx\r\n",
        ),
    ]
)
LASTS = _mostly(
    [b"0\r\n\r\n", b"000;z\r\nA: b\r\nGrpc-Status: 0\r\n\r\n"],
    [b"0\r\n", b"0\n\n", b"0\r\nA : b\r\n\r\n", b"0\r\n b\r\n\r\n"],
)
BODIES = st.builds(
    lambda chunks, last, rest, breaks: _assemble(b"".join(chunks) + last + rest, [], [b"", b""], breaks),
    st.lists(CHUNKS, max_size=2),
    LASTS,
    st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]),
    BREAKS,
)


@FUZZ
@given(raw=BODIES)
def test_we_refuse_the_chunks_that_h11_and_llhttp_refuse(raw: bytes) -> None:
    """And where all read them, all see the same content and the same end."""
    body = ChunkedBody(LIMITS)
    try:
        size = body.feed(raw)
    except HttpFault:
        return
    event("complete" if body.complete else "begun")
    head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head + raw)
    content = 0
    while not isinstance(seen := connection.next_event(), h11.EndOfMessage | h11.PAUSED | h11.NEED_DATA):
        content += len(seen.data) if isinstance(seen, h11.Data) else 0
    collected = _Content()
    httptools.HttpRequestParser(collected).feed_data(head + raw[:size])
    assert content == collected.content == body.content
    assert isinstance(seen, h11.EndOfMessage) == collected.complete == body.complete
    if body.complete:
        assert connection.trailing_data[0] == raw[size:]


class _Content:
    """What llhttp tells of a body."""

    def __init__(self) -> None:
        self.content = 0
        self.complete = False

    def on_body(self, piece: bytes) -> None:
        self.content += len(piece)

    def on_message_complete(self) -> None:
        self.complete = True


def _llhttp(raw: bytes) -> "httptools.HttpRequestParser | None":
    parser = httptools.HttpRequestParser(object())
    try:
        parser.feed_data(raw)
    except httptools.HttpParserUpgrade:
        return parser
    except httptools.HttpParserError:
        return None
    return parser
