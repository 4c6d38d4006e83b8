"""Floods: a message that never ends is cut off at the bound it runs into, which is counted and coded."""

import asyncio
import contextlib
from typing import Any

import pytest

from flyproxy.config.resolved import Limits
from flyproxy.edge.upstream import INTERIM_MAX
from flyproxy.instrument.catalog import LIMITS

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n"
POST = b"POST / HTTP/1.1\r\nHost: hello.test\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BODY_BYTES = 1 << 20
FLOOD_BYTES = 64 << 20
"""More than any bound and all buffers of the kernel; whoever is cut off has not sent so much."""
House = Any


async def flood(writer: asyncio.StreamWriter, begin: bytes, more: bytes) -> int:
    """Say `begin`, then `more` again and again until nobody takes it; the bytes of it."""
    sent = 0
    block = more * max(1, 4096 // len(more))
    with contextlib.suppress(ConnectionError, RuntimeError):
        writer.write(begin)
        while sent < FLOOD_BYTES and not writer.is_closing():
            writer.write(block)
            await writer.drain()
            sent += len(block)
    return sent


def reached(house: House) -> str:
    """The one bound that was reached, once."""
    counted = {limit: house.metric("flyproxy_limit_reached_total", limit=limit) for limit in LIMITS}
    (limit,) = (limit for limit, times in counted.items() if times)
    assert counted[limit] == 1
    return limit


@pytest.mark.parametrize(
    ("begin", "more", "status", "code", "limit"),
    [
        (GET, b"X-A: y\r\n", 431, "PP07", "header_count head_bytes"),
        (GET, b"X-A: " + b"y" * 4000 + b"\r\n", 431, "PP07", "head_bytes"),
        (GET + b"X-A: ", b"y", 431, "PP07", "line_bytes head_bytes"),
        (b"GET /", b"y", 414, "PP06", "line_bytes"),
        (b"", b"y", 414, "PP06", "line_bytes"),
        (b"", b"\r\n", 400, "PP01", "leading_empty_lines"),
        (POST, b"5\r\nhello\r\n", 413, "PP05", "body_bytes"),
        (POST + b"fffffff\r\n", b"x" * 65536, 413, "PP05", "body_bytes"),
        (POST + b"5;a=", b"x", 400, "PP01", "chunk_line_bytes"),
        (POST, b"1;a=%b\r\nx\r\n" % (b"x" * 200), 400, "PP01", "chunk_extension_bytes"),
        (POST + b"0\r\n", b"X-A: y\r\n", 400, "PP01", "trailer_bytes"),
        (POST + b"0\r\nX-A: ", b"y", 400, "PP01", "trailer_bytes"),
    ],
)
async def test_a_request_without_end_is_cut_off_at_its_bound(
    house: House, begin: bytes, more: bytes, status: int, code: str, limit: str
) -> None:
    async def reads(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(1 << 16):
            pass

    await house.open(house.app("hello", await house.upstream(reads)), limits=Limits(body_bytes=BODY_BYTES))
    client = await house.client()
    flooding = asyncio.ensure_future(flood(client.writer, begin, more))
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Flyproxy-Error: %b\r\n" % code.encode() in head
    assert b"Connection: close\r\n" in head
    client.abort()
    assert await flooding < FLOOD_BYTES
    assert reached(house) in limit.split()  # who comes in large pieces may pass two at once
    assert house.metric("fly_edge_error_count", code=code) == 1
    await house.settle(house.balanced)


HELLO = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("begin", "more", "limit"),
    [
        (HELLO, b"X-A: y\r\n", "header_count head_bytes"),
        (HELLO, b"X-A: " + b"y" * 4000 + b"\r\n", "head_bytes"),
        (HELLO + b"X-A: ", b"y", "line_bytes head_bytes"),
        (b"HTTP/1.1 200 ", b"y", "line_bytes"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "interim_answers"),
        (CHUNKED + b"5;a=", b"x", "chunk_line_bytes"),
        (CHUNKED, b"1;a=%b\r\nx\r\n" % (b"x" * 200), "chunk_extension_bytes"),
        (CHUNKED + b"0\r\n", b"X-A: y\r\n", "trailer_bytes"),
    ],
)
async def test_an_answer_without_end_is_cut_off_at_its_bound(
    house: House, begin: bytes, more: bytes, limit: str
) -> None:
    sent: list[int] = []

    async def floods(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sent.append(await flood(writer, begin, more))

    upstream = await house.upstream(floods)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(GET + b"\r\n")
    heads = [await client.head()]
    while b" 103 " in heads[-1]:
        heads.append(await client.head())
    assert len(heads) <= INTERIM_MAX + 1
    if heads[-1].startswith(HELLO):  # begun already: it breaks off, and is never completed by us
        assert not (await client.rest()).endswith(b"\r\n\r\n")
    else:
        assert heads[-1].startswith(b"HTTP/1.1 502 ")
        assert b"Flyproxy-Error: PU01\r\n" in heads[-1]
    await house.settle(lambda: len(sent) == 1)
    assert sent[0] < FLOOD_BYTES
    assert reached(house) in limit.split()  # who comes in large pieces may pass two at once
    assert house.metric("fly_edge_error_count", code="PU01") == 1
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)
    assert house.balanced()


async def test_pipelining_without_end_is_held_at_the_buffers_bound(house: House) -> None:
    """Who asks faster than it is answered waits; nothing of it is read beyond `limits.buffer_bytes`."""
    go = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        writer.close()

    await house.open(house.app("hello", await house.upstream(slow)))
    client = await house.client()
    flooding = asyncio.ensure_future(flood(client.writer, b"", GET + b"\r\n"))
    await house.settle(lambda: any(one._full for one in house.server._worker.clients))
    (connection,) = house.server._worker.clients
    assert len(connection._buffer) <= house.edge.limits.buffer_bytes + (256 << 10)  # one read of the loop's
    go.set()
    for _ in range(3):
        assert (await client.answer())[1] == b"ok"
    client.abort()
    assert await flooding < FLOOD_BYTES
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    await house.settle(house.balanced)
