"""One direction of a connection that goes from socket to socket: what one sends, the other gets. Of raw TCP
connections, without an end of its own; of large bodies (splice.py), exactly so many bytes and never one more: what
comes behind them belongs to another message.

Small traffic is copied through one buffer all flows of the process share (nothing stays in it between two calls). After
SPLICE_AFTER_BYTES a flow moves to `splice`: the bytes go through a pipe and never enter Python, measured at a quarter
of HAProxy's cost. What the sink does not take at once waits (in the pipe, or as one piece of at most COPY_BYTES), and
the source is not read meanwhile.
"""

import socket
from typing import Protocol

from flyproxy.edge.pipes import PIPE_BYTES, Pipe, Pipes
from flyproxy.edge.readiness import Readiness

COPY_BYTES = 64 * 1024
SPLICE_AFTER_BYTES = 64 * 1024
ENDLESS = 1 << 62

_shared = memoryview(bytearray(COPY_BYTES))


class FlowOwner(Protocol):
    """The connection a flow is a direction of."""

    def flow_ended(self, flow: "Flow") -> None:
        """The source said that was all, or `left` is 0; and the sink has it. The flow has stopped."""

    def flow_broken(self, flow: "Flow", why: str, *, at_sink: bool) -> None:
        """One of the sockets is gone. The flow has stopped."""

    def flow_stalled(self, flow: "Flow") -> None:
        """The sink does not take more for now."""

    def flow_moves(self, flow: "Flow") -> None:
        """It does again."""

    def flow_mistaken(self, flow: "Flow", bug: Exception) -> None:
        """A bug of ours. The flow has stopped."""


class CountedFlowOwner(FlowOwner, Protocol):
    """Of a flow that has an end."""

    def flow_went(self, flow: "Flow") -> None:
        """`taken` or `moved` have grown; only to be counted."""

    def flow_filled(self, flow: "Flow") -> None:
        """The last byte was taken from the source, and the sink does not have it yet; the flow may be stopped."""


class Flow:
    """Moves bytes from `source` to `sink`, both non-blocking, until the source ends or `left` is 0."""

    __slots__ = (
        "_counted", "_owner", "_pipe", "_pipes", "_readiness", "_refused", "_rest", "_sink", "_source", "_waiting",
        "left", "moved", "over", "taken",
    )  # fmt: skip

    def __init__(
        self, readiness: Readiness, pipes: Pipes, owner: FlowOwner, source: socket.socket, sink: socket.socket
    ) -> None:
        self._readiness = readiness
        self._pipes = pipes
        self._owner = owner
        self._counted: CountedFlowOwner | None = None
        self._source = source
        self._sink = sink
        self._rest = b""
        self._pipe: Pipe | None = None
        """What holds bytes the sink did not take."""
        self._waiting = False
        self._refused = False
        """There was no pipe for it: said once."""
        self.left = ENDLESS
        """Bytes still to be taken from the source."""
        self.taken = 0
        """Bytes from the source."""
        self.moved = 0
        """Bytes the sink took."""
        self.over = False

    def __repr__(self) -> str:
        state = "over" if self.over else "waits for its sink" if self._waiting else "moves"
        return f"<Flow {state}, {self.taken} taken, {self.moved} moved>"

    def start(self) -> None:
        """Begin to move."""
        self._readiness.add_reader(self._source.fileno(), self._readable)

    def start_counted(self, owner: CountedFlowOwner, size: int) -> None:
        """Begin to move just so many bytes, by splice from the first on."""
        self._counted = owner
        self.left = size
        self.start()

    def stop(self) -> None:
        """Move no more; before the sockets are closed, once or more often."""
        if self.over:
            return
        self.over = True
        self._readiness.remove_reader(self._source.fileno())
        if self._waiting:
            self._readiness.remove_writer(self._sink.fileno())
        if self._pipe is not None:
            self._pipes.give_back(self._pipe)
            self._pipe = None

    def _readable(self) -> None:
        before = self.taken
        try:
            if (self.moved < SPLICE_AFTER_BYTES and self._counted is None) or not self._splice():
                self._copy()
        except (BlockingIOError, InterruptedError):
            return
        except OSError as fault:
            self._broken(fault, at_sink=self.taken > before)
        except Exception as bug:
            self._mistaken(bug)

    def _splice(self) -> bool:
        """Whether there was a pipe for it."""
        pipe = self._pipe = self._pipes.take()
        if pipe is None:
            if not self._refused:
                self._refused = True
                self._pipes.refused()
            return False
        try:
            size = pipe.fill(self._source.fileno(), min(self.left, PIPE_BYTES))
            if self._took(size):
                self.moved += pipe.empty(self._sink.fileno())
        finally:
            if not pipe.held and self._pipe is not None:
                self._pipes.give_back(pipe)
                self._pipe = None
        self._went(size)
        return True

    def _copy(self) -> None:
        size = self._source.recv_into(_shared, min(self.left, COPY_BYTES))
        if self._took(size):
            sent = self._send(_shared[:size])
            if sent < size:
                self._rest = bytes(_shared[sent:size])
        self._went(size)

    def _took(self, size: int) -> bool:
        """Count what came; False: nothing, or nothing that may go on."""
        self.taken += size
        self.left -= size
        if self._counted is not None and not self.left and size:
            self._counted.flow_filled(self)
        return bool(size) and not self.over

    def _went(self, size: int) -> None:
        """After some bytes, or none: the source has ended."""
        if self.over:
            return
        if self._counted is not None:
            self._counted.flow_went(self)
        if self._pipe is not None or self._rest:
            self._wait()
        elif not size or not self.left:
            self._end()

    def _send(self, piece: memoryview | bytes) -> int:
        try:
            sent = self._sink.send(piece)
        except (BlockingIOError, InterruptedError):
            return 0
        self.moved += sent
        return sent

    def _wait(self) -> None:
        self._waiting = True
        self._readiness.remove_reader(self._source.fileno())
        self._readiness.add_writer(self._sink.fileno(), self._writable)
        self._owner.flow_stalled(self)

    def _writable(self) -> None:
        try:
            self._drain()
        except OSError as fault:
            self._broken(fault, at_sink=True)
        except Exception as bug:
            self._mistaken(bug)

    def _drain(self) -> None:
        """Give on what waits; with nothing left, read again."""
        pipe = self._pipe
        if pipe is not None:
            self.moved += pipe.empty(self._sink.fileno())
        else:
            self._rest = self._rest[self._send(self._rest) :]
        if self._counted is not None:
            self._counted.flow_went(self)
        if self._rest or (pipe is not None and pipe.held):
            return
        if pipe is not None:
            self._pipes.give_back(pipe)
            self._pipe = None
        self._waiting = False
        self._readiness.remove_writer(self._sink.fileno())
        self._owner.flow_moves(self)
        if self.over:
            return
        if self.left:
            self._readiness.add_reader(self._source.fileno(), self._readable)
        else:
            self._end()

    def _end(self) -> None:
        self.stop()
        self._owner.flow_ended(self)

    def _broken(self, fault: OSError, *, at_sink: bool) -> None:
        self.stop()
        self._owner.flow_broken(self, fault.strerror or str(fault), at_sink=at_sink)

    def _mistaken(self, bug: Exception) -> None:
        self.stop()
        self._owner.flow_mistaken(self, bug)
