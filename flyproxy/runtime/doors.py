"""The listening sockets: opened once per worker with SO_REUSEPORT and kept open here, so that a killed worker's
queue waits for its successor instead of being refused."""

import errno
import os
import socket
import time
from collections.abc import Sequence
from dataclasses import replace

from flyproxy.config.resolved import Listener
from flyproxy.errors import FlyproxyError

BACKLOG_CONNECTIONS = 1024
"""Connections the kernel holds for one worker and one door before it refuses."""

LATELY_S = 5.0
"""A worker that has not closed a door so long after its Commit is not going to."""


class DoorError(FlyproxyError):
    """An address that cannot be listened on (the configuration's or the machine's fault)."""


def listen(host: str, port: int, *, shared: bool) -> socket.socket:
    """A non-blocking listening TCP socket; `shared` lets other workers listen on the same port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as fault:
        raise DoorError(f"cannot listen on {host}:{port}: {_reason(fault)}") from None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6 and host != "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(BACKLOG_CONNECTIONS)
        sock.setblocking(False)
    except OSError as fault:
        sock.close()
        raise DoorError(f"cannot listen on {host}:{port}: {_reason(fault)}") from None
    return sock


def _reason(fault: OSError) -> str:
    if fault.errno == errno.EADDRINUSE:
        return "something else listens there already; stop it or choose another port"
    if fault.errno == errno.EACCES:
        return "not allowed; ports below 1024 need the capability to bind them"
    if fault.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    return fault.strerror or str(fault)


Address = tuple[str, int]


class Doors:
    """One row of sockets per address, one socket per worker."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._sockets: dict[Address, list[socket.socket]] = {}
        self._left_at: dict[Address, float] = {}
        """When the last generation without it closed each, time.monotonic."""

    def open(self, listeners: Sequence[Listener]) -> tuple[tuple[Listener, ...], list[Address]]:
        """Open what is not open yet. Returns the listeners with their real ports (for port 0), and the new
        addresses, so that a refused generation can close them again. Opens all or, raising DoorError, none."""
        added: list[Address] = []
        bound: list[Listener] = []
        try:
            for listener in listeners:
                address = (listener.host, listener.port)
                if address not in self._sockets:
                    address = self._open_row(listener.host, listener.port)
                    added.append(address)
                bound.append(replace(listener, port=address[1]))
        except DoorError:
            self.close(added)
            raise
        return tuple(bound), added

    def _open_row(self, host: str, port: int) -> Address:
        # The probe refuses to share: with SO_REUSEPORT alone a second front door of the same user would slip in.
        if port:
            listen(host, port, shared=False).close()
        first = listen(host, port, shared=True)
        row = [first]
        address = (host, first.getsockname()[1])
        try:
            row.extend(listen(*address, shared=True) for _ in range(self._workers - 1))
        except DoorError:
            for sock in row:
                sock.close()
            raise
        self._sockets[address] = row
        return address

    def descriptors(self, worker: int, listeners: Sequence[Listener]) -> list[int]:
        """One worker's sockets, in the order of the listeners (which have their real ports)."""
        return [self._sockets[(listener.host, listener.port)][worker].fileno() for listener in listeners]

    def keep_only(self, listeners: Sequence[Listener]) -> None:
        """Close what no listener names any more."""
        wanted = {(listener.host, listener.port) for listener in listeners}
        left = [address for address in self._sockets if address not in wanted]
        now = time.monotonic()
        self._left_at = {address: at for address, at in self._left_at.items() if now - at < LATELY_S}
        self._left_at.update(dict.fromkeys(left, now))
        self.close(left)

    def closed_lately(self, listeners: Sequence[Listener]) -> bool:
        """Whether one of these was closed by `keep_only` so short a while ago that workers may still have it open."""
        since = time.monotonic() - LATELY_S
        ours = ((listener.host, listener.port) for listener in listeners)
        return any(self._left_at.get(address, since) > since for address in ours if address not in self._sockets)

    def close(self, addresses: Sequence[Address] | None = None) -> None:
        """Close these addresses, or all."""
        for address in list(self._sockets) if addresses is None else addresses:
            for sock in self._sockets.pop(address, []):
                sock.close()


def listen_unix(path: str) -> socket.socket:
    """A non-blocking listening unix socket that only this user can reach."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    if os.path.exists(path):
        os.unlink(path)
    sock.bind(path)
    os.chmod(path, 0o600)
    sock.listen(BACKLOG_CONNECTIONS)
    sock.setblocking(False)
    return sock
