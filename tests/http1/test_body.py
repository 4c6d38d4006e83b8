"""Bodies: which bytes are theirs, and when they are whole."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyproxy.http1.body import ChunkedBody, CountedBody, UntilClose
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.limits import HeadLimits

LIMITS = HeadLimits()


def test_a_counted_body_takes_its_bytes_and_no_more() -> None:
    body = CountedBody(5)
    assert (body.feed(b"he"), body.complete, body.ends_well(), body.remaining) == (2, False, False, 3)
    assert (body.feed(b"lloGET"), body.complete, body.ends_well(), body.received) == (3, True, True, 5)
    assert body.feed(b"GET") == 0


def test_an_empty_counted_body_is_complete_at_once() -> None:
    assert CountedBody(0).complete


def test_a_body_until_close_takes_all_and_is_whole_only_at_the_end() -> None:
    body = UntilClose()
    assert (body.feed(b"x" * 10), body.complete, body.received) == (10, False, 10)
    assert body.ends_well()
    assert body.complete


def test_a_truncated_chunked_body_does_not_end_well() -> None:
    raw = b"5\r\nhello\r\n0\r\n\r\n"
    for length in range(len(raw)):
        body = ChunkedBody(LIMITS)
        body.feed(raw[:length])
        assert not body.complete
        assert not body.ends_well()


def test_an_instance_s_fault_is_a_502() -> None:
    with pytest.raises(HttpFault) as refused:
        ChunkedBody(LIMITS, fault_status=502).feed(b"x\r\n")
    assert refused.value.status == 502


def test_owned_trailers_are_refused_only_where_names_are_owned() -> None:
    raw = b"0\r\nFly_Client-IP: 1.2.3.4\r\n\r\n"
    assert ChunkedBody(LIMITS).feed(raw) == len(raw)
    with pytest.raises(HttpFault):
        ChunkedBody(LIMITS, owned=frozenset((b"fly-client-ip",))).feed(raw)


def test_a_half_line_that_cannot_become_a_chunk_line_is_refused_at_once() -> None:
    for start in (b"x", b"5 ", b"5\n", b"\r", b"5;\x00", b"5\rx", b"5;" + b"a" * 255):
        with pytest.raises(HttpFault):
            ChunkedBody(LIMITS).feed(start)


def test_each_bound_of_a_chunked_body_holds_at_it_and_not_beyond() -> None:
    limits = HeadLimits(chunk_line_bytes=10, trailer_bytes=20, chunk_extension_bytes=20)
    good = b"1;aaaaaaaa\r\nx\r\n1;aaaaaaaa\r\nx\r\n0;a\r\nA: bb\r\nA: 78901234\r\n\r\n"
    assert ChunkedBody(limits).feed(good) == len(good)
    beyond = {
        "chunk_line_bytes": (b"1;a", b"1;aa"),
        "chunk_extension_bytes": (b"0;a", b"0;aa"),
        "trailer_bytes": (b"bb", b"bbb"),
    }
    for limit, (find, replace) in beyond.items():
        with pytest.raises(HttpFault) as refused:
            ChunkedBody(limits).feed(good.replace(find, replace))
        assert refused.value.limit == limit


def test_a_chunk_may_be_larger_than_memory() -> None:
    body = ChunkedBody(LIMITS)
    assert body.feed(b"fffffffffffffff\r\n" + b"x" * 100) == 117
    assert (body.content, body.complete) == (100, False)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6), cuts=st.lists(st.integers(0, 300), max_size=8))
def test_any_chunks_cut_anywhere_are_counted_right(chunks: list[bytes], cuts: list[int]) -> None:
    raw = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nA: b\r\n\r\n"
    buffer = raw + b"GET / HTTP/1.1\r\n"
    edges = sorted({0, len(buffer), *(cut for cut in cuts if cut < len(buffer))})
    body = ChunkedBody(LIMITS)
    taken = 0
    for start, end in pairwise(edges):
        if not body.complete:
            taken += body.feed(buffer[start:end])
    assert (taken, body.received, body.complete) == (len(raw), len(raw), True)
    assert body.content == sum(map(len, chunks))
