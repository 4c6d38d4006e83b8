"""The load that wrk cannot make: many bytes through a raw door, and many connections that then do nothing."""

import contextlib
import select
import socket
import time
from collections.abc import Iterator

from bench.edge.load import HOST, Asked
from bench.edge.origin import BULK_BYTES

CONNECTIONS = 4
REQUESTS = 16
"""Of BULK_BYTES on each connection, one behind the other: more than can come in the time."""
READ_BYTES = 1 << 20
SOURCES = tuple(f"127.0.0.{number}" for number in range(2, 6))
"""Addresses to call from: each has its own ports."""
QUESTION = f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
BULK_QUESTION = f"GET /bulk HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
TIMEOUT_S = 10.0


def bulk(port: int, seconds: float) -> Asked:
    """Take what comes for so long. The kernel throws it away (MSG_TRUNC), so that the reader is not the bound."""
    taken, begun = 0, time.monotonic()
    buffer = bytearray(READ_BYTES)
    poll = select.epoll()
    with contextlib.ExitStack() as open_sockets:
        open_sockets.callback(poll.close)
        sockets: dict[int, socket.socket] = {}
        for _ in range(CONNECTIONS):
            sock = open_sockets.enter_context(socket.create_connection(("127.0.0.1", port), TIMEOUT_S))
            sock.sendall(BULK_QUESTION * REQUESTS)
            sock.setblocking(False)
            sockets[sock.fileno()] = sock
            poll.register(sock, select.EPOLLIN)
        while sockets and time.monotonic() - begun < seconds:
            for file, _ in poll.poll(TIMEOUT_S):
                with contextlib.suppress(BlockingIOError):
                    came = sockets[file].recv_into(buffer, READ_BYTES, socket.MSG_TRUNC)
                    taken += came
                    if not came:
                        poll.unregister(file)
                        del sockets[file]
        elapsed = time.monotonic() - begun
    if taken < BULK_BYTES // 16:
        raise SystemExit(f"only {taken} bytes came through port {port} in {elapsed:.1f} s")
    return Asked(requests=CONNECTIONS, bytes=taken, seconds=elapsed, failed=0, p50_us=0, p99_us=0)


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """So many connections, each after one request and its answer; closed behind the block."""
    held: list[socket.socket] = []
    try:
        for number in range(count):
            sock = socket.socket()
            held.append(sock)
            sock.settimeout(TIMEOUT_S)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((SOURCES[number % len(SOURCES)], 0))
            try:
                sock.connect(("127.0.0.1", port))
                exchange(sock)
            except OSError as fault:
                raise SystemExit(f"connection {number + 1} of {count} failed: {fault}") from None
        yield
    finally:
        for sock in held:
            sock.close()


def exchange(sock: socket.socket) -> None:
    """One request and its whole answer."""
    sock.sendall(QUESTION)
    answer = b""
    while b"x" * 1024 not in answer:
        more = sock.recv(65536)
        if not more:
            raise SystemExit(f"the connection ended instead of an answer: {answer[:200]!r}")
        answer += more
