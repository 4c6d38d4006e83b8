"""New generations and the drain: nothing is lost that could go on."""

import asyncio
import socket
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.clock import SystemClock
from flyproxy.config.resolved import Listener, Timeouts
from flyproxy.edge.router import RoutingError
from flyproxy.edge.server import EdgeServer
from flyproxy.errors import NotReadyError

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
House = Any


class Gate:
    """An instance that answers when it is let."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            self.asked.set()
            await self.go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def bound() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


async def test_a_new_generation_changes_the_routes_and_keeps_what_is_under_way(house: House) -> None:
    gate = Gate()
    old, new = await house.upstream(gate.serve), await house.says(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nnew")
    await house.open(house.app("hello", old))
    busy, idle = await house.client(), await house.client()
    await busy.send(GET)
    await gate.asked.wait()
    edge = replace(house.edge, apps=(house.app("hello", new),))
    await house.server.prepare(edge)
    await house.server.commit(edge, [None])
    assert (await idle.ask(GET))[1] == b"new"
    gate.go.set()
    assert (await busy.answer())[1] == b"ok"
    assert (await busy.ask(GET))[1] == b"new"
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 1)  # the old one's was let go
    assert house.counted() == {"200": 3}


async def test_pools_and_counters_of_unchanged_instances_are_kept(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.ask(GET)
    for _ in range(3):
        other = house.app("other", await house.upstream())
        edge = replace(house.edge, apps=(house.app("hello", upstream), other))
        await house.server.commit(edge, [None])
        await client.ask(GET)
    assert upstream.connections == 1
    assert house.counted() == {"200": 4}
    assert house.metric("fly_edge_tcp_connects_count", app="hello") == 1


async def test_a_generation_that_cannot_be_is_refused_and_changes_nothing(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()))
    good = house.edge.apps
    raw = Listener("127.0.0.1", 1, False, "ord", "nobody")
    for wrong, sentence in (
        ({"apps": good + good}, "given twice"),
        ({"default_app": "nobody"}, "not among the apps"),
        ({"listeners": (raw,)}, "leads to no app"),
        ({"apps": (*good, replace(good[0], name="other"))}, "given twice"),
    ):
        with pytest.raises(RoutingError, match=sentence):
            await house.server.prepare(replace(house.edge, **wrong))
    assert (await (await house.client()).ask(GET))[1] == b"ok"


async def test_doors_open_and_close_with_their_generation(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()))
    client = await house.client()
    await client.ask(GET)
    second = Listener("127.0.0.1", 0, True, "fra", None)
    sock = bound()
    port = sock.getsockname()[1]
    await house.server.commit(replace(house.edge, listeners=(house.edge.listeners[0], second)), [None, sock])
    house.ports.append(port)
    head, _ = await (await house.client(1)).ask(GET)
    assert head.partition(b"Fly-Request-Id: ")[2].partition(b"\r\n")[0].endswith(b"-fra")
    assert house.metric("fly_edge_http_responses_count", region="fra", status="200") == 1
    await house.server.commit(replace(house.edge, listeners=(second,)), [None])
    with pytest.raises(ConnectionRefusedError):
        await house.client(0)
    head, _ = await client.ask(GET)  # through the door that is gone: served, and told to leave
    assert b"Connection: close\r\n" in head
    assert house.server.statistics()["doors"] == 1


async def test_a_second_socket_for_an_open_door_is_closed(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()))
    spare = bound()
    await house.server.commit(house.edge, [spare])
    assert spare.fileno() == -1
    assert (await (await house.client()).ask(GET))[1] == b"ok"


async def test_a_new_door_without_a_socket_is_refused(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()))
    second = Listener("127.0.0.1", 0, True, "fra", None)
    with pytest.raises(NotReadyError, match="no socket"):
        await house.server.commit(replace(house.edge, listeners=(*house.edge.listeners, second)), [None, None])


async def test_counters_stand_at_zero_before_the_doors_open(house: House) -> None:
    server = EdgeServer(house.recorder, SystemClock(), house.lines.append)
    await server.prepare(house.configure(house.app("hello", 1)))
    house.recorder.fold()
    from flyproxy.instrument.snapshot import Snapshot

    names = {
        (sample.name, dict(sample.labels).get("app"))
        for family in Snapshot(str(house.run_dir), interval_ms=5000).families()
        for sample in family.samples
    }
    assert ("fly_edge_http_responses_count", "hello") in names
    assert ("fly_app_concurrency", "hello") in names
    assert ("fly_edge_http_responses_count", "_unmatched") in names
    with pytest.raises(NotReadyError):
        server.statistics()


async def test_the_drain_finishes_what_is_under_way_and_says_close(house: House) -> None:
    gate = Gate()
    await house.open(house.app("hello", await house.upstream(gate.serve)))
    busy, idle = await house.client(), await house.client()
    await busy.send(GET)
    await gate.asked.wait()
    await idle.send(b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n")
    await idle.answer()
    draining = asyncio.ensure_future(house.drain(10))
    await house.settle(lambda: house.server._worker.draining)
    with pytest.raises(ConnectionRefusedError):
        await house.client()
    assert await idle.rest() == b""
    assert not draining.done()
    gate.go.set()
    head, body = await busy.answer()
    assert body == b"ok"
    assert b"Connection: close\r\n" in head
    await asyncio.wait_for(draining, 5)
    assert house.server.statistics()["clients"] == 0
    assert house.server.statistics()["upstream_connections"] == 0
    assert house.counted() == {"200": 1}


async def test_when_the_drains_patience_ends_the_rest_is_told_so(house: House) -> None:
    gate = Gate()
    await house.open(house.app("hello", await house.upstream(gate.serve)))
    client = await house.client()
    await client.send(GET)
    await gate.asked.wait()
    await house.drain(0.05)
    head, _ = await client.answer()
    assert b"Flyproxy-Error: PL02\r\n" in head
    assert await client.rest() == b""
    assert house.counted() == {"503": 1}
    assert house.metric("flyproxy_limit_reached_total", limit="drain_timeout") == 1
    assert house.metric("fly_edge_tcp_disconnects_count", app="hello") == 1


async def test_idle_upstream_connections_are_closed_after_a_while(house: House, monkeypatch: Any) -> None:
    await house.open(house.app("hello", await house.upstream()))
    await (await house.client()).ask(GET)
    (instance,) = house.server._generation.instances.values()
    instance.tidy(house.server._worker.monotonic_ns() + 5 * 10**9)
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)
    assert house.metric("fly_app_tcp_disconnects_count") == 1


async def test_new_bounds_hold_for_what_begins_after_them(house: House) -> None:
    gate = Gate()
    await house.open(house.app("hello", await house.upstream(gate.serve)))
    await house.server.commit(replace(house.edge, timeouts=Timeouts(response_s=0.05)), [None])
    head, _ = await (await house.client()).ask(GET)
    assert b" 504 " in head


async def test_the_books_balance_after_everything(house: House) -> None:
    """Answers, bytes, connections: what clients saw is what was counted, by status, to the byte."""

    async def by_path(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0] or 0)
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 %b Status\r\nContent-Length: 3\r\n\r\nabc" % head.split(b" ")[1][1:])

    await house.open(house.app("hello", await house.upstream(by_path), await house.upstream(by_path)))
    statuses = [200, 201, 302, 404, 500, 503]
    clients: list[Any] = []
    for number in range(60):
        client = await house.client() if number % 4 == 0 else clients[-1]
        clients.append(client)
        status = statuses[number % 6]
        body = b"x" * (number * 11)
        method = b"POST" if number % 3 else b"GET"
        length = b"Content-Length: %d\r\n" % len(body) if method == b"POST" else b""
        head, _ = await client.ask(
            b"%b /%d HTTP/1.1\r\nHost: hello.test\r\n%b\r\n%b" % (method, status, length, body if length else b"")
        )
        assert head.startswith(b"HTTP/1.1 %d " % status)
    distinct = set(clients)
    assert house.counted() == {str(status): 10 for status in statuses}
    assert house.metric("fly_edge_data_in") == sum(client.sent for client in distinct)
    assert house.metric("fly_edge_data_out") == sum(client.received for client in distinct)
    assert house.metric("fly_edge_http_response_time_seconds_count", app="hello") == 60
    assert house.metric("fly_app_http_response_time_seconds_count", app="hello") == 60
    assert house.metric("fly_edge_tcp_connects_count", app="hello") == len(distinct) == 15
    for client in distinct:
        await client.close()
    await house.settle(lambda: house.metric("fly_edge_tcp_disconnects_count", app="hello") == 15)
    assert house.balanced()
