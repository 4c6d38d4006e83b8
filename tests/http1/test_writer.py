"""Heads back to bytes: what is written can be read again."""

import pytest

from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import response_parser
from flyproxy.http1.writer import REASONS, response_bytes

LIMITS = HeadLimits()


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
