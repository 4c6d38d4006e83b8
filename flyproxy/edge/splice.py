"""Large bodies that go from socket to socket without entering Python: instances' answers and clients' uploads.

Only a counted body with more than SPLICE_BYTES_MIN to come, and only when everything before it is the kernel's (nothing
waits in the sink's transport). While it lasts the source's transport is paused, and a flow moves the bytes over
duplicates of both descriptors; those are the splice's, closed once, in `stop`, whichever way it ends. Exactly the
body's bytes are taken. Whether the instance has sent more than it announced is looked at before the last of them go on:
such an answer breaks off, as it does when it goes through Python.

All else is as for such a body too, for the splice tells both connections the same things: a sink that takes no more
hears `pause_writing` (its patience begins), one that does again `resume_writing`; bytes and deadlines move with every
piece.
"""

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
import termios
from typing import Protocol

from flyproxy.edge.flow import Flow
from flyproxy.edge.worker import NEVER, Worker

SPLICE_BYTES_MIN = 256 * 1024
"""A body with no more than this to come goes through Python: setting up would cost more than it saves."""


class UploadingClient(Protocol):
    """The client's connection."""

    transport: asyncio.Transport

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def hold(self, *, held: bool) -> None:
        """It is not to blame for the wait."""
        ...

    def lend_body(self) -> int:
        """Read no more: so many bytes of a counted body are still to come; 0: it has no such body under way."""
        ...

    def body_went(self, size: int) -> None:
        """So many bytes of it were read."""
        ...

    def take_body_back(self, left: int) -> None:
        """Read on: `left` bytes of the body that go nowhere any more, then what comes after it."""
        ...


class AnsweringUpstream(Protocol):
    """The instance's connection."""

    transport: asyncio.Transport
    deadline_ns: int
    received: int
    splices: "set[Splice]"

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...

    def lend_answer(self) -> int:
        """Read no more: so many bytes of a counted answer are still to come; 0: it has no such answer under way."""
        ...

    def take_answer_back(self) -> None:
        """All of it was read: read on."""
        ...

    def answer_broken(self, why: str) -> None:
        """It came to its end before its time."""
        ...

    def answer_surplus(self) -> None:
        """There is more of it than was announced."""
        ...


class SplicingUser(Protocol):
    """The request."""

    bytes_in: int
    bytes_out: int
    bytes_sent: int

    def answer_spliced(self) -> None:
        """All bytes of the answer are the client's kernel's."""
        ...

    def upload_spliced(self) -> None:
        """All bytes of the request are the instance's kernel's."""
        ...

    def client_lost(self) -> None:
        """The client's connection is gone."""
        ...

    def splice_mistaken(self, bug: Exception) -> None: ...


