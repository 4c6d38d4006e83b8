"""What is long or large goes through whole and on time, and costs no memory: WebSockets, streams of events, bodies of
64 MiB, raw TCP, and the answers that have no body."""

import asyncio
import contextlib
import hashlib
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from socket import create_connection
from typing import Any

import aiohttp
import pytest
from aiohttp import web

LARGE_BYTES = 64 << 20
RAW_BYTES = 32 << 20
BLOCK = random.Random(2).randbytes(256 << 10)
GROWTH_BYTES_MAX = 40 << 20
STEP_S = 20.0
"""A bound against hanging, not a measure."""
DRAIN_S = 2
HOST = {"Host": "hello.localhost"}


class Site:
    """The app: one aiohttp server that echoes, streams, takes and gives."""

    def __init__(self) -> None:
        self.port = 0
        self.go_on = asyncio.Event()
        self.given = 0
        self.stuck = asyncio.Event()

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/socket", self.socket),
                web.get("/events", self.events),
                web.put("/take", self.take),
                web.get("/give", self.give),
                web.get("/empty/{status}", self.empty),
            ]
        )
        return application

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=2 << 20)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY:
                await socket.send_bytes(message.data)
            else:
                await socket.send_str(message.data)
        return socket

    async def events(self, request: web.Request) -> web.StreamResponse:
        """The second event is sent only when the client has said that it read the first."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number in range(3):
            await response.write(b"data: %d\n\n" % number)
            await self.go_on.wait()
            self.go_on.clear()
        return response

    async def take(self, request: web.Request) -> web.Response:
        digest = hashlib.sha256()
        async for data in request.content.iter_chunked(1 << 18):
            digest.update(data)
        return web.Response(text=digest.hexdigest())

    async def give(self, request: web.Request) -> web.StreamResponse:
        """LARGE_BYTES, as fast as they are taken; `stuck` when nobody took any for a while."""
        response = web.StreamResponse()
        if "counted" in request.query:
            response.content_length = LARGE_BYTES
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        for _ in range(LARGE_BYTES // len(BLOCK)):
            writing = asyncio.ensure_future(response.write(BLOCK))
            done, _ = await asyncio.wait([writing], timeout=0.5)
            if not done:
                self.stuck.set()
            await writing
            self.given += len(BLOCK)
        return response

    async def empty(self, request: web.Request) -> web.Response:
        status = int(request.match_info["status"])
        return web.Response(status=status, headers={"ETag": '"a"'}, body=b"b" * 1000 if status == 200 else None)


class Relay:
    """Stands before a door and counts every byte that passes."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._tasks: set[asyncio.Task[None]] = set()
        self.sent = self.received = 0

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *fault: object) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._behind)

        async def up() -> None:
            while data := await reader.read(65536):
                self.sent += len(data)
                back.write(data)
                await back.drain()
            back.write_eof()

        async def down() -> None:
            while data := await there.read(65536):
                self.received += len(data)
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        async def both() -> None:
            with contextlib.suppress(OSError):
                await asyncio.gather(up(), down())
            for end in (writer, back):
                end.close()

        task = asyncio.create_task(both())
        self._tasks.add(task)
        await task


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    runner = web.AppRunner(site.application(), shutdown_timeout=0.1)
    await runner.setup()
    listening = web.TCPSite(runner, "127.0.0.1", 0)
    await listening.start()
    site.port = runner.addresses[0][1]
    yield site
    await runner.cleanup()


@pytest.fixture
async def visitor() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(headers=HOST, timeout=aiohttp.ClientTimeout(total=STEP_S)) as session:
        yield session


def configuration(toolbox: dict[str, Any], app_port: int) -> dict[str, Any]:
    return {
        "edge": {"workers": 2, "region": "ord"},
        "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"}],
        "apps": [
            {"name": "hello", "hostnames": ["hello.localhost"], "instances": [{"address": f"127.0.0.1:{app_port}"}]}
        ],
        "timeouts": {"drain": f"{DRAIN_S}s"},
    }


@pytest.fixture
async def door(toolbox: dict[str, Any], start_front_door: Any, site: Site) -> Any:
    return await asyncio.to_thread(start_front_door, configuration(toolbox, site.port))


