"""Real processes on loopback: a front door started as a user would, a scripted app behind it, a client that keeps its
own account of every request and every byte."""

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

WAIT_S = 20.0
SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def eventually(check: Callable[[], Any], within_s: float = WAIT_S, what: str = "") -> Any:
    """Wait until `check` returns something true; its own exceptions count as not yet."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            last = check()
        except (OSError, KeyError, IndexError, ValueError) as fault:
            last = fault
        if last and not isinstance(last, Exception):
            return last
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what} (last: {last!r})")
        time.sleep(0.02)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FrontDoor:
    """A running `flyproxy run`."""

    process: subprocess.Popen[bytes]
    config: Path
    doors: dict[str, int]
    telemetry: int
    log: Path
    tokens: dict[str, str] = field(default_factory=dict)

    def fetch(
        self,
        path: str,
        *,
        token: str = "",
        method: str = "GET",
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        url = f"http://127.0.0.1:{self.telemetry}{path}"
        request = urllib.request.Request(url, data=data, method=method, headers=headers or {})
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
                return Answer(reply.status, dict(reply.headers), reply.read())
        except urllib.error.HTTPError as fault:
            with fault:
                return Answer(fault.code, dict(fault.headers), fault.read())

    def token(self, organization: str = "personal", *options: str) -> str:
        key = " ".join((organization, *options))
        if key not in self.tokens:
            command = [sys.executable, "-m", "flyproxy", "auth", "token", "--org", organization, *options]
            done = subprocess.run([*command, "-c", str(self.config)], capture_output=True, text=True, check=True)
            self.tokens[key] = done.stdout.strip()
        return self.tokens[key]

    def query(self, expression: str, organization: str = "personal", **parameters: str) -> Any:
        """An instant query's data."""
        return self._ask("query", organization, {"query": expression, **parameters})

    def query_range(
        self, expression: str, start: float, end: float, step: float, organization: str = "personal"
    ) -> Any:
        parameters = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        return self._ask("query_range", organization, parameters)

    def _ask(self, endpoint: str, organization: str, parameters: dict[str, str]) -> Any:
        path = f"/prometheus/{organization}/api/v1/{endpoint}?{urllib.parse.urlencode(parameters)}"
        answer = self.fetch(path, token=self.token(organization))
        assert answer.status == 200, answer.body
        return answer.json()["data"]

    def vector(self, expression: str, *labels: str, organization: str = "personal") -> dict[Any, float]:
        """An instant vector as {label values: value}."""
        data = self.query(expression, organization)
        assert data["resultType"] == "vector", data
        return {
            tuple(sample["metric"].get(name, "") for name in labels): float(sample["value"][1])
            for sample in data["result"]
        }

    def exposed(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """/metrics as it is now, by name and labels. (By hand: prometheus_client's parser renames counters.)"""
        found = {}
        for line in self.fetch("/metrics").body.decode().splitlines():
            if not line.startswith("#"):
                name, labels, value = SAMPLE.fullmatch(line).groups()  # type: ignore[union-attr]
                found[(name, frozenset(LABEL.findall(labels or "")))] = float(value)
        return found

    def exposed_sum(self, name: str, *by: str, **where: str) -> dict[Any, float]:
        """Sum of a family on /metrics by labels."""
        sums: defaultdict[Any, float] = defaultdict(float)
        for (found, labels), value in self.exposed().items():
            have = dict(labels)
            if found == name and all(have.get(key) == wanted for key, wanted in where.items()):
                sums[tuple(have.get(label, "") for label in by)] += value
        return dict(sums)

    def children(self, kind: str) -> list[int]:
        """Pids of the living children of one kind, as "edge_worker", "telemetry", "query_worker"."""
        found = []
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in listed:
            with contextlib.suppress(OSError):
                if f"flyproxy.runtime.{kind}" in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(int(pid))
        return found

    def reload(self) -> Answer:
        return self.fetch("/-/reload", method="POST")

    def stop(self, within_s: float = 10.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within_s)


@dataclass
class Account:
    """What a client saw: requests by (region, status, delay in ms), bytes, connections."""

    answers: Counter[tuple[str, int, int]] = field(default_factory=Counter)
    bytes_out: int = 0
    """Sent by the client."""
    bytes_in: int = 0
    connects: int = 0
    unanswered: int = 0
    """Requests written whose answer never came whole."""
    took_s: list[float] = field(default_factory=list)
    """Of each answer: from before its request was written until its last byte was read."""

    def by(self, *names: str) -> dict[Any, float]:
        """Answers summed by any of "region", "status", "delay"."""
        places = {"region": 0, "status": 1, "delay": 2}
        sums: Counter[Any] = Counter()
        for key, count in self.answers.items():
            sums[tuple(str(key[places[name]]) for name in names)] += count
        return dict(sums)


class Client:
    """One loopback connection after another, HTTP/1.1 by hand, every byte counted."""

    def __init__(self, account: Account, region: str, port: int, host: str = "hello.localhost") -> None:
        self._account = account
        self._region = region
        self._port = port
        self._host = host
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, status: int, delay_ms: int, *, post: bool = False, keep: bool = True) -> int:
        """One request that the scripted app answers with `status` after `delay_ms`."""
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
            self._account.connects += 1
        assert self._reader is not None
        body = b"x" * 37 if post else b""
        lines = [
            f"{'POST' if post else 'GET'} /s/{status}/{delay_ms} HTTP/1.1",
            f"Host: {self._host}",
            "User-Agent: accountant",
            *([f"Content-Length: {len(body)}"] if post else []),
            *([] if keep else ["Connection: close"]),
        ]
        message = "\r\n".join([*lines, "", ""]).encode() + body
        self._account.unanswered += 1
        begun = time.perf_counter()
        self._writer.write(message)
        self._account.bytes_out += len(message)
        head = await self._reader.readuntil(b"\r\n\r\n")
        fields = head.lower().split(b"\r\n")
        got = int(fields[0].split()[1])
        length = next((int(line.split(b":")[1]) for line in fields if line.startswith(b"content-length:")), 0)
        if got in (204, 304):
            length = 0
        payload = await self._reader.readexactly(length)
        self._account.bytes_in += len(head) + len(payload)
        self._account.unanswered -= 1
        self._account.took_s.append(time.perf_counter() - begun)
        self._account.answers[(self._region, got, delay_ms)] += 1
        if not keep or b"connection: close" in fields:
            await self.close()
        return got

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None

    def abandon(self) -> None:
        """Leave in the middle, as a visitor who closes the tab."""
        if self._writer is not None:
            self._writer.transport.abort()
        self._reader = self._writer = None


