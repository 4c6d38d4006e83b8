"""5,000 clients that are slow on purpose are held, each is cut off at its bound and counted, and nobody else notices.

Slow heads and bodies drip a byte now and then; slow readers take nothing of their answer; idle ones say nothing.
"""

import asyncio
import contextlib
import resource
import select
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

CLIENTS = 5000
GOOD = 8
BOUND_S = 5.0
SLACK_S = 1.0
"""How much later than its bound a client may be cut off."""
DRIP_S = 0.5
ANSWER_BYTES = 512 << 10
"""More than our buffer, and what kernels hold of a connection with such small segments."""
FILES_SPARE = 300
GIVE_UP_S = 60.0
HOST = b"Host: hello.localhost\r\n"
KINDS = ("head", "body", "read", "idle")
BEGINNING = {
    "head": b"GET / HTTP/1.1\r\n" + HOST + b"X-Slow: ",
    "body": b"POST /take HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n",
    "read": b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n",
    "idle": b"",
}
LIMIT = {"head": "head_timeout", "body": "body_timeout", "read": "write_timeout", "idle": "idle_timeout"}
CODE = {"head": "PP03", "body": "PP04", "read": "PP10"}


class App(asyncio.Protocol):
    """Answers a GET with a little or a lot, and a POST never: its body does not come whole."""

    transport: asyncio.Transport

    def __init__(self, open_now: "set[App]") -> None:
        self._open_now = open_now

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._open_now.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._open_now.discard(self)

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"GET "):
            size = ANSWER_BYTES if data.startswith(b"GET /large ") else 100
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))


@dataclass
class Slow:
    """One slow client and its fate, in its own clock."""

    kind: str
    sock: socket.socket
    since_s: float = 0.0
    """When its bound began to count."""
    said: bytearray = field(default_factory=bytearray)
    gone_s: float = 0.0


class Crowd(threading.Thread):
    """All slow clients in one thread: they begin, drip, and wait for their end."""

    def __init__(self, port: int, number: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._number = number
        self._epoll = select.epoll()
        self._here: dict[int, Slow] = {}
        self.clients: list[Slow] = []
        self.all_here = threading.Event()
        self.late_s = 0.0
        """The longest this thread itself was kept from looking."""

    def run(self) -> None:
        for number in range(self._number):
            self._begin(KINDS[number % len(KINDS)])
            if number % 50 == 0:
                self._look(0)
        self.all_here.set()
        drip_s = looked_s = time.monotonic()
        while self._here and looked_s < drip_s + GIVE_UP_S:
            self._look(0.05)
            now_s = time.monotonic()
            self.late_s = max(self.late_s, now_s - looked_s - 0.05)
            looked_s = now_s
            if now_s > drip_s + DRIP_S:
                drip_s = now_s
                self._drip()
        for slow in self.clients:
            slow.sock.close()
        self._epoll.close()

    def _begin(self, kind: str) -> None:
        sock = socket.socket()
        if kind == "read":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 1000)
        sock.settimeout(GIVE_UP_S)
        sock.connect(("127.0.0.1", self._port))
        sock.sendall(BEGINNING[kind])
        sock.setblocking(False)
        slow = Slow(kind, sock, time.monotonic())
        self.clients.append(slow)
        self._here[sock.fileno()] = slow
        self._epoll.register(sock, select.EPOLLIN)

    def _drip(self) -> None:
        for slow in self._here.values():
            if slow.kind in ("head", "body"):
                with contextlib.suppress(OSError):
                    slow.sock.send(b"x")

    def _look(self, timeout_s: float) -> None:
        for descriptor, events in self._epoll.poll(timeout_s):
            slow = self._here[descriptor]
            if slow.kind == "read" and not events & (select.EPOLLERR | select.EPOLLHUP):
                slow.since_s = time.monotonic()  # its answer begins: from now on it takes nothing
                self._epoll.modify(descriptor, 0)
                continue
            try:
                data = slow.sock.recv(4096)
                slow.said += data
            except OSError:
                data = b""
            if not data:
                slow.gone_s = time.monotonic()
                self._epoll.unregister(descriptor)
                del self._here[descriptor]


