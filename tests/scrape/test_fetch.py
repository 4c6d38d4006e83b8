"""A page over HTTP: what is asked for, and a sentence for every way it can fail. `peer` is conftest's Peer."""

import asyncio
import contextlib
import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from flyproxy.scrape.connection import FRAMING_BYTES_MAX, INTERIM_ANSWERS_MAX, BoundedConnection
from flyproxy.scrape.faults import FetchError
from flyproxy.scrape.fetch import HEADERS_MAX, Fetched, fetch, open_session
from flyproxy.scrape.large_pages import LargePages
from flyproxy.scrape.unpack import GZIP_MEMBERS_MAX, SMALL_BYTES

GZIP = "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


async def fetched(
    session: aiohttp.ClientSession, peer: Any, timeout_s: float = 5.0, body_bytes_max: int = 1000
) -> Fetched:
    place = LargePages().place(trusted=False)
    try:
        return await fetch(session, f"http://127.0.0.1:{peer.port}/metrics?a=b", timeout_s, body_bytes_max, place)
    finally:
        place.leave()


async def refusal(
    session: aiohttp.ClientSession, peer: Any, timeout_s: float = 5.0, body_bytes_max: int = 1000
) -> tuple[str, str]:
    """(sentence, limit)."""
    with pytest.raises(FetchError) as fault:
        await fetched(session, peer, timeout_s, body_bytes_max)
    return str(fault.value), fault.value.limit


async def test_what_is_asked_for(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.page("a 1\n")
    assert await fetched(session, peer) == Fetched(b"a 1\n", openmetrics=False)
    request = peer.requests[0].decode().split("\r\n")
    assert request[0] == "GET /metrics?a=b HTTP/1.1"
    accept = "application/openmetrics-text;version=1.0.0;q=0.7,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    assert f"Accept: {accept}" in request
    assert "Accept-Encoding: gzip" in request
    assert "X-Prometheus-Scrape-Timeout-Seconds: 5" in request


@pytest.mark.parametrize(
    ("content_type", "openmetrics"),
    [
        ("", False),
        ("Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", False),
        ("Content-Type: Application/OpenMetrics-Text; version=1.0.0; charset=utf-8; escaping=underscores\r\n", True),
    ],
)
async def test_the_content_type_says_the_format(
    session: aiohttp.ClientSession, peer: Any, content_type: str, openmetrics: bool
) -> None:
    peer.page("# EOF\n", content_type)
    assert (await fetched(session, peer)).openmetrics is openmetrics


async def test_gzip_is_unpacked_also_in_several_members(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.page(gzip.compress(b"a 1\n") + gzip.compress(b"b 2\n"), GZIP)
    assert (await fetched(session, peer)).body == b"a 1\nb 2\n"


async def test_a_body_until_close_is_read(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.answer = b"HTTP/1.0 200 OK\r\n\r\na 1\n"
    assert (await fetched(session, peer)).body == b"a 1\n"


async def test_a_bomb_is_stopped_at_the_bound(session: aiohttp.ClientSession, peer: Any) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    peer.page(packer.compress(bytes(50_000_000)) + packer.flush(), GZIP)
    assert await refusal(session, peer) == (
        "the page is larger than the 1000 bytes of scrape_limits.body_bytes",
        "scrape_body_bytes",
    )


async def test_members_that_hold_nothing_are_bounded_too(session: aiohttp.ClientSession, peer: Any) -> None:
    """20 bytes each, endless, and never a byte of page."""
    member = gzip.compress(b"")
    peer.page(gzip.compress(b"a 1\n") + member * 40, GZIP)
    assert (await fetched(session, peer)).body == b"a 1\n"
    peer.page(member * 51, GZIP)
    assert await refusal(session, peer) == (
        "the page is larger than the 1000 bytes of scrape_limits.body_bytes",
        "scrape_body_bytes",
    )
    peer.page(member * (GZIP_MEMBERS_MAX + 1), GZIP)
    sentence = f"more than {GZIP_MEMBERS_MAX} gzip members in one body"
    assert await refusal(session, peer, body_bytes_max=1_000_000) == (sentence, "scrape_body_bytes")


async def test_what_is_packed_larger_than_the_bound_is_refused(session: aiohttp.ClientSession, peer: Any) -> None:
    """A member's file name is dropped when it is unpacked; it may be endless."""
    peer.page(b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 2000, GZIP)
    assert await refusal(session, peer) == (
        "the page is larger than the 1000 bytes of scrape_limits.body_bytes",
        "scrape_body_bytes",
    )


async def test_a_page_over_the_bound_is_refused(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.page(b"x" * 1000)
    assert len((await fetched(session, peer)).body) == 1000
    peer.page(b"x" * 1001)
    assert await refusal(session, peer) == (
        "the page is larger than the 1000 bytes of scrape_limits.body_bytes",
        "scrape_body_bytes",
    )


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        ("404 Not Found", "", "", "HTTP status 404 Not Found (is `path` in its metrics right?)"),
        ("401 Unauthorized", "", "", "HTTP status 401 Unauthorized (a scrape has no credentials)"),
        ("503 Oops", "", "", "HTTP status 503 Service Unavailable"),
        ("304 Not Modified", "", "", "HTTP status 304: redirects are not followed"),
        ("599 Odd", "", "", "HTTP status 599"),
        (
            "302 Found",
            "Location: http://elsewhere/\r\n",
            "",
            "HTTP status 302: redirects are not followed (to 'http://elsewhere/')",
        ),
        ("200 OK", "Content-Type: text/html\r\n", "<html>", "content type 'text/html' is no format of metrics"),
        ("200 OK", "Content-Encoding: br\r\n", "", "content coding 'br' was not asked for (only gzip is read)"),
        (
            "200 OK",
            "Content-Encoding: gzip\r\nContent-Encoding: br\r\n",
            "",
            "content coding 'gzip,br' was not asked for (only gzip is read)",
        ),
        ("200 OK", "Content-Encoding: gzip\r\n", "a 1\n", "the body is not gzip, as its Content-Encoding says"),
        (
            "200 OK",
            "Content-Encoding: gzip\r\n",
            gzip.compress(gzip.compress(b"a 1\n")),
            "the page is gzip within gzip",
        ),
        ("200 OK", "", gzip.compress(b"a 1\n"), "the page is gzip and does not say so (Content-Encoding: gzip)"),
        ("200 OK", "Content-Encoding: gzip\r\n", gzip.compress(b"a 1\n")[:-4], "the gzip body was cut short"),
        ("200 OK", "Content-Encoding: gzip\r\n", "", "the gzip body was cut short"),
    ],
)
async def test_each_bad_answer_has_its_sentence(
    session: aiohttp.ClientSession, peer: Any, status: str, headers: str, body: str | bytes, expected: str
) -> None:
    peer.page(body, headers, status)
    assert await refusal(session, peer) == (expected, "")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", "the connection was closed without an answer"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n",
            "the connection was closed, or the framing broke, in the",
        ),
        (
            b"nonsense\r\n\r\n",
            "not an HTTP answer: 'Bad status line' (if it speaks TLS, give its metrics `https: true`)",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", ("not an HTTP answer", "the connection was")),
    ],
)
async def test_each_broken_connection_has_its_sentence(
    session: aiohttp.ClientSession, peer: Any, answer: bytes, expected: str | tuple[str, ...]
) -> None:
    peer.answer = answer
    sentence, _ = await refusal(session, peer)
    assert sentence.startswith(expected)


