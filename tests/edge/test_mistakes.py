"""A bug of ours, wherever it is: that request ends, counted once and logged once; everybody else goes on."""

import asyncio
from typing import Any

import pytest

from flyproxy.edge.account import Account
from flyproxy.edge.client import ClientConnection
from flyproxy.edge.proxy import Exchange
from flyproxy.edge.upstream import UpstreamConnection

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: hello.test\r\nContent-Length: 4\r\n\r\n"
House = Any


class Bug(RuntimeError):
    pass


def broken(times: int, verb: Any) -> Any:
    """The verb, which fails the first times."""
    left = times

    def fails(*arguments: Any, **named: Any) -> Any:
        nonlocal left
        if left:
            left -= 1
            raise Bug("on purpose")
        return verb(*arguments, **named)

    return fails


@pytest.fixture
async def said() -> list[dict[str, Any]]:
    """What the loop was told of."""
    contexts: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: contexts.append(context))
    return contexts


@pytest.mark.parametrize(
    ("owner", "verb"),
    [
        (Exchange, "begin"),
        (Exchange, "_pick"),
        (Exchange, "dialled"),
        (Exchange, "_forward"),
        (Exchange, "answered"),
        (Exchange, "body_arrived"),
        (Exchange, "_answer_over"),
        (Account, "_leave_instance"),
        (UpstreamConnection, "_final_head"),
        (UpstreamConnection, "let_go"),
        (ClientConnection, "_begin_body"),
        (ClientConnection, "_take"),
    ],
)
async def test_a_bug_ends_its_request_and_nothing_else(
    house: House, monkeypatch: pytest.MonkeyPatch, said: list[Any], owner: type, verb: str
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(4)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.01)
            if writer.is_closing():  # the mistake ended this connection too: uvloop raises for a write to it
                return
            writer.write(b"done")

    await house.open(house.app("hello", await house.upstream(handler)))
    victim, other = await house.client(), await house.client()
    monkeypatch.setattr(owner, verb, broken(1, getattr(owner, verb)))
    await victim.send(POST + b"body")
    answer = await victim.rest()
    if answer.startswith(b"HTTP/1.1 500 "):
        assert b"Flyproxy-Error: PL03\r\n" in answer
        assert b"Connection: close\r\n" in answer
    assert len(said) == 1
    assert isinstance(said[0]["exception"], Bug)
    await house.settle(house.balanced)
    assert sum(house.counted().values()) == 1
    assert (await other.ask(POST + b"body"))[1] == b"done"
    assert len(said) == 1
    await house.settle(lambda: house.server.statistics()["clients"] == 1)
    await house.settle(lambda: house.server.statistics()["upstream_connections"] == 1)


async def test_a_bug_in_the_next_request_does_not_touch_the_instances_connection(
    house: House, monkeypatch: pytest.MonkeyPatch, said: list[Any]
) -> None:
    """The second is read when the first one's answer ends, on the instance's turn."""
    upstream = await house.upstream()
    await house.open(house.app("hello", upstream))
    client = await house.client()
    await client.ask(GET)
    monkeypatch.setattr(Exchange, "begin", _second(broken(1, Exchange.begin)))
    await client.send(GET + GET)
    await client.rest()
    assert len(said) == 1
    await house.settle(house.balanced)
    assert sum(house.counted().values()) == 3
    await (await house.client()).ask(GET)
    assert upstream.connections == 1


def _second(fails: Any) -> Any:
    """Let the first call through to the real verb."""
    calls = 0
    real = _BEGIN

    def verb(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*arguments, **named) if calls == 1 else fails(*arguments, **named)

    return verb


_BEGIN = Exchange.begin


async def test_the_ticker_survives_a_bug(house: House, monkeypatch: pytest.MonkeyPatch, said: list[Any]) -> None:
    await house.open(house.app("hello", await house.upstream()))
    clients = [await house.client() for _ in range(3)]
    for client in clients:
        await client.ask(GET)
    worker = house.server._worker
    monkeypatch.setattr(ClientConnection, "expired", broken(1, ClientConnection.expired))
    for connection in worker.clients:
        connection.deadline_ns = 0
    await house.settle(lambda: house.server.statistics()["clients"] == 1)
    assert len(said) == 1
