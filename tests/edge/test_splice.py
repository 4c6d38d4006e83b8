"""Large bodies past Python: exact bytes at every size, the same faults and books as for small ones, nothing left."""

import asyncio
import contextlib
import os
import random
import re
from typing import Any

import pytest

from flyproxy.config.resolved import Limits, Timeouts
from flyproxy.edge.splice import SPLICE_BYTES_MIN

House = Any
Client = Any
GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MIB = 1 << 20
BATCHES, BATCH = 25, 20
"""Connections that are aborted at random points: 500."""
SIZES = (1, SPLICE_BYTES_MIN - 1, SPLICE_BYTES_MIN, SPLICE_BYTES_MIN + 1, SPLICE_BYTES_MIN + 2, 3 * MIB + 7)


def pattern(size: int, salt: int = 0) -> bytes:
    """Bytes that say where they belong."""
    return random.Random(size * 31 + salt).randbytes(size)


def head(size: int, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n" % (size, more)


def post(size: int, more: bytes = b"") -> bytes:
    return b"POST /up HTTP/1.1\r\nHost: hello.test\r\nContent-Length: %d\r\n%b\r\n" % (size, more)


def spliced(house: House) -> int:
    return int(house.server.statistics()["splices"])


def quiet(house: House) -> bool:
    """Nothing of a splice is left: no descriptor watched, no pipe with bytes in it, no splice counted."""
    statistics = house.server.statistics()
    return bool(
        house.balanced()
        and statistics["pipes"] == statistics["splices"] == 0
        and len(house.server._worker.readiness) == 0
    )


async def answers(house: House, *parts: bytes, apart: bool = False, then: str = "stay") -> Any:
    """An instance that answers each request with these parts; `apart`: each one taken before the next is sent."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                if apart:
                    await asyncio.sleep(0)
            if then == "close":
                writer.close()
                return
            if then == "reset":
                writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
                writer.transport.abort()
                return

    return await house.upstream(handler)


async def until_reset(client: Client) -> bytes:
    """What comes before the RST: an end that nobody can take for the whole."""
    parts = [b""]
    try:
        while data := await asyncio.wait_for(client.reader.read(1 << 16), 5):
            parts.append(data)
    except ConnectionResetError:
        return b"".join(parts)
    pytest.fail("closed as if that were all")


class Uploads:
    """An instance that reads each request's body, keeps it, and answers."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.partial = b""
        self.taken = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"(?i)content-length: (\d+)", request)
            length = int(found[1]) if found else 0
            left, parts = length, list[bytes]()
            while left:
                await self.go.wait()
                part = await reader.read(min(left, 1 << 16))
                if not part:
                    self.partial = b"".join(parts)
                    return
                self.taken += len(part)
                parts.append(part)
                left -= len(part)
            self.bodies.append(b"".join(parts))
            writer.write(SMALL)


# answers


@pytest.mark.parametrize("together", [True, False], ids=["with the head", "after the head"])
async def test_an_answer_of_any_size_is_the_same_bytes_and_both_connections_go_on(house: House, together: bool) -> None:
    bodies = [pattern(size) for size in SIZES]
    waiting = list(bodies)

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            body = waiting.pop(0)
            if together:
                writer.write(head(len(body)) + body)
            else:
                writer.write(head(len(body)))
                await asyncio.sleep(0.01)
                writer.write(body)
            await writer.drain()

    upstream = await house.upstream(handler)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for body in bodies:
        assert (await client.ask(GET))[1] == body
    assert upstream.connections == 1
    await house.settle(lambda: quiet(house))
    assert house.counted() == {"200": len(bodies)}
    assert house.metric("fly_edge_data_out", app="hello") == client.received
    assert house.metric("fly_edge_data_in", app="hello") == client.sent
    assert house.metric("fly_instance_net_sent_bytes") == sum(len(head(size)) + size for size in SIZES)


