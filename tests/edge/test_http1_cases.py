"""The cases of tests/http1/cases at a running front door: what the client gets, what reaches the instance, and whether
both still agree afterwards where a message ends."""

import asyncio
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Any

import h11
import pytest

from flyproxy.config import resolved
from tests.http1.case_files import Case, load, topics, unescape

House = Any
PATIENCE_S = 20.0
"""A bound against hanging, not a measure."""
DRIP_BYTES_MAX = 250
"""Longer messages are not sent byte by byte here."""
LINE_CHARACTERS = 100
"""Of a request line, to compare; it must fit into an answer."""
PROBE = b"GET /probe HTTP/1.1\r\nHost: a.test\r\n\r\n"
HOP_BY_HOP = (b"keep-alive", b"proxy-connection", b"proxy-authorization", b"http2-settings")
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]+)[^\r\n]*\r\n")


@dataclass
class Request:
    """One whole request as it reached the instance."""

    head: bytes
    body: bytes
    connection: int

    @property
    def line(self) -> str:
        return " ".join(self.head.split(b"\r\n")[0].decode().split(" ")[:2])[:LINE_CHARACTERS]

    @property
    def lines(self) -> list[bytes]:
        return self.head.split(b"\r\n")[1:-2]

    def values(self, name: bytes) -> list[bytes]:
        pairs = (line.partition(b":") for line in self.lines)
        return [value.strip().lower() for named, _, value in pairs if named.lower() == name]


@dataclass
class Instance:
    """Writes down what reaches it; says what it was asked, or what `script` says."""

    case: Case | None = None
    requests: list[Request] = field(default_factory=list)
    received: int = 0
    connections: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = self.connections
        while True:
            head = await self._read(reader.readuntil(b"\r\n\r\n"))
            request = Request(head, b"", connection)
            if request.values(b"expect"):
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if request.values(b"transfer-encoding"):
                request.body = await self._chunks(reader)
            elif lengths := request.values(b"content-length"):
                request.body = await self._read(reader.readexactly(int(lengths[0])))
            self.requests.append(request)
            if self.case is None or request.line.endswith(" /probe"):
                said = b"-" if request.head.startswith(b"HEAD ") else request.line.encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nX-Answers: %b\r\nContent-Length: %d\r\n\r\n%b"
                    % (request.line.encode(), len(said), b"" if said == b"-" else said)
                )
            elif not await self._speak(self.case, writer):
                return

    async def _speak(self, case: Case, writer: asyncio.StreamWriter) -> bool:
        for number, piece in enumerate(case.pieces):
            if number:
                await self.go_on.wait()
            writer.write(piece)
        then = "".join(case.said("then"))
        if then == "reset-after-read":
            await self.go_on.wait()
        if then.startswith("reset"):
            pseudo = writer.get_extra_info("socket")
            pseudo.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif then == "close":
            writer.close()
        return not then

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        body = b""
        while True:
            size = CHUNK_LINE.fullmatch(await self._read(reader.readuntil(b"\r\n")))
            assert size is not None
            if not int(size[1], 16):
                while await self._read(reader.readuntil(b"\r\n")) != b"\r\n":
                    pass
                return body
            body += await self._read(reader.readexactly(int(size[1], 16)))
            assert await self._read(reader.readexactly(2)) == b"\r\n"

    async def _read(self, wait: Awaitable[bytes]) -> bytes:
        try:
            data = await wait
        except asyncio.IncompleteReadError as cut:
            self.received += len(cut.partial)
            raise
        self.received += len(data)
        return data

    def forget(self) -> None:
        self.requests.clear()
        self.received = 0