@pytest.fixture
def many_files() -> Iterator[int]:
    """As many descriptors as this process may have; how many of them are for slow clients (they cost this process one
    each, and one for half of their requests at the app)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    number = min(CLIENTS, (hard - FILES_SPARE) // 2)
    if number < CLIENTS:
        print(f"only {number} of {CLIENTS} slow clients: the hard limit of descriptors is {hard}")
    yield number - number % len(KINDS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Good:
    """Clients that ask and read as they should, on kept and on new connections, until told to stop."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.done = 0
        self.failed: list[str] = []
        self.stop = False

    async def visit(self, *, keep: bool) -> None:
        reader = writer = None
        while not self.stop:
            try:
                if writer is None:
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                assert reader is not None
                async with asyncio.timeout(GIVE_UP_S):
                    writer.write(b"GET / HTTP/1.1\r\n" + HOST + (b"" if keep else b"Connection: close\r\n") + b"\r\n")
                    head = await reader.readuntil(b"\r\n\r\n")
                    assert head.startswith(b"HTTP/1.1 200 "), head
                    await reader.readexactly(100)
                self.done += 1
            except Exception as fault:  # whatever it is, it is no success
                self.failed.append(repr(fault))
            if writer is not None and (not keep or self.failed):
                writer.close()
                reader = writer = None
            await asyncio.sleep(0.005)  # their number is bounded so that the test's own process keeps up
        if writer is not None:
            writer.close()


async def test_thousands_of_slow_clients_are_held_and_cut_off_and_nobody_else_notices(
    many_files: int, toolbox: dict[str, Any], start_front_door: Any
) -> None:
    answering: set[App] = set()
    app = await asyncio.get_running_loop().create_server(lambda: App(answering), "127.0.0.1", 0, backlog=1024)
    timeout = f"{BOUND_S:g}s"
    door = await asyncio.to_thread(
        start_front_door,
        {
            "edge": {"workers": 1, "region": "ord"},
            "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"}],
            "apps": [
                {
                    "name": "hello",
                    "hostnames": ["hello.localhost"],
                    "instances": [{"address": f"127.0.0.1:{app.sockets[0].getsockname()[1]}"}],
                }
            ],
            "timeouts": {"head": timeout, "body": timeout, "idle": timeout, "write": timeout},
        },
    )
    crowd, good = Crowd(door.doors["ord"], many_files), Good(door.doors["ord"])
    crowd.start()
    visiting = [asyncio.ensure_future(good.visit(keep=bool(number % 4))) for number in range(GOOD)]
    await asyncio.to_thread(crowd.all_here.wait, GIVE_UP_S)

    def most_held() -> bool:
        return bool(sum(door.exposed_sum("flyproxy_edge_connections").values()) >= many_files)

    await asyncio.to_thread(toolbox["eventually"], most_held, BOUND_S, "all are held at once")
    await asyncio.to_thread(crowd.join, GIVE_UP_S)
    good.stop = True
    await asyncio.gather(*visiting)

    took: defaultdict[str, list[float]] = defaultdict(list)
    for slow in crowd.clients:
        assert slow.gone_s, f"a slow {slow.kind} was never cut off"
        took[slow.kind].append(slow.gone_s - slow.since_s)
    for kind, seconds in took.items():
        assert min(seconds) > BOUND_S / 2, kind  # a reader is noticed here later than there
        assert max(seconds) < BOUND_S + SLACK_S + crowd.late_s, kind
    said = Counter((slow.kind, bytes(slow.said[:12])) for slow in crowd.clients if slow.kind != "read")
    each = many_files // len(KINDS)
    assert said == {("head", b"HTTP/1.1 408"): each, ("body", b"HTTP/1.1 408"): each, ("idle", b""): each}
    assert good.done >= 1000
    assert len(good.failed) <= good.done / 1000, good.failed

    def counted() -> bool:
        limits = door.exposed_sum("flyproxy_limit_reached_total", "limit", process="edge")
        codes = door.exposed_sum("fly_edge_error_count", "code")
        return all(limits.get((LIMIT[kind],)) == each for kind in KINDS) and all(
            codes.get((code,)) == each for code in CODE.values()
        )

    await asyncio.to_thread(toolbox["eventually"], counted, 10.0, "each is counted, once")
    await asyncio.to_thread(
        toolbox["eventually"], lambda: sum(door.exposed_sum("flyproxy_edge_connections").values()) == 0, 10.0
    )
    app.close()
    for one in answering:
        one.transport.abort()
    await asyncio.sleep(0)  # they end in the loop's next turn