async def test_a_large_answer_is_spliced_and_a_chunked_one_is_not(house: House) -> None:
    body = pattern(4 * MIB)
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    first, go = [head(len(body)) + body[:MIB], chunked[:MIB]], asyncio.Event()
    rest = [body[MIB:], chunked[MIB:]]

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(first.pop(0))
            await go.wait()
            go.clear()
            writer.write(rest.pop(0))

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(GET)
    await client.head()
    assert await client.exactly(MIB - len(head(len(body))) - 200_000)
    await house.settle(lambda: spliced(house) == 1)
    go.set()
    assert (await client.exactly(len(body) - MIB + len(head(len(body))) + 200_000)).endswith(body[MIB:])
    await client.send(GET)
    assert b"chunked" in await client.head()
    await client.exactly(MIB // 2)
    assert spliced(house) == 0
    go.set()
    assert (await client.until(b"\r\n0\r\n\r\n"))[:-7].endswith(body[MIB:])
    await house.settle(lambda: quiet(house))


async def test_an_answer_without_its_body_is_not_waited_for(house: House) -> None:
    await house.open(house.app("hello", await house.says(head(5 * MIB))))
    client = await house.client()
    for _ in range(2):
        await client.send(GET.replace(b"GET", b"HEAD"))
        assert b"5242880" in await client.head()
    await client.close()
    unchanged = house.app("hello", await house.says(head(5 * MIB).replace(b"200 OK", b"304 Not Modified")))
    await house.server.commit(house.configure(unchanged), [None])
    client = await house.client()
    for _ in range(2):
        await client.send(GET)
        assert b"304" in await client.head()
    assert quiet(house)


async def test_a_slow_reader_holds_the_instance_and_gets_every_byte(house: House) -> None:
    body = pattern(32 * MIB)
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(len(body)))
        for at in range(0, len(body), 1 << 16):
            writer.write(body[at : at + (1 << 16)])
            await writer.drain()
            sent = at

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    client.writer.transport.pause_reading()
    await client.send(GET)
    await house.settle(lambda: house.server.statistics()["stalled"] == 1)
    assert sent < 24 * MIB
    assert house.server.statistics()["pipes"] <= 1
    client.writer.transport.resume_reading()
    assert (await client.answer())[1] == body
    await house.settle(lambda: quiet(house))
    assert house.metric("fly_edge_data_out", app="hello") == client.received


async def test_a_reader_that_takes_nothing_is_cut_off(house: House) -> None:
    upstream = await answers(house, head(64 * MIB), bytes(64 * MIB))
    await house.open(house.app("hello", upstream), timeouts=Timeouts(write_s=0.1))
    client = await house.client()
    client.writer.transport.pause_reading()
    await client.send(GET)
    await house.settle(lambda: house.metric("fly_edge_error_count", code="PP10") == 1)
    await house.settle(lambda: quiet(house) and house.server.statistics()["clients"] == 0)


async def test_an_instance_that_falls_silent_is_cut_off_and_one_that_drips_is_not(house: House) -> None:
    body = pattern(SPLICE_BYTES_MIN + 12)
    silent = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(len(body)) + body[:3])
        for at in range(3, 12):
            await asyncio.sleep(0.1)
            writer.write(body[at : at + 1])
        if silent.is_set():
            await asyncio.sleep(60)
        writer.write(body[12:])
        writer.close()

    await house.open(house.app("hello", await house.upstream(handler)), timeouts=Timeouts(response_s=0.75))
    client = await house.client()
    assert (await client.ask(GET))[1] == body
    silent.set()
    await client.send(GET)
    await client.head()
    assert await client.rest() == body[:12]
    assert house.metric("flyproxy_limit_reached_total", limit="response_timeout") == 1
    await house.settle(lambda: quiet(house))