async def sums(toolbox: dict[str, Any], door: Any, wanted: Mapping[str, float], **where: str) -> None:
    """Wait until /metrics shows these sums."""

    def found() -> dict[str, float]:
        return {name: sum(door.exposed_sum(name, **where).values()) for name in wanted}

    try:
        await asyncio.to_thread(toolbox["eventually"], lambda: found() == wanted, 5.0)
    except AssertionError:
        assert await asyncio.to_thread(found) == wanted


def url(door: Any, path: str, scheme: str = "http") -> str:
    return f"{scheme}://127.0.0.1:{door.doors['ord']}{path}"


async def test_a_thousand_websocket_messages_come_back_and_every_byte_is_counted(
    toolbox: dict[str, Any], door: Any, visitor: aiohttp.ClientSession
) -> None:
    dice = random.Random(3)
    sizes = [dice.choice((0, 1, 125, 126, 4000, 65535, 65536)) for _ in range(995)] + [1 << 20] * 5
    dice.shuffle(sizes)
    async with (
        Relay(door.doors["ord"]) as relay,
        visitor.ws_connect(f"ws://127.0.0.1:{relay.port}/socket", max_msg_size=2 << 20) as socket,
    ):

        async def send() -> None:
            for number, size in enumerate(sizes):
                if number % 2:
                    await socket.send_bytes(BLOCK[: size % len(BLOCK)] + bytes(size - size % len(BLOCK)))
                else:
                    await socket.send_str("ö" * (size // 2))

        sending = asyncio.create_task(send())
        for number, size in enumerate(sizes):
            if number % 2:
                got = await socket.receive_bytes(timeout=STEP_S)
                assert got == BLOCK[: size % len(BLOCK)] + bytes(size - size % len(BLOCK))
            else:
                assert await socket.receive_str(timeout=STEP_S) == "ö" * (size // 2)
        await sending
        # An upgrade is answered when its head is: it counts while it is open.
        await sums(toolbox, door, {"fly_edge_http_responses_count": 1}, app="hello", status="101")
        await sums(toolbox, door, {"fly_app_concurrency": 1})
    assert socket.close_code == 1000
    counted = {
        "fly_edge_data_in": relay.sent,
        "fly_edge_data_out": relay.received,
        "fly_edge_http_responses_count": 1,
        "fly_edge_http_response_time_seconds_count": 1,
        "fly_edge_tcp_connects_count": 1,
        "fly_edge_tcp_disconnects_count": 1,
        "fly_app_concurrency": 0,
    }
    await sums(toolbox, door, counted, app="hello")
    assert relay.sent > sum(sizes)
    slow = await asyncio.to_thread(door.exposed_sum, "fly_edge_http_response_time_seconds_bucket", le="5", status="101")
    assert sum(slow.values()) == 1, "the time until its head, not until its end"


async def test_a_drain_lets_a_websocket_speak_on_and_closes_it_at_the_end(
    toolbox: dict[str, Any], door: Any, visitor: aiohttp.ClientSession
) -> None:
    address = "127.0.0.1", door.doors["ord"]
    async with visitor.ws_connect(url(door, "/socket", "ws"), autoclose=False) as socket:
        await socket.send_str("before")
        assert await socket.receive_str() == "before"
        door.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            with contextlib.suppress(ConnectionRefusedError), create_connection(address, STEP_S):
                return False
            return True

        await asyncio.to_thread(toolbox["eventually"], refused, 5.0, "no new connection is taken")
        await socket.send_str("in the drain")
        assert await socket.receive_str() == "in the drain"
        # Nobody says goodbye for the app: the connection is closed.
        ended = await socket.receive(timeout=DRAIN_S + 5)
        assert ended.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    assert await asyncio.to_thread(door.process.wait, 10) == 0


async def test_events_stream_through_one_by_one(
    toolbox: dict[str, Any], door: Any, site: Site, visitor: aiohttp.ClientSession
) -> None:
    async with visitor.get(url(door, "/events")) as response:
        assert response.content_type == "text/event-stream"
        for number in range(3):
            assert await response.content.readuntil(b"\n\n") == b"data: %d\n\n" % number
            if not number:
                await sums(toolbox, door, {"fly_edge_http_responses_count": 1}, app="hello")
            site.go_on.set()
        assert await response.content.read() == b""
    await sums(toolbox, door, {"fly_edge_http_responses_count": 1, "fly_app_concurrency": 0}, app="hello")


def resident_bytes(door: Any, field: str) -> dict[int, int]:
    """One line of each edge worker's /proc status: VmRSS (now) or VmHWM (the most there ever was)."""
    found = {}
    for pid in door.children("edge_worker"):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith(field + ":")]
        found[pid] = int(line.split()[1]) * 1024
    return found


async def payload() -> AsyncIterator[bytes]:
    for _ in range(LARGE_BYTES // len(BLOCK)):
        yield BLOCK


def payload_digest() -> str:
    digest = hashlib.sha256()
    for _ in range(LARGE_BYTES // len(BLOCK)):
        digest.update(BLOCK)
    return digest.hexdigest()


async def upload(door: Any, session: aiohttp.ClientSession, framing: str) -> str:
    headers = {"Content-Length": str(LARGE_BYTES)} if framing == "counted" else {}
    async with session.put(url(door, "/take"), data=payload(), headers=headers) as response:
        assert response.status == 200
        return await response.text()


async def download(door: Any, session: aiohttp.ClientSession, framing: str) -> str:
    digest = hashlib.sha256()
    async with session.get(url(door, f"/give?{framing}=1")) as response:
        assert (response.content_length is None) == (framing == "chunked")
        async for data in response.content.iter_chunked(1 << 18):
            digest.update(data)
    return digest.hexdigest()


Way = Callable[[Any, aiohttp.ClientSession, str], Awaitable[str]]


async def test_large_bodies_pass_unchanged_in_little_memory(
    toolbox: dict[str, Any], door: Any, visitor: aiohttp.ClientSession
) -> None:
    before = resident_bytes(door, "VmRSS")
    wanted = payload_digest()
    ways: list[Way] = [upload, download]
    for way in ways:
        for framing in ("counted", "chunked"):
            assert await way(door, visitor, framing) == wanted, (way, framing)
    most = resident_bytes(door, "VmHWM")
    growth = {pid: most[pid] - before[pid] for pid in before}
    assert max(growth.values()) < GROWTH_BYTES_MAX, growth
    await sums(toolbox, door, {"fly_edge_http_responses_count": 4}, app="hello", status="200")
    moved = await asyncio.to_thread(door.exposed_sum, "fly_edge_data_in")
    assert 2 * LARGE_BYTES < sum(moved.values()) < 2 * LARGE_BYTES * 1.01


async def test_a_reader_that_waits_makes_the_app_wait(door: Any, site: Site, visitor: aiohttp.ClientSession) -> None:
    """What the app could give before it had to wait is what the kernel's buffers hold, and a bounded rest of ours."""
    before = resident_bytes(door, "VmRSS")
    digest = hashlib.sha256()
    async with visitor.get(url(door, "/give?counted=1")) as response:
        await asyncio.wait_for(site.stuck.wait(), STEP_S)
        assert site.given < LARGE_BYTES / 2
        async for data in response.content.iter_chunked(1 << 18):
            digest.update(data)
    assert digest.hexdigest() == payload_digest()
    most = resident_bytes(door, "VmHWM")
    growth = {pid: most[pid] - before[pid] for pid in before}
    assert max(growth.values()) < GROWTH_BYTES_MAX, growth


class Conversation:
    """One connection to the door, by hand."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, method: str, path: str, *lines: str) -> tuple[int, dict[str, str]]:
        self.writer.write("\r\n".join([f"{method} {path} HTTP/1.1", "Host: hello.localhost", *lines, "", ""]).encode())
        return await self.head()

    async def head(self) -> tuple[int, dict[str, str]]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), STEP_S)
        first, *lines = head[:-4].decode().split("\r\n")
        return int(first.split()[1]), {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }


@pytest.fixture
async def conversation(door: Any) -> AsyncIterator[Conversation]:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.doors["ord"])
    yield Conversation(reader, writer)
    writer.close()
    await writer.wait_closed()


async def test_answers_without_a_body_keep_the_connection(
    toolbox: dict[str, Any], door: Any, conversation: Conversation
) -> None:
    """One connection carries them all: a byte too many or too few would spoil the next."""
    for _ in range(3):
        status, headers = await conversation.ask("HEAD", "/empty/200")
        assert (status, headers["content-length"], headers["etag"]) == (200, "1000", '"a"')
        status, headers = await conversation.ask("GET", "/empty/204")
        assert (status, "content-length" in headers, "transfer-encoding" in headers) == (204, False, False)
        status, headers = await conversation.ask("GET", "/empty/304", 'If-None-Match: "a"')
        assert (status, headers["etag"]) == (304, '"a"')
        status, headers = await conversation.ask("GET", "/empty/200")
        assert (status, headers["content-length"]) == (200, "1000")
        assert await conversation.reader.readexactly(1000) == b"b" * 1000
    await sums(toolbox, door, {"fly_edge_http_responses_count": 12, "fly_edge_tcp_connects_count": 1}, app="hello")


async def test_a_client_that_waits_for_100_gets_it_before_it_sends(
    toolbox: dict[str, Any], door: Any, conversation: Conversation
) -> None:
    status, _ = await conversation.ask("PUT", "/take", "Content-Length: 5", "Expect: 100-continue")
    assert status == 100
    conversation.writer.write(b"hello")
    status, headers = await conversation.head()
    assert (status, headers["content-length"]) == (200, "64")
    assert await conversation.reader.readexactly(64) == hashlib.sha256(b"hello").hexdigest().encode()
    await sums(toolbox, door, {"fly_edge_http_responses_count": 1}, app="hello", status="200")
    await sums(toolbox, door, {"fly_edge_http_responses_count": 1}, app="hello")


async def test_a_raw_door_echoes_32_mib_and_each_half_closes_by_itself(
    toolbox: dict[str, Any], start_front_door: Any
) -> None:
    """The app's last word comes after the client's end: half an end is passed on as half an end."""
    heard = hashlib.sha256()

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 18):
            heard.update(data)
            writer.write(data)
            await writer.drain()
        writer.write(b"goodbye")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    config = configuration(toolbox, port)
    config["listeners"].append(
        {"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "fra", "handlers": [], "app": "db"}
    )
    config["apps"].append({"name": "db", "instances": [{"address": f"127.0.0.1:{port}"}]})
    door = await asyncio.to_thread(start_front_door, config)
    before = resident_bytes(door, "VmRSS")
    reader, writer = await asyncio.open_connection("127.0.0.1", door.doors["fra"])
    sent, got, size = hashlib.sha256(), hashlib.sha256(), 0

    async def send() -> None:
        for _ in range(RAW_BYTES // len(BLOCK)):
            sent.update(BLOCK)
            writer.write(BLOCK)
            await writer.drain()
        writer.write_eof()

    async with asyncio.timeout(STEP_S):
        sending = asyncio.create_task(send())
        while size < RAW_BYTES:
            data = await reader.read(min(1 << 18, RAW_BYTES - size))
            assert data, f"closed after {size} bytes"
            got.update(data)
            size += len(data)
        await sending
        assert await reader.read() == b"goodbye"
    writer.close()
    await writer.wait_closed()
    assert got.hexdigest() == sent.hexdigest() == heard.hexdigest()
    counted = {
        "fly_edge_data_in": RAW_BYTES,
        "fly_edge_data_out": RAW_BYTES + len("goodbye"),
        "fly_instance_net_recv_bytes": RAW_BYTES,
        "fly_instance_net_sent_bytes": RAW_BYTES + len("goodbye"),
        "fly_edge_tcp_connects_count": 1,
        "fly_edge_tcp_disconnects_count": 1,
        "fly_app_tcp_connects_count": 1,
        "fly_app_tcp_disconnects_count": 1,
        "fly_app_concurrency": 0,
        "fly_edge_http_responses_count": 0,
    }
    await sums(toolbox, door, counted, app="db")
    most = resident_bytes(door, "VmHWM")
    assert max(most[pid] - before[pid] for pid in before) < GROWTH_BYTES_MAX
    server.close()
