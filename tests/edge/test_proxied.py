"""Doors that want a PROXY header, and instances that get one: byte for byte, on both loops."""

import asyncio
import json
import os
import random
import struct
from dataclasses import replace
from typing import Any

import pytest

from flyproxy.config.resolved import Limits, Listener, Timeouts
from flyproxy.edge.proxy_protocol import HEADER_BYTES_MAX, Addresses, encode

House = Any
HTTP = (Listener("127.0.0.1", 0, True, "ord", None, proxy_proto=True),)
RAW = (Listener("127.0.0.1", 0, False, "ord", "db", proxy_proto=True),)
TRUSTED = ("10.0.0.0/8", "127.0.0.0/8")
WHO = Addresses("192.0.2.1", 56324, "198.51.100.1", 443)
TEXT, BINARY = encode(1, WHO), encode(2, WHO)
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"
GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write(b"bye")
    writer.close()


def lines(house: House) -> list[Any]:
    house.server._worker.log.flush()
    return [json.loads(line) for written in house.lines for line in written.splitlines()]


async def gone(house: House) -> None:
    """Nobody is connected any more, and nothing is held for anybody."""
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.balanced()
    assert house.metric("fly_edge_tcp_connects_count") == house.metric("fly_edge_tcp_disconnects_count")


# in, HTTP


@pytest.mark.parametrize("header", [TEXT, BINARY], ids=["v1", "v2"])
async def test_the_client_is_whom_the_header_names(house: House, header: bytes) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=TRUSTED)
    client = await house.client()
    await client.send(header + GET)
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 200 ")
    await client.ask(GET)
    for request in upstream.requests:
        assert b"\r\nFly-Client-IP: 192.0.2.1\r\n" in request
        assert b"\r\nX-Forwarded-For: 192.0.2.1\r\n" in request
        assert b"127.0.0.1" not in request
    assert [line["client"] for line in lines(house)] == ["192.0.2.1", "192.0.2.1"]
    # the header is the envelope, not the client's bytes
    assert house.metric("fly_edge_data_in", app="hello") == 2 * len(GET)
    assert house.metric("fly_edge_data_in", app="_unmatched") == 0
    assert house.metric("fly_edge_tcp_connects_count", app="hello") == 1
    await client.close()
    await gone(house)


@pytest.mark.parametrize("header", [TEXT, BINARY], ids=["v1", "v2"])
async def test_a_header_may_be_split_at_any_byte(house: House, header: bytes) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=TRUSTED)
    whole = header + GET
    for size in range(1, len(whole)):
        client = await house.client()
        await client.send(whole[:size])
        await asyncio.sleep(0)
        await client.send(whole[size:])
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 200 "), size
        client.abort()
    client = await house.client()
    for size in range(len(whole)):
        await client.send(whole[size : size + 1])
        await asyncio.sleep(0)
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert all(b"\r\nFly-Client-IP: 192.0.2.1\r\n" in request for request in upstream.requests)
    assert len(upstream.requests) == len(whole)
    client.abort()
    await gone(house)


@pytest.mark.parametrize("header", [LOCAL, b"PROXY UNKNOWN\r\n", LOCAL[:12] + b"\x21\0\0\0"])
async def test_a_peer_may_speak_for_itself(house: House, header: bytes) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=TRUSTED)
    client = await house.client()
    head, _ = await client.ask(header + GET)
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nFly-Client-IP: 127.0.0.1\r\n" in upstream.requests[0]


async def test_a_client_known_by_ipv6(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=TRUSTED)
    await (await house.client()).ask(b"PROXY TCP6 2001:DB8:0::1 ::1 1 2\r\n" + GET)
    assert b"\r\nFly-Client-IP: 2001:db8::1\r\n" in upstream.requests[0]


