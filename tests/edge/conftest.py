"""A front door on loopback, instances that say exact bytes, a client that reads to a condition, counters as exposed.

Every test of this directory that waits runs on both loops.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from flyproxy.clock import SystemClock
from flyproxy.config import resolved
from flyproxy.edge.server import EdgeServer
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.recorder import Recorder
from flyproxy.instrument.snapshot import Snapshot

PATIENCE_S = 20.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class Upstream:
    """An instance: a handler per connection, and what it got."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0

    async def start(self, port: int = 0) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except RuntimeError:  # what uvloop raises for a write to a connection that is gone
            if not writer.is_closing():
                raise
        self._tasks.discard(task)

    def hang_up(self) -> None:
        """Close every open connection."""
        for writer in self._writers:
            writer.close()
        self._writers.clear()

    async def stop(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        self.hang_up()
        await asyncio.sleep(0)


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


class Client:
    """A client connection that says exact bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.sent = 0
        self.received = 0

    async def send(self, data: bytes) -> None:
        self.sent += len(data)
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        data = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        self.received += len(data)
        return data

    async def exactly(self, size: int) -> bytes:
        data = await asyncio.wait_for(self.reader.readexactly(size), PATIENCE_S)
        self.received += len(data)
        return data

    async def until(self, end: bytes) -> bytes:
        data = await asyncio.wait_for(self.reader.readuntil(end), PATIENCE_S)
        self.received += len(data)
        return data

    async def rest(self) -> bytes:
        """Everything until the other side closes, or resets."""
        parts = []
        with contextlib.suppress(ConnectionError):
            while data := await asyncio.wait_for(self.reader.read(1 << 16), PATIENCE_S):
                parts.append(data)
                self.received += len(data)
        return b"".join(parts)

    async def answer(self) -> tuple[bytes, bytes]:
        """One answer with a Content-Length."""
        head = await self.head()
        length = next((int(v) for k, v in fields(head) if k == b"content-length"), 0)
        return head, await self.exactly(length)

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        await self.send(request)
        return await self.answer()

    def half_close(self) -> None:
        sock = self.writer.get_extra_info("socket")
        real = socket.socket(fileno=socket.dup(sock.fileno()))
        real.shutdown(socket.SHUT_WR)
        real.close()

    def abort(self) -> None:
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def fields(head: bytes) -> list[tuple[bytes, bytes]]:
    lines = head.split(b"\r\n")[1:-2]
    return [(name.lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]


class House:
    """One front door with what a test needs around it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.lines: list[bytes] = []
        self.upstreams: list[Upstream] = []
        self.clients: list[Client] = []
        self.ports: list[int] = []
        self.segment = Segment.create(str(run_dir / "edge-0.cells"), 0)
        self.recorder = Recorder(self.segment, proxy_id="blue")
        self.server = EdgeServer(self.recorder, SystemClock(), self.lines.append)
        self.edge: resolved.Edge
        self._drained = False
        self._sockets: list[socket.socket] = []

    async def upstream(self, handler: Handler | None = None) -> Upstream:
        """An instance; without a handler it answers every bodiless request with OK and stays."""
        upstream = Upstream(handler or _answer_ok)
        if handler is None:
            upstream._handler = lambda reader, writer: _answer_all(upstream, reader, writer)
        await upstream.start()
        self.upstreams.append(upstream)
        return upstream

    async def says(self, answer: bytes, *, then: str = "stay") -> Upstream:
        """An instance that answers each head with these bytes, then stays, closes or resets."""

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                upstream.requests.append(await read_head(reader))
                writer.write(answer)
                await writer.drain()
                if then == "close":
                    writer.close()
                    return
                if then == "reset":
                    writer.transport.abort()
                    return

        upstream = await self.upstream(handler)
        return upstream

    def app(
        self, name: str, *upstreams: Upstream | int, hostnames: tuple[str, ...] = (), region: str = "ord"
    ) -> resolved.App:
        """An app with these instances (or ports), all in one region."""
        ports = [one.port if isinstance(one, Upstream) else one for one in upstreams]
        instances = tuple(
            resolved.Instance(id=f"{port:014x}", host="127.0.0.1", port=port, region=region, worker_host="aaaa")
            for port in ports
        )
        return resolved.App(
            name=name,
            organization="personal",
            hostnames=hostnames or (f"{name}.test",),
            instances=instances,
            metrics=(),
            access_log=True,
        )

    def configure(self, *apps: resolved.App, **more: object) -> resolved.Edge:
        """A generation with one door in `ord`; `more` replaces fields of resolved.Edge."""
        edge = resolved.Edge(
            region="ord",
            host="2bc3",
            loop="uvloop",
            listeners=(resolved.Listener("127.0.0.1", 0, True, "ord", None),),
            apps=apps,
            default_app=None,
            any_host=False,
            limits=resolved.Limits(),
            timeouts=resolved.Timeouts(),
            region_positions=(("ord", 41.9, -87.6), ("iad", 39.0, -77.5), ("fra", 50.1, 8.7), ("syd", -33.9, 151.2)),
            access_log="json",
        )
        return replace(edge, **more)  # type: ignore[arg-type]  # test settings, by name

    async def open(self, *apps: resolved.App, **more: object) -> None:
        """Start the front door."""
        self.edge = self.configure(*apps, **more)
        sockets = [listening() for _ in self.edge.listeners]
        self.ports = [sock.getsockname()[1] for sock in sockets]
        await self.server.start(self.edge, sockets)

    async def client(self, door: int = 0) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.ports[door], limit=1 << 24)
        client = Client(reader, writer)
        self.clients.append(client)
        return client

    async def turned_away(self) -> None:
        """A connection that is reset before a byte came: possibly before the client knows that it is open."""
        with contextlib.suppress(ConnectionResetError):
            assert await (await self.client()).rest() == b""

    def full_queue(self) -> int:
        """A port whose listener never accepts and whose queue is full, so that dialling it hangs."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        self._sockets.append(listener)
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
            self._sockets.append(waiting)
        return int(listener.getsockname()[1])

    async def drain(self, timeout_s: float = 5.0) -> None:
        self._drained = True
        await self.server.drain(timeout_s)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name with these labels, as /metrics would show them now."""
        self.recorder.fold()
        total = 0.0
        for family in Snapshot(str(self.run_dir), interval_ms=5000).families():
            for sample in family.samples:
                if sample.name == name and labels.items() <= dict(sample.labels).items():
                    total += sample.value
        return total

    def counted(self, app: str = "hello") -> dict[str, int]:
        """Answers by status, edge side."""
        self.recorder.fold()
        statuses: dict[str, int] = {}
        for family in Snapshot(str(self.run_dir), interval_ms=5000).families():
            for sample in family.samples:
                labels = dict(sample.labels)
                if sample.name == "fly_edge_http_responses_count" and labels["app"] == app and sample.value:
                    statuses[labels["status"]] = statuses.get(labels["status"], 0) + int(sample.value)
        return statuses

    async def settle(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110  # what is waited for has no event a test could see
                await asyncio.sleep(0.005)

    def balanced(self) -> bool:
        """Nothing is held for anybody: no request in flight, every connection that was counted also left."""
        statistics = self.server.statistics()
        return statistics["in_flight"] == 0 and statistics["tunnels"] == 0 and statistics["stalled"] == 0

    async def close(self) -> None:
        for client in self.clients:
            client.abort()
        for upstream in self.upstreams:
            await upstream.stop()
        if hasattr(self, "edge") and not self._drained:
            await self.server.drain(0)
        for sock in self._sockets:
            sock.close()
        self.segment.close()


def listening() -> socket.socket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", 0))
    sock.listen(64)
    sock.setblocking(False)
    return sock


async def _answer_ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    raise AssertionError("replaced by upstream()")


async def _answer_all(upstream: Upstream, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while True:
        upstream.requests.append(await read_head(reader))
        writer.write(OK)
        await writer.drain()


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    built = House(tmp_path)
    yield built
    await built.close()
