"""A head's lines against each other, where the golden messages do not say it all: every pair of framing headers."""

from itertools import product

import pytest

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.head import RequestHead, ResponseHead
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import StrictRequestParser, StrictResponseParser

FRAMINGS = [b"Content-Length: 0", b"Content-Length: 7", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip"]


def _request(*lines: bytes, version: bytes = b"1.1") -> RequestHead | int:
    raw = b"\r\n".join((b"POST / HTTP/" + version, b"Host: a", *lines, b"", b""))
    try:
        head = StrictRequestParser(HeadLimits(), frozenset((b"via", b"fly-region"))).parse(raw)
    except HttpFault as fault:
        return fault.status
    assert head is not None
    return head


def _answer(status: int, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> ResponseHead | int:
    raw = b"\r\n".join((b"HTTP/%b %d Reason" % (version, status), *lines, b"", b""))
    try:
        head = StrictResponseParser(HeadLimits()).parse(raw, method)
    except HttpFault as fault:
        return fault.status
    assert head is not None
    return head


@pytest.mark.parametrize(("first", "second"), list(product(FRAMINGS, FRAMINGS)))
def test_two_framing_headers_are_always_refused(first: bytes, second: bytes) -> None:
    for between in ((), (b"A: b",) * 3):
        assert _request(first, *between, second) == 400
        for method in (b"GET", b"HEAD"):
            for status in (101, 200, 204, 304):
                assert _answer(status, first, *between, second, method=method) == 502


@pytest.mark.parametrize("status", [100, 101, 102, 103, 199, 200, 201, 204, 205, 206, 304, 404, 500, 599])
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST"])
def test_who_has_a_body(status: int, method: bytes) -> None:
    upgrade = (b"Connection: upgrade", b"Upgrade: x") if status == 101 else ()
    head = _answer(status, *upgrade, method=method)
    assert isinstance(head, ResponseHead)
    expected = status >= 200 and status not in (204, 304) and method != b"HEAD"
    assert head.has_body == expected
    assert head.keep_alive == (not expected and status != 101)


def test_every_header_named_by_connection_goes_and_no_other() -> None:
    head = _request(b"A-B: 1", b"Connection: a-b", b"A-C: 2", b"Connection: a-d", b"A-D : 3"[:3] + b": 3")
    assert isinstance(head, RequestHead)
    assert head.lines == [b"A-C: 2"]


def test_of_an_owned_header_the_last_counts_and_of_a_list_all() -> None:
    head = _request(b"Fly-Region: ord", b"Via: a", b"fly-region: ams", b"VIA:b")
    assert isinstance(head, RequestHead)
    assert head.owned == {b"fly-region": b"ams", b"via": b"a, b"}
    assert head.lines == []


@pytest.mark.parametrize(
    ("version", "words", "kept"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"close", False),
        (b"1.1", b"keep-alive", True),
        (b"1.0", b"", False),
        (b"1.0", b"keep-alive", True),
        (b"1.0", b"keep-alive, close", False),
    ],
)
def test_who_keeps_the_connection(version: bytes, words: bytes, kept: bool) -> None:
    head = _request(b"Connection: " + words, version=version)
    assert isinstance(head, RequestHead)
    assert head.keep_alive == kept
    answer = _answer(200, b"Connection: " + words, b"Content-Length: 0", version=version)
    assert isinstance(answer, ResponseHead)
    assert answer.keep_alive == kept


@pytest.mark.parametrize(
    ("value", "wanted"), [(b"trailers", True), (b"gzip;q=1, Trailers ", True), (b"trailersx", False)]
)
def test_te_trailers_is_seen(value: bytes, wanted: bool) -> None:
    head = _request(b"TE: " + value)
    assert isinstance(head, RequestHead)
    assert head.te_trailers == wanted