async def test_pipelined_requests_and_bodies_come_along_with_the_header(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=TRUSTED)
    client = await house.client()
    await client.send(BINARY + GET * 3)
    for _ in range(3):
        head, _ = await client.answer()
        assert head.startswith(b"HTTP/1.1 200 ")
    assert len(upstream.requests) == 3


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (GET, "does not begin with a PROXY header"),
        (b"PROXY TCP4 192.0.2.1 198.51.100.1 0443 443\r\n" + GET, "a port that is none"),
        (b"PROXY UNKNOWN" + b"x" * 200, "at most 107 bytes"),
        (LOCAL[:12] + b"\x21\x11\xff\xff", "4096 bytes"),
        (LOCAL[:12] + b"\x21\x12\0\x0c", "datagram"),
    ],
)
async def test_what_is_no_header_is_a_coded_400_and_the_end(house: House, sent: bytes, reason: str) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=TRUSTED)
    client = await house.client()
    head, body = await client.ask(sent)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nFlyproxy-Error: PP13\r\n" in head
    assert b"\r\nConnection: close\r\n" in head
    assert reason in json.loads(body)["error"]["reason"]
    assert await client.rest() == b""
    await client.close()
    await gone(house)
    assert upstream.connections == 0
    assert house.counted("_unmatched") == {"400": 1}
    assert house.metric("fly_edge_error_count", app="_unmatched", code="PP13") == 1
    assert house.metric("fly_edge_data_in", app="_unmatched") == len(sent)
    assert house.metric("fly_edge_data_out", app="_unmatched") == client.received
    too_long = "at most" in reason or "4096" in reason
    assert house.metric("flyproxy_limit_reached_total", limit="proxy_header_bytes") == int(too_long)
    (line,) = lines(house)
    assert (line["client"], line["fault"], line["status"]) == ("127.0.0.1", "PP13", 400)


async def test_a_second_header_is_no_request(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()), listeners=HTTP, trusted_proxies=TRUSTED)
    head, _ = await (await house.client()).ask(TEXT + TEXT + GET)
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"\r\nFlyproxy-Error: PP01\r\n" in head


@pytest.mark.parametrize("trusted", [(), ("10.0.0.0/8", "::1/128", "127.0.0.2/32")])
async def test_a_stranger_is_refused_before_a_byte_is_read(house: House, trusted: tuple[str, ...]) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=trusted)
    client = await house.client()
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 403 ")
    assert b"\r\nFlyproxy-Error: PP14\r\n" in head
    await client.send(TEXT + GET)
    assert await client.rest() == b""
    await client.close()
    await gone(house)
    assert upstream.connections == 0
    assert house.counted("_unmatched") == {"403": 1}
    assert house.metric("fly_edge_error_count", app="_unmatched", code="PP14") == 1


@pytest.mark.parametrize("sent", [b"", TEXT[:20], BINARY[:13]])
async def test_a_header_that_does_not_come_is_not_waited_for(house: House, sent: bytes) -> None:
    timeouts = Timeouts(head_s=0.05)
    app = house.app("hello", await house.upstream())
    await house.open(app, listeners=HTTP, trusted_proxies=TRUSTED, timeouts=timeouts)
    client = await house.client()
    head, _ = await client.ask(sent)
    assert head.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nFlyproxy-Error: PP03\r\n" in head
    assert await client.rest() == b""
    await client.close()
    await gone(house)
    assert house.metric("flyproxy_limit_reached_total", limit="head_timeout") == 1
    assert house.counted("_unmatched") == {"408": 1}


async def test_a_header_broken_off_is_counted_and_a_look_at_the_door_is_not(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()), listeners=HTTP, trusted_proxies=TRUSTED)
    looking = await house.client()
    await house.settle(lambda: house.server.statistics()["clients"] == 1)
    looking.half_close()
    assert await looking.rest() == b""
    await looking.close()
    await gone(house)
    assert house.metric("fly_edge_tcp_connects_count", app="_unmatched") == 1
    assert house.counted("_unmatched") == {}
    client = await house.client()
    await client.send(TEXT[:30])
    client.half_close()
    head, _ = await client.answer()
    assert b"\r\nFlyproxy-Error: PP13\r\n" in head
    assert await client.rest() == b""
    await client.close()
    await gone(house)
    assert house.metric("fly_edge_error_count", code="PP13") == 1
    assert house.metric("fly_edge_data_in", app="_unmatched") == 30


async def test_a_reset_within_the_header_leaves_nothing_behind(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()), listeners=HTTP, trusted_proxies=TRUSTED)
    client = await house.client()
    await client.send(BINARY[:14])
    await house.settle(lambda: any(one._buffer for one in house.server._worker.clients))
    sock = client.writer.get_extra_info("socket")
    sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER
    client.abort()
    await gone(house)


