"""Who takes bytes is not stalled, who is idle is not late, and nobody holds up the end."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.config.resolved import Limits, Listener, Timeouts
from flyproxy.edge import pipes
from flyproxy.edge.upstream import INTERIM_MAX

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
House = Any
MIB = 1 << 20


async def test_a_reader_slower_than_its_stream_is_not_stalled_while_it_reads(house: House) -> None:
    """What waits for it grows all the same."""
    more = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + bytes(20 * MIB))
        await more.wait()
        writer.write(bytes(20 * MIB))
        await writer.drain()
        await reader.read()

    await house.open(house.app("hello", await house.upstream(handler)), limits=Limits(buffer_bytes=1 << 30))
    client = await house.client()
    client.writer.transport.pause_reading()
    await client.send(GET)
    worker = house.server._worker
    await house.settle(lambda: worker.stalled)
    worker._timer.cancel()  # nobody else looks
    (connection,) = worker.stalled
    await house.settle(lambda: connection.exchange.bytes_out > 20 * MIB)
    worker._look_at_stalled(worker.monotonic_ns())
    unsent = connection.unsent_bytes()
    client.writer.transport.resume_reading()
    await client.exactly(3 * MIB)
    client.writer.transport.pause_reading()
    more.set()
    await house.settle(lambda: connection.unsent_bytes() > unsent)
    worker._look_at_stalled(worker.monotonic_ns() + 2 * worker.write_ns)
    assert connection in worker.stalled
    worker._look_at_stalled(worker.monotonic_ns() + 4 * worker.write_ns)
    assert connection not in worker.stalled
    await house.settle(house.balanced)


async def test_both_directions_of_a_raw_connection_may_stall_at_once(house: House, db_door: Any) -> None:
    async def talks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.set_write_buffer_limits(high=64 * MIB)
        writer.write(bytes(32 * MIB))
        await asyncio.sleep(3600)

    upstream = await house.upstream(talks)
    await house.open(house.app("db", upstream), listeners=db_door)
    client = await house.client()
    client.writer.transport.pause_reading()
    client.writer.transport.set_write_buffer_limits(high=64 * MIB)
    client.writer.write(bytes(32 * MIB))
    worker = house.server._worker
    await house.settle(lambda: len(worker.stalled) == 2)
    now_ns = worker.monotonic_ns()
    worker._look_at_stalled(now_ns)
    worker._look_at_stalled(now_ns + 2 * worker.write_ns)
    await house.settle(house.balanced)
    assert house.metric("fly_edge_error_count", app="db") == 1


@pytest.fixture
def db_door() -> Any:
    return (Listener("127.0.0.1", 0, False, "ord", "db"),)


async def test_a_half_closed_tunnel_keeps_its_deadline_through_a_slow_spell(house: House) -> None:
    done = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        await reader.read()
        writer.write(bytes(16 * MIB))
        await writer.drain()
        done.set()
        await asyncio.sleep(3600)  # and never ends

    await house.open(house.app("hello", await house.upstream(handler)), timeouts=Timeouts(idle_s=0.3))
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    await client.head()
    client.writer.transport.pause_reading()
    client.half_close()
    await house.settle(lambda: house.server.statistics()["stalled"] == 1)
    client.writer.transport.resume_reading()
    assert len(await client.rest()) <= 16 * MIB
    assert done.is_set()
    await house.settle(house.balanced)


async def test_a_keep_alive_answer_that_began_before_the_drain_does_not_hold_it_up(house: House) -> None:
    go = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
        await go.wait()
        writer.write(b"half")

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(GET)
    await client.head()
    draining = asyncio.ensure_future(house.drain(20))
    await house.settle(lambda: house.server._worker.draining)
    go.set()
    assert await client.exactly(8) == b"halfhalf"
    await asyncio.wait_for(draining, 5)
    assert house.metric("flyproxy_limit_reached_total", limit="drain_timeout") == 0


async def test_an_http_1_0_client_is_not_left_waiting_behind_an_answer_of_ours(house: House) -> None:
    """We do not say keep-alive, so it reads to the end of the connection."""
    await house.open(house.app("hello", await house.upstream()))
    client = await house.client()
    await client.send(b"GET / HTTP/1.0\r\nHost: nobody.test\r\nConnection: keep-alive\r\n\r\n")
    assert (await client.rest()).startswith(b"HTTP/1.1 404 ")


async def test_an_empty_line_after_a_body_begins_no_request(house: House) -> None:
    """Some clients send one, and then idle: that is no late head."""
    await house.open(house.app("hello", await house.upstream()), timeouts=Timeouts(head_s=0.01, idle_s=60))
    client = await house.client()
    await client.ask(GET)
    await client.send(b"\r\n")
    await house.settle(lambda: house.metric("fly_edge_data_in") == client.sent)
    (connection,) = house.server._worker.clients
    assert connection.deadline_ns > house.server._worker.monotonic_ns() + 30 * 10**9
    await client.ask(b"\r\n" + GET)
    assert house.counted() == {"200": 2}
    assert house.metric("fly_edge_data_in") == client.sent


async def test_a_region_that_is_gone_as_a_whole_does_not_use_up_all_tries(
    house: House, unused_tcp_port_factory: Any
) -> None:
    near = house.app("hello", *(unused_tcp_port_factory() for _ in range(6)))
    far = house.app("hello", await house.upstream(), region="syd")
    await house.open(replace(near, instances=near.instances + far.instances))
    for _ in range(10):
        assert (await (await house.client()).ask(GET))[0].startswith(b"HTTP/1.1 200 ")
    assert house.counted() == {"200": 10}
    await house.settle(house.balanced)


async def test_the_bound_of_interim_answers_shows_in_the_metrics(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 103 Early\r\n\r\n" * (INTERIM_MAX + 1))
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(GET)
    for _ in range(INTERIM_MAX):
        assert b" 103 " in await client.head()
    assert b" 502 " in (await client.answer())[0]
    assert house.metric("flyproxy_limit_reached_total", limit="interim_answers") == 1


async def test_the_bound_of_idle_connections_shows_in_the_metrics(house: House) -> None:
    both = asyncio.Barrier(2)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await both.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        await reader.read()

    await house.open(house.app("hello", await house.upstream(handler)))
    (instance,) = house.server._generation.instances.values()
    instance.pool.idle_max = 1
    one, other = await house.client(), await house.client()
    await asyncio.gather(one.ask(GET), other.ask(GET))
    assert house.metric("flyproxy_limit_reached_total", limit="idle_connections") == 1
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 1)


async def test_a_raw_connection_without_a_pipe_is_copied_and_counted(
    house: House, db_door: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(MIB):
            writer.write(data)
            await writer.drain()
        writer.close()

    monkeypatch.setattr(pipes, "PIPES_MAX", 0)
    await house.open(house.app("db", await house.upstream(echo)), listeners=db_door)
    client = await house.client()
    sending = asyncio.ensure_future(client.send(bytes(MIB)))
    assert await client.exactly(MIB) == bytes(MIB)
    await sending
    assert house.metric("flyproxy_limit_reached_total", limit="pipes") == 2
