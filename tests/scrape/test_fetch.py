"""A page over HTTP: what is asked for, and a sentence for every way it can fail. `peer` is conftest's Peer."""

import gzip
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from flyproxy.scrape.fetch import GZIP_MEMBERS_MAX, Fetched, FetchError, fetch

GZIP = "Content-Type: text/plain\r\nContent-Encoding: gzip\r\n"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield session


async def fetched(
    session: aiohttp.ClientSession, peer: Any, timeout_s: float = 5.0, body_bytes_max: int = 1000
) -> Fetched:
    return await fetch(session, f"http://127.0.0.1:{peer.port}/metrics?a=b", timeout_s, body_bytes_max)


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
    assert await refusal(session, peer) == ("the page is larger than 1000 bytes", "scrape_body_bytes")


async def test_members_that_hold_nothing_are_bounded_too(session: aiohttp.ClientSession, peer: Any) -> None:
    """20 bytes each, endless, and never a byte of page."""
    member = gzip.compress(b"")
    peer.page(gzip.compress(b"a 1\n") + member * 40, GZIP)
    assert (await fetched(session, peer)).body == b"a 1\n"
    peer.page(member * 51, GZIP)
    assert await refusal(session, peer) == ("the page is larger than 1000 bytes", "scrape_body_bytes")
    peer.page(member * (GZIP_MEMBERS_MAX + 1), GZIP)
    sentence = f"more than {GZIP_MEMBERS_MAX} gzip members"
    assert await refusal(session, peer, body_bytes_max=1_000_000) == (sentence, "scrape_body_bytes")


async def test_what_is_packed_larger_than_the_bound_is_refused(session: aiohttp.ClientSession, peer: Any) -> None:
    """A member's file name is dropped when it is unpacked; it may be endless."""
    peer.page(b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 2000, GZIP)
    assert await refusal(session, peer) == ("the page is larger than 1000 bytes", "scrape_body_bytes")


async def test_a_page_over_the_bound_is_refused(session: aiohttp.ClientSession, peer: Any) -> None:
    peer.page(b"x" * 1000)
    assert len((await fetched(session, peer)).body) == 1000
    peer.page(b"x" * 1001)
    assert await refusal(session, peer) == ("the page is larger than 1000 bytes", "scrape_body_bytes")


@pytest.mark.parametrize(
    ("status", "headers", "body", "expected"),
    [
        ("404 Not Found", "", "", "HTTP status 404 Not Found"),
        ("599 Odd", "", "", "HTTP status 599"),
        ("302 Found", "Location: http://elsewhere/\r\n", "", "HTTP status 302: redirects are not followed"),
        ("200 OK", "Content-Type: text/html\r\n", "<html>", "content type 'text/html' is no format of metrics"),
        ("200 OK", "Content-Encoding: br\r\n", "", "content coding 'br' was not asked for"),
        ("200 OK", "Content-Encoding: gzip\r\n", "a 1\n", "the body is not gzip, as it says it is"),
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
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\na 1\n", "the connection was closed in the middle of the answer"),
        (b"nonsense\r\n\r\n", "not an HTTP answer"),
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
    assert await refusal(session, peer, 0.05) == ("no complete answer within 0.05 s", "scrape_timeout")


async def test_nobody_there_is_told_with_the_usual_cause(session: aiohttp.ClientSession) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(FetchError) as fault:
        await fetch(session, f"http://127.0.0.1:{port}/metrics", 5, 1000)
    assert str(fault.value) == f"connection refused (is it listening on 0.0.0.0:{port}?)"
