"""The usual request's lane: it hands on what is unusual, keeps nothing of a generation that is gone, and says an answer
once, whatever goes wrong behind it."""

import asyncio
import gc
from typing import Any

import pytest

from flyproxy.config import resolved
from flyproxy.edge.access_log import AccessLog
from flyproxy.edge.upstream import UpstreamConnection
from flyproxy.instrument.recorder import Recorder

House = Any
GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
LONG = b"GET / HTTP/1.1\r\nHost: hello.test\r\n" + b"".join(b"X-%d: a\r\n" % number for number in range(20)) + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


class Slow:
    """An instance that answers at once, but from its second answer on when it is told to."""

    def __init__(self, answer: bytes = OK) -> None:
        self.go_on = asyncio.Event()
        self.asked = asyncio.Event()
        self._answer = answer
        self._answers = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            self._answers += 1
            if self._answers > 1:
                self.asked.set()
                await self.go_on.wait()
            writer.write(self._answer if self._answers > 1 else OK)
            await writer.drain()


@pytest.fixture
async def said() -> list[dict[str, Any]]:
    """What the loop was told of."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: contexts.append(context))
    return contexts


async def asked_before_a_reload(house: House, instance: Slow) -> Any:
    """A client whose request is with the instance, while the bounds became tighter than its head."""
    app = house.app("hello", await house.upstream(instance.handle))
    await house.open(app)
    client = await house.client()
    await client.ask(GET)
    await client.send(LONG)
    await instance.asked.wait()
    tighter = house.configure(app, limits=resolved.Limits(header_count=5))
    await house.server.commit(tighter, [None] * len(tighter.listeners))
    return client


@pytest.mark.parametrize("answer", [OK, CHUNKED])
async def test_a_request_under_way_ends_well_when_a_reload_tightens_the_bounds(
    house: House, said: list[dict[str, Any]], answer: bytes
) -> None:
    instance = Slow(answer)
    client = await asked_before_a_reload(house, instance)
    instance.go_on.set()
    head = await client.head()
    assert b" 200 OK" in head
    assert await client.until(b"ok" if answer is OK else b"0\r\n\r\n")
    head, _ = await client.ask(LONG)
    assert b" 431 " in head  # the same head as before, by the new bounds
    await house.settle(house.balanced)
    assert said == []


async def test_a_client_that_leaves_after_a_reload_is_counted_once(house: House, said: list[dict[str, Any]]) -> None:
    instance = Slow()
    client = await asked_before_a_reload(house, instance)
    client.abort()
    await house.settle(lambda: house.server.statistics()["in_flight"] == 0)
    instance.go_on.set()
    await house.settle(house.balanced)
    assert said == []


@pytest.mark.parametrize(
    ("owner", "verb"),
    [(AccessLog, "add"), (Recorder, "mark"), (UpstreamConnection, "let_go")],
)
async def test_a_bug_behind_an_answer_says_nothing_twice(
    house: House, said: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, owner: type, verb: str
) -> None:
    closing = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
    instance = Slow(closing if verb == "let_go" else OK)
    await house.open(house.app("hello", await house.upstream(instance.handle)))
    client = await house.client()
    await client.ask(GET)
    await client.send(GET)
    await instance.asked.wait()
    house.recorder.fold()

    def fails(*arguments: object, **named: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("on purpose")

    monkeypatch.setattr(owner, verb, fails)
    instance.go_on.set()
    everything = await client.rest()
    assert everything.count(b"HTTP/1.1") == 1
    assert everything.endswith(b"ok")
    assert len(said) == 1
    assert house.server.statistics()["in_flight"] == 0
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 0)


async def test_an_idle_connection_keeps_nothing_of_an_old_generation(house: House) -> None:
    app = house.app("hello", await house.upstream())
    await house.open(app)
    client = await house.client()
    await client.ask(GET)
    await client.ask(GET)
    old = house.server._doors[0].way.router
    again = house.configure(app)
    await house.server.commit(again, [None] * len(again.listeners))
    await asyncio.sleep(0)
    gc.collect()
    frame = [one for one in gc.get_referrers(old) if type(one).__name__ in ("Lane", "Exchange", "ClientConnection")]
    assert frame == []
    head, _ = await client.ask(GET)
    assert b" 200 OK" in head


async def test_a_connection_that_ended_leaves_nothing_to_the_garbage_collector(house: House) -> None:
    await house.open(house.app("hello", await house.upstream()))
    gc.collect()
    gc.disable()
    try:
        client = await house.client()
        await client.ask(GET)
        await client.ask(GET)
        await client.close()
        await house.settle(lambda: house.server.statistics()["clients"] == 0)
        await asyncio.sleep(0)
        left = [one for one in gc.get_objects() if type(one).__name__ in ("Lane", "ClientConnection", "Exchange")]
    finally:
        gc.enable()
    assert left == []


@pytest.mark.parametrize("dated", [b"", b"Date: then\r\n"])
@pytest.mark.parametrize("framing", [b"Content-Length: 2\r\n\r\nok", b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"])
async def test_an_answer_that_says_no_date_gets_one(house: House, dated: bytes, framing: bytes) -> None:
    await house.open(house.app("hello", await house.says(b"HTTP/1.1 200 OK\r\n" + dated + framing)))
    client = await house.client()
    for _ in range(2):  # the second one finds an idle connection
        await client.send(GET)
        head = await client.head()
        await client.until(framing.partition(b"\r\n\r\n")[2])
        assert head.count(b"\r\nDate: ") == 1
        assert (b"Date: then\r\n" in head) == bool(dated)
        assert (b" GMT\r\n" in head) != bool(dated)
