"""What a client and an instance may expect of one request between them."""

import asyncio
import gc
from typing import Any

import pytest

from flyproxy.edge.proxy import Exchange

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
House = Any
"""The conftest's, which tests must not import."""


async def test_connections_are_kept_on_both_sides(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for _ in range(5):
        head, body = await client.ask(GET)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert body == b"ok"
    other = await house.client()
    await other.ask(GET)
    assert upstream.connections == 1
    assert house.server.statistics()["upstream_connections_idle"] == 1


async def test_the_head_goes_on_with_what_fly_adds(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    trace = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
    head, _ = await client.ask(
        b"GET /a?b=c HTTP/1.1\r\nHost: hello.test\r\nX-Own: 1\r\nFly-Client-IP: 9.9.9.9\r\ntraceparent: "
        + trace
        + b"\r\n\r\n"
    )
    request = upstream.requests[0]
    assert request.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: hello.test\r\nX-Own: 1\r\nFly-Client-IP: 127.0.0.1\r\n")
    assert b"9.9.9.9" not in request
    assert b"\r\nTraceparent: " + trace + b"\r\n" in request
    request_id = head.partition(b"Fly-Request-Id: ")[2].partition(b"\r\n")[0]
    assert b"\r\nFly-Request-Id: " + request_id + b"\r\n" in request
    assert request_id.endswith(b"-ord")


@pytest.mark.parametrize("size", [1, 1000, 300_000, 3_000_000])
async def test_counted_bodies_stream_both_ways(house: House, size: int) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            left = size
            while left:
                data = await reader.read(min(left, 65536))
                left -= len(data)
                writer.write(data)
                await writer.drain()

    await house.open(house.app("hello", await house.upstream(echo)))
    body = bytes(range(256)) * (size // 256 + 1)
    body = body[:size]
    bytes_in = bytes_out = 0
    for _ in range(2):
        client = await house.client()  # an answer that overtakes its request ends the connection
        sending = asyncio.ensure_future(
            client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: %d\r\n\r\n%b" % (size, body))
        )
        _head, got = await client.answer()
        await sending
        assert got == body
        bytes_in, bytes_out = bytes_in + client.sent, bytes_out + client.received
    assert house.metric("fly_edge_data_in") == bytes_in
    assert house.metric("fly_edge_data_out") == bytes_out


async def test_chunked_bodies_go_on_as_they_are_both_ways(house: House) -> None:
    framed = b"5;x=y\r\nhello\r\n0\r\nX-Trailer: 1\r\n\r\n"

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            got = await reader.readuntil(b"0\r\nX-Trailer: 1\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + got[:7])
            await writer.drain()
            writer.write(got[7:])

    upstream = await house.upstream(echo)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for _ in range(2):
        await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nTransfer-Encoding: chunked\r\n\r\n" + framed[:3])
        await client.send(framed[3:])
        assert b"Transfer-Encoding: chunked\r\n" in await client.head()
        assert await client.until(b"X-Trailer: 1\r\n\r\n") == framed
    assert upstream.connections == 1


async def test_an_answer_that_ends_with_its_connection_ends_with_ours(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 200 OK\r\n\r\nall of it", then="close")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(GET)
    assert b"Connection: close\r\n" in await client.head()
    assert await client.rest() == b"all of it"
    assert house.counted() == {"200": 1}


@pytest.mark.parametrize(
    ("request_line", "answer", "kept"),
    [
        (b"HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n", b"Content-Length: 1000\r\n"),
        (b"HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"Transfer-Encoding: chunked\r\n"),
        (b"GET", b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n", b"X-A: b\r\n"),
        (b"GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: x\r\n\r\n", b"Content-Length: 9\r\n"),
    ],
)
async def test_bodiless_answers_keep_their_head_and_their_connection(
    house: House, request_line: bytes, answer: bytes, kept: bytes
) -> None:
    upstream = await house.says(answer)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for _ in range(2):
        await client.send(request_line + b" / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
        assert kept in await client.head()
    assert upstream.connections == 1


async def test_early_hints_pass_but_not_to_http_1_0(house: House) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    await house.open(house.app("hello", await house.says(hints + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")))
    client = await house.client()
    await client.send(GET)
    assert await client.head() == hints
    assert b" 200 OK" in await client.head()
    old = await house.client()
    await old.send(b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n")
    assert b" 200 OK" in await old.head()


async def test_100_continue_is_the_instances_to_say(house: House) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue\r\n" in head
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(b"body")
    assert (await client.answer())[1] == b"done"
    assert house.metric("fly_edge_data_out") == client.received


async def test_a_refusal_instead_of_100_continue_reaches_the_client_and_closes(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 417 No\r\nContent-Length: 2\r\n\r\nno")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(b"PUT / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
    head, _body = await client.answer()
    assert b"Connection: close\r\n" in head
    assert await client.rest() == b""
    assert house.server.statistics()["upstream_connections_idle"] == 0  # its request was never whole


async def test_an_early_answer_to_an_upload_is_read_in_peace(house: House) -> None:
    """No RST overtakes the answer while the client is still sending, and the instance is not used again."""
    upstream = await house.says(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 2000000\r\n\r\n" + b"x" * 1000)
    _head, body = await client.answer()
    assert body == b"no"
    for _ in range(50):
        await client.send(b"y" * 10_000)
    assert await client.rest() == b""
    await client.close()
    await house.settle(lambda: house.metric("fly_edge_data_in") == client.sent)
    assert house.counted() == {"403": 1}


async def test_an_http_1_0_client_gets_plain_bytes_and_may_ask_to_stay(house: House) -> None:
    chunked = await house.says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    await house.open(house.app("hello", chunked), house.app("counted", await house.upstream()))
    client = await house.client()
    await client.send(b"GET / HTTP/1.0\r\nHost: hello.test\r\nConnection: keep-alive\r\n\r\n")
    head = await client.head()
    assert b"Transfer-Encoding" not in head
    assert await client.rest() == b"abcde"
    staying = await house.client()
    for _ in range(2):
        head, _ = await staying.ask(b"GET / HTTP/1.0\r\nHost: counted.test\r\nConnection: keep-alive\r\n\r\n")
        assert b"Connection: keep-alive\r\n" in head
    leaving = await house.client()
    await leaving.ask(b"GET / HTTP/1.0\r\nHost: counted.test\r\n\r\n")
    assert await leaving.rest() == b""


async def test_http_1_0_without_a_host_goes_to_the_default_app(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), default_app="hello")
    client = await house.client()
    head, _ = await client.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert b" 200 " in head
    assert b"\r\nHost: hello.test\r\n" in upstream.requests[0]


async def test_a_slow_reader_holds_the_instance_and_not_our_memory(house: House) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 64000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 64000)
            await writer.drain()
            sent += 64000

    await house.open(house.app("hello", await house.upstream(flood)))
    client = await house.client()
    client.writer.transport.pause_reading()
    await client.send(GET)
    await house.settle(lambda: house.server.statistics()["stalled"] == 1)
    worker = house.server._worker
    assert max(one.unsent_bytes() for one in worker.stalled) < 600_000
    assert sent < 64_000_000
    client.writer.transport.resume_reading()
    _head, body = await client.answer()
    assert len(body) == 64_000_000
    assert house.metric("fly_edge_data_out") == client.received


async def test_a_slow_instance_holds_the_client(house: House) -> None:
    reading = asyncio.Event()

    async def lazy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # the only way to stop asyncio's own reading
        await reading.wait()
        reader._transport.resume_reading()  # type: ignore[attr-defined]
        await reader.readexactly(32_000_000)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    await house.open(house.app("hello", await house.upstream(lazy)))
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 32000000\r\n\r\n")
    sending = asyncio.ensure_future(client.send(b"x" * 32_000_000))
    await house.settle(lambda: house.server.statistics()["stalled"] == 1)
    assert max(one.unsent_bytes() for one in house.server._worker.stalled) < 600_000
    reading.set()
    assert (await client.answer())[1] == b"ok"
    await sending
    assert house.metric("fly_edge_data_in") == client.sent


@pytest.mark.parametrize(
    ("host", "app"),
    [(b"hello.test", "hello"), (b"x.hello.test", "wild"), (b"HELLO.test:8080", "hello"), (b"x.y.hello.test", "wild")],
)
async def test_hosts_find_their_app(house: House, host: bytes, app: str) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), house.app("wild", upstream, hostnames=("*.hello.test",)))
    client = await house.client()
    await client.ask(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert house.counted(app) == {"200": 1}


async def test_an_unknown_host_is_a_404_under_no_app_and_the_connection_stays(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()))
    client = await house.client()
    head, body = await client.ask(
        b"GET / HTTP/1.1\r\nHost: <stranger>.test\r\n\r\n".replace(b"<", b"").replace(b">", b"")
    )
    assert head.startswith(b"HTTP/1.1 404 Not Found\r\n")
    assert b"Flyproxy-Error: PP02\r\n" in head
    assert b"stranger.test" in body
    assert house.counted("_unmatched") == {"404": 1}
    assert house.metric("fly_edge_error_count", app="_unmatched", code="PP02") == 1
    assert (await client.ask(GET))[1] == b"ok"
    assert house.metric("fly_edge_tcp_connects_count", app="hello") == 1
    await client.close()
    await house.settle(lambda: house.metric("fly_edge_tcp_disconnects_count", app="hello") == 1)
    assert house.metric("fly_edge_tcp_connects_count", app="_unmatched") == 0


async def test_an_app_without_instances_is_a_503(house: House) -> None:
    await house.open(house.app("hello"))
    head, body = await (await house.client()).ask(b"GET / HTTP/1.1\r\nHost: hello.test\r\nAccept: text/html\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert b"text/html" in head
    assert b"PR01" in body
    assert house.metric("fly_edge_error_count", app="hello", code="PR01") == 1
    assert house.metric("fly_app_http_responses_count") == 0


async def test_the_nearest_region_answers_where_the_doors_own_has_no_instance(house: House) -> None:
    near, far = await house.says(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnear"), await house.upstream()
    app = house.app("hello", near, region="iad")
    both = app.__class__(
        **{
            **{name: getattr(app, name) for name in app.__slots__},
            "instances": app.instances + house.app("hello", far, region="syd").instances,
        }
    )
    await house.open(both)
    client = await house.client()
    for _ in range(4):
        assert (await client.ask(GET))[1] == b"near"
    assert far.connections == 0
    assert house.metric("fly_app_http_responses_count", region="iad", host="aaaa", status="200") == 4
    assert house.metric("fly_edge_http_responses_count", region="ord", host="2bc3", status="200") == 4


async def test_a_finished_request_leaves_nothing_to_the_garbage_collector(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()), house.app("none"))
    client = await house.client()
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            await client.ask(GET)
            await client.ask(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 0\r\n\r\n")
            await client.ask(b"GET / HTTP/1.1\r\nHost: none.test\r\n\r\n")
        left = [one for one in gc.get_objects() if isinstance(one, Exchange)]
    finally:
        gc.enable()
    assert left == []
