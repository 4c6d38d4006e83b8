"""A client that says it sends no more (`nc -N`) gets its answer; one that left is a 499. TCP tells them apart late."""

import asyncio
import json
from typing import Any

import pytest

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
House = Any


class App:
    """An instance that answers when it is told to."""

    def __init__(self, answer: bytes = OK) -> None:
        self.answer = answer
        self.asked = asyncio.Event()
        self.go = asyncio.Event()
        self.left = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"Content-Length: 4\r\n" in head:
                    await reader.readexactly(4)
                self.asked.set()
                await self.go.wait()
                writer.write(self.answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.left.set()


@pytest.fixture
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flyproxy.edge.client.HALF_CLOSED_NS", 1)


@pytest.mark.parametrize(
    "request_bytes",
    [
        GET,
        b"GET / HTTP/1.0\r\nHost: hello.test\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 4\r\n\r\nbody",
        b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: close\r\n\r\n",
    ],
)
async def test_a_client_that_has_said_all_gets_its_answer(house: House, request_bytes: bytes) -> None:
    app = App()
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    await client.send(request_bytes)
    client.half_close()
    await app.asked.wait()
    app.go.set()
    assert (await client.answer())[1] == b"ok"
    assert await client.rest() == b""
    await house.settle(lambda: house.counted() == {"200": 1})
    assert house.metric("fly_edge_data_in") == client.sent
    assert house.metric("fly_edge_data_out") == client.received
    await house.settle(lambda: house.metric("fly_edge_tcp_disconnects_count", app="hello") == 1)
    assert house.balanced()


async def test_what_it_pipelined_before_is_answered_too_in_order(house: House) -> None:
    app = App()
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    stranger = b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n"
    await client.send(GET + stranger + GET + stranger + GET[:20])
    client.half_close()
    app.go.set()
    heads = [(await client.answer())[0] for _ in range(4)]
    assert [head.split()[1] for head in heads] == [b"200", b"404", b"200", b"404"]
    assert await client.rest() == b""
    await house.settle(lambda: house.counted() == {"200": 2})
    assert house.counted("_unmatched") == {"404": 2}
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.metric("fly_edge_data_in") == client.sent


async def test_a_large_answer_comes_whole(house: House) -> None:
    body = bytes(range(256)) * 32768
    app = App(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    await client.send(GET)
    client.half_close()
    app.go.set()
    await client.head()
    await client.until(b"\r\n")
    assert await client.exactly(len(body)) == body
    assert await client.rest() == b"\r\n0\r\n\r\n"
    await house.settle(lambda: house.counted() == {"200": 1})
    assert house.metric("fly_edge_data_out") == client.received


async def test_one_that_was_gone_is_a_499_even_if_the_app_answers(house: House) -> None:
    """Its FIN looks the same; our answer meets a RST."""
    app = App()
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    await client.send(GET)
    await app.asked.wait()
    await client.close()
    await house.settle(lambda: any(one.ended_ns for one in house.server._worker.clients))
    app.go.set()
    await house.settle(lambda: house.counted() == {"499": 1})
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.metric("fly_edge_error_count") == 0
    assert house.metric("fly_edge_data_out") == 0  # refused, not taken
    house.server._worker.log.flush()
    line = json.loads(house.lines[-1])
    assert (line["status"], line["why"]) == (499, "the client left")


async def test_nobody_waits_for_ever_for_an_app_that_is_slow(house: House, little_patience: None) -> None:
    app = App()
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    await client.send(GET)
    await app.asked.wait()
    client.half_close()
    assert await client.rest() == b""
    assert house.counted() == {"499": 1}
    app.go.set()
    await asyncio.wait_for(app.left.wait(), 5)
    await house.settle(house.balanced)


async def test_an_answer_that_stops_is_not_waited_for_and_keeps_the_status_that_was_seen(
    house: House, little_patience: None
) -> None:
    upstream = await house.says(b"HTTP/1.1 206 Partial\r\nContent-Length: 10\r\n\r\nhalf")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(GET)
    await client.head()
    client.half_close()
    await client.rest()
    await house.settle(lambda: house.counted() == {"206": 1})
    await house.settle(house.balanced)


async def test_half_a_body_is_not_waited_for(house: House) -> None:
    app = App()
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    await client.send(GET + b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 4\r\n\r\nbo")
    client.half_close()
    app.go.set()
    await client.answer()
    assert await client.rest() == b""
    await house.settle(lambda: house.counted() == {"200": 1, "499": 1})
    await house.settle(house.balanced)
    assert house.metric("fly_edge_data_in") == client.sent


async def test_a_stream_of_events_ends_with_its_client(house: House) -> None:
    """Nothing may be sent for hours, so nothing else would tell that nobody listens."""
    app = App(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n")
    app.go.set()
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    await client.send(GET)
    await client.until(b"data: 1\n\n")
    client.half_close()
    assert await client.rest() == b""
    await house.settle(house.balanced)
    assert house.counted() == {"200": 1}


async def test_a_tunnel_may_begin_half_closed(house: House) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        writer.write(b"heard " + await reader.read())
        writer.close()

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(b"GET / HTTP/1.1\r\nHost: hello.test\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nearly")
    client.half_close()
    assert (await client.rest()).endswith(b"\r\n\r\nheard early")
    await house.settle(house.balanced)
    assert house.counted() == {"101": 1}


async def test_a_half_closed_client_does_not_hold_up_the_drain(house: House) -> None:
    app = App()
    await house.open(house.app("hello", await house.upstream(app.serve)))
    client = await house.client()
    await client.send(GET)
    client.half_close()
    await app.asked.wait()
    draining = asyncio.ensure_future(house.drain(10))
    await house.settle(lambda: house.server._worker.draining)
    app.go.set()
    assert (await client.answer())[1] == b"ok"
    await asyncio.wait_for(draining, 5)
    assert house.counted() == {"200": 1}
