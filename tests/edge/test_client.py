"""A client connection: order, doubt, patience, and leaving."""

import asyncio
import json
from typing import Any

import pytest

from flyproxy.config.resolved import Limits, Timeouts

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
House = Any


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An instance that reads and says nothing."""
    while await reader.read(65536):
        pass


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split(b" ")[1]
            if path == b"/1":
                await asyncio.sleep(0.02)  # the first is the slowest
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    paths = [b"/%d" % n for n in range(1, 30)]
    await client.send(b"".join(b"GET %b HTTP/1.1\r\nHost: hello.test\r\n\r\n" % path for path in paths))
    assert [(await client.answer())[1] for _ in paths] == paths
    assert house.counted() == {"200": 29}
    assert house.metric("fly_edge_data_in") == client.sent


async def test_a_flood_of_pipelined_requests_is_bounded_and_all_answered(house: House) -> None:
    """Thousands in one go: neither deep recursion nor a buffer without end."""
    await house.open(house.app("hello", await house.upstream()), limits=Limits(buffer_bytes=16 * 1024))
    client = await house.client()
    request = b"GET / HTTP/1.1\r\nHost: nobody.test\r\n\r\n"
    sending = asyncio.ensure_future(client.send(request * 6000))
    for _ in range(6000):
        await client.answer()
    await sending
    assert house.counted("_unmatched") == {"404": 6000}


@pytest.mark.parametrize("size", [1, 7])
async def test_a_head_in_small_pieces_is_one_head(house: House, size: int) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    for at in range(0, len(GET), size):
        await client.send(GET[at : at + size])
        await asyncio.sleep(0)
    assert (await client.answer())[1] == b"ok"
    assert house.metric("fly_edge_data_in") == len(GET)


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "PP01"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "PP01"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "PP01"),
        (b"GET / HTTP/1.1\r\nHost: hello.test\r\nX : y\r\n\r\n", 400, "PP01"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "PP01"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "PP06"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431, "PP07"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"y" * 40_000, 431, "PP07"),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501, "PP08"),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "PP09"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx", 417, "PP11"),
    ],
)
async def test_a_request_in_doubt_is_refused_and_the_connection_closed(
    house: House, request_bytes: bytes, status: int, code: str
) -> None:
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(request_bytes + GET)
    head, body = await client.answer()
    assert head.startswith(b"HTTP/1.1 %d " % status)
    assert b"Flyproxy-Error: " + code.encode() in head
    assert b"Connection: close\r\n" in head
    assert json.loads(body)["error"]["status"] == status
    assert await client.rest() == b""
    assert upstream.requests == []
    assert house.counted("_unmatched") == {str(status): 1}
    assert house.metric("fly_edge_error_count", app="_unmatched", code=code) == 1
    await client.close()
    await house.settle(lambda: house.metric("fly_edge_data_in", app="_unmatched") == client.sent)
    assert house.metric("fly_edge_data_out", app="_unmatched") == client.received
    await house.settle(lambda: house.metric("fly_edge_tcp_disconnects_count", app="_unmatched") == 1)


async def test_a_faulty_chunk_stops_the_upload_and_the_instance_sees_no_end(house: House) -> None:
    got: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        try:
            while data := await reader.read(1000):
                got.append(data)
        except ConnectionResetError:
            got.append(b"RESET")

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await house.settle(lambda: bool(got))
    await client.send(b"0x3\r\nabc\r\n0\r\n\r\n")
    head, _ = await client.answer()
    assert b" 400 " in head
    await house.settle(lambda: got[-1] == b"RESET")
    assert b"0\r\n\r\n" not in b"".join(got)
    assert house.counted() == {"400": 1}
    assert house.balanced()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: hello.test\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001,
    ],
)
async def test_a_body_beyond_the_limit_is_a_413(house: House, request_bytes: bytes) -> None:
    await house.open(house.app("hello", await house.upstream()), limits=Limits(body_bytes=1000))
    client = await house.client()
    await client.send(request_bytes)
    head, _ = await client.answer()
    assert head.startswith(b"HTTP/1.1 413 ")
    assert house.metric("flyproxy_limit_reached_total", limit="body_bytes") == 1
    assert house.counted() == {"413": 1}
    await house.settle(house.balanced)


async def test_a_head_that_does_not_end_is_a_408(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()), timeouts=Timeouts(head_s=0.1))
    client = await house.client()
    await client.send(GET[:-2])
    head, _ = await client.answer()
    assert b" 408 " in head
    assert b"Flyproxy-Error: PP03\r\n" in head
    assert house.counted("_unmatched") == {"408": 1}
    assert house.metric("fly_edge_http_response_time_seconds_sum", app="_unmatched") < 5


async def test_an_idle_connection_is_closed_without_a_word(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()), timeouts=Timeouts(idle_s=0.1))
    fresh, used = await house.client(), await house.client()
    await used.ask(GET)
    assert await fresh.rest() == b""
    assert await used.rest() == b""
    assert house.metric("flyproxy_limit_reached_total", limit="idle_timeout") == 2
    assert house.metric("fly_edge_tcp_disconnects_count", app="_unmatched") == 1
    assert house.metric("fly_edge_tcp_disconnects_count", app="hello") == 1
    assert house.counted("_unmatched") == {}


async def test_a_body_that_stops_coming_is_a_408(house: House) -> None:
    await house.open(house.app("hello", await house.upstream(silent)), timeouts=Timeouts(body_s=0.1))
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 100\r\n\r\nabc")
    head, _ = await client.answer()
    assert b"Flyproxy-Error: PP04\r\n" in head
    assert house.counted() == {"408": 1}
    assert house.metric("flyproxy_limit_reached_total", limit="body_timeout") == 1
    await house.settle(house.balanced)


async def test_a_body_that_only_drips_is_a_408(house: House) -> None:
    """A byte now and then keeps no connection: 500 B/s is asked for on average."""
    await house.open(house.app("hello", await house.upstream(silent)), timeouts=Timeouts(body_s=0.5))
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 1000\r\n\r\n")

    async def drip() -> None:
        while True:
            await client.send(b"x")
            await asyncio.sleep(0.05)

    dripping = asyncio.ensure_future(drip())
    head, _ = await client.answer()
    dripping.cancel()
    assert b" 408 " in head


async def test_an_instance_that_does_not_answer_is_a_504(house: House) -> None:
    await house.open(house.app("hello", await house.upstream(silent)), timeouts=Timeouts(response_s=0.1))
    client = await house.client()
    head, _ = await client.ask(GET)
    assert head.startswith(b"HTTP/1.1 504 ")
    assert b"Flyproxy-Error: PU02\r\n" in head
    assert b"Connection: close" not in head
    assert house.counted() == {"504": 1}
    assert house.metric("fly_app_http_responses_count") == 0
    assert house.balanced()


async def test_an_instance_that_stops_in_its_answer_breaks_it_off(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    await house.open(house.app("hello", upstream), timeouts=Timeouts(response_s=0.1))
    client = await house.client()
    await client.send(GET)
    await client.head()
    assert await client.rest() == b"half"
    assert house.metric("fly_edge_error_count", code="PU03") == 1


async def test_a_client_that_takes_nothing_is_let_go(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
    await house.open(house.app("hello", upstream), timeouts=Timeouts(write_s=0.1))
    client = await house.client()
    client.writer.transport.pause_reading()
    await client.send(GET)
    await house.settle(lambda: house.metric("fly_edge_error_count", code="PP10") == 1)
    assert house.metric("flyproxy_limit_reached_total", limit="write_timeout") == 1
    assert house.counted() == {"200": 1}
    await house.settle(lambda: house.server.statistics()["clients"] == 0)
    assert house.balanced()


async def test_an_instance_that_takes_nothing_is_a_504(house: House) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # the only way to stop asyncio's own reading
        await asyncio.Event().wait()

    await house.open(house.app("hello", await house.upstream(deaf)), timeouts=Timeouts(write_s=0.1))
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 64000000\r\n\r\n")
    sending = asyncio.ensure_future(client.send(b"x" * 64_000_000))
    head, _ = await client.answer()
    assert b"Flyproxy-Error: PU04\r\n" in head
    sending.cancel()


@pytest.mark.parametrize("leave", ["abort", "close"])
async def test_a_client_that_leaves_before_its_answer_is_a_499_and_nobodys_fault(house: House, leave: str) -> None:
    asked = asyncio.Event()
    gone = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        try:
            await reader.read()
        finally:
            gone.set()

    await house.open(house.app("hello", await house.upstream(slow)))
    client = await house.client()
    await client.send(GET)
    await asked.wait()
    assert house.metric("fly_app_concurrency") == 1
    client.abort() if leave == "abort" else client.writer.close()
    await asyncio.wait_for(gone.wait(), 5)
    await house.settle(lambda: house.counted() == {"499": 1})
    assert house.metric("fly_app_http_responses_count") == 0
    assert house.metric("fly_edge_error_count") == 0
    assert house.metric("fly_app_concurrency") == 0
    assert house.metric("fly_edge_data_in") == len(GET)
    await house.settle(lambda: house.metric("fly_edge_tcp_disconnects_count", app="hello") == 1)
    house.server._worker.log.flush()
    line = json.loads(house.lines[-1])
    assert (line["status"], line["why"]) == (499, "the client left")


async def test_a_client_that_leaves_while_we_dial_is_a_499(house: House) -> None:
    await house.open(house.app("hello", house.full_queue()))
    client = await house.client()
    await client.send(GET)
    await house.settle(lambda: house.metric("fly_app_concurrency") == 1)
    client.abort()
    await house.settle(lambda: house.counted() == {"499": 1})
    assert house.balanced()


async def test_a_client_that_leaves_in_the_answer_keeps_the_status_it_saw(house: House) -> None:
    upstream = await house.says(b"HTTP/1.1 206 Partial\r\nContent-Length: 10\r\n\r\nhalf")
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.send(GET)
    await client.head()
    client.abort()
    await house.settle(lambda: house.counted() == {"206": 1})
    assert house.metric("fly_app_http_responses_count", status="206") == 1
    await house.settle(house.balanced)


async def test_a_truncated_upload_never_becomes_whole(house: House) -> None:
    got: list[bytes] = []
    ended = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1000):
                got.append(data)
        finally:
            ended.set()

    await house.open(house.app("hello", await house.upstream(handler)))
    client = await house.client()
    await client.send(b"POST / HTTP/1.1\r\nHost: hello.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await house.settle(lambda: b"abc" in b"".join(got))
    client.half_close()
    await asyncio.wait_for(ended.wait(), 5)
    assert not b"".join(got).endswith(b"0\r\n\r\n")
    await house.settle(lambda: house.counted() == {"499": 1})


async def test_one_connection_too_many_is_told_so(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()), limits=Limits(connections=2))
    first, second = await house.client(), await house.client()
    await first.ask(GET)
    await second.ask(GET)
    third = await house.client()
    head, _ = await third.answer()
    assert b"Flyproxy-Error: PL01\r\n" in head
    assert await third.rest() == b""
    assert house.metric("flyproxy_limit_reached_total", limit="connections") == 1
    assert house.counted("_unmatched") == {"503": 1}
    await first.close()
    await house.settle(lambda: house.server.statistics()["clients"] == 1)
    assert (await (await house.client()).ask(GET))[1] == b"ok"


async def test_an_instance_that_takes_no_connection_is_a_504(house: House) -> None:
    await house.open(house.app("hello", house.full_queue()), timeouts=Timeouts(connect_s=0.1))
    client = await house.client()
    head, _ = await client.ask(GET)
    assert b" 504 " in head
    assert b"Flyproxy-Error: PC05\r\n" in head
    assert house.metric("flyproxy_limit_reached_total", limit="connect_timeout") == 1
    assert house.balanced()
