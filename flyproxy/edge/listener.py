"""Takes connections in: an HTTP door gives them to client connections, a raw door to passthroughs.

HTTP doors accept by the loop's own server (in C on uvloop). Raw doors accept here, many per wake-up; when there is no
descriptor left to accept with, a spare one is given up for a moment so that the caller can be refused instead of being
left waiting while the loop spins.
"""

import asyncio
import contextlib
import errno
import os
import socket
import struct

from flyproxy.config import resolved
from flyproxy.edge import faults
from flyproxy.edge.client import ClientConnection
from flyproxy.edge.passthrough import Passthrough
from flyproxy.edge.route import Doorway
from flyproxy.edge.worker import Worker

BACKLOG = 1024
"""Connections the kernel completes before we accept them."""
ACCEPTS_PER_WAKE = 64
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_RESET = struct.pack("ii", 1, 0)


class Door:
    """One listening socket. `way` is what its connections know of the configuration."""

    def __init__(self, worker: Worker, listener: resolved.Listener, listening: socket.socket) -> None:
        self._worker = worker
        self._listening = listening
        self.listener = listener
        self.way = Doorway(listener.region, listening.getsockname()[1])
        self._server: asyncio.Server | None = None
        self._spare = -1
        self._open = False

    def __repr__(self) -> str:
        kind = "http" if self.listener.http else "raw"
        return f"<Door {kind} {self.way.port} {self.way.region}{', closing' if self.way.closing else ''}>"

    async def open(self) -> None:
        """Accept from now on; once is enough."""
        if self._open:
            return
        self._open = True
        if self.listener.http:
            self._server = await self._worker.loop.create_server(
                lambda: ClientConnection(self._worker, self.way), sock=self._listening, backlog=BACKLOG
            )
        else:
            self._listening.setblocking(False)
            self._listening.listen(BACKLOG)
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            self._worker.loop.add_reader(self._listening, self._accept)

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
                with contextlib.suppress(OSError):
                    await self._worker.loop.connect_accepted_socket(
                        lambda: ClientConnection(self._worker, self.way), client
                    )
        else:
            for _ in range(BACKLOG // ACCEPTS_PER_WAKE):
                self._accept()
            self.way.closing = True
            self._worker.loop.remove_reader(self._listening)
            self._listening.close()
            if self._spare >= 0:
                os.close(self._spare)

    def _accept_waiting(self) -> list[socket.socket]:
        """Everybody in the queue of an HTTP door, at most BACKLOG."""
        waiting: list[socket.socket] = []
        with contextlib.suppress(OSError):
            while len(waiting) < BACKLOG:
                client, _ = self._listening.accept()
                client.setblocking(False)
                waiting.append(client)
        return waiting

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            try:
                client, peer = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as fault:
                if fault.errno in _NO_DESCRIPTORS:
                    self._refuse_with_spare()
                return
            self._take(client, peer[0])

    def _take(self, client: socket.socket, ip: str) -> None:
        worker, route = self._worker, self.way.raw
        if route is None or len(worker.clients) >= worker.connections_max:
            self._count_refusal()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.close()
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        Passthrough(worker, self.way, route, client, ip.removeprefix("::ffff:")).begin()

    def _refuse_with_spare(self) -> None:
        if self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        with contextlib.suppress(OSError):
            client, _ = self._listening.accept()
            client.close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        self._count_refusal()

    def _count_refusal(self) -> None:
        self._worker.process.limit_reached("connections")
        refused = self.way.raw or self.way.unmatched
        refused.edge.error(faults.CONNECTION_LIMIT.code)
        refused.edge.connected()
        refused.edge.disconnected()