class ScriptedApp:
    """An app that does what the path says: /s/<status>/<delay in ms>."""

    def __init__(self) -> None:
        self.port = 0
        self.served: Counter[int] = Counter()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._converse, "127.0.0.1", 0, backlog=1000)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # aborted transports close in the next turn

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = head.lower().split(b"\r\n")
                length = next((int(line.split(b":")[1]) for line in fields if line.startswith(b"content-length:")), 0)
                await reader.readexactly(length)
                _, _, status, delay = fields[0].split()[1].split(b"/")[:4]
                await asyncio.sleep(int(delay) / 1000)
                writer.write(self._answer(int(status)))
                self.served[int(status)] += 1
        self._writers.discard(writer)
        writer.transport.abort()

    def _answer(self, status: int) -> bytes:
        if status in (204, 304):
            return f"HTTP/1.1 {status} Whatever\r\n\r\n".encode()
        body = b"b" * random.randint(1, 2000)
        return f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
async def scripted_app() -> AsyncIterator[ScriptedApp]:
    app = ScriptedApp()
    await app.start()
    yield app
    await app.stop()


Start = Callable[..., FrontDoor]


@pytest.fixture
def start_front_door(tmp_path: Path) -> Iterator[Start]:
    """start(config: dict with any keys of the file) -> FrontDoor, ready; stopped when the test ends."""
    yield from front_doors(tmp_path)


@pytest.fixture(scope="module")
def start_shared_front_door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """As start_front_door, stopped when the module's last test ends: for tables of many short cases."""
    yield from front_doors(tmp_path_factory.mktemp("shared"))


def front_doors(folder: Path) -> Iterator[Start]:
    """Yields `start` once; afterwards stops whatever it started."""
    started: list[FrontDoor] = []

    def start(config: dict[str, Any], *, wait: bool = True) -> FrontDoor:
        number = len(started)
        config = json.loads(json.dumps(config))
        telemetry = config.setdefault("telemetry", {})
        telemetry.setdefault("bind", f"127.0.0.1:{free_port()}")
        telemetry.setdefault("data_dir", str(folder / "data"))
        telemetry.setdefault("own_interval", "1s")
        config.setdefault("edge", {}).setdefault("access_log", "off")
        file = folder / f"flyproxy{number}.yaml"
        file.write_text(json.dumps(config, indent=1))  # YAML reads JSON
        log = folder / f"log{number}.txt"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLY", "PYTHON"))}
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "flyproxy", "run", "-c", str(file)],
                stdout=output,
                stderr=output,
                env={**environment, "PYTHONWARNINGS": "error"},
                start_new_session=True,
            )
        doors = {door.get("region", "local"): int(door["bind"].rpartition(":")[2]) for door in config["listeners"]}
        door = FrontDoor(process, file, doors, int(telemetry["bind"].rpartition(":")[2]), log)
        started.append(door)
        if wait:
            with contextlib.suppress(AssertionError):
                eventually(lambda: process.poll() is not None or door.fetch("/-/ready").status == 200)
                if process.poll() is None:
                    return door
            raise AssertionError(f"the front door did not become ready:\n{log.read_text()}")
        return door

    yield start
    for door in started:
        if door.process.poll() is None:
            door.process.send_signal(signal.SIGTERM)
            door.process.send_signal(signal.SIGTERM)
            try:
                door.process.wait(10)
            except subprocess.TimeoutExpired:
                door.process.kill()
                door.process.wait()
        text = door.log.read_text()
        assert "Traceback" not in text, text


@pytest.fixture(scope="session")
def toolbox() -> dict[str, Any]:
    """What tests of this folder use by name."""
    return {
        "Account": Account,
        "Client": Client,
        "ScriptedApp": ScriptedApp,
        "free_port": free_port,
        "eventually": eventually,
    }
