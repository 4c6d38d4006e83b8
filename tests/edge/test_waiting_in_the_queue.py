"""Whoever the kernel let in before a door closed is served, not reset."""

import asyncio
import contextlib
import socket
from typing import Any

GET = b"GET / HTTP/1.1\r\nHost: hello.test\r\n\r\n"
VISITORS = 20


def visitors(port: int) -> list[socket.socket]:
    """Connections in the accept queue, their requests sent, made without letting the event loop turn."""
    waiting = [socket.create_connection(("127.0.0.1", port), 5) for _ in range(VISITORS)]
    for sock in waiting:
        sock.sendall(GET)
    return waiting


def read_all(sock: socket.socket) -> bytes:
    data = b""
    with sock, contextlib.suppress(ConnectionError):
        while part := sock.recv(65536):
            data += part
    return data


async def test_a_drain_serves_who_waits_in_the_accept_queue(house: Any) -> None:
    await house.open(house.app("hello", await house.upstream()))
    waiting = visitors(house.ports[0])
    await house.drain(5)
    answers = await asyncio.to_thread(lambda: [read_all(sock) for sock in waiting])
    assert [answer[:15] for answer in answers] == [b"HTTP/1.1 200 OK"] * VISITORS
    assert all(b"Connection: close\r\n" in answer for answer in answers)
    assert house.counted() == {"200": VISITORS}
