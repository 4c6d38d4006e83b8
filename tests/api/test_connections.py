"""The telemetry address under slow, many and mute strangers."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from flyproxy.api.connections import CONNECTIONS_KEPT, CONNECTIONS_MAX, BoundedConnections

END = b"\r\n\r\n"


class Echo(asyncio.Protocol):
    """A server's protocol: answers each chunk with `answer`, and remembers what it was told."""

    answer = b"ok"

    def __init__(self) -> None:
        self.told: list[str] = []
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(self.answer)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.set()


class Door:
    """A listening socket with bounds."""

    def __init__(self, **bounds: Any) -> None:
        self.protocols: list[Echo] = []
        self.reached: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self.bounds = BoundedConnections(self.protocol, self.reached.append, **bounds)

    def protocol(self) -> Echo:
        self.protocols.append(Echo())
        return self.protocols[-1]

    async def open(self) -> None:
        self.server = await asyncio.get_running_loop().create_server(self.bounds, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers.append(writer)
        return reader, writer

    async def close(self) -> None:
        self.server.close()
        await hang_up(self.writers)
        for protocol in self.protocols:
            await protocol.lost.wait()


async def hang_up(writers: list[asyncio.StreamWriter]) -> None:
    for writer in writers:
        writer.transport.abort()
    for writer in writers:
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
async def make_door() -> AsyncIterator[Any]:
    made: list[Door] = []

    async def make(**bounds: Any) -> Door:
        made.append(Door(**bounds))
        await made[-1].open()
        return made[-1]

    yield make
    for door in made:
        await door.close()


async def test_a_connection_is_the_servers_own(make_door: Any) -> None:
    door = await make_door()
    reader, writer = await door.dial()
    writer.write(b"GET / HTTP/1.1" + END)
    assert await reader.readexactly(2) == b"ok"
    assert door.bounds.statistics() == {"connections": 1}
    writer.close()
    await door.protocols[0].lost.wait()
    assert door.bounds.statistics() == {"connections": 0}
    assert door.protocols[0].told == ["lost"]
    assert door.reached == []


async def test_one_connection_too_many_is_told_so_and_closed(make_door: Any) -> None:
    door = await make_door(connections_max=1)
    reader, writer = await door.dial()
    writer.write(b"x" + END)
    await reader.readexactly(2)
    other, _ = await door.dial()
    answer = await other.read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"too many connections" in answer
    assert door.reached == ["api_connections"]
    writer.write(b"x")
    assert await reader.readexactly(2) == b"ok"


async def test_who_only_holds_connections_open_shuts_out_nobody(make_door: Any) -> None:
    door = await make_door(connections_max=3)
    mute = [await door.dial() for _ in range(2)]
    reader, writer = await door.dial()
    for _ in range(5):
        writer.write(b"GET / HTTP/1.1" + END)
        assert await reader.readexactly(2) == b"ok"
        mute.append(await door.dial())
        first, _ = mute.pop(0)
        assert await first.read() == b""  # the one that was mute for longest; whoever asks keeps its place
    assert door.reached == ["api_connections"] * 5
    assert door.bounds.statistics() == {"connections": 3}


async def test_a_place_is_taken_from_who_asked_longest_ago_and_never_in_the_middle_of_an_answer(make_door: Any) -> None:
    busy: set[asyncio.Protocol] = set()
    door = await make_door(connections_max=2, idle=lambda protocol: protocol not in busy)
    (first, ask_first), (second, ask_second) = [await door.dial() for _ in range(2)]
    for reader, writer in ((second, ask_second), (first, ask_first)):
        writer.write(b"GET / HTTP/1.1" + END)
        await reader.readexactly(2)
    third, _ = await door.dial()
    assert await second.read() == b""
    busy.update(door.protocols)
    door.bounds.head_timeout_s = 60.0
    fourth, _ = await door.dial()
    assert await third.read() == b""  # its head has not ended
    ask_first.write(b"x")
    assert await first.readexactly(2) == b"ok"
    assert not fourth.at_eof()


def test_an_address_makes_room_among_its_own() -> None:
    closed: list[str] = []

    class FromAfar(asyncio.Transport):
        def __init__(self, address: str) -> None:
            super().__init__({"peername": (address, 1)})

        def close(self) -> None:
            closed.append(str(self.get_extra_info("peername")[0]))

    reached: list[str] = []
    bounds = BoundedConnections(asyncio.Protocol, reached.append, address_max=1, idle=lambda protocol: True)
    for address in ("192.0.2.1", "192.0.2.2", "192.0.2.2"):
        connection = bounds()
        connection._transport, connection._inner = FromAfar(address), asyncio.Protocol()  # type: ignore[attr-defined]
        assert bounds.admit(connection, connection._transport)  # type: ignore[arg-type, attr-defined]
    assert closed == ["192.0.2.2"]
    assert reached == ["api_connections_of_one"]
    assert bounds.statistics() == {"connections": 2}


def test_the_last_places_are_kept_for_this_machine() -> None:
    class FromAfar(asyncio.Transport):
        def __init__(self, address: str) -> None:
            super().__init__({"peername": (address, 1)})

    bounds = BoundedConnections(Echo, [].append, connections_max=CONNECTIONS_KEPT + 1)  # type: ignore[arg-type]
    admitted = [bounds.admit(bounds(), FromAfar("192.0.2.1")) for _ in range(2)]  # type: ignore[arg-type]
    assert admitted == [True, False]
    assert bounds.admit(bounds(), FromAfar("127.0.0.1"))  # type: ignore[arg-type]


class From:
    """A transport of which only the other end's address is known."""

    def __init__(self, *peer: object) -> None:
        self.peer = peer

    def get_extra_info(self, name: str) -> object:
        assert name == "peername"
        return self.peer


@pytest.mark.parametrize(
    ("one", "same", "another"),
    [
        ("203.0.113.9", "203.0.113.9", "203.0.113.10"),
        ("2001:db8:0:1::5", "2001:db8:0:1:ffff::9", "2001:db8:0:2::5"),
        ("::ffff:203.0.113.9", "::ffff:203.0.113.9", "::ffff:203.0.113.10"),
        ("fe80::1%eth0", "fe80::2%eth0", "fe81::1%eth0"),
    ],
)
def test_one_address_elsewhere_has_its_share_of_the_places(one: str, same: str, another: str) -> None:
    reached: list[str] = []
    bounds: Any = BoundedConnections(Echo, reached.append, address_max=2)
    first = bounds()
    assert bounds.admit(first, From(one, 1))
    assert bounds.admit(bounds(), From(same, 2))
    assert not bounds.admit(bounds(), From(one, 3))
    assert reached == ["api_connections_of_one"]
    assert bounds.admit(bounds(), From(another, 1))
    assert all(bounds.admit(bounds(), From("127.0.0.1", port)) for port in range(9))
    bounds.left(first)
    bounds.left(first)  # never there twice
    assert bounds.admit(bounds(), From(same, 4))
    assert not bounds.admit(bounds(), From(same, 5))


async def test_a_head_that_never_ends_is_cut_off_however_it_drips(make_door: Any) -> None:
    door = await make_door(head_timeout_s=0.1)
    reader, writer = await door.dial()
    writer.write(b"GET / HTTP/1.1\r\nA: b\r\n")
    assert await reader.readexactly(2) == b"ok"
    with contextlib.suppress(ConnectionResetError):
        while await reader.read(2):
            writer.write(b"B: c\r\n")
    assert door.reached == ["api_head_timeout"]


@pytest.mark.parametrize("cut", range(1, 4))
async def test_a_head_has_ended_wherever_it_was_cut(make_door: Any, cut: int) -> None:
    door = await make_door(head_timeout_s=0.1)
    reader, writer = await door.dial()
    for piece in (b"GET / HTTP/1.1" + END[:cut], END[cut:]):
        writer.write(piece)
        await reader.readexactly(2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await reader.read(1)
    assert door.reached == []


async def test_an_answer_nobody_reads_is_dropped(make_door: Any) -> None:
    door = await make_door(write_timeout_s=0.1)
    Echo.answer, before = b"x" * 50_000_000, Echo.answer
    try:
        reader, writer = await door.dial()
        writer.write(b"GET / HTTP/1.1" + END)
        await reader.readexactly(1)
        await door.protocols[0].lost.wait()
    finally:
        Echo.answer = before
    assert door.protocols[0].told == ["pause", "lost"]
    assert door.reached == ["api_write_timeout"]


async def test_a_slow_reader_that_goes_on_gets_it_all(make_door: Any) -> None:
    door = await make_door(write_timeout_s=5)
    Echo.answer, before = b"x" * 20_000_000, Echo.answer
    try:
        reader, writer = await door.dial()
        writer.write(b"GET / HTTP/1.1" + END)
        assert len(await reader.readexactly(20_000_000)) == 20_000_000
    finally:
        Echo.answer = before
    assert door.reached == []


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\nAuthorization: Bearer fp_personal_secret" + b"x" * 40_000 + END,
        b"GET /secret" + b"y" * 200_000 + b" HTTP/1.1\r\nHost: a" + END,
        b"POST /-/reload?secret HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked" + END,
        b"\x16\x03\x01secret" + END,
    ],
)
async def test_what_cannot_be_parsed_is_answered_and_not_logged(
    api: Any, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    caplog.set_level(logging.INFO)
    host, _, port = api.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(request_bytes)
    answer = await reader.read()
    assert answer.split()[1] == b"400"
    assert b"Server: flyproxy\r\n" in answer
    assert b"no HTTP/1.1 request" in answer
    assert not [word for word in (b"secret", b"aiohttp", b"Python") if word in answer]
    await hang_up([writer])
    assert caplog.text == ""


async def test_an_idle_stranger_does_not_hold_the_api(api: Any) -> None:
    """The bounds are those of the running API, not only of this file."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(CONNECTIONS_MAX)]
    reader, writer = idle[1]
    for _ in range(2):  # one that asked something is idle again, but not for longest
        writer.write(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.readuntil(b"healthy.\n")
        assert answer.split()[1] == b"200"
        idle.append(await asyncio.open_connection(host, int(port)))
    assert api.runtime.limits == ["api_connections"] * 2
    for mute in (0, 2):
        assert await idle[mute][0].read() == b""
    await hang_up([writer for _, writer in idle])