class Client:
    """A connection to the door that reads answers as a strict client would."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.got = b""
        self.was_reset = False

    async def send(self, raw: bytes, *, drip: bool = False) -> None:
        try:
            for piece in (raw[at : at + 1] for at in range(len(raw))) if drip else (raw,):
                self._writer.write(piece)
                await self._writer.drain()
                if drip:
                    await asyncio.sleep(0)
        except ConnectionError:
            pass  # it was refused before its end

    async def more(self) -> bool:
        try:
            data = await asyncio.wait_for(self._reader.read(1 << 16), PATIENCE_S)
        except ConnectionError:
            self.was_reset, data = True, b""
        self.got += data
        return bool(data)

    async def until(self, there: Callable[[], bool]) -> bool:
        while not there():
            if not await self.more():
                return False
        return True

    async def answer(self, method: str = "GET") -> tuple[int, bytes, bytes, bool] | None:
        """Status, head, payload, and whether it is whole; None: the connection ended instead."""
        if not await self.until(lambda: b"\r\n\r\n" in self.got):
            return None
        head, _, self.got = self.got.partition(b"\r\n\r\n")
        status = int(head[9:12])
        named = {
            name.lower(): value.strip().lower()
            for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
        }
        if b"x-answers" in named and named[b"x-answers"].startswith(b"head "):
            method = "HEAD"
        if status < 200 or status in (204, 304) or method == "HEAD":
            return status, head, b"", True
        if b"transfer-encoding" in named:
            return status, head, *await self._chunks()
        if b"content-length" in named:
            size = int(named[b"content-length"])
            whole = await self.until(lambda: len(self.got) >= size)
            body, self.got = self.got[:size], self.got[size:]
            return status, head, body, whole
        await self.until(lambda: False)
        body, self.got = self.got, b""
        return status, head, body, not self.was_reset

    async def _chunks(self) -> tuple[bytes, bool]:
        body = b""
        while True:
            line = await self._line()
            size = CHUNK_LINE.fullmatch(line)
            if size is None:
                assert not line.endswith(b"\n"), line
                return body, False
            if not int(size[1], 16):
                while (line := await self._line()) not in (b"\r\n", b""):
                    pass
                return body, bool(line)
            chunk = await self._exactly(int(size[1], 16) + 2)
            if chunk is None:
                return body, False
            assert chunk.endswith(b"\r\n")
            body += chunk[:-2]

    async def _line(self) -> bytes:
        """The next line with its CRLF, or what there is of it."""
        whole = await self.until(lambda: b"\r\n" in self.got)
        end = self.got.index(b"\r\n") + 2 if whole else len(self.got)
        line, self.got = self.got[:end], self.got[end:]
        return line if whole else line.rstrip(b"\n")

    async def _exactly(self, size: int) -> bytes | None:
        if not await self.until(lambda: len(self.got) >= size):
            return None
        data, self.got = self.got[:size], self.got[size:]
        return data

    async def rest(self) -> bytes:
        await self.until(lambda: False)
        return self.got

    def half_close(self) -> None:
        pseudo = self._writer.get_extra_info("socket")
        with socket.socket(fileno=socket.dup(pseudo.fileno())) as real:
            real.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._writer.transport.abort()


class Stage:
    """The front door with one instance behind it."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.instance = Instance()

    async def open(self) -> None:
        upstream = await self._house.upstream(self.instance.serve)
        app = self._house.app("a", upstream)
        limits = replace(resolved.Limits(), body_bytes=1 << 20)
        await self._house.open(app, default_app="a", limits=limits)

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self._house.ports[0]))

    async def probe(self, client: Client | None = None) -> str:
        """Whether this connection, or a new one, brings the answer to what it asks."""
        asking = client or await self.client()
        await asking.send(PROBE)
        answer = await asking.answer()
        if client is None:
            asking.close()
        if answer is None or answer[2] != b"GET /probe" or asking.got:
            return f"a request afterwards gets {answer} and {asking.got!r}"
        return ""


async def play_request(stage: Stage, case: Case, *, drip: bool) -> str:
    """What is wrong with what becomes of these bytes; "" for nothing."""
    stage.instance.forget()
    client = await stage.client()
    try:
        return await _play_request(stage, client, case, drip=drip)
    finally:
        client.close()


