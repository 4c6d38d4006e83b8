"""Raw TCP doors: bytes both ways, half-closes, other instances, and the same books."""

import asyncio
import json
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.config.resolved import Limits, Listener, Timeouts

House = Any
RAW = (Listener("127.0.0.1", 0, False, "ord", "db"),)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()


async def test_bytes_pass_both_ways_and_the_half_close_too(house: House) -> None:
    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW)
    client = await house.client()
    await client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    assert house.metric("fly_app_concurrency") == 1
    await house.settle(lambda: house.metric("fly_edge_data_in") == 5)  # while it is open
    client.half_close()
    assert await client.rest() == b"bye"
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.balanced()
    assert house.metric("fly_edge_data_in", app="db") == 5
    assert house.metric("fly_edge_data_out", app="db") == 8
    assert house.metric("fly_instance_net_recv_bytes") == 5
    assert house.metric("fly_instance_net_sent_bytes") == 8
    assert house.metric("fly_edge_tcp_connects_count", app="db") == 1
    assert house.metric("fly_edge_tcp_disconnects_count", app="db") == 1
    assert house.metric("fly_app_tcp_connects_count") == house.metric("fly_app_tcp_disconnects_count") == 1
    assert house.metric("fly_edge_http_responses_count") == 0
    house.server._worker.log.flush()
    line = json.loads(house.lines[-1])
    assert (line["method"], line["bytes_in"], line["bytes_out"]) == ("TCP", 5, 8)


async def test_a_door_may_lead_to_another_port_of_the_instances(house: House) -> None:
    main, other = await house.upstream(echo), await house.upstream(echo)
    (door,) = RAW
    await house.open(house.app("db", main), listeners=(replace(door, instance_port=other.port),))
    client = await house.client()
    await client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    assert (main.connections, other.connections) == (0, 1)
    client.half_close()
    assert await client.rest() == b"bye"


async def test_megabytes_are_the_same_bytes_spliced_or_not(house: House) -> None:
    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW)
    client = await house.client()
    data = os.urandom(1 << 20) * 16
    sending = asyncio.ensure_future(client.send(data))
    assert await client.exactly(len(data)) == data
    await sending
    assert house.server.statistics()["pipes_open"] >= 1
    client.half_close()
    assert await client.rest() == b"bye"
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.server.statistics()["pipes"] == 0
    assert house.metric("fly_edge_data_in", app="db") == len(data)
    assert house.metric("fly_edge_data_out", app="db") == len(data) + 3


async def test_a_slow_reader_holds_the_sender(house: House) -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        for _ in range(600):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000
        writer.close()

    await house.open(house.app("db", await house.upstream(flood)), listeners=RAW)
    client = await house.client()
    client.writer.transport.pause_reading()
    await house.settle(lambda: house.server.statistics()["stalled"] == 1)
    assert sent < 60_000_000
    client.writer.transport.resume_reading()
    assert len(await client.rest()) == 60_000_000
    client.half_close()
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.metric("fly_edge_data_out", app="db") == 60_000_000


async def test_a_client_that_takes_nothing_is_let_go(house: House) -> None:
    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(b"x" * 100_000)
            await writer.drain()

    await house.open(house.app("db", await house.upstream(flood)), listeners=RAW, timeouts=Timeouts(write_s=0.1))
    client = await house.client()
    client.writer.transport.pause_reading()
    await house.settle(lambda: house.metric("fly_edge_error_count", code="PP10") == 1)
    assert house.server.statistics()["clients"] == 0
    assert house.balanced()


@pytest.mark.parametrize("who", ["client", "instance"])
async def test_a_reset_of_one_side_reaches_the_other(house: House, who: str) -> None:
    writers: list[asyncio.StreamWriter] = []
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            await reader.read()
        except ConnectionResetError:
            ended.set()

    await house.open(house.app("db", await house.upstream(handler)), listeners=RAW)
    client = await house.client()
    await house.settle(lambda: bool(writers))
    victim = client.writer if who == "client" else writers[0]
    victim.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")  # SOL_SOCKET, SO_LINGER: a RST
    victim.transport.abort()
    if who == "client":
        await asyncio.wait_for(ended.wait(), 5)
    else:
        assert await client.rest() == b""
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.balanced()


