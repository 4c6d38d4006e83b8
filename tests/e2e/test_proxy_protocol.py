"""A real HAProxy in front (send-proxy, send-proxy-v2, its health checks) and a real HAProxy behind (accept-proxy): the
client's address reaches the app through all three, in both versions and both families, over HTTP and raw TCP."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.peer("haproxy")

CLIENT = "127.0.0.77"
"""Of the same machine, and not the address the proxies call each other from."""
STEP_S = 20.0
"""A bound against hanging, not a measure."""

FRONT = """
global
  maxconn 200
defaults
  mode http
  timeout client 20s
  timeout server 20s
  timeout connect 2s
"""
"""Without `daemon`: it ends with the test."""


@dataclass
class App:
    """Answers each request with its own head; on its raw port, sends everything back."""

    heads: list[str] = field(default_factory=list)
    http: int = 0
    raw: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def start(self) -> None:
        self._servers = [
            await asyncio.start_server(self._converse, "127.0.0.1", 0),
            await asyncio.start_server(self._echo, "127.0.0.1", 0),
        ]
        self.http, self.raw = (server.sockets[0].getsockname()[1] for server in self._servers)

    async def stop(self) -> None:
        for server in self._servers:
            server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # aborted transports close in the next turn

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head.decode())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(head), head))
        writer.close()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()


@pytest.fixture
async def app() -> AsyncIterator[App]:
    app = App()
    await app.start()
    yield app
    await app.stop()


@dataclass
class Chain:
    """HAProxy, flyproxy, HAProxy."""

    door: Any
    front: dict[str, int]
    """The first HAProxy's ports by what they send."""
    doors: dict[str, int]


