"""Malformed and hostile requests at a real door, byte by byte: each has its status and its code, is counted once where
it belongs, ends the connection where its framing is in doubt, and is never seen by the app."""

import contextlib
import json
import select
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from flyproxy.edge.server import FOLD_S

ANSWER_S = 10.0
"""A bound against hanging, not a measure."""
CHUNKED = b"Transfer-Encoding: chunked\r\n"
HOST = b"Host: hello.localhost\r\n"
NOBODY = "_unmatched"
OPERATOR = "_operator"


@dataclass(frozen=True)
class Case:
    name: str
    request: bytes
    status: int
    code: str
    app: str = NOBODY
    stays: bool = False
    """The request was well-formed, so the connection goes on."""


def get(lines: bytes, host: bytes = HOST) -> bytes:
    return b"GET /secret HTTP/1.1\r\n" + host + lines + b"\r\n"


def post(lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /secret HTTP/1.1\r\n" + HOST + lines + b"\r\n" + body


def chunks(body: bytes) -> bytes:
    return post(CHUNKED, body)


def hosted(value: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n"


TLS_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(range(200))
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: hello.localhost\r\n\r\n"

MALFORMED = [
    ("content-length-and-chunked", post(b"Content-Length: 5\r\n" + CHUNKED, b"0\r\n\r\n" + SMUGGLED)),
    ("chunked-and-content-length", post(CHUNKED + b"Content-Length: 5\r\n", b"0\r\n\r\n" + SMUGGLED)),
    ("two-content-lengths", post(b"Content-Length: 5\r\nContent-Length: 6\r\n", b"hello")),
    ("the-same-content-length-twice", post(b"Content-Length: 5\r\nContent-Length: 5\r\n", b"hello")),
    ("content-length-list", post(b"Content-Length: 5, 5\r\n", b"hello")),
    ("content-length-plus", post(b"Content-Length: +5\r\n", b"hello")),
    ("content-length-minus", post(b"Content-Length: -5\r\n", b"hello")),
    ("content-length-hex", post(b"Content-Length: 0x5\r\n", b"hello")),
    ("content-length-empty", post(b"Content-Length:\r\n", b"hello")),
    ("content-length-of-20-digits", post(b"Content-Length: 18446744073709551616\r\n", b"hello")),
    ("two-transfer-encodings", post(CHUNKED * 2, b"0\r\n\r\n")),
    ("chunked-in-http-1.0", b"POST / HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("space-before-colon", post(b"Transfer-Encoding : chunked\r\n", b"0\r\n\r\n")),
    ("underscored-content-length", post(b"Content_Length: 5\r\n", b"hello")),
    ("folded-header", get(b"X-A: one\r\n two\r\n")),
    ("folded-transfer-encoding", post(b"Transfer-Encoding:\r\n chunked\r\n", b"0\r\n\r\n")),
    ("bare-cr", get(b"X-A: one\rTransfer-Encoding: chunked\r\n")),
    ("bare-lf", b"GET / HTTP/1.1\nHost: hello.localhost\n\n"),
    ("one-bare-lf", get(b"X-A: one\nX-B: two\r\n")),
    ("nul", get(b"X-A: o\0ne\r\n")),
    ("no-colon", get(b"X-A one\r\n")),
    ("no-name", get(b": one\r\n")),
    ("odd-name", get(b"X(A): one\r\n")),
    ("connection-names-content-length", post(b"Connection: content-length\r\nContent-Length: 5\r\n", b"hello")),
    ("connection-names-the-client-ip", get(b"Connection: fly-client-ip\r\n")),
    ("no-host", get(b"", host=b"")),
    ("two-hosts", get(HOST)),
    ("empty-host", hosted(b"")),
    ("host-with-user", hosted(b"evil@hello.localhost")),
    ("host-with-path", hosted(b"hello.localhost/evil")),
    ("host-with-space", hosted(b"hello.localhost evil")),
    ("host-with-empty-label", hosted(b"hello..localhost")),
    ("host-with-a-port-too-large", hosted(b"hello.localhost:65536")),
    ("host-of-half-an-ipv6", hosted(b"[::1")),
    ("target-of-another-host", b"GET http://evil.example/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("target-with-space", b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("target-with-fragment", b"GET /a#b HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("target-beyond-ascii", b"GET /\xc3\xa9 HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("star-with-get", b"GET * HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("http-0.9", b"GET /\r\n"),
    ("http-0.9-with-headers", b"GET /secret\r\n" + HOST + b"\r\n"),
    ("tls-hello", TLS_HELLO),
    ("ssh", b"SSH-2.0-OpenSSH_9.2\r\n"),
    ("three-empty-lines", b"\r\n\r\n\r\n" + get(b"")),
]  # fmt: skip
BAD_CHUNKS = [
    ("no-number", chunks(b"zz\r\nhello\r\n0\r\n\r\n")),
    ("0x", chunks(b"0x5\r\nhello\r\n0\r\n\r\n")),
    ("minus", chunks(b"-5\r\nhello\r\n0\r\n\r\n")),
    ("lf-only", chunks(b"5\nhello\r\n0\r\n\r\n")),
    ("of-17-digits", chunks(b"10000000000000005\r\nhello\r\n0\r\n\r\n")),
    ("longer-than-said", chunks(b"5\r\nhello!\r\n0\r\n\r\n")),
    ("long-extension", chunks(b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n")),
    ("bad-extension", chunks(b"5;\x01\r\nhello\r\n0\r\n\r\n")),
    ("framing-as-trailer", chunks(b"0\r\nContent-Length: 5\r\n\r\n")),
    ("client-ip-as-trailer", chunks(b"0\r\nFly-Client-IP: 10.0.0.1\r\n\r\n")),
]  # fmt: skip
CASES = [
    *(Case(name, request, 400, "PP01") for name, request in MALFORMED),
    *(Case(f"chunk-{name}", request, 400, "PP01", app="hello") for name, request in BAD_CHUNKS),
    Case("coding-identity", post(b"Transfer-Encoding: identity\r\n"), 501, "PP08"),
    Case("coding-twice", post(b"Transfer-Encoding: chunked, chunked\r\n"), 501, "PP08"),
    Case("coding-gzip", post(b"Transfer-Encoding: gzip, chunked\r\n"), 501, "PP08"),
    Case("connect", b"CONNECT hello.localhost:443 HTTP/1.1\r\n" + HOST + b"\r\n", 501, "PP08"),
    Case("trace", b"TRACE / HTTP/1.1\r\n" + HOST + b"\r\n", 501, "PP08"),
    Case("h2c", get(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n"), 501, "PP08"),
    Case("http-2.1", b"GET / HTTP/2.1\r\n" + HOST + b"\r\n", 505, "PP09"),
    Case("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "PP09"),
    Case("expectation", post(b"Expect: 200-ok\r\nContent-Length: 5\r\n", b"hello"), 417, "PP11"),
    Case("long-target", b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, "PP06"),
    Case("endless-target", b"GET /" + b"a" * 20_000, 414, "PP06"),
    Case("long-header", get(b"X-A: " + b"a" * 9000 + b"\r\n"), 431, "PP07"),
    Case("endless-header", b"GET / HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * 20_000, 431, "PP07"),
    Case("101-headers", get(b"X-A: a\r\n" * 101), 431, "PP07"),
    Case("huge-head", get((b"X-A: " + b"a" * 4000 + b"\r\n") * 10), 431, "PP07"),
    Case("large-body-announced", post(b"Content-Length: 1048577\r\n"), 413, "PP05", app="hello"),
    Case("unknown-host", hosted(b"nobody.example"), 404, "PP02", stays=True),
    Case("address-as-host", hosted(b"127.0.0.1"), 404, "PP02", stays=True),
    Case("unknown-host-with-a-body", hosted(b"nobody.example")[:-2] + b"Content-Length: 9\r\n\r\n123", 404, "PP02"),
    Case("http-1.0-without-host", b"GET / HTTP/1.0\r\n\r\n", 404, "PP02"),
]


class Witness(threading.Thread):
    """An app that writes down every byte it is sent and answers 200 to every whole head, but nothing to a PUT."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.connections: list[bytearray] = []
        self.ended: list[threading.Event] = []

    def run(self) -> None:
        while True:
            try:
                sock, _ = self._listening.accept()
            except OSError:
                return
            seen, ended = bytearray(), threading.Event()
            self.ended.append(ended)
            self.connections.append(seen)
            threading.Thread(target=self._converse, args=(sock, seen, ended), daemon=True).start()

    def _converse(self, sock: socket.socket, seen: bytearray, ended: threading.Event) -> None:
        with sock:
            try:
                while data := sock.recv(65536):
                    heads = seen.count(b"\r\n\r\n")
                    seen += data
                    if b"PUT " in seen:
                        continue
                    for _ in range(seen.count(b"\r\n\r\n") - heads):
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            except OSError:
                pass
        ended.set()

    def putting(self) -> list[int]:
        """Connections with a PUT that have not ended."""
        return [
            index
            for index, (seen, ended) in enumerate(zip(self.connections, self.ended, strict=False))
            if b"PUT " in seen and not ended.is_set()
        ]

    def seen(self) -> bytes:
        return b"".join(self.connections)

    def close(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()


@pytest.fixture(scope="module")
def witness() -> Iterator[Witness]:
    witness = Witness()
    witness.start()
    yield witness
    witness.close()
    witness.join()


@pytest.fixture(scope="module")
def door(toolbox: dict[str, Any], start_shared_front_door: Any, witness: Witness) -> Any:
    return start_shared_front_door(
        {
            "edge": {"workers": 2, "region": "ord"},
            "listeners": [{"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"}],
            "apps": [
                {
                    "name": "hello",
                    "hostnames": ["hello.localhost"],
                    "instances": [{"address": f"127.0.0.1:{witness.port}"}],
                }
            ],
            "limits": {"body_bytes": "1MiB"},
            "timeouts": {"head": "1s", "body": "1s", "idle": "2s"},
        }
    )


class Visit:
    """One connection to the door, as bytes."""

    def __init__(self, door: Any) -> None:
        self.sock = socket.create_connection(("127.0.0.1", door.doors["ord"]), ANSWER_S)
        self._reader = self.sock.makefile("rb")

    def __enter__(self) -> "Visit":
        return self

    def __exit__(self, *fault: object) -> None:
        self._reader.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self) -> tuple[int, dict[str, str], bytes]:
        """(status, headers, body) of the next answer, by its Content-Length."""
        lines = []
        while line := self._reader.readline().removesuffix(b"\r\n"):
            lines.append(line.decode("latin-1"))
        assert lines, "closed without an answer"
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = self._reader.read(int(headers["content-length"]))
        assert len(body) == int(headers["content-length"]), "closed in the middle of the body"
        return int(lines[0].split()[1]), headers, body

    def rest(self) -> bytes:
        """What still comes until the other side ends."""
        return self._reader.read()


def responses(door: Any) -> dict[Any, float]:
    return folded(door, "fly_edge_http_responses_count", "app", "status")


def faults(door: Any) -> dict[Any, float]:
    return folded(door, "fly_edge_error_count", "app", "code")


def folded(door: Any, name: str, *by: str) -> dict[Any, float]:
    """What was counted, when it is all in shared memory: a worker folds its counters FOLD_S after they moved."""
    before: dict[Any, float] | None = None
    while True:
        found = {key: value for key, value in door.exposed_sum(name, *by).items() if value}
        if found == before:
            return found
        before = found
        time.sleep(2 * FOLD_S)


def grown(before: dict[Any, float], now: dict[Any, float]) -> dict[Any, float]:
    return {key: now[key] - before.get(key, 0) for key in now if now[key] != before.get(key, 0)}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_bad_request_is_answered_counted_once_and_seen_by_no_app(
    case: Case, door: Any, witness: Witness, toolbox: dict[str, Any]
) -> None:
    counted, faulted, seen = responses(door), faults(door), len(witness.seen())
    with Visit(door) as visit:
        visit.send(case.request)
        status, headers, body = visit.answer()
        error = json.loads(body)["error"]
        assert (status, headers["flyproxy-error"], error["code"], error["status"]) == (
            case.status,
            case.code,
            case.code,
            case.status,
        )
        assert error["request_id"] == headers["fly-request-id"]
        assert headers["server"].startswith("flyproxy/")
        assert headers.get("connection") == (None if case.stays else "close")
        if case.stays:
            visit.send(case.request)
            assert visit.answer()[0] == case.status
        else:
            assert visit.rest() == b"", "one answer, then the end"
    times = 1 + case.stays

    def counts() -> dict[Any, float]:
        return grown(counted, responses(door))

    once = {(case.app, str(case.status)): times}
    toolbox["eventually"](lambda: counts() == once, ANSWER_S, f"counted as {once}")
    assert grown(faulted, faults(door)) == {(case.app, case.code): times}
    assert len(witness.seen()) == seen


def test_nobody_is_an_app_of_the_operators(door: Any, toolbox: dict[str, Any]) -> None:
    """What matches no app counts where only an operator looks, never in a tenant's organization."""
    with Visit(door) as visit:
        visit.send(hosted(b"nobody.example")[:-2] + b"Connection: close\r\n\r\n")
        assert visit.answer()[0] == 404
    door.tokens[OPERATOR] = door.token(OPERATOR, "--operator")
    query = f'sum by (status) (fly_edge_http_responses_count{{app="{NOBODY}"}})'
    toolbox["eventually"](lambda: door.vector(query, "status", organization=OPERATOR)[("404",)] >= 1)
    assert door.vector(query) == {}
    assert door.vector('count by (app) (fly_edge_tcp_connects_count{app!="hello"})', "app") == {}


def test_a_client_cannot_make_a_label(door: Any, toolbox: dict[str, Any]) -> None:
    """However many host names, methods and paths strangers invent: the series stay those there were."""

    def series() -> set[Any]:
        return {(name, labels) for name, labels in door.exposed() if name.startswith("fly_edge_")}

    def answered() -> float:
        return float(responses(door).get((NOBODY, "404"), 0))

    def strangers(marks: range) -> None:
        with Visit(door) as visit:
            for mark in marks:
                visit.send(b"X%d /p%d?q=%d HTTP/1.1\r\nHost: h%d.example\r\n\r\n" % (mark, mark, mark, mark))
                assert visit.answer()[0] == 404

    strangers(range(1))  # that 404 has been seen here before
    before, count = series(), answered()
    strangers(range(1, 101))
    toolbox["eventually"](lambda: answered() == count + 100)
    assert series() == before


def test_what_follows_a_good_request_is_refused_and_not_seen(door: Any, witness: Witness) -> None:
    """The classic: one message with an end we and the app could disagree about."""
    counted = responses(door)
    with Visit(door) as visit:
        visit.send(post(b"Content-Length: 5\r\n", b"hello") + b"SMUGGLED\r\n\r\n")
        assert visit.answer()[0] == 200
        assert visit.answer()[0] == 400
        assert visit.rest() == b""
    assert b"SMUGGLED" not in witness.seen()
    assert b"smuggled" not in witness.seen()
    assert grown(counted, responses(door)) == {("hello", "200"): 1, (NOBODY, "400"): 1}


def test_a_client_cannot_say_who_it_is(door: Any, witness: Witness) -> None:
    """Headers the front door vouches for are dropped and said anew, and what Connection names goes no further."""
    forged = b"".join(
        b"%b: 10.6.6.6\r\n" % name
        for name in (
            b"Fly-Client-IP",
            b"X-Forwarded-For",
            b"X-Real-IP",
            b"X_Forwarded_For",
            b"Forwarded",
            b"Fly-Region",
        )
    )
    start = len(witness.seen())
    with Visit(door) as visit:
        visit.send(get(forged + b"Connection: X-Hop, close\r\nX-Hop: 10.6.6.6\r\nTE: gzip\r\n"))
        assert visit.answer()[0] == 200
        assert visit.rest() == b""
    seen = witness.seen()[start:]
    assert b"10.6.6.6" not in seen
    assert b"gzip" not in seen
    for line in (
        b"Fly-Client-IP: 127.0.0.1",
        b"X-Forwarded-For: 127.0.0.1",
        b"Fly-Region: ord",
        b"Host: hello.localhost",
    ):
        assert seen.count(b"\r\n" + line + b"\r\n") == 1, seen


def drip(sock: socket.socket, data: bytes, every_s: float) -> None:
    """One byte at a time, until an answer comes."""
    for position in range(len(data)):
        sock.sendall(data[position : position + 1])
        readable, _, _ = select.select([sock], [], [], every_s)
        if readable:
            return
    raise AssertionError("a byte now and then kept the connection open")


@pytest.mark.parametrize("way", ["half a head", "a byte now and then", "half a line after an answer"])
def test_a_head_must_come_in_its_time(way: str, door: Any, witness: Witness, toolbox: dict[str, Any]) -> None:
    counted = responses(door)
    with Visit(door) as visit:
        if way == "half a line after an answer":
            visit.send(get(b"") + b"GET /sec")
            assert visit.answer()[0] == 200
        elif way == "half a head":
            visit.send(get(b"X-A: a")[:-1])
        else:
            drip(visit.sock, get(b"X-A: " + b"a" * 100), 0.2)
        seen = len(witness.seen())
        status, headers, _ = visit.answer()
        assert (status, headers["flyproxy-error"], headers["connection"]) == (408, "PP03", "close")
        assert visit.rest() == b""
    good = {("hello", "200"): 1} if way == "half a line after an answer" else {}
    toolbox["eventually"](lambda: grown(counted, responses(door)) == {(NOBODY, "408"): 1, **good})
    assert len(witness.seen()) == seen
    assert door.exposed_sum("flyproxy_limit_reached_total", limit="head_timeout")[()] >= 1


def test_a_silent_connection_is_closed_without_a_word(door: Any) -> None:
    counted = responses(door)
    with Visit(door) as visit:
        assert visit.rest() == b""
    assert grown(counted, responses(door)) == {}


@pytest.mark.parametrize("framing", [b"Content-Length: 10\r\n", CHUNKED], ids=["counted", "chunked"])
@pytest.mark.parametrize(("way", "status"), [("stops", 408), ("leaves", 499), ("ends halfway", 499)])
def test_a_truncated_upload_never_becomes_whole(
    way: str, status: int, framing: bytes, door: Any, witness: Witness, toolbox: dict[str, Any]
) -> None:
    """The app sees the beginning and then the end of its connection: no invented byte, no final chunk."""
    counted = responses(door)
    begun = b"5\r\nhello\r\n" if framing == CHUNKED else b"hello"

    def mine() -> list[int]:
        return [index for index in witness.putting() if witness.connections[index].endswith(begun)]

    with Visit(door) as visit:
        visit.send(b"PUT /half HTTP/1.1\r\n" + HOST + framing + b"\r\n" + begun)
        (index,) = toolbox["eventually"](mine, ANSWER_S, "the app sees the beginning")
        if way == "stops":
            got, headers, _ = visit.answer()
            assert (got, headers["flyproxy-error"], headers["connection"]) == (408, "PP04", "close")
        elif way == "ends halfway":
            visit.sock.shutdown(socket.SHUT_WR)
        if way != "leaves":
            assert visit.rest() == b""
    assert witness.ended[index].wait(ANSWER_S), "the instance's connection ends too"
    assert witness.connections[index].endswith(b"\r\n\r\n" + begun)
    toolbox["eventually"](lambda: grown(counted, responses(door)) == {("hello", str(status)): 1})


def test_a_body_that_grows_too_large_is_cut_off(door: Any, witness: Witness, toolbox: dict[str, Any]) -> None:
    """A chunked body says only as it comes how long it is; the app may have seen its beginning, never its end."""
    counted, faulted = responses(door), faults(door)
    with Visit(door) as visit:
        with contextlib.suppress(OSError):  # it may be cut off while it sends
            visit.send(b"PUT /big HTTP/1.1\r\n" + HOST + CHUNKED + b"\r\n")
            for _ in range(64):
                visit.send(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
            visit.send(b"0\r\n\r\n")
        toolbox["eventually"](lambda: grown(faulted, faults(door)) == {("hello", "PP05"): 1})
        assert grown(counted, responses(door)) == {("hello", "413"): 1}
    toolbox["eventually"](lambda: not witness.putting(), ANSWER_S, "the instance's connection ends too")
    assert not any(seen.endswith(b"0\r\n\r\n") for seen in witness.connections if b"PUT /big" in seen)


def test_after_all_that_a_good_request_is_served(door: Any, toolbox: dict[str, Any]) -> None:
    with Visit(door) as visit:
        for _ in range(10):
            visit.send(get(b"Accept: */*\r\n"))
            assert visit.answer()[0] == 200
    assert door.process.poll() is None
    assert sum(door.exposed_sum("flyproxy_child_restarts_total").values()) == 0

    def open_connections() -> float:
        names = ("fly_edge_tcp_connects_count", "fly_edge_tcp_disconnects_count")
        connects, disconnects = (sum(door.exposed_sum(name).values()) for name in names)
        return float(connects - disconnects)

    toolbox["eventually"](lambda: open_connections() == 0, ANSWER_S, "every connection's end is counted")
