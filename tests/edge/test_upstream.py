"""A hostile or dying instance: 502 where nothing was sent yet, else the answer breaks off; never used again."""

import asyncio
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 2\r\n\r\nhi"
House = Any


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"<html>hello from 1991</html>\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokSURPLUS",
        b"HTTP/1.1 204 No Content\r\n\r\nbody",
        b"HTTP/1.1 304 Not Modified\r\n\r\nbody",
        b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nSURPLUS",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\n\r\n" * 9 + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
async def test_a_faulty_answer_is_a_502_and_its_connection_is_not_used_again(house: House, answer: bytes) -> None:
    upstream = await house.says(answer)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for _ in range(2):
        await client.send(GET)
        head = await client.head()
        while b" 103 " in head:
            head = await client.head()
        assert head.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert b"Flyproxy-Error: PU01\r\n" in head
        await client.exactly(int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0]))
    assert upstream.connections == 2
    assert house.counted() == {"502": 2}
    assert house.metric("fly_edge_error_count", code="PU01") == 2
    assert house.metric("fly_app_http_responses_count") == 0
    assert house.balanced()


async def test_a_switch_to_another_protocol_than_asked_is_a_502(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: irc\r\n\r\n")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    head, _ = await client.ask(
        b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert b"Flyproxy-Error: PU01\r\n" in head


@pytest.mark.parametrize(
    ("answer", "then", "code"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "close", "PC04"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "reset", "PC04"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "close", "PC04"),
        (b"HTTP/1.1 200 OK\r\n\r\nhalf", "reset", "PC04"),
    ],
)
async def test_a_truncated_answer_is_never_completed_by_us(house: House, answer: bytes, then: str, code: str) -> None:
    begun = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await begun.wait()
        if then == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: a RST
        writer.transport.abort()

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(GET)
    await client.head()
    begun.set()
    got = await client.rest()
    assert not got.endswith(b"0\r\n\r\n")
    assert client.reader.exception() is not None or len(got) < 10
    assert house.counted() == {"200": 1}
    assert house.metric("fly_app_http_responses_count", status="200") == 1
    assert house.metric("fly_edge_error_count", code=code) == 1
    assert house.balanced()


async def test_bytes_after_an_answer_that_has_begun_break_it_off(house: House) -> None:
    go = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc")
        await go.wait()
        writer.write(b"defSURPLUS")

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(GET)
    await client.head()
    go.set()
    assert b"SURPLUS" not in await client.rest()
    assert house.metric("fly_edge_error_count", code="PU01") == 1


async def test_a_byte_on_an_idle_connection_kills_it(house: House) -> None:
    writers: list[asyncio.StreamWriter] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    upstream = await house.upstream(handler)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.ask(GET)
    writers[0].write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)
    assert (await client.ask(GET))[1] == b"ok"
    assert upstream.connections == 2


async def test_an_idle_connection_that_gets_eof_is_not_used_again(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.ask(GET)
    upstream.hang_up()
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)
    await client.send(POST)
    assert (await client.answer())[1] == b"ok"
    assert house.metric("fly_app_tcp_connects_count") == 2
    assert house.metric("fly_app_tcp_disconnects_count") == 1


@pytest.mark.parametrize(
    ("request_bytes", "replayed"),
    [
        (GET, True),
        (b"HEAD / HTTP/1.1\r\nHost: hello.test\r\n\r\n", True),
        (b"DELETE / HTTP/1.1\r\nHost: hello.test\r\n\r\n", True),
        (POST, False),
        (b"POST / HTTP/1.1\r\nHost: hello.test\r\n\r\n", False),
        (b"PUT / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 2\r\n\r\nhi", False),
    ],
)
async def test_only_a_bodiless_idempotent_request_on_a_stale_connection_is_sent_again(
    house: House, request_bytes: bytes, replayed: bool
) -> None:
    got = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal got
        await reader.readuntil(b"\r\n\r\n")
        got += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")  # a second one on the same connection: hang up without a word
        got += 1
        writer.close()

    upstream = await house.upstream(handler)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.ask(GET)
    await client.send(request_bytes)
    head = await client.head()
    if replayed:
        assert b" 200 OK" in head
        assert (got, upstream.connections) == (3, 2)
    else:
        assert b" 502 " in head
        assert b"Flyproxy-Error: PC03\r\n" in head
        assert (got, upstream.connections) == (2, 1)
    await house.settle(house.balanced)


async def test_silence_on_a_new_connection_is_not_replayed(house: House) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    upstream = await house.upstream(handler)
    await house.open(house.app("hello", upstream))
    head, _ = await (await house.client()).ask(GET)
    assert b"Flyproxy-Error: PC03\r\n" in head
    assert upstream.connections == 1


async def test_a_refused_dial_tries_another_instance_for_any_method(house: House, unused_tcp_port: int) -> None:
    upstream = await house.says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", then="close")
    await house.open(house.app("hello", unused_tcp_port, upstream))
    client = await house.client()
    for _ in range(12):
        await client.send(POST)
        assert (await client.answer())[1] == b"ok"
    assert house.counted() == {"200": 12}
    assert house.metric("fly_edge_error_count") == 0
    assert house.balanced()


async def test_when_every_instance_refuses_the_client_is_told_soon(house: House, unused_tcp_port_factory: Any) -> None:
    ports = [unused_tcp_port_factory() for _ in range(5)]
    await house.open(house.app("one", ports[0]), house.app("hello", *ports))
    client = await house.client()
    head, _ = await client.ask(b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n")
    assert b" 502 " in head
    assert b"Flyproxy-Error: PC01\r\n" in head
    head, _ = await client.ask(GET)
    assert b"Flyproxy-Error: PC07\r\n" in head
    assert house.metric("flyproxy_limit_reached_total", limit="retries") == 1
    assert house.balanced()


async def test_a_dial_given_up_at_any_moment_leaves_nothing_open(house: House) -> None:
    """uvloop tells nobody of a connection whose dial is cancelled between its opening and our knowing."""
    await house.open(house.app("hello", await house.upstream()))
    server = house.server
    (instance,) = server._generation.instances.values()

    class Nobody:
        def dialled(self, upstream: Any) -> None:
            upstream.abort()

        def dial_failed(self, fault: Any, why: str) -> None: ...

        def fail(self, fault: Any, why: str) -> None: ...

    for turns in range(10):
        for _ in range(5):
            task = instance.dial(Nobody())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
    await house.settle(lambda: server.statistics()["upstream_connections"] == 0)
    assert house.metric("fly_app_tcp_connects_count") == house.metric("fly_app_tcp_disconnects_count")
