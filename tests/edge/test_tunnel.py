"""Upgrades and streams of events: bytes both ways, half-closes, and what is counted when."""

import asyncio
import socket
from typing import Any

from flyproxy.config.resolved import Timeouts
from flyproxy.edge.wire import SILENCE_S

UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: hello.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
House = Any


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in await reader.readuntil(b"\r\n\r\n")
    writer.write(SWITCH + b"early")
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()


async def test_a_websocket_is_a_tunnel_counted_at_its_head_and_in_flight_until_its_end(house: House) -> None:
    await house.open(house.app("hello", await house.upstream(echo)))
    client = await house.client()
    await client.send(UPGRADE + b"sent early")
    head = await client.head()
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" in head
    assert await client.exactly(15) == b"earlysent early"
    assert house.counted() == {"101": 1}
    assert house.metric("fly_app_http_responses_count", status="101") == 1
    assert house.metric("fly_app_concurrency") == 1
    await client.send(b"x" * 100_000)
    assert await client.exactly(100_000) == b"x" * 100_000
    await house.settle(lambda: house.metric("fly_edge_data_in") == client.sent)  # reported while it is open
    await house.settle(lambda: house.metric("fly_edge_data_out") == client.received)
    client.half_close()
    assert await client.rest() == b"bye"
    await house.settle(house.balanced)
    assert house.counted() == {"101": 1}
    assert house.metric("fly_edge_data_in") == client.sent
    assert house.metric("fly_edge_data_out") == client.received
    assert house.metric("fly_app_concurrency") == 0


async def test_the_instances_half_of_a_tunnel_may_end_first(house: House) -> None:
    got: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        writer.write_eof()
        got.append(await reader.read())
        writer.close()

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(UPGRADE)
    await client.head()
    assert await client.rest() == b""
    await client.send(b"still here")
    client.half_close()
    await house.settle(lambda: got == [b"still here"])
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.balanced()


async def test_a_half_closed_tunnel_is_not_kept_for_ever(house: House) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        await reader.read()
        await asyncio.Event().wait()

    await house.open(house.app("hello", await house.upstream(deaf)), timeouts=Timeouts(idle_s=0.1))
    client = await house.client()
    await client.send(UPGRADE)
    await client.head()
    client.half_close()
    assert await client.rest() == b""
    await house.settle(house.balanced)


async def test_a_client_that_vanishes_ends_the_tunnel_on_both_sides(house: House) -> None:
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        try:
            await reader.read()
        finally:
            writer.close()
            ended.set()

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(UPGRADE)
    await client.head()
    client.abort()
    await asyncio.wait_for(ended.wait(), 5)
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.balanced()


async def test_a_refused_upgrade_is_an_ordinary_answer(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for _ in range(2):
        await client.send(UPGRADE)
        assert b" 403 " in await client.head()
    assert upstream.connections == 1


async def test_a_tunnel_moves_megabytes_both_ways_at_once(house: House) -> None:
    await house.open(house.app("hello", await house.upstream(echo)))
    client = await house.client()
    await client.send(UPGRADE)
    await client.head()
    await client.exactly(5)
    size = 8_000_000
    sending = asyncio.ensure_future(client.send(b"z" * size))
    assert len(await client.exactly(size)) == size
    await sending
    client.half_close()
    assert await client.rest() == b"bye"
    await house.settle(house.balanced)
    assert house.metric("fly_instance_net_recv_bytes") > size


async def test_a_stream_of_events_answers_in_the_time_until_its_head(house: House) -> None:
    more = asyncio.Event()

    async def events(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"8\r\ndata: 1\n\r\n")
        await more.wait()
        writer.write(b"8\r\ndata: 2\n\r\n0\r\n\r\n")

    await house.open(house.app("hello", await house.upstream(events)), timeouts=Timeouts(response_s=0.1))
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n")
    await client.head()
    assert await client.until(b"1\n\r\n") == b"8\r\ndata: 1\n\r\n"
    assert house.counted() == {"200": 1}
    await house.settle(lambda: house.metric("fly_edge_data_out") == client.received)
    await asyncio.sleep(0.6)  # two ticks beyond timeouts.response: a stream may be silent
    more.set()
    assert (await client.until(b"0\r\n\r\n")).endswith(b"data: 2\n\r\n0\r\n\r\n")
    await house.settle(house.balanced)
    assert house.counted() == {"200": 1}
    assert house.metric("fly_edge_data_out") == client.received
    assert house.metric("fly_app_http_responses_count", status="200") == 1


async def test_hundreds_of_half_closes_under_churn_do_not_bring_the_process_down(house: House) -> None:
    """uvloop 0.22 and 0.23 abort the whole process here if anybody calls `write_eof()` on a transport."""

    async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        await reader.read()
        writer.transport.abort()

    await house.open(house.app("hello", await house.upstream(bye)))

    async def one(number: int) -> None:
        client = await house.client()
        await client.send(UPGRADE)
        await client.head()
        client.half_close()
        if number % 3:
            await client.rest()
        client.abort()

    for _ in range(10):
        await asyncio.gather(*(one(number) for number in range(50)))
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)
    assert house.balanced()
    assert house.counted() == {"101": 500}
    assert house.metric("fly_app_tcp_connects_count") == house.metric("fly_app_tcp_disconnects_count") == 500


async def test_a_silent_tunnel_is_probed_on_both_sides_so_that_a_dead_machine_is_noticed(house: House) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
        await reader.read()

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    await client.head()
    worker = house.server._worker
    for connection in (*worker.clients, *worker.upstreams):
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == SILENCE_S