@pytest.fixture
def haproxy(tmp_path: Path, toolbox: dict[str, Any]) -> Iterator[Any]:
    started: list[subprocess.Popen[bytes]] = []

    def start(config: str, port: int) -> None:
        file = tmp_path / f"haproxy{len(started)}.cfg"
        file.write_text(config)
        program = shutil.which("haproxy")
        assert program is not None
        process = subprocess.Popen([program, "-f", str(file)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        started.append(process)
        toolbox["eventually"](lambda: is_open(port) or process.poll() is not None, what="haproxy")
        assert process.poll() is None, subprocess.run([program, "-c", "-f", str(file)], capture_output=True).stderr

    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def is_open(port: int) -> bool:
    """Whether somebody listens, without a connection that others would see."""
    wanted = f"{port:04X}"
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return any(line.split()[1].endswith(f":{wanted}") and line.split()[3] == "0A" for line in lines)


@pytest.fixture(params=["v1", "v2"])
async def chain(request: Any, toolbox: dict[str, Any], start_front_door: Any, haproxy: Any, app: App) -> Chain:
    """flyproxy sends `request.param`."""
    free_port = toolbox["free_port"]
    back_http, back_raw, http, raw = (free_port() for _ in range(4))
    behind = f"""{FRONT}
listen http
  bind 127.0.0.1:{back_http} accept-proxy
  http-request set-header Seen "%[src] %[src_port] %[dst] %[dst_port]"
  server app 127.0.0.1:{app.http}
listen raw
  mode tcp
  bind 127.0.0.1:{back_raw} accept-proxy
  server app 127.0.0.1:{app.raw} send-proxy
"""
    await asyncio.to_thread(haproxy, behind, back_raw)
    config = {
        "edge": {"workers": 2, "access_log": "json"},
        "trusted_proxies": ["127.0.0.1"],
        "listeners": [
            {"bind": f"127.0.0.1:{http}", "region": "ord", "handlers": ["proxy_proto", "http"]},
            {"bind": f"127.0.0.1:{raw}", "region": "fra", "handlers": ["proxy_proto"], "app": "hello",
             "instance_port": back_raw},
        ],
        "apps": [
            {
                "name": "hello",
                "hostnames": ["hello.localhost"],
                "send_proxy": request.param,
                "instances": [{"address": f"127.0.0.1:{back_http}"}],
            }
        ],
    }  # fmt: skip
    door = await asyncio.to_thread(start_front_door, config)
    ports = {
        name: free_port() for name in ("v1", "v2", "v2-fields", "v1-ipv6", "v2-ipv6", "checked", "raw-v1", "raw-v2")
    }
    ipv6 = "http-request set-src str(2001:db8::7)"
    check = "option httpchk\n  http-check send meth GET uri /up ver HTTP/1.1 hdr Host hello.localhost"
    front = FRONT + "".join(
        f"listen {name}\n  bind 127.0.0.1:{ports[name]}\n  {more}\n  server fly 127.0.0.1:{to} {options}\n"
        for name, to, options, more in (
            ("v1", http, "send-proxy", ""),
            ("v2", http, "send-proxy-v2", ""),
            ("v2-fields", http, "send-proxy-v2 proxy-v2-options crc32c,unique-id", "unique-id-format %[uuid]"),
            ("v1-ipv6", http, "send-proxy", ipv6),
            ("v2-ipv6", http, "send-proxy-v2", ipv6),
            ("checked", http, "send-proxy-v2 check check-send-proxy inter 100ms", check),
            ("raw-v1", raw, "send-proxy", "mode tcp"),
            ("raw-v2", raw, "send-proxy-v2 proxy-v2-options crc32c", "mode tcp"),
        )
    )
    await asyncio.to_thread(haproxy, front, ports["raw-v2"])
    return Chain(door, ports, {"http": http, "raw": raw})


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, int]]:
    """A client's connection, and its port."""
    async with asyncio.timeout(STEP_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(CLIENT, 0))
        yield reader, writer, writer.get_extra_info("sockname")[1]
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> dict[str, str]:
    """What the app got, as fields."""
    writer.write(b"GET /ask HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    size = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    lines = (await reader.readexactly(size)).decode().split("\r\n")[1:-2]
    return {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_the_app_sees_the_client_through_three_proxies(chain: Chain) -> None:
    for sent in ("v1", "v2", "v2-fields", "v1-ipv6", "v2-ipv6", "v1"):
        who = "2001:db8::7" if "ipv6" in sent else CLIENT
        async with connected(chain.front[sent]) as (reader, writer, port):
            for _ in range(3):
                fields = await ask(reader, writer)
                assert fields["fly-client-ip"] == fields["x-forwarded-for"] == who, sent
                source, source_port, destination, destination_port = fields["seen"].split()
                assert (source, destination.removeprefix("::ffff:")) == (who, "127.0.0.1"), sent
                assert (int(source_port), int(destination_port)) == (port, chain.front[sent]), sent


async def test_haproxys_health_checks_speak_for_haproxy(chain: Chain, app: App, toolbox: dict[str, Any]) -> None:
    def checks() -> list[str]:
        return [head for head in app.heads if head.startswith("GET /up ")]

    await asyncio.to_thread(toolbox["eventually"], lambda: len(checks()) > 2, what="health checks")
    assert all("\r\nfly-client-ip: 127.0.0.1\r\n" in head.lower() for head in checks())
    async with connected(chain.front["checked"]) as (reader, writer, _):
        assert (await ask(reader, writer))["fly-client-ip"] == CLIENT


async def test_raw_bytes_pass_behind_their_headers(chain: Chain) -> None:
    block = bytes(range(256)) * 1024
    for sent in ("raw-v1", "raw-v2"):
        async with connected(chain.front[sent]) as (reader, writer, port):
            writer.write(block)
            header = await reader.readuntil(b"\r\n")
            assert header.decode() == f"PROXY TCP4 {CLIENT} 127.0.0.1 {port} {chain.front[sent]}\r\n"
            assert await reader.readexactly(len(block)) == block
            writer.write_eof()
            assert await reader.read() == b""


async def test_whoever_is_not_haproxy_is_refused(chain: Chain, toolbox: dict[str, Any]) -> None:
    async with connected(chain.doors["http"]) as (reader, writer, _):
        writer.write(b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: hello.localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 403 ")
    with contextlib.suppress(ConnectionResetError):
        async with connected(chain.doors["raw"]) as (reader, writer, _):
            assert await reader.read() == b""

    def counted() -> bool:
        strangers = chain.door.exposed_sum("fly_edge_error_count", "app", code="PP14")
        return {app: count for app, count in strangers.items() if count} == {("_unmatched",): 1, ("hello",): 1}

    await asyncio.to_thread(toolbox["eventually"], counted, what="two strangers counted")