@pytest.mark.parametrize("then", ["close", "reset"])
@pytest.mark.parametrize("sent", [10, SPLICE_BYTES_MIN, 2 * MIB, 3 * MIB - 1])
async def test_a_truncated_answer_is_a_broken_one(house: House, then: str, sent: int) -> None:
    body = pattern(3 * MIB)
    upstream = await answers(house, head(len(body)), body[:sent], then=then)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(GET)
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        await client.head()
    got = await until_reset(client)
    assert body.startswith(got)
    assert len(got) <= sent
    await house.settle(lambda: quiet(house) and house.server.statistics()["upstream_connections"] == 0)
    assert house.metric("fly_edge_error_count", code="PC04") == 1


async def test_bytes_after_the_answer_break_it_off_and_are_nobodys(house: House) -> None:
    body, surplus = pattern(2 * MIB), b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"
    upstream = await answers(house, head(len(body)) + body + surplus)
    await house.open(house.app("hello", upstream))
    for number in range(3):
        client = await house.client()
        await client.send(GET)
        await client.head()
        got = await until_reset(client)
        assert body.startswith(got)
        assert len(got) < len(body)
        assert upstream.connections == number + 1
    await house.settle(lambda: quiet(house) and house.server.statistics()["upstream_connections"] == 0)


async def test_the_pipelined_next_request_is_answered_after_a_spliced_answer(house: House) -> None:
    body = pattern(5 * MIB)
    upstream = await answers(house, head(len(body)), body)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(GET * 3)
    for _ in range(3):
        assert (await client.answer())[1] == body
    await house.settle(lambda: quiet(house))
    assert house.counted() == {"200": 3}


async def test_a_client_that_half_closes_gets_its_large_answer(house: House) -> None:
    body = pattern(5 * MIB)
    await house.open(house.app("hello", await answers(house, head(len(body)), body)))
    client = await house.client()
    await client.send(GET)
    client.half_close()
    assert (await client.answer())[1] == body
    assert await client.rest() == b""
    await house.settle(lambda: quiet(house))


async def test_a_drain_waits_for_a_spliced_answer_and_then_cuts_it_off(house: House) -> None:
    body, go = pattern(5 * MIB), asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(len(body)) + body[:MIB])
        await go.wait()
        writer.write(body[MIB:])

    await house.open(house.app("hello", await house.upstream(handler)))
    served, hanging = await house.client(), await house.client()
    await served.send(GET)
    await house.settle(lambda: spliced(house) == 1)
    draining = asyncio.ensure_future(house.drain(5))
    await asyncio.sleep(0)
    go.set()
    assert (await served.answer())[1] == body
    await draining
    assert await hanging.rest() == b""
    assert house.metric("flyproxy_limit_reached_total", limit="drain_timeout") == 0
    assert quiet(house)


# uploads


async def test_an_upload_of_any_size_is_the_same_bytes_and_both_connections_go_on(house: House) -> None:
    uploads = Uploads()
    upstream = await house.upstream(uploads)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for size in SIZES:
        sending = asyncio.ensure_future(client.send(post(size) + pattern(size)))
        assert (await client.answer())[1] == b"ok"
        await sending
    assert uploads.bodies == [pattern(size) for size in SIZES]
    assert upstream.connections == 1
    await house.settle(lambda: quiet(house))
    assert house.metric("fly_edge_data_in", app="hello") == client.sent
    assert house.metric("fly_edge_data_out", app="hello") == client.received


async def test_pipelined_uploads_keep_their_borders(house: House) -> None:
    uploads = Uploads()
    await house.open(house.app("hello", await house.upstream(uploads)))
    client = await house.client()
    bodies = [pattern(size, 7) for size in (2 * MIB, 5, 2 * MIB + 1)]
    stream = b"".join(post(len(body)) + body for body in bodies) + GET
    sending = asyncio.ensure_future(client.send(stream))
    for _ in range(4):
        assert (await client.answer())[1] == b"ok"
    await sending
    assert uploads.bodies == [*bodies, b""]
    await house.settle(lambda: quiet(house))
    assert house.metric("fly_edge_data_in", app="hello") == client.sent


