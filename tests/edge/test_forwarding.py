import pytest

from flyproxy.edge import faults
from flyproxy.edge.forwarding import (
    OWNED,
    REPLACED,
    SERVER,
    interim_head,
    is_event_stream,
    own_response,
    request_head,
    response_head,
    suffix_template,
)
from flyproxy.edge.request_ids import trace_lines
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import request_parser, response_parser

REQUESTS = request_parser(HeadLimits(), OWNED)
RESPONSES = response_parser(HeadLimits(), REPLACED)
SUFFIX = suffix_template(8080, "ord") % (b"192.0.2.7", b"192.0.2.7")
TRACE = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-00"


def forwarded(raw: bytes) -> bytes:
    head = REQUESTS.parse(raw)
    assert head is not None
    return request_head(head, SUFFIX, b"01X-ord", 1_700_000_000_000_001, trace_lines(TRACE))


def answered(raw: bytes, *, close: bool = False, keep_alive_said: bool = False, dechunk: bool = False) -> bytes:
    head = RESPONSES.parse(raw, b"GET")
    assert head is not None
    return response_head(
        head, b"01X-ord", date_line=b"Date: now\r\n", close=close, keep_alive_said=keep_alive_said, dechunk=dechunk
    )


def test_the_instance_is_told_about_the_client_as_fly_tells_it() -> None:
    assert forwarded(b"GET /a?b HTTP/1.1\r\nHost: Hello.Test:80\r\nX-Own: 1\r\n\r\n") == (
        b"GET /a?b HTTP/1.1\r\nHost: Hello.Test:80\r\nX-Own: 1\r\n"
        b"Fly-Client-IP: 192.0.2.7\r\nFly-Forwarded-Port: 8080\r\nFly-Forwarded-Proto: http\r\n"
        b"Fly-Forwarded-Ssl: off\r\nFly-Region: ord\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\n"
        b"X-Forwarded-Port: 8080\r\n"
        b"X-Forwarded-SSL: off\r\nVia: 1.1 flyproxy\r\nFly-Request-Id: 01X-ord\r\n"
        b"X-Request-Start: t=1700000000000001\r\n"
        b"Fly-Traceparent: %b\r\nTraceparent: %b\r\n\r\n" % (TRACE, TRACE)
    )


@pytest.mark.parametrize("name", sorted(OWNED))
def test_what_a_stranger_claims_is_replaced(name: bytes) -> None:
    claimed = b"GET / HTTP/1.1\r\nHost: a\r\n" + name + b": claimed\r\n\r\n"
    assert b"claimed" not in forwarded(claimed)


def test_via_of_the_client_stays_and_ours_follows() -> None:
    head = forwarded(b"GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 first\r\n\r\n")
    assert head.index(b"Via: 1.0 first") < head.index(b"Via: 1.1 flyproxy")


def test_hop_by_hop_lines_end_here_and_framing_is_said_once() -> None:
    head = forwarded(
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Secret\r\nKeep-Alive: 5\r\nX-Secret: 1\r\n"
        b"TE: trailers\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    assert b"Secret" not in head
    assert b"Keep-Alive" not in head
    assert head.count(b"Transfer-Encoding: chunked\r\n") == 1
    assert b"Connection: TE\r\nTE: trailers\r\n" in head
    assert b"Content-Length: 7\r\n" in forwarded(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n")


def test_an_upgrade_goes_on() -> None:
    head = forwarded(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert b"Connection: Upgrade\r\nUpgrade: websocket\r\n" in head


def test_the_client_is_told_who_answered_and_under_which_id() -> None:
    head = answered(b"HTTP/1.1 200 Fine\r\nserver: gunicorn\r\nX-Own: 1\r\nVia: 1.1 app\r\nContent-Length: 3\r\n\r\n")
    assert head == (
        b"HTTP/1.1 200 Fine\r\nX-Own: 1\r\nVia: 1.1 app\r\nDate: now\r\nServer: " + SERVER + b"\r\n"
        b"Via: 1.1 flyproxy\r\nFly-Request-Id: 01X-ord\r\nContent-Length: 3\r\n\r\n"
    )


def test_a_date_is_said_once() -> None:
    head = answered(b"HTTP/1.1 200 OK\r\ndate: then\r\nContent-Length: 3\r\n\r\n")
    assert head.count(b"ate: ") == 1
    assert b"date: then\r\n" in head


def test_closing_keeping_and_dechunking_are_said() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert b"Transfer-Encoding: chunked\r\n" in answered(chunked)
    assert b"Transfer-Encoding" not in answered(chunked, dechunk=True, close=True)
    assert b"Connection: close\r\n" in answered(chunked, close=True)
    assert b"Connection: keep-alive\r\n" in answered(chunked, keep_alive_said=True)


def test_interim_answers_pass_as_they_are() -> None:
    head = RESPONSES.parse(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", b"GET")
    assert head is not None
    assert interim_head(head) == b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"


def test_event_streams_are_known_by_their_type() -> None:
    assert is_event_stream([b"X: text/event-stream", b"content-type: text/event-stream; charset=utf-8"])
    assert not is_event_stream([b"Content-Type: text/plain", b"X: text/event-stream"])
    assert not is_event_stream([])


def test_our_own_answers_carry_their_code() -> None:
    whole = own_response(faults.NO_INSTANCE, b"text/plain", b"body", b"01X", 0, close=True, head_only=False)
    assert whole.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Flyproxy-Error: PR01\r\n" in whole
    assert b"\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in whole
    assert b"Connection: close\r\n" in whole
    assert whole.endswith(b"Content-Length: 4\r\n\r\nbody")
    head = own_response(faults.NO_INSTANCE, b"text/plain", b"body", b"01X", 0, close=False, head_only=True)
    assert head.endswith(b"Content-Length: 4\r\n\r\n")
