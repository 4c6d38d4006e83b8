"""A target made of bytes on a loopback socket, and the plain values around it."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flyproxy.config.resolved import App, Instance, MetricsEndpoint, Telemetry
from flyproxy.discovery.static import Target


@dataclass
class Peer:
    """Answers every request with `answer`, byte for byte, then closes; None: says nothing at all."""

    answer: bytes | None = b""
    requests: list[bytes] = field(default_factory=list)
    port: int = 0
    holds: bool = False
    """Does not close after the answer, but waits for the other side to."""
    waits_for: int = 0
    """Bytes of a request that is none; 0: a request's head."""

    def page(self, body: bytes | str, headers: str = "Content-Type: text/plain\r\n", status: str = "200 OK") -> None:
        raw = body.encode() if isinstance(body, str) else body
        self.answer = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(raw)}\r\n\r\n".encode() + raw

    def target(self, path: str = "/metrics", endpoints: int = 1, app: str = "hello", port: int | None = None) -> Target:
        instance = Instance("3d8d9e27b24e89", "127.0.0.1", port or self.port, "ord", "2bc3")
        metrics = tuple(MetricsEndpoint(None, path if not number else f"/more{number}") for number in range(endpoints))
        return Target(App(app, "personal", (), (instance,), metrics), instance, metrics[0])

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.waits_for:
                await reader.readexactly(self.waits_for)
            else:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
                if self.holds:
                    await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @asynccontextmanager
    async def behind_tls(self) -> AsyncIterator[int]:
        """Another port, with TLS and a certificate that nobody should believe."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(Path(__file__).parent.parent / "targets" / "expired_self_signed.pem")
        server = await asyncio.start_server(self.converse, "127.0.0.1", 0, ssl=context)
        yield server.sockets[0].getsockname()[1]
        server.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.converse, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    yield peer
    server.close()


class Own:
    """What a front door counts about itself."""

    def __init__(self) -> None:
        self.limits: Counter[str] = Counter()
        self.counted: Counter[tuple[str, tuple[tuple[str, str], ...]]] = Counter()
        self.gauges: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    def limit_reached(self, limit: str, times: int = 1) -> None:
        self.limits[limit] += times

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        self.counted[name, tuple(labels.items())] += amount

    def set(self, name: str, value: int, **labels: str) -> None:
        self.gauges[name, tuple(labels.items())] = value


@pytest.fixture
def own() -> Own:
    return Own()


@pytest.fixture
def telemetry() -> Telemetry:
    """Settings; the scraping ones at their defaults."""
    return Telemetry(
        host="",
        port=0,
        data_dir="",
        retention_s=1,
        own_interval_s=5,
        scrape_interval_s=15.0,
        query_workers=1,
        query_timeout_s=5,
        query_memory_bytes=1,
        query_samples=1,
        query_concurrency=1,
        first_zero=True,
        promql_mode="prometheus3",
        metricsql=True,
        organizations=("personal",),
        regions=(),
    )