class Splice:
    """One body on its way: the descriptors, the flow, and when both end."""

    __slots__ = ("_client", "_flow", "_moved", "_sockets", "_taken", "_upstream", "_user", "_worker")

    def __init__(
        self, worker: Worker, user: SplicingUser, client: UploadingClient, upstream: AnsweringUpstream
    ) -> None:
        self._worker = worker
        self._user = user
        self._client = client
        self._upstream = upstream
        self._flow: Flow | None = None
        self._sockets: tuple[socket.socket, ...] = ()
        self._taken = self._moved = 0
        """As far as they are counted."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._flow!r}>"

    def stop(self) -> None:
        """End, in the middle or after the last byte; once or more often."""
        flow = self._flow
        if flow is None:
            return
        self._flow = None
        flow.stop()
        for one in self._sockets:
            one.close()
        self._upstream.splices.discard(self)
        self._worker.pipes.end_splice()

    def _prepare(self, source: asyncio.Transport, sink: asyncio.Transport) -> Flow | None:
        """The flow, if there can be one now."""
        pipes = self._worker.pipes
        if sink.get_write_buffer_size() or sink.is_closing() or source.is_closing() or not pipes.begin_splice():
            return None
        sockets: list[socket.socket] = []
        try:
            sockets.append(_duplicate(source))
            sockets.append(_duplicate(sink))
        except OSError:
            for one in sockets:
                one.close()
            pipes.end_splice()
            pipes.refused()
            return None
        self._sockets = tuple(sockets)
        flow = self._flow = Flow(self._worker.readiness, pipes, self, sockets[0], sockets[1])
        self._upstream.splices.add(self)
        return flow

    def _news(self, flow: Flow) -> tuple[int, int]:
        """Bytes taken and moved since this was last asked."""
        taken, moved = flow.taken - self._taken, flow.moved - self._moved
        self._taken, self._moved = flow.taken, flow.moved
        return taken, moved

    # the flow's verbs; those of one direction are its class' own

    def flow_went(self, flow: Flow) -> None:
        raise NotImplementedError

    def flow_filled(self, flow: Flow) -> None:
        """The last byte is in the pipe."""

    def flow_stalled(self, flow: Flow) -> None:
        raise NotImplementedError

    def flow_moves(self, flow: Flow) -> None:
        raise NotImplementedError

    def flow_ended(self, flow: Flow) -> None:
        raise NotImplementedError

    def flow_broken(self, flow: Flow, why: str, *, at_sink: bool) -> None:
        raise NotImplementedError

    def flow_mistaken(self, flow: Flow, bug: Exception) -> None:
        self.stop()
        self._user.splice_mistaken(bug)


class AnswerSplice(Splice):
    """From the instance to the client."""

    __slots__ = ()

    def start(self) -> None:
        """Begin, if that is possible now; else nothing has changed."""
        flow = self._prepare(self._upstream.transport, self._client.transport)
        if flow is not None:
            flow.start_counted(self, self._upstream.lend_answer())

    def flow_went(self, flow: Flow) -> None:
        taken, moved = self._news(flow)
        self._upstream.received += taken
        self._user.bytes_out += moved
        self._upstream.deadline_ns = self._worker.now_ns + self._worker.response_ns

    def flow_filled(self, flow: Flow) -> None:
        if _waiting_bytes(self._sockets[0]):
            self._upstream.received += self._news(flow)[0]
            self.stop()
            self._upstream.answer_surplus()

    def flow_stalled(self, flow: Flow) -> None:
        self._upstream.deadline_ns = NEVER
        self._client.pause_writing()

    def flow_moves(self, flow: Flow) -> None:
        self._upstream.deadline_ns = self._worker.now_ns + self._worker.response_ns
        self._client.resume_writing()

    def flow_ended(self, flow: Flow) -> None:
        self.stop()
        if flow.left:
            self._upstream.answer_broken("the instance closed the connection")
        else:
            self._upstream.take_answer_back()
            self._user.answer_spliced()

    def flow_broken(self, flow: Flow, why: str, *, at_sink: bool) -> None:
        self._count_rest(flow)
        self.stop()
        if at_sink:
            self._user.client_lost()
        else:
            self._upstream.answer_broken("the instance reset the connection")

    def _count_rest(self, flow: Flow) -> None:
        taken, moved = self._news(flow)
        self._upstream.received += taken
        self._user.bytes_out += moved


class UploadSplice(Splice):
    """From the client to the instance."""

    __slots__ = ()

    def start(self) -> None:
        """Begin, if that is possible now; else nothing has changed."""
        flow = self._prepare(self._client.transport, self._upstream.transport)
        if flow is not None:
            flow.start_counted(self, self._client.lend_body())

    def stop(self) -> None:
        """As it says; the client's connection is read again."""
        flow = self._flow
        if flow is not None:
            Splice.stop(self)
            self._client.take_body_back(flow.left)

    def flow_went(self, flow: Flow) -> None:
        taken, moved = self._news(flow)
        self._user.bytes_in += taken
        self._user.bytes_sent += moved
        if taken:
            self._client.body_went(taken)

    def flow_stalled(self, flow: Flow) -> None:
        self._client.hold(held=True)
        self._upstream.pause_writing()

    def flow_moves(self, flow: Flow) -> None:
        self._upstream.resume_writing()  # which lets go of the client

    def flow_ended(self, flow: Flow) -> None:
        self.stop()
        if flow.left:
            self._user.client_lost()
        else:
            self._user.upload_spliced()

    def flow_broken(self, flow: Flow, why: str, *, at_sink: bool) -> None:
        taken, moved = self._news(flow)
        self._user.bytes_in += taken
        self._user.bytes_sent += moved
        self.stop()
        if at_sink:
            # perhaps the instance has answered before it hung up: its connection is being read, and will say
            self._client.hold(held=True)
        else:
            self._user.client_lost()


def _duplicate(transport: asyncio.Transport) -> socket.socket:
    """A second descriptor of a transport's socket, our own."""
    theirs = transport.get_extra_info("socket")
    return socket.socket(theirs.family, socket.SOCK_STREAM, 0, os.dup(theirs.fileno()))


def _waiting_bytes(source: socket.socket) -> int:
    """Bytes the kernel has for us."""
    with contextlib.suppress(OSError):
        return int.from_bytes(fcntl.ioctl(source, termios.FIONREAD, bytes(4)), sys.byteorder)
    return 0