async def test_one_connection_too_many_is_told_so(house: House) -> None:
    await house.open(
        house.app("hello", await house.upstream()),
        listeners=HTTP,
        trusted_proxies=TRUSTED,
        limits=Limits(connections=1),
    )
    first, second = await house.client(), None
    await house.settle(lambda: house.server.statistics()["clients"] == 1)
    second = await house.client()
    head, _ = await second.answer()
    assert b"\r\nFlyproxy-Error: PL01\r\n" in head
    head, _ = await first.ask(TEXT + GET)
    assert head.startswith(b"HTTP/1.1 200 ")


async def test_a_drain_waits_for_a_header_begun_and_not_for_one_to_begin(house: House) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream), listeners=HTTP, trusted_proxies=TRUSTED)
    idle, begun = await house.client(), await house.client()
    await begun.send(TEXT[:10])
    await house.settle(lambda: any(one._buffer for one in house.server._worker.clients))
    await house.settle(lambda: house.server.statistics()["clients"] == 2)
    draining = asyncio.create_task(house.drain(20.0))
    assert await idle.rest() == b""
    await begun.send(TEXT[10:] + GET)
    head, _ = await begun.answer()
    assert head.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nConnection: close\r\n" in head
    await draining
    assert upstream.connections == 1


async def test_a_drain_cuts_off_who_never_finishes_its_header(house: House) -> None:
    await house.open(
        house.app("hello", await house.upstream()),
        house.app("db", await house.upstream(echo)),
        listeners=HTTP + RAW,
        trusted_proxies=TRUSTED,
    )
    clients = [await house.client(0), await house.client(1)]
    for client in clients:
        await client.send(TEXT[:10])
    await house.settle(lambda: sum(bool(one._buffer) for one in house.server._worker.clients) == 2)
    await house.drain(0.05)
    for client in clients:
        assert await client.rest() == b""
    assert house.server.statistics()["clients"] == 0


async def test_a_websocket_through_a_door_with_headers(house: House) -> None:
    async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        await echo(reader, writer)

    await house.open(house.app("hello", await house.upstream(tunnel)), listeners=HTTP, trusted_proxies=TRUSTED)
    client = await house.client()
    await client.send(BINARY + b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
    assert (await client.head()).startswith(b"HTTP/1.1 101 ")
    await client.send(b"hello")
    assert await client.exactly(5) == b"hello"
    client.half_close()
    assert await client.rest() == b"bye"
    await client.close()
    await gone(house)


# in, raw TCP


@pytest.mark.parametrize("header", [TEXT, BINARY], ids=["v1", "v2"])
async def test_a_raw_door_reads_the_header_and_not_a_byte_more(house: House, header: bytes) -> None:
    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW, trusted_proxies=TRUSTED)
    whole = header + b"hello"
    for size in range(1, len(whole)):
        client = await house.client()
        await client.send(whole[:size])
        await asyncio.sleep(0)
        await client.send(whole[size:])
        assert await client.exactly(5) == b"hello", size
        client.half_close()
        assert await client.rest() == b"bye"
        await client.close()
    await gone(house)
    assert house.metric("fly_edge_data_in", app="db") == 5 * (len(whole) - 1)
    assert {line["client"] for line in lines(house)} == {"192.0.2.1"}


async def test_a_megabyte_right_behind_a_raw_header(house: House) -> None:
    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW, trusted_proxies=TRUSTED)
    client = await house.client()
    block = bytes(range(256)) * 4096
    await asyncio.gather(client.send(TEXT + block), client.exactly(len(block)))
    client.half_close()
    assert await client.rest() == b"bye"
    await client.close()
    await gone(house)
    assert house.metric("fly_edge_data_in", app="db") == len(block)


@pytest.mark.parametrize("sent", [b"hello", TEXT.replace(b"56324", b"x"), LOCAL[:12] + b"\x21\x11\xff\xff"])
async def test_a_raw_door_resets_what_is_no_header(house: House, sent: bytes) -> None:
    upstream = await house.upstream(echo)
    await house.open(house.app("db", upstream), listeners=RAW, trusted_proxies=TRUSTED)
    client = await house.client()
    await client.send(sent)
    assert await client.rest() == b""
    await gone(house)
    assert upstream.connections == 0
    assert house.metric("fly_edge_error_count", app="db", code="PP13") == 1
    (line,) = lines(house)
    assert (line["client"], line["fault"], line["method"]) == ("127.0.0.1", "PP13", "TCP")


