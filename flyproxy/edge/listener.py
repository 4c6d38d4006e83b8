"""Takes connections in: an HTTP door gives them to client connections, a raw door to passthroughs.

Many are accepted per wake-up. When there is no descriptor left to accept with, a spare one is given up for a moment so
that callers can be refused instead of being left waiting while the loop spins; should even that fail, nobody is
accepted for PAUSE_S.

Only HTTP doors on uvloop leave it to the loop, whose server does the same in C: with 200 descriptors, all taken, it
refuses at 0 % CPU and is back at once, and a connection costs it 1.5 µs less than when accepted here (26 with its first
message). asyncio's own server logs a traceback for every connection that waits, up to 1,024 a wake-up, and then looks
away for a second (measured: 18 % CPU, 114,000 lines in 2 s); accepting here costs the same there.
"""

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Callable

from flyproxy.config import resolved
from flyproxy.edge import faults
from flyproxy.edge.client import ClientConnection
from flyproxy.edge.passthrough import Passthrough
from flyproxy.edge.proxied import ProxiedConnection, ProxiedSocket
from flyproxy.edge.route import Doorway
from flyproxy.edge.worker import NO_DESCRIPTORS, Worker

BACKLOG = 1024
"""Connections the kernel completes before we accept them."""
ACCEPTS_PER_WAKE = 64
PAUSE_S = 0.1
"""How long nobody is accepted when callers cannot even be refused, for want of descriptors."""
_RESET = struct.pack("ii", 1, 0)


class Door:
    """One listening socket. `way` is what its connections know of the configuration."""

    def __init__(self, worker: Worker, listener: resolved.Listener, listening: socket.socket) -> None:
        self._worker = worker
        self._listening = listening
        self.listener = listener
        self.way = Doorway(listener.region, listening.getsockname()[1])
        self._server: asyncio.Server | None = None
        self._greet: Callable[[socket.socket, str], None] = self._greet_http if listener.http else self._greet_raw
        self._greetings: set[asyncio.Task[object]] = set()
        self._spare = -1
        self._open = False
        self._protocol: Callable[[], asyncio.Protocol] = lambda: ClientConnection(worker, self.way)
        if listener.proxy_proto:
            self._protocol = lambda: ProxiedConnection(worker, self.way)

    def __repr__(self) -> str:
        kind = "http" if self.listener.http else "raw"
        return f"<Door {kind} {self.way.port} {self.way.region}{', closing' if self.way.closing else ''}>"

    async def open(self) -> None:
        """Accept from now on; once is enough."""
        if self._open:
            return
        self._open = True
        if self.listener.http and _accepts_by_itself(self._worker.loop):
            self._server = await self._worker.loop.create_server(self._protocol, sock=self._listening, backlog=BACKLOG)
        else:
            self._listening.setblocking(False)
            self._listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # who is accepted inherits it
            self._listening.listen(BACKLOG)
            self._begin_to_accept()

    def use_or_close(self, listening: socket.socket | None) -> None:
        """A socket came for a door that is open already: a duplicate is not needed."""
        if listening is not None and listening is not self._listening and listening.fileno() >= 0:
            listening.close()

    async def close(self) -> None:
        """Accept no more; connections that came through here go on, and are told to leave. Who already waits in the
        kernel's queue is let in first: closing the socket would reset them."""
        if self.way.closing:
            return
        if self._server is not None:
            waiting = self._accept_waiting()
            self._server.close()
            self.way.closing = True
            for client in waiting:
                self._greet(client, "")
        else:
            for _ in range(BACKLOG // ACCEPTS_PER_WAKE):
                self._accept()
            self.way.closing = True
            self._worker.loop.remove_reader(self._listening)
            self._listening.close()
            if self._spare >= 0:
                os.close(self._spare)
        if self._greetings:
            await asyncio.wait(self._greetings)

    def _accept_waiting(self) -> list[socket.socket]:
        """Everybody in the queue of an HTTP door, at most BACKLOG."""
        waiting: list[socket.socket] = []
        with contextlib.suppress(OSError):
            while len(waiting) < BACKLOG:
                waiting.append(self._listening.accept()[0])
        return waiting

    def _begin_to_accept(self) -> None:
        """Now, or again after a pause."""
        if not self.way.closing:
            if self._spare < 0:
                self._take_spare()
            self._worker.loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                client, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                if fault.errno in NO_DESCRIPTORS and not self._refuse_with_spare():
                    self._worker.loop.remove_reader(self._listening)
                    self._worker.loop.call_later(PAUSE_S, self._begin_to_accept)
                return
            self._greet(client, peer[0])

    # who comes in

    def _greet_http(self, client: socket.socket, ip: str) -> None:
        loop = self._worker.loop
        client.setblocking(False)
        coming = loop.connect_accepted_socket(self._protocol, client)
        greeting: asyncio.Task[object] = loop.create_task(coming)
        self._greetings.add(greeting)
        greeting.add_done_callback(self._greeted)

    def _greeted(self, greeting: "asyncio.Task[object]") -> None:
        self._greetings.discard(greeting)
        bug = None if greeting.cancelled() else greeting.exception()
        if isinstance(bug, Exception) and not isinstance(bug, OSError):  # an OSError is one who has left already
            self._worker.mistake(bug)

    def _greet_raw(self, client: socket.socket, ip: str) -> None:
        worker, route = self._worker, self.way.raw
        if route is None or len(worker.clients) >= worker.connections_max:
            self._count_refusal("connections")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        client.setblocking(False)
        ip = ip.removeprefix("::ffff:")
        if self.listener.proxy_proto:
            ProxiedSocket(worker, self.way, client, ip).begin()
        else:
            Passthrough(worker, self.way, route, client, ip).begin()

    # who cannot

    def _refuse_with_spare(self) -> bool:
        """Refuse who waits, with the spare descriptor; False: it is gone too."""
        if self._spare < 0:
            self._take_spare()
        if self._spare < 0:
            return False
        os.close(self._spare)
        self._spare = -1
        with contextlib.suppress(OSError):
            for _ in range(ACCEPTS_PER_WAKE):
                client, _peer = self._listening.accept()
                client.close()
                self._count_refusal("descriptors")
        self._take_spare()
        return True

    def _take_spare(self) -> None:
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _count_refusal(self, limit: str) -> None:
        self._worker.process.limit_reached(limit)
        refused = self.way.raw or self.way.unmatched
        refused.edge.error(faults.CONNECTION_LIMIT.code)
        refused.edge.connected()
        refused.edge.disconnected()


def _accepts_by_itself(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop's own server survives without descriptors."""
    return type(loop).__module__.partition(".")[0] == "uvloop"
