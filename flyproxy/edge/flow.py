"""One direction of a raw TCP connection: what one socket sends, the other gets.

Small traffic is copied through one buffer all flows of the process share (nothing stays in it between two calls). After
SPLICE_AFTER_BYTES a flow moves to `splice`: the bytes go from socket to socket through a pipe and never enter Python,
measured at a quarter of HAProxy's cost. What the sink does not take at once waits (in the pipe, or as one piece of at
most COPY_BYTES), and the source is not read meanwhile. Half-close is `shutdown(SHUT_WR)` once everything has gone on.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
from typing import Protocol

from flyproxy.edge.wire import is_dead

COPY_BYTES = 64 * 1024
SPLICE_AFTER_BYTES = 64 * 1024
PIPE_BYTES = 256 * 1024
PIPES_MAX = 256
"""Pipes one process holds for splicing; a flow that gets none goes on copying."""

_shared = memoryview(bytearray(COPY_BYTES))
_pipes_open = 0


class FlowOwner(Protocol):
    """The connection a flow is half of."""

    def flow_ended(self, flow: "Flow") -> None:
        """The source said that was all, and the sink has it."""

    def flow_broken(self, flow: "Flow", why: str) -> None: ...

    def flow_without_pipe(self, flow: "Flow") -> None:
        """It would be spliced, but all pipes are taken."""

    def flow_stalled(self, flow: "Flow") -> None:
        """The sink does not take more for now."""

    def flow_moves(self, flow: "Flow") -> None:
        """It does again."""


class Flow:
    """Moves bytes from `source` to `sink`, both non-blocking, until the source ends."""

    __slots__ = (
        "_in_pipe",
        "_loop",
        "_owner",
        "_pipe",
        "_refused",
        "_rest",
        "_sink",
        "_source",
        "_waiting",
        "moved",
        "over",
        "taken",
    )

    def __init__(
        self, loop: asyncio.AbstractEventLoop, owner: FlowOwner, source: socket.socket, sink: socket.socket
    ) -> None:
        self._loop = loop
        self._owner = owner
        self._source = source
        self._sink = sink
        self._rest = b""
        self._pipe: tuple[int, int] | None = None
        self._in_pipe = 0
        self._waiting = False
        self._refused = False
        """There was no pipe for it: it goes on copying."""
        self.taken = 0
        """Bytes from the source."""
        self.moved = 0
        """Bytes the sink took."""
        self.over = False

    def start(self) -> None:
        """Begin to move."""
        self._loop.add_reader(self._source, self._readable)

    def look_again(self) -> None:
        """Bytes came a moment ago. If a reset came with them, uvloop has forgotten it: read on to it."""
        while not self.over and not self._waiting and is_dead(self._source):
            self._readable()

    def stop(self) -> None:
        """Move no more; before the sockets are closed."""
        self.over = True
        self._loop.remove_reader(self._source)
        if self._waiting:
            self._loop.remove_writer(self._sink)
        self._close_pipe()

    def _readable(self) -> None:
        try:
            if self._pipe is None:
                self._copy()
            else:
                self._splice(self._pipe)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as fault:
            self._owner.flow_broken(self, fault.strerror or str(fault))

    def _copy(self) -> None:
        size = self._source.recv_into(_shared)
        if size == 0:
            self._end()
            return
        self.taken += size
        sent = self._send(_shared[:size])
        if sent < size:
            self._rest = bytes(_shared[sent:size])
            self._wait()
        elif self.moved >= SPLICE_AFTER_BYTES and not self._refused:
            self._pipe = _open_pipe()
            if self._pipe is None:
                self._refused = True
                self._owner.flow_without_pipe(self)

    def _splice(self, pipe: tuple[int, int]) -> None:
        size = os.splice(self._source.fileno(), pipe[1], PIPE_BYTES, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
        if size == 0:
            self._end()
            return
        self.taken += size
        self._in_pipe += size
        self._empty_pipe(pipe)
        if self._in_pipe:
            self._wait()

    def _empty_pipe(self, pipe: tuple[int, int]) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while self._in_pipe:
                size = os.splice(
                    pipe[0], self._sink.fileno(), self._in_pipe, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
                )
                self._in_pipe -= size
                self.moved += size

    def _send(self, piece: memoryview | bytes) -> int:
        try:
            sent = self._sink.send(piece)
        except (BlockingIOError, InterruptedError):
            return 0
        self.moved += sent
        return sent

    def _wait(self) -> None:
        self._waiting = True
        self._loop.remove_reader(self._source)
        self._loop.add_writer(self._sink, self._writable)
        self._owner.flow_stalled(self)

    def _writable(self) -> None:
        try:
            if self._pipe is not None and self._in_pipe:
                self._empty_pipe(self._pipe)
            else:
                self._rest = self._rest[self._send(self._rest) :]
        except OSError as fault:
            self._owner.flow_broken(self, fault.strerror or str(fault))
            return
        if not self._rest and not self._in_pipe:
            self._waiting = False
            self._loop.remove_writer(self._sink)
            self._owner.flow_moves(self)
            self._loop.add_reader(self._source, self._readable)

    def _end(self) -> None:
        self.stop()
        with contextlib.suppress(OSError):
            self._sink.shutdown(socket.SHUT_WR)
        self._owner.flow_ended(self)

    def _close_pipe(self) -> None:
        global _pipes_open
        if self._pipe is not None:
            for descriptor in self._pipe:
                os.close(descriptor)
            self._pipe = None
            _pipes_open -= 1


def _open_pipe() -> tuple[int, int] | None:
    """A pipe for splicing; None when there is none to be had."""
    global _pipes_open
    if _pipes_open >= PIPES_MAX or not hasattr(os, "splice"):
        return None
    try:
        pipe = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    _pipes_open += 1
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return pipe


def pipes_open() -> int:
    """Pipes held now, of PIPES_MAX."""
    return _pipes_open
