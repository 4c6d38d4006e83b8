"""Every kind of traffic HTTP/1.1 has, a scenario each, beside those with files of their own (half-closes, tunnels)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from flyproxy.config.resolved import Timeouts

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
House = Any
Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


def post(*lines: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"POST / HTTP/" + version + b"\r\nHost: hello.test\r\n" + b"".join(lines) + b"\r\n" + body


def length(size: int) -> bytes:
    return b"Content-Length: %d\r\n" % size


async def body_of(reader: Reader, head: bytes) -> bytes:
    """The request's body as it came: counted, or chunked with its trailers."""
    if CHUNKED in head:
        body = await reader.readuntil(b"0\r\n")
        while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
            body += line
        return body + b"\r\n"
    _, found, rest = head.partition(b"Content-Length: ")
    return await reader.readexactly(int(rest.partition(b"\r\n")[0]) if found else 0)


class Echo:
    """An instance that writes down each request, and answers with its body."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []

    async def serve(self, reader: Reader, writer: Writer) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await body_of(reader, head)
            self.heads.append(head)
            self.bodies.append(body)
            writer.write(b"HTTP/1.1 200 OK\r\n" + length(len(body)) + b"\r\n" + body)
            await writer.drain()


@pytest.fixture
def echo() -> Echo:
    return Echo()


# pipelining


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (post(length(5), body=b"hello"), b"hello"),
        (post(CHUNKED, body=b"5\r\nhello\r\n0\r\n\r\n"), b"5\r\nhello\r\n0\r\n\r\n"),
        (post(length(0)), b""),
    ],
    ids=["counted", "chunked", "empty"],
)
async def test_what_is_pipelined_after_a_post_is_the_next_request(
    house: House, echo: Echo, first: bytes, body: bytes
) -> None:
    await house.open(house.app("hello", await house.upstream(echo.serve)))
    whole = first + GET + first + GET
    for cut in range(1, len(whole), 11):
        client = await house.client()
        await client.send(whole[:cut])
        await client.send(whole[cut:])
        assert [(await client.answer())[1] for _ in range(4)] == [body, b"", body, b""]
        await client.close()
    assert {head.split()[0] for head in echo.heads} == {b"GET", b"POST"}


async def test_what_is_pipelined_after_a_refused_request_is_not_answered(house: House, echo: Echo) -> None:
    await house.open(house.app("hello", await house.upstream(echo.serve)))
    client = await house.client()
    await client.send(GET + b"GET /bad path HTTP/1.1\r\nHost: hello.test\r\n\r\n" + GET)
    assert b" 200 " in (await client.answer())[0]
    assert b" 400 " in (await client.answer())[0]
    assert await client.rest() == b""
    assert len(echo.heads) == 1


# trailers


async def test_trailers_pass_both_ways(house: House, echo: Echo) -> None:
    said = b"5\r\nhello\r\n0\r\nX-Checksum: abc\r\nX-Other: d\r\n\r\n"

    async def answers(reader: Reader, writer: Writer) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            echo.heads.append(head)
            echo.bodies.append(await body_of(reader, head))
            writer.write(b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\n" + CHUNKED + b"\r\n" + said)

    await house.open(house.app("hello", await house.upstream(answers)))
    client = await house.client()
    for _ in range(2):
        await client.send(post(CHUNKED, b"TE: trailers\r\nTrailer: X-Checksum\r\n", body=said))
        assert b"\r\nTrailer: X-Checksum\r\n" in await client.head()
        assert await client.exactly(len(said)) == said
    assert echo.bodies == [said, said]
    assert b"\r\nConnection: TE\r\nTE: trailers\r\n" in echo.heads[0]
    old = await house.client()
    await old.send(b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n")
    assert (await old.rest()).endswith(b"\r\n\r\nhello"), "who knows no chunks gets no trailers"


# 100-continue


async def test_who_waits_for_100_may_get_a_final_answer_instead(house: House) -> None:
    """Then nobody knows whether the body will still come, so the connection ends (RFC 9110 10.1.1)."""
    upstream = await house.says(OK)
    await house.open(house.app("hello", upstream))
    for _ in range(2):
        client = await house.client()
        await client.send(post(length(4), b"Expect: 100-continue\r\n"))
        head, body = await client.answer()
        assert (head.split()[1], body) == (b"200", b"ok")
        assert b"Connection: close\r\n" in head
        assert await client.rest() == b""
    assert upstream.connections == 2, "its request was never whole"


async def test_who_does_not_wait_any_longer_is_served_by_an_app_that_never_says_100(house: House, echo: Echo) -> None:
    await house.open(house.app("hello", await house.upstream(echo.serve)))
    client = await house.client()
    for _ in range(2):
        await client.send(post(length(4), b"Expect: 100-continue\r\n"))
        await house.settle(lambda: house.metric("fly_app_concurrency") == 1)
        await client.send(b"body")
        assert (await client.answer())[1] == b"body"
    assert b"\r\nExpect: 100-continue\r\n" in echo.heads[0]


async def test_a_100_that_comes_after_the_body_still_reaches_the_client(house: House) -> None:
    async def late(reader: Reader, writer: Writer) -> None:
        while True:
            await body_of(reader, await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)

    await house.open(house.app("hello", await house.upstream(late)))
    client = await house.client()
    for _ in range(2):
        await client.send(post(length(4), b"Expect: 100-continue\r\n", body=b"body"))
        assert await client.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await client.answer())[1] == b"ok"


async def test_an_http_1_0_client_is_never_told_to_continue(house: House) -> None:
    async def says_100(reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"Expect" in head:
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await body_of(reader, head)
        writer.write(OK)

    await house.open(house.app("hello", await house.upstream(says_100)))
    client = await house.client()
    await client.send(post(length(4), b"Expect: 100-continue\r\n", body=b"body", version=b"1.0"))
    assert (await client.rest()).startswith(b"HTTP/1.1 200 ")


# early answers


@pytest.mark.parametrize("framing", [length(40 << 20), CHUNKED], ids=["counted", "chunked"])
@pytest.mark.parametrize("then", ["close", "read on"])
async def test_an_answer_before_the_end_of_the_upload_reaches_the_client(
    house: House, then: str, framing: bytes
) -> None:
    """Whether the app closes, with a reset since it has not read all, or reads on."""

    async def hasty(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await reader.read(1000)
        writer.write(b"HTTP/1.1 413 Too much\r\nContent-Length: 3\r\n" + CLOSE[then] + b"\r\nno!")
        await writer.drain()
        if then == "close":
            writer.close()
        else:
            while await reader.read(1 << 16):
                pass

    await house.open(house.app("hello", await house.upstream(hasty)))
    for _ in range(5):
        client = await house.client()
        sending = asyncio.ensure_future(flood(client, post(framing)))
        head, body = await client.answer()
        assert (head.split()[1], body) == (b"413", b"no!")
        assert b"Connection: close\r\n" in head
        await client.rest()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        client.abort()
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.counted() == {"413": 5}
    assert house.server.statistics()["upstream_connections_idle"] == 0


CLOSE = {"close": b"Connection: close\r\n", "read on": b""}


async def flood(client: Any, head: bytes) -> None:
    await client.send(head)
    for _ in range(1000):
        await client.send(b"8000\r\n" + bytes(0x8000) + b"\r\n")


# events


async def test_each_event_arrives_before_the_next_is_sent(house: House) -> None:
    heard: asyncio.Queue[int] = asyncio.Queue()

    async def events(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-cache\r\n\r\n")
        for number in range(50):
            writer.write(b"data: %d\n\n" % number)
            assert await heard.get() == number
        writer.close()

    await house.open(house.app("hello", await house.upstream(events)))
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: hello.test\r\nAccept: text/event-stream\r\n\r\n")
    await client.head()
    for number in range(50):
        assert await client.until(b"\n\n") == b"data: %d\n\n" % number
        heard.put_nowait(number)
    assert await client.rest() == b""
    assert house.counted() == {"200": 1}
    await house.settle(house.balanced)


# forms of the target, and methods


@pytest.mark.parametrize(
    ("request_line", "forwarded", "host"),
    [
        (b"GET http://hello.test/a?b=c HTTP/1.1", b"GET /a?b=c HTTP/1.1", b"hello.test"),
        (b"GET http://hello.test HTTP/1.1", b"GET / HTTP/1.1", b"hello.test"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1", b"hello.test"),
        (b"OPTIONS http://hello.test HTTP/1.1", b"OPTIONS * HTTP/1.1", b"hello.test"),
        (b"OPTIONS http://hello.test/ HTTP/1.1", b"OPTIONS / HTTP/1.1", b"hello.test"),
        (b"PURGE /a HTTP/1.1", b"PURGE /a HTTP/1.1", b"hello.test"),
        (b"HEAD /a HTTP/1.1", b"HEAD /a HTTP/1.1", b"hello.test"),
    ],
)
async def test_every_form_of_a_target_goes_on_as_apps_expect_it(
    house: House, request_line: bytes, forwarded: bytes, host: bytes
) -> None:
    upstream = await house.says(b"HTTP/1.1 204 No Content\r\n\r\n")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for _ in range(2):
        await client.send(request_line + b"\r\nHost: " + host + b"\r\n\r\n")
        assert b" 204 " in await client.head()
    for head in upstream.requests:
        assert head.startswith(forwarded + b"\r\n")
        assert head.count(b"\r\nHost: " + host + b"\r\n") == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"CONNECT hello.test:443 HTTP/1.1\r\nHost: hello.test:443\r\n\r\n", 501),
        (b"TRACE / HTTP/1.1\r\nHost: hello.test\r\n\r\n", 501),
        (b"GET * HTTP/1.1\r\nHost: hello.test\r\n\r\n", 400),
        (b"GET http://other.test/ HTTP/1.1\r\nHost: hello.test\r\n\r\n", 400),
    ],
)
async def test_what_is_no_request_to_an_app_is_refused_and_seen_by_none(
    house: House, request_bytes: bytes, status: int
) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(request_bytes)
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Flyproxy-Error: " in head
    assert await client.rest() == b""
    assert upstream.connections == 0


# HTTP/1.0


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize(
    ("answer", "body", "stays"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\nold body", b"old body", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold", b"old", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nold", b"old", True),
        (b"HTTP/1.0 204 No Content\r\n\r\n", b"", False),
    ],
    ids=["until-close", "counted", "keep-alive", "no-body"],
)
async def test_an_http_1_0_app_is_understood_and_kept_only_if_it_says_so(
    house: House, answer: bytes, body: bytes, stays: bool, version: bytes
) -> None:
    upstream = await house.says(answer, then="stay" if stays else "close")
    await house.open(house.app("hello", upstream))
    for _ in range(2):
        client = await house.client()
        await client.send(b"GET / HTTP/%b\r\nHost: hello.test\r\nConnection: close\r\n\r\n" % version)
        head, _, rest = (await client.rest()).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 20")
        assert b"Transfer-Encoding" not in head
        assert rest == body
    assert upstream.connections == (1 if stays else 2)
    assert upstream.requests[0].startswith(b"GET / HTTP/1.1\r\n")


@pytest.mark.parametrize("said", [b"", b"Connection: keep-alive\r\n"], ids=["not-said", "keep-alive"])
async def test_an_http_1_0_client_stays_only_if_it_says_so(house: House, echo: Echo, said: bytes) -> None:
    await house.open(house.app("hello", await house.upstream(echo.serve)))
    client = await house.client()
    head, body = await client.ask(post(length(5), said, body=b"hello", version=b"1.0"))
    assert body == b"hello"
    assert (b"Connection: keep-alive\r\n" in head) == bool(said)
    if said:
        assert (await client.ask(post(length(5), said, body=b"again", version=b"1.0")))[1] == b"again"
    else:
        assert await client.rest() == b""


# WebSockets, by a real client and a real server


async def websocket_app(house: House, handler: Callable[[ServerConnection], Any]) -> Any:
    """A `websockets` server behind a front door, and the address of the door."""
    server = await serve(handler, "127.0.0.1", 0)
    port = next(iter(server.sockets)).getsockname()[1]
    await house.open(house.app("hello", port), timeouts=Timeouts(idle_s=0.5, head_s=0.5, response_s=0.5))
    return server, f"ws://hello.test:{house.ports[0]}/chat"


async def test_a_websocket_counts_as_load_with_its_bytes_while_it_is_open(house: House) -> None:
    async def chat(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    server, address = await websocket_app(house, chat)
    noise = bytes(range(256)) * 1024
    async with connect(address, host="127.0.0.1", port=house.ports[0], compression=None) as socket:
        for message in ("hello", noise, "", b"", "ö" * 1000):
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.wait_for(await socket.ping(), 5)
        assert house.metric("fly_app_concurrency") == 1
        assert house.counted() == {"101": 1}
        await house.settle(lambda: house.metric("fly_edge_data_in") > len(noise))  # reported while it is open
        await house.settle(lambda: house.metric("fly_edge_data_out") > len(noise))
    assert socket.close_code == 1000
    await house.settle(house.balanced)
    assert house.metric("fly_app_concurrency") == 0
    assert house.counted() == {"101": 1}
    server.close()
    await server.wait_closed()


async def test_websocket_messages_may_come_at_any_time_from_both_sides_compressed(house: House) -> None:
    """Longer than `timeouts.idle`, `head` and `response`: none of them is a tunnel's."""

    async def talks(socket: ServerConnection) -> None:
        for number in range(100):
            await socket.send(f"news {number} " * 50)
        async for message in socket:
            if message == "go":
                await socket.close(4000, "enough")

    server, address = await websocket_app(house, talks)
    async with connect(address, host="127.0.0.1", port=house.ports[0]) as socket:
        for number in range(100):
            assert await socket.recv() == f"news {number} " * 50
            await socket.send(b"heard")
        worker = house.server._worker
        later_ns = worker.monotonic_ns() + 10**12
        for connection in (*worker.clients, *worker.upstreams):
            assert connection.deadline_ns > later_ns
        await socket.send("go")
        with pytest.raises(ConnectionClosedError):
            await socket.recv()
        assert (socket.close_code, socket.close_reason) == (4000, "enough")
    await house.settle(house.balanced)
    server.close()
    await server.wait_closed()


async def test_a_websocket_that_an_app_refuses_is_an_answer(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    await house.open(house.app("hello", upstream))
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://hello.test:{house.ports[0]}/", host="127.0.0.1", port=house.ports[0])
    assert refused.value.response.status_code == 403
    assert house.counted() == {"403": 1}