async def test_silence_ends_at_the_timeout(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.answer = None
    assert await refusal(session, peer, 0.05) == ("connected, but no answer within 0.05 s", "scrape_timeout")


async def test_a_page_that_stops_ends_at_the_timeout_and_says_how_far_it_came(
    session: aiohttp.ClientSession, peer: Any
) -> None:
    peer.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n"
    peer.holds = True
    sentence = "no complete answer within 0.2 s (4 bytes of the page had come)"
    assert await refusal(session, peer, 0.2) == (sentence, "scrape_timeout")


async def test_a_connection_that_is_not_made_is_told_apart(session: aiohttp.ClientSession) -> None:
    """A queue that is full does not even refuse."""
    with socket.socket() as full, contextlib.ExitStack() as stack:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        with pytest.raises(FetchError, match=r"no connection within 0\.1 s") as fault:
            await fetch(session, f"http://127.0.0.1:{full.getsockname()[1]}/", 0.2, 1, LargePages().place(trusted=True))
    assert fault.value.limit == "scrape_timeout"


@pytest.mark.parametrize("count", [INTERIM_ANSWERS_MAX, INTERIM_ANSWERS_MAX + 1])
async def test_interim_answers_are_passed_over_up_to_a_bound(
    session: aiohttp.ClientSession, peer: Any, count: int
) -> None:
    peer.answer = b"HTTP/1.1 103 Early Hints\r\n\r\n" * count + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na 1\n"
    if count > INTERIM_ANSWERS_MAX:
        assert await refusal(session, peer) == ("more than 8 interim (1xx) answers", "scrape_framing")
    else:
        assert (await fetched(session, peer)).body == b"a 1\n"


async def test_what_is_around_a_page_is_bounded(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 3 * FRAMING_BYTES_MAX
    peer.holds = True
    sentence, limit = await refusal(session, peer)
    assert sentence.endswith(" bytes came for 0 bytes of body")
    assert limit == "scrape_framing"


async def test_small_chunks_are_no_fault(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n#\r\n" * 50_000 + b"0\r\n\r\n"
    assert (await fetched(session, peer, body_bytes_max=50_000)).body == b"#" * 50_000


async def test_headers_are_bounded(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.answer = b"HTTP/1.1 200 OK\r\n" + b"Set-Cookie: a=b\r\n" * (HEADERS_MAX + 1) + b"Content-Length: 0\r\n\r\n"
    assert (await refusal(session, peer))[0].startswith("not an HTTP answer: 'Too many headers received'")
    peer.answer = b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"
    assert (await refusal(session, peer))[0].startswith("not an HTTP answer: ")


async def test_connections_are_the_bounded_ones(session: aiohttp.ClientSession, peer: Any) -> None:
    """The HTTP client has no public word for which class they are of."""
    peer.answer = b"HTTP/1.1 200 OK\r\n\r\na 1\n"
    peer.holds = True
    async with session.get(f"http://127.0.0.1:{peer.port}/") as response:
        assert response.connection is not None
        assert isinstance(response.connection.protocol, BoundedConnection)


async def test_a_large_page_waits_for_its_place_and_keeps_it(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.page(b"#" * (SMALL_BYTES + 1))
    pages = LargePages()
    first, second = pages.place(trusted=False), pages.place(trusted=False)
    url = f"http://127.0.0.1:{peer.port}/"
    await fetch(session, url, 5, 1 << 20, first)
    with pytest.raises(FetchError, match=r"no complete answer within 0\.2 s"):
        await fetch(session, url, 0.2, 1 << 20, second)
    second.leave()
    first.leave()
    third = pages.place(trusted=False)
    assert len((await fetch(session, url, 5, 1 << 20, third)).body) == SMALL_BYTES + 1
    third.leave()
    pages.close()


async def test_a_large_page_that_stops_gives_way_to_one_that_waits(session: aiohttp.ClientSession, peer: Any) -> None:
    body = b"#" * (SMALL_BYTES + 1)
    peer.answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body) + 1}\r\n\r\n".encode() + body
    peer.holds = True
    pages = LargePages()
    url = f"http://127.0.0.1:{peer.port}/"
    slow, waiting = pages.place(trusted=False), pages.place(trusted=False)

    async def told(place: Any) -> str:
        try:
            await fetch(session, url, 2, 1 << 20, place)
        except FetchError as fault:
            return str(fault)
        finally:
            place.leave()
        return ""

    sentences = await asyncio.gather(told(slow), told(waiting))
    assert f"a page of more than {SMALL_BYTES} bytes came too slowly while other large pages waited" in sentences
    pages.close()


async def test_nobody_there_is_told_with_the_usual_cause(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchError) as fault:
        await fetch(session, f"http://127.0.0.1:{port}/metrics", 5, 1000, LargePages().place(trusted=True))
    assert str(fault.value) == f"connection refused (is it listening on 0.0.0.0:{port}?)"


async def test_tls_is_spoken_whatever_the_certificate_says(session: aiohttp.ClientSession, peer: Any) -> None:
    """Its own signature, another name, expired for years."""
    peer.page("a 1\n")
    async with peer.behind_tls() as port:
        page = await fetch(session, f"https://127.0.0.1:{port}/", 5, 1000, LargePages().place(trusted=True))
    assert page.body == b"a 1\n"


async def test_plain_http_where_tls_was_meant_is_told_with_its_mend(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    peer.waits_for = 1
    with pytest.raises(FetchError) as fault:
        await fetch(session, f"https://127.0.0.1:{peer.port}/", 5, 1000, LargePages().place(trusted=True))
    sentence = "the TLS handshake failed: it answers in something else (if that is plain HTTP, leave out `https`)"
    assert str(fault.value) == sentence


async def test_ipv6_targets_are_reached(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.page("a 1\n")
    server = await asyncio.start_server(peer.converse, "::1", 0)
    url = f"http://[::1]:{server.sockets[0].getsockname()[1]}/"
    assert (await fetch(session, url, 5, 1000, LargePages().place(trusted=True))).body == b"a 1\n"
    server.close()