async def test_a_raw_door_resets_strangers(house: House) -> None:
    upstream = await house.upstream(echo)
    await house.open(house.app("db", upstream), listeners=RAW, trusted_proxies=("10.0.0.0/8",))
    await house.turned_away()
    await gone(house)
    assert upstream.connections == 0
    assert house.metric("fly_edge_error_count", app="db", code="PP14") == 1


@pytest.mark.parametrize("sent", [b"", TEXT[:20]])
async def test_a_raw_door_does_not_wait_for_a_header(house: House, sent: bytes) -> None:
    app = house.app("db", await house.upstream(echo))
    await house.open(app, listeners=RAW, trusted_proxies=TRUSTED, timeouts=Timeouts(head_s=0.05))
    client = await house.client()
    await client.send(sent)
    assert await client.rest() == b""
    await gone(house)
    assert house.metric("flyproxy_limit_reached_total", limit="head_timeout") == 1
    assert house.metric("fly_edge_error_count", app="db", code="PP03") == 1


async def test_a_raw_header_broken_off_is_counted_and_a_look_at_the_door_is_not(house: House) -> None:
    upstream = await house.upstream(echo)
    await house.open(house.app("db", upstream), listeners=RAW, trusted_proxies=TRUSTED)
    for sent, faults in ((b"", 0), (BINARY[:20], 1)):
        client = await house.client()
        await client.send(sent)
        client.half_close()
        assert await client.rest() == b""
        await client.close()
        await gone(house)
        assert house.metric("fly_edge_error_count", app="db", code="PP13") == faults
    assert house.metric("fly_edge_tcp_connects_count", app="db") == 2
    assert upstream.connections == 0


async def test_the_longest_header_passes_a_raw_door(house: House) -> None:
    field = HEADER_BYTES_MAX - len(BINARY) - 3
    header = bytearray(BINARY + b"\xe0" + field.to_bytes(2, "big") + bytes(field))
    header[14:16] = (HEADER_BYTES_MAX - 16).to_bytes(2, "big")
    await house.open(house.app("db", await house.upstream(echo)), listeners=RAW, trusted_proxies=TRUSTED)
    client = await house.client()
    await client.send(bytes(header) + b"hello")
    assert await client.exactly(5) == b"hello"


# out


def introduced(requests: list[bytes]) -> list[tuple[bytes, bytes]]:
    """(header, request) of what a scripted instance got, a connection each."""
    found = []
    for raw in requests:
        size = len(raw) - len(raw[raw.index(b"GET ") :])
        found.append((raw[:size], raw[size:]))
    return found


async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, got: list[bytes]) -> None:
    """Answers as if it would stay."""
    got.append(await reader.readuntil(b"X-Request-Start") + await reader.readuntil(b"\r\n\r\n"))
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    await reader.read()
    writer.close()


@pytest.mark.parametrize("version", [1, 2])
async def test_each_request_has_a_connection_that_begins_with_its_client(house: House, version: int) -> None:
    got: list[bytes] = []
    upstream = await house.upstream(lambda reader, writer: once(reader, writer, got))
    app = replace(house.app("hello", upstream), send_proxy=version)
    await house.open(app)
    ports = []
    for _ in range(2):
        client = await house.client()
        ports.append(client.writer.get_extra_info("sockname")[1])
        for _ in range(2):
            head, _ = await client.ask(GET)
            assert head.startswith(b"HTTP/1.1 200 ")
    expected = [
        encode(version, Addresses("127.0.0.1", port, "127.0.0.1", house.ports[0])) for port in ports for _ in range(2)
    ]
    assert [header for header, _ in introduced(got)] == expected
    assert upstream.connections == 4
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)
    assert house.server.statistics()["upstream_connections_idle"] == 0
    assert house.metric("flyproxy_limit_reached_total", limit="idle_connections") == 0
    # as on the way in, the header is no byte of the message
    assert house.metric("fly_instance_net_recv_bytes") == sum(len(request) for _, request in introduced(got))


async def test_a_client_known_from_a_header_is_passed_on(house: House) -> None:
    got: list[bytes] = []
    upstream = await house.upstream(lambda reader, writer: once(reader, writer, got))
    app = replace(house.app("hello", upstream), send_proxy=2)
    await house.open(app, listeners=HTTP, trusted_proxies=TRUSTED)
    await (await house.client()).ask(TEXT + GET)
    assert introduced(got)[0][0] == BINARY
    local = await house.client()
    await local.ask(LOCAL + GET)
    port = local.writer.get_extra_info("sockname")[1]
    assert introduced(got)[1][0] == encode(2, Addresses("127.0.0.1", port, "127.0.0.1", house.ports[0]))


