"""The memory of lines: what it may hold, and that it never changes a verdict."""

import pytest

from flyproxy.http1 import parser as parser_module
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import (
    LINE_BYTES_REMEMBERED,
    LINES_REMEMBERED,
    REMEMBERED_ONE_IN,
    TYPED,
    CachedRequestParser,
    CachedResponseParser,
    StrictRequestParser,
    StrictResponseParser,
    request_parser,
    response_parser,
)

LIMITS = HeadLimits()
OWNED = frozenset((b"x-forwarded-for",))


def _head(*lines: bytes) -> bytes:
    return b"\r\n".join((b"GET / HTTP/1.1", *lines, b"", b""))


def test_the_default_is_typed_where_it_was_built_and_remembers_lines_elsewhere() -> None:
    requests, answers = request_parser(LIMITS, OWNED), response_parser(LIMITS)
    if TYPED is None:
        assert isinstance(requests, CachedRequestParser)
        assert isinstance(answers, CachedResponseParser)
    else:
        assert (type(requests), type(answers)) == (TYPED.TypedRequestParser, TYPED.TypedResponseParser)
    assert requests.statistics() == {"lines_remembered": 0, "memory_emptied": 0}
    assert answers.statistics() == {"lines_remembered": 0, "memory_emptied": 0}
    assert StrictRequestParser(LIMITS, OWNED).statistics() == {"lines_remembered": 0, "memory_emptied": 0}
    assert StrictResponseParser(LIMITS).statistics() == {"lines_remembered": 0, "memory_emptied": 0}


@pytest.mark.parametrize("line", [b"Authorization: Bearer x", b"cOOKIE: a=b", b"X-Api-Key: x", b"X-Auth-Token: x"])
def test_a_secret_is_never_remembered(line: bytes) -> None:
    parser = CachedRequestParser(LIMITS, OWNED)
    head = parser.parse(_head(b"Host: a", line))
    assert head is not None
    assert head.lines == [line]
    assert parser.statistics()["lines_remembered"] == 1


def test_a_cookie_that_is_set_is_never_remembered() -> None:
    parser = CachedResponseParser(LIMITS)
    assert parser.parse(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\n\r\n", b"GET") is not None
    assert parser.statistics()["lines_remembered"] == 0


def test_a_long_line_is_not_remembered() -> None:
    parser = CachedRequestParser(LIMITS, OWNED)
    for size, remembered in ((LINE_BYTES_REMEMBERED, 2), (LINE_BYTES_REMEMBERED + 1, 2)):
        assert parser.parse(_head(b"Host: a", b"A: " + b"b" * (size - 3))) is not None
        assert parser.statistics()["lines_remembered"] == remembered


def test_a_refused_line_is_not_remembered_and_refused_again() -> None:
    parser = CachedRequestParser(LIMITS, OWNED)
    for _ in range(2):
        with pytest.raises(HttpFault):
            parser.parse(_head(b"A: \x01"))
    assert parser.statistics()["lines_remembered"] == 0


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert LINES_REMEMBERED * LINE_BYTES_REMEMBERED <= 2 * 1024 * 1024
    monkeypatch.setattr(parser_module, "LINES_REMEMBERED", 10)
    parser = CachedRequestParser(LIMITS, OWNED)
    for number in range(25):
        head = parser.parse(_head(b"Host: a", b"X-Id-%d: 1" % number))
        assert head is not None
        assert head.lines == [b"X-Id-%d: 1" % number]
        assert parser.statistics()["lines_remembered"] <= 10
    assert parser.statistics()["memory_emptied"] == 2


def test_the_memories_of_names_and_status_lines_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parser_module, "NAMES_REMEMBERED", 10)
    monkeypatch.setattr(parser_module, "STATUS_LINES_REMEMBERED", 10)
    parser = CachedResponseParser(LIMITS)
    for number in range(25):
        head = parser.parse(b"HTTP/1.1 200 %d\r\nX-Id-%d: 1\r\n\r\n" % (number, number), b"GET")
        assert head is not None
        assert (head.status, head.reason, head.lines) == (200, b"%d" % number, [b"X-Id-%d: 1" % number])
        assert len(parser._names) <= 10
        assert len(parser._status_lines) <= 10
    assert parser.statistics()["memory_emptied"] == 4


def test_values_that_never_come_again_hardly_fill_the_memory_and_those_that_do_get_in() -> None:
    parser = CachedRequestParser(LIMITS, OWNED)
    by_line = b"TE: trailers"  # with it a head is not read by its names
    for number in range(80):
        assert parser.parse(_head(b"Host: a", by_line, b"X-Request-Id: %d" % number)) is not None
    assert parser.statistics()["lines_remembered"] <= 3 + 80 // REMEMBERED_ONE_IN
    for _ in range(REMEMBERED_ONE_IN):
        assert parser.parse(_head(b"Host: a", by_line, b"X-Request-Id: again")) is not None
    assert b"X-Request-Id: again" in parser._passing


@pytest.mark.parametrize("line", [b"Accept", b"Accept ", b"Accept : a", b"Accept: \x00", b"Accept: a\rb", b"Accept:\n"])
def test_a_known_name_excuses_nothing(line: bytes) -> None:
    parser = CachedRequestParser(LIMITS, OWNED)
    for _ in range(2 * REMEMBERED_ONE_IN):
        assert parser.parse(_head(b"Host: a", b"Accept: b")) is not None
        with pytest.raises(HttpFault) as cached:
            parser.parse(_head(b"Host: a", line))
        with pytest.raises(HttpFault) as strict:
            StrictRequestParser(LIMITS, OWNED).parse(_head(b"Host: a", line))
        assert cached.value.reason == strict.value.reason


def test_dropped_headers_do_not_go_on() -> None:
    for make in (StrictResponseParser, CachedResponseParser):
        head = make(LIMITS, frozenset((b"server",))).parse(b"HTTP/1.1 200 OK\r\nsErver: x\r\nA: b\r\n\r\n", b"GET")
        assert head is not None
        assert head.lines == [b"A: b"]


def test_a_remembered_line_is_still_counted_against_its_like() -> None:
    parser = CachedRequestParser(LIMITS, OWNED)
    assert parser.parse(_head(b"Host: a", b"Content-Length: 5")) is not None
    for doubled in (b"Host: a", b"Content-Length: 5"):
        with pytest.raises(HttpFault, match="two"):
            parser.parse(_head(b"Host: a", b"Content-Length: 5", doubled))


def test_heads_do_not_share_what_a_reader_may_change() -> None:
    parser = CachedRequestParser(LIMITS, OWNED)
    first = parser.parse(_head(b"Host: a", b"X-Forwarded-For: b", b"A: b"))
    second = parser.parse(_head(b"Host: a", b"X-Forwarded-For: b", b"A: b"))
    assert first is not None
    assert second is not None
    assert first.owned is not None
    first.lines.append(b"C: d")
    first.owned[b"x-forwarded-for"] = b"e"
    assert second.lines == [b"A: b"]
    assert second.owned == {b"x-forwarded-for": b"b"}


def test_a_fault_says_its_status_and_sentence() -> None:
    fault = HttpFault(400, "two Host headers")
    assert (fault.status, fault.reason, str(fault)) == (400, "two Host headers", "400: two Host headers")