async def test_an_instance_that_reads_slowly_holds_the_client(house: House) -> None:
    uploads = Uploads()
    await house.open(house.app("hello", await house.upstream(uploads)))
    client, body = await house.client(), pattern(64 * MIB)
    uploads.go.clear()
    sending = asyncio.ensure_future(client.send(post(len(body)) + body))
    await house.settle(lambda: house.server.statistics()["stalled"] == 1)
    assert spliced(house) == 1
    assert client.writer.transport.get_write_buffer_size() > 0
    uploads.go.set()
    assert (await client.answer())[1] == b"ok"
    await sending
    assert uploads.bodies == [body]
    await house.settle(lambda: quiet(house))


async def test_an_instance_that_takes_nothing_of_an_upload_is_let_go(house: House) -> None:
    uploads = Uploads()
    uploads.go.clear()
    await house.open(house.app("hello", await house.upstream(uploads)), timeouts=Timeouts(write_s=0.1))
    client = await house.client()
    sending = asyncio.ensure_future(client.send(post(64 * MIB) + bytes(64 * MIB)))
    assert b" 504 " in await client.head()
    client.abort()
    with contextlib.suppress(ConnectionError):
        await sending
    uploads.go.set()
    await house.settle(lambda: quiet(house))


async def test_an_upload_that_stops_coming_is_cut_off(house: House) -> None:
    uploads = Uploads()
    await house.open(house.app("hello", await house.upstream(uploads)), timeouts=Timeouts(body_s=0.3))
    client = await house.client()
    await client.send(post(2 * MIB) + bytes(MIB))
    assert b" 408 " in await client.head()
    await house.settle(lambda: quiet(house))
    assert house.metric("flyproxy_limit_reached_total", limit="body_timeout") == 1
    assert uploads.bodies == []


@pytest.mark.parametrize("how", ["half close", "abort"])
async def test_a_truncated_upload_never_becomes_a_whole_one(house: House, how: str) -> None:
    uploads = Uploads()
    await house.open(house.app("hello", await house.upstream(uploads)))
    client = await house.client()
    await client.send(post(2 * MIB) + bytes(MIB))
    await house.settle(lambda: spliced(house) == 1)
    if how == "half close":
        client.half_close()
    else:
        client.abort()
    await house.settle(lambda: house.counted() == {"499": 1} and quiet(house))
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert uploads.bodies == []


async def test_an_early_answer_ends_an_upload(house: House) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(MIB)
        writer.write(refusal)
        await asyncio.sleep(60)

    upstream = await house.upstream(handler)
    await house.open(house.app("hello", upstream))
    client = await house.client()
    sending = asyncio.ensure_future(client.send(post(64 * MIB) + bytes(64 * MIB)))
    got, body = await client.answer()
    assert b" 413 " in got
    assert body == b"no"
    client.abort()
    with contextlib.suppress(ConnectionError):
        await sending
    await house.settle(lambda: quiet(house) and house.server.statistics()["clients"] == 0)
    assert house.counted() == {"413": 1}


async def test_an_instance_that_answers_and_hangs_up_in_an_upload_is_heard(house: House) -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(refusal)
        writer.close()  # with bytes unread: a RST follows

    await house.open(house.app("hello", await house.upstream(handler)))
    for _ in range(5):
        client = await house.client()
        sending = asyncio.ensure_future(client.send(post(4 * MIB) + bytes(4 * MIB)))
        answer = await client.head()
        assert b" 413 " in answer or b" 502 " in answer
        client.abort()
        with contextlib.suppress(ConnectionError):
            await sending
    await house.settle(lambda: quiet(house) and house.server.statistics()["clients"] == 0)


