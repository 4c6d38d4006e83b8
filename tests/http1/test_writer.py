"""Heads back to bytes: what is written can be read again."""

import pytest

from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import request_parser, response_parser
from flyproxy.http1.writer import REASONS, request_head_bytes, response_bytes, response_head_bytes

LIMITS = HeadLimits()


def test_a_request_head_goes_on_as_it_was_read() -> None:
    raw = b"GET /a?b HTTP/1.1\r\nHost: A.example:80\r\nAccept: */*\r\nX-A:b\r\n\r\n"
    head = request_parser(LIMITS, frozenset()).parse(raw)
    assert head is not None
    assert request_head_bytes(head.method, head.target, head.host_line_value, head.lines) == raw


def test_a_suffix_comes_last() -> None:
    head = request_head_bytes(b"PUT", b"/", b"", [b"A: b"], (b"C: d\r\nE: ", b"f\r\n\r\n"))
    assert head == b"PUT / HTTP/1.1\r\nA: b\r\nC: d\r\nE: f\r\n\r\n"
    assert (
        request_head_bytes(b"PUT", b"/", b"a", [], (b"C: d\r\n\r\n",)) == b"PUT / HTTP/1.1\r\nHost: a\r\nC: d\r\n\r\n"
    )
    assert request_head_bytes(b"PUT", b"/", b"", []) == b"PUT / HTTP/1.1\r\n\r\n"


def test_an_answer_head_goes_on_as_it_was_read() -> None:
    raw = b"HTTP/1.1 201 Cre\xc3\xa4ted\r\nServer: x\r\n\r\n"
    head = response_parser(LIMITS).parse(raw, b"HEAD")
    assert head is not None
    assert response_head_bytes(head.status, head.reason, head.lines) == raw
    assert response_head_bytes(404, b"", [], (b"A: b\r\n\r\n", b"c")) == b"HTTP/1.1 404 \r\nA: b\r\n\r\nc"


@pytest.mark.parametrize("status", [*REASONS, 299, 599])
def test_an_answer_of_our_own_can_be_read(status: int) -> None:
    if status == 101:
        return
    raw = response_bytes(status, [(b"Content-Type", b"text/plain")], b"hello")
    head = response_parser(LIMITS).parse(raw, b"GET")
    assert head is not None
    bodiless = status < 200 or status in (204, 304)
    assert raw[head.size :] == (b"" if bodiless else b"hello")
    assert head.content_length == (-1 if bodiless else 5)
    assert head.lines == [b"Content-Type: text/plain"]
    assert head.reason == REASONS.get(status, b"Unassigned")


def test_an_answer_to_head_says_the_length_and_holds_no_body() -> None:
    raw = response_bytes(404, [], b"hello", head_only=True)
    assert raw == b"HTTP/1.1 404 Not Found\r\nContent-Length: 5\r\n\r\n"