async def test_a_refused_dial_tries_the_next_instance(house: House, unused_tcp_port: int) -> None:
    await house.open(house.app("db", unused_tcp_port, await house.upstream(echo)), listeners=RAW)
    for _ in range(8):
        client = await house.client()
        await client.send(b"x")
        assert await client.exactly(1) == b"x"
    assert house.metric("fly_edge_error_count") == 0


@pytest.mark.parametrize(
    ("port", "code"),
    [
        (lambda house, unused: unused, "PC01"),
        (lambda house, unused: house.full_queue(), "PC05"),
    ],
)
async def test_an_instance_that_cannot_be_reached_is_a_reset_with_a_code(
    house: House, unused_tcp_port: int, port: Callable[[House, int], int], code: str
) -> None:
    app = house.app("db", port(house, unused_tcp_port))
    await house.open(app, listeners=RAW, timeouts=Timeouts(connect_s=0.1))
    await house.turned_away()
    await house.settle(lambda: house.metric("fly_edge_error_count", app="db", code=code) == 1)
    assert house.metric("fly_edge_tcp_disconnects_count", app="db") == 1
    assert house.balanced()


async def test_an_app_without_instances_is_a_reset_with_a_code(house: House) -> None:
    await house.open(house.app("db"), listeners=RAW)
    await house.turned_away()
    assert house.metric("fly_edge_error_count", app="db", code="PR01") == 1


async def test_a_half_closed_connection_is_not_kept_for_ever(house: House) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        await asyncio.Event().wait()

    await house.open(house.app("db", await house.upstream(deaf)), listeners=RAW, timeouts=Timeouts(idle_s=0.1))
    client = await house.client()
    client.half_close()
    assert await client.rest() == b""
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.metric("flyproxy_limit_reached_total", limit="idle_timeout") == 1


async def test_one_connection_too_many_is_reset_and_counted(house: House) -> None:
    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW, limits=Limits(connections=1))
    first = await house.client()
    await first.send(b"x")
    await first.exactly(1)
    await house.turned_away()
    assert house.metric("flyproxy_limit_reached_total", limit="connections") == 1
    assert house.metric("fly_edge_error_count", app="db", code="PL01") == 1


async def test_the_drain_waits_and_then_cuts_off(house: House) -> None:
    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW)
    client = await house.client()
    await client.send(b"x")
    await client.exactly(1)
    await house.drain(0.05)
    assert await client.rest() == b""
    assert house.metric("fly_edge_error_count", app="db", code="PL02") == 1
    assert house.metric("fly_app_concurrency") == 0


async def test_a_new_generation_leads_the_door_elsewhere_and_keeps_open_connections(house: House) -> None:
    async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"other")
        writer.close()

    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW)
    client = await house.client()
    await client.send(b"x")
    await client.exactly(1)
    edge = replace(house.edge, apps=(house.app("db", await house.upstream(other)),))
    await house.server.commit(edge, [None])
    assert await (await house.client()).exactly(5) == b"other"
    await client.send(b"y")
    assert await client.exactly(1) == b"y"


async def test_a_reset_that_comes_with_the_last_bytes_ends_the_connection(house: House) -> None:
    """uvloop tells of a reset once; if there were bytes to read just then, nobody is told again."""

    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    loop = asyncio.get_running_loop()

    async def last_words(number: int) -> None:
        for _ in range(number):
            sock, _ = await loop.sock_accept(server)
            sock.setblocking(False)
            await loop.sock_recv(sock, 2)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.send(b"last")
            sock.close()

    await house.open(house.app("db", server.getsockname()[1]), listeners=RAW)
    talking = asyncio.ensure_future(last_words(10))
    for _ in range(10):
        client = await house.client()
        await client.send(b"go")
        assert await client.rest() in (b"last", b"")
    await talking
    server.close()
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.balanced()