async def _play_request(stage: Stage, client: Client, case: Case, *, drip: bool) -> str:
    verdict, instance = case.verdict, stage.instance
    end = {"passed": "stay", "refused": "close", "waits": "waits"}.get(verdict[0], verdict[-1])
    if verdict == ("passed", "close"):
        end = "close"
    wanted = [int(word) for word in verdict[1:] if word.isdigit()] if verdict[0] == "answers" else []
    wanted = [200] if verdict[0] == "passed" else wanted or [0] * (verdict[0] == "refused")
    await client.send(case.raw, drip=drip)
    if end == "waits":
        client.half_close()
    answered: list[str] = []
    head = b""
    for status in wanted:
        answer = await client.answer()
        if answer is None and end == "waits":
            return ""  # the end was seen before the first request was answered
        if answer is None or not answer[3]:
            return f"{answer} instead of a whole {status}"
        head = answer[1]
        if answer[0] != status and str(answer[0]) not in verdict[1:]:
            return f"answered {answer[0]}"
        if match := re.search(rb"\r\nX-Answers: ([^\r]*)", head):
            answered.append(match[1].decode())
    if end == "stay":
        if fault := await stage.probe(client):
            return fault
    elif rest := await client.rest():
        return f"more comes: {rest!r}"
    if end == "close" and case.raw.count(b"HTTP/1.0") == 0 and b"\r\nConnection: close" not in head:
        return "closed without a word"
    if fault := await stage.probe():
        return fault
    seen = [request for request in instance.requests if not request.line.endswith(" /probe")]
    if end != "waits" and answered != [request.line for request in seen]:
        return f"answered {answered}, but the instance saw {[request.line for request in seen]}"
    named = [unescape(text.encode()).decode()[:LINE_CHARACTERS] for text in case.said("sees")]
    if named and [request.line for request in seen] != named[: len(seen) if end == "waits" else None]:
        return f"the instance saw {[request.line for request in seen]}"
    if verdict[0] in ("refused", "waits") and seen:
        return "a request reached the instance"
    if verdict[0] == "refused" and not drip and instance.received != len(_sent(instance)):
        return "some of it reached the instance"
    for request in instance.requests:
        if fault := _not_clean(request):
            return f"{fault}: {request.head!r}"
    return _not_as_noted(case, seen[0]) if seen else ""


def _sent(instance: Instance) -> bytes:
    return b"".join(request.head + request.body for request in instance.requests)