async def test_a_refused_dial_tries_another_and_introduces_itself_there(house: House) -> None:
    got: list[bytes] = []
    upstream = await house.upstream(lambda reader, writer: once(reader, writer, got))
    nobody = await house.upstream()
    await nobody.stop()
    app = replace(house.app("hello", nobody, upstream), send_proxy=1)
    await house.open(app)
    for _ in range(8):
        head, _ = await (await house.client()).ask(GET)
        assert head.startswith(b"HTTP/1.1 200 ")
    assert all(header.startswith(b"PROXY TCP4 127.0.0.1 127.0.0.1 ") for header, _ in introduced(got))


@pytest.mark.parametrize("header", [b"", TEXT], ids=["its own", "a header's"])
@pytest.mark.parametrize("version", [1, 2])
async def test_a_raw_door_says_whose_connection_it_is(house: House, version: int, header: bytes) -> None:
    (door,) = RAW
    door = replace(door, proxy_proto=bool(header), send_proxy=version)
    await house.open(house.app("db", await house.upstream(echo)), listeners=(door,), trusted_proxies=TRUSTED)
    client = await house.client()
    own = Addresses("127.0.0.1", client.writer.get_extra_info("sockname")[1], "127.0.0.1", house.ports[0])
    expected = encode(version, WHO if header else own) + b"hello"
    await client.send(header + b"hello")
    assert await client.exactly(len(expected)) == expected
    client.half_close()
    assert await client.rest() == b"bye"
    await client.close()
    await gone(house)
    assert house.metric("fly_edge_data_in", app="db") == house.metric("fly_instance_net_recv_bytes") == 5


@pytest.mark.parametrize(("door", "app", "sent"), [(None, 1, True), (0, 1, False), (None, 0, False), (1, 0, True)])
async def test_a_raw_door_does_as_its_app_unless_it_says_otherwise(
    house: House, door: int | None, app: int, sent: bool
) -> None:
    (listener,) = RAW
    listener = replace(listener, proxy_proto=False, send_proxy=door)
    behind = replace(house.app("db", await house.upstream(echo)), send_proxy=app)
    await house.open(behind, listeners=(listener,))
    client = await house.client()
    await client.send(b"hello")
    assert await client.exactly(5) == (b"PROXY" if sent else b"hello")


async def test_a_reload_that_asks_for_headers_shares_no_connection_with_before(house: House) -> None:
    got: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            got.append(await reader.readuntil(b"\r\nHost") + await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    app = house.app("hello", await house.upstream(answer))
    await house.open(app)
    client = await house.client()
    await client.ask(GET)
    assert house.server.statistics()["upstream_connections_idle"] == 1
    await house.server.commit(replace(house.edge, apps=(replace(app, send_proxy=1),)), [None])
    await client.ask(GET)
    assert [raw.startswith(b"PROXY ") for raw in got] == [False, True]
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)


@pytest.mark.parametrize("door", [HTTP, RAW], ids=["http", "raw"])
async def test_connections_that_end_anywhere_leave_nothing_behind(house: House, door: tuple[Listener, ...]) -> None:
    """Aborted, closed or half closed within the header, at its end, and behind it."""
    app = house.app("hello", await house.upstream(echo), hostnames=("hello.test",))
    await house.open(app, listeners=(replace(door[0], app="hello" if door is RAW else None),), trusted_proxies=TRUSTED)
    await (await house.client()).close()
    await gone(house)
    before = len(os.listdir("/proc/self/fd"))
    chance = random.Random(7)
    for _ in range(20):
        clients = [await house.client() for _ in range(20)]
        for client in clients:
            whole = chance.choice((TEXT, BINARY, LOCAL)) + GET
            await client.send(whole[: chance.randrange(len(whole) + 1)])
        for client in clients:
            chance.choice((client.abort, client.writer.close, client.half_close))()
        for client in clients:
            client.abort()
    house.clients.clear()
    await gone(house)
    await house.settle(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert house.server.statistics()["upstream_connections"] == 0
