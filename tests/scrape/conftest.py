"""A target made of bytes on a loopback socket, and the plain values around it."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from flyproxy.config.resolved import App, Instance, MetricsEndpoint
from flyproxy.discovery.static import Target


@dataclass
class Peer:
    """Answers every request with `answer`, byte for byte, then closes; None: says nothing at all."""

    answer: bytes | None = b""
    requests: list[bytes] = field(default_factory=list)
    port: int = 0

    def page(self, body: bytes | str, headers: str = "Content-Type: text/plain\r\n", status: str = "200 OK") -> None:
        raw = body.encode() if isinstance(body, str) else body
        self.answer = f"HTTP/1.1 {status}\r\n{headers}Content-Length: {len(raw)}\r\n\r\n".encode() + raw

    def target(self, path: str = "/metrics", endpoints: int = 1, app: str = "hello", port: int | None = None) -> Target:
        instance = Instance("3d8d9e27b24e89", "127.0.0.1", port or self.port, "ord", "2bc3")
        metrics = tuple(MetricsEndpoint(None, path if not number else f"/more{number}") for number in range(endpoints))
        return Target(App(app, "personal", (), (instance,), metrics), instance, metrics[0])

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            if self.answer is None:
                await reader.read()
            else:
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


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