def _not_clean(request: Request) -> str:
    """What no request may be that a front door passes on (RFC 9110 7.6, RFC 9112 3.2, 6.3)."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(request.head)
    if not isinstance(reader.next_event(), h11.Request):
        return "h11 does not take it"
    if not request.head.split(b"\r\n")[0].endswith(b" HTTP/1.1"):
        return "another version"
    if len(request.values(b"host")) != 1:
        return "not one Host"
    if len(request.values(b"content-length") + request.values(b"transfer-encoding")) > 1:
        return "two framings"
    if any(request.values(name) for name in HOP_BY_HOP):
        return "hop-by-hop headers"
    if request.values(b"connection") not in ([], [b"upgrade"], [b"te"]):
        return "a Connection of the client's"
    if bool(request.values(b"upgrade")) != (request.values(b"connection") == [b"upgrade"]):
        return "Upgrade without Connection"
    if request.values(b"te") not in ([], [b"trailers"]):
        return "an unknown TE"
    if len(request.values(b"x-forwarded-for")) != 1:
        return "not one X-Forwarded-For"
    return ""


def _not_as_noted(case: Case, request: Request) -> str:
    for line in case.said("has"):
        if unescape(line.encode()) not in request.lines and line != "Host: ":
            return f"no line {line}: {request.head!r}"
    for name in case.said("lacks"):
        if request.values(name.encode()):
            return f"{name} went on: {request.head!r}"
    for text in case.said("lacks-text"):
        if text.encode() in request.head:
            return f"{text} went on: {request.head!r}"
    for body in case.said("body"):
        if unescape(body.encode()) != request.body:
            return f"the body is {request.body!r}"
    return ""


async def play_response(stage: Stage, case: Case) -> str:
    """What is wrong with what a client gets of these bytes of an instance; "" for nothing."""
    stage.instance.forget()
    stage.instance.case = case
    stage.instance.go_on = asyncio.Event()
    client = await stage.client()
    try:
        return await _play_response(stage, client, case)
    finally:
        client.close()
        stage.instance.case = None


async def _play_response(stage: Stage, client: Client, case: Case) -> str:
    asked = (case.said("to") or ["GET / HTTP/1.1"])[0]
    method = asked.split()[0]
    await client.send(f"{asked}\r\nHost: a.test\r\n\r\n".encode())
    if len(case.pieces) > 1 or case.said("then") == ["reset-after-read"]:
        begun = b"\r\n\r\n" + case.pieces[0].partition(b"\r\n\r\n")[2]
        if not await client.until(lambda: begun in client.got):
            return f"the beginning does not arrive: {client.got!r}"
        stage.instance.go_on.set()
    before: list[str] = []
    answer = await client.answer(method)
    while answer is not None and answer[0] < 200:
        before.append(str(answer[0]))
        answer = await client.answer(method)
    cut = case.verdict[2:] == ("cut",)
    status = int(case.verdict[1])
    if status < 200:
        return "" if before and answer is None and before[0] == case.verdict[1] else f"{before}, then {answer}"
    if answer is None or answer[0] != status or answer[3] == cut:
        return f"the client gets {answer}"
    if before != "".join(case.said("before")).split():
        return f"before it {before}"
    if status != 502 and (fault := _answer_not_as_noted(case, *answer[:3])):
        return fault
    if case.said("closes") and await client.rest():
        return "it is not closed"
    last = stage.instance.requests[-1].connection if stage.instance.requests else 0
    if fault := await stage.probe():
        return fault
    reused = stage.instance.requests[-1].connection == last
    if case.said("pool") and reused != (case.said("pool") == ["kept"]):
        return "the instance's connection is " + ("used again" if reused else "not used again")
    return "the instance's connection is used again" if reused and (cut or status == 502) else ""


def _answer_not_as_noted(case: Case, status: int, head: bytes, body: bytes) -> str:
    first, *lines = head.split(b"\r\n")
    names = {line.partition(b":")[0].lower().decode() for line in lines}
    for text in case.said("first"):
        if first != unescape(text.encode()):
            return f"it begins {first!r}"
    for line in case.said("has"):
        if unescape(line.encode()) not in lines:
            return f"no line {line}: {head!r}"
    for name in case.said("lacks"):
        if name in names:
            return f"{name} goes on: {head!r}"
    for text in case.said("lacks-text"):
        if text.encode() in head:
            return f"{text} goes on: {head!r}"
    for text in case.said("body"):
        if unescape(text.encode()) != body:
            return f"the body is {body!r}"
    return ""


@pytest.fixture
async def stage(house: House) -> Stage:
    stage = Stage(house)
    await stage.open()
    return stage


@pytest.mark.parametrize("topic", topics("requests"))
async def test_a_request_has_its_end(topic: str, stage: Stage) -> None:
    faults = [
        f"{case.id}{' in drops' * drip}: {fault}"
        for case in load("requests", topic)
        for drip in (False, True)
        if not drip or (len(case.raw) <= DRIP_BYTES_MAX and not case.said("whole"))
        if (fault := await play_request(stage, case, drip=drip))
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("topic", topics("responses"))
async def test_an_answer_has_its_end(topic: str, stage: Stage) -> None:
    faults = [f"{case.id}: {fault}" for case in load("responses", topic) if (fault := await play_response(stage, case))]
    assert not faults, "\n".join(faults)