async def test_a_large_upload_and_a_large_early_answer_pass_each_other(house: House) -> None:
    body = pattern(6 * MIB)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head(len(body)))
            left = len(body)
            while left:
                part = await reader.read(min(left, 1 << 16))
                left -= len(part)
                writer.write(part)
                await writer.drain()

    await house.open(house.app("hello", await house.upstream(echo)))
    client = await house.client()
    sending = asyncio.ensure_future(client.send(post(len(body)) + body))
    assert (await client.answer())[1] == body
    await sending
    await house.settle(lambda: quiet(house))
    assert house.counted() == {"200": 1}
    assert house.metric("fly_edge_data_in", app="hello") == client.sent


# nothing is left over


async def test_without_pipes_or_seats_bodies_are_copied(house: House) -> None:
    body = pattern(4 * MIB)
    await house.open(house.app("hello", await answers(house, head(len(body)), body)))
    pipes = house.server._worker.pipes
    pipes.pipes_max = 0
    client = await house.client()
    assert (await client.ask(GET))[1] == body
    assert house.metric("flyproxy_limit_reached_total", limit="pipes") >= 1
    pipes.splices_max = 0
    assert (await client.ask(GET))[1] == body
    assert house.metric("flyproxy_limit_reached_total", limit="splices") >= 1
    await house.settle(lambda: quiet(house))


async def test_no_byte_of_one_connection_reaches_another_and_descriptors_return(house: House) -> None:
    """Every body is one byte over and over; clients leave at random points, most with bytes of theirs in a pipe."""
    chance = random.Random(4)
    size = 3 * MIB
    foreign: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            request = await reader.readuntil(b"\r\n\r\n")
            mark = request.partition(b" /")[2][:1]
            if request.startswith(b"POST"):
                left = size
                while left:
                    part = await reader.read(min(left, 1 << 16))
                    if not part:
                        return
                    if part.strip(mark):
                        foreign.append(part)
                    left -= len(part)
                writer.write(SMALL)
            else:
                writer.write(head(size) + mark * size)
                if chance.random() < 0.2:
                    writer.close()
                    return

    async def visit(number: int) -> None:
        mark = bytes([65 + number % 26])
        client = await house.client()
        house.clients.remove(client)
        upload = number % 3 == 0
        if upload:
            client.writer.write(post(size).replace(b"/up", b"/" + mark)[: chance.choice((None, 40))])
            client.writer.write(mark * chance.choice((size, size - 1, chance.randrange(size))))
        else:
            client.writer.write(GET.replace(b"/ ", b"/" + mark + b" "))
        wanted = chance.choice((0, 1, 200_000, chance.randrange(size), size - 1))
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            if chance.random() < 0.3:
                client.writer.transport.pause_reading()
                await asyncio.sleep(0.002)
            elif not upload:
                async with asyncio.timeout(0.5):
                    await client.head()
                    while wanted > 0 and (data := await client.reader.read(1 << 16)):
                        wanted -= len(data)
                        if data.strip(mark):
                            foreign.append(data)
                            break
            else:
                async with asyncio.timeout(chance.random() * 0.02):
                    await client.writer.drain()
                    await client.head()
        if chance.random() < 0.5:
            client.writer.get_extra_info("socket").setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
        client.abort()

    await house.open(house.app("hello", await house.upstream(handler)), limits=Limits(connections=500))

    async def batch(first: int, count: int) -> None:
        await asyncio.gather(*(visit(first + number) for number in range(count)))
        house.upstreams[0].hang_up()
        await house.settle(
            lambda: (
                quiet(house)
                and house.server.statistics()["clients"] == house.server.statistics()["upstream_connections"] == 0
            )
        )

    await batch(0, BATCH)
    before = len(os.listdir("/proc/self/fd"))
    pipes_before = house.server.statistics()["pipes_open"]
    for number in range(1, BATCHES + 1):
        await batch(number * BATCH, BATCH)
    assert not foreign

    def descriptors_are_back() -> bool:
        more_pipes: int = house.server.statistics()["pipes_open"] - pipes_before
        return len(os.listdir("/proc/self/fd")) - 2 * more_pipes <= before

    await house.settle(descriptors_are_back)
