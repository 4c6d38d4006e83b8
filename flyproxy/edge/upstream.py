"""One connection to an instance: its answers' framing, read as if the instance were hostile.

States: IDLE in the pool (a byte or an EOF kills it), HEAD, COUNTED, CHUNKED, UNTIL_CLOSE, TUNNEL, DEAD; SPLICED: the
rest of a counted answer is read by somebody else (splice.py), and nothing here. The exchange that uses the connection
is told of an answer's head, body and end, or once of a fault; then it lets the connection go.
"""

import asyncio
from typing import Protocol

from flyproxy.edge import faults
from flyproxy.edge.faults import Fault
from flyproxy.edge.pool import Pool
from flyproxy.edge.splice import SPLICE_BYTES_MIN, Splice
from flyproxy.edge.wire import half_close, last_bytes, reset, unlimited
from flyproxy.edge.worker import NEVER, Worker
from flyproxy.http1.body import ChunkedBody
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.head import ResponseHead
from flyproxy.instrument.recorder import InstanceRecorder

IDLE, HEAD, COUNTED, CHUNKED, UNTIL_CLOSE, TUNNEL, DEAD, SPLICED = range(8)
_NAMES = ("idle", "head", "counted", "chunked", "until close", "tunnel", "dead", "spliced")

INTERIM_MAX = 8
"""1xx answers to one request."""


class UpstreamUser(Protocol):
    """The request that holds the connection."""

    @property
    def method(self) -> bytes: ...

    @property
    def bytes_sent(self) -> int:
        """Of the request, so far."""
        ...

    def interim(self, head: ResponseHead) -> bool:
        """A 1xx arrived; False: nobody asked for it."""
        ...

    def answer(self, data: bytes) -> bool:
        """The first bytes of the answer: whether that is all that is to be done with them."""
        ...

    def answered(self, head: ResponseHead, body: bytes, *, over: bool) -> None:
        """The final head, with the part of the body that came with it."""
        ...

    def body_arrived(self, body: bytes, *, over: bool) -> None: ...

    def upstream_failed(self, fault: Fault, why: str) -> None:
        """The answer is broken, or will not come; the connection is closed already."""
        ...

    def upstream_drained(self) -> None:
        """The instance takes the request's bytes again."""
        ...

    def tunnel_from_instance(self, data: bytes) -> None: ...

    def tunnel_instance_ended(self) -> None: ...

    def tunnel_forgotten(self) -> None:
        """Half closed, and nothing more came from the other half."""
        ...


class UpstreamConnection(asyncio.Protocol):
    """Serves one request at a time."""

    __slots__ = (
        "_body",
        "_buffer",
        "_dialled_ns",
        "_left",
        "_pool",
        "_recorder",
        "_worker",
        "before",
        "blocked",
        "deadline_ns",
        "eof_pending",
        "interims",
        "received",
        "reusable",
        "reused",
        "splices",
        "state",
        "transport",
        "user",
    )

    def __init__(
        self, worker: Worker, pool: "Pool[UpstreamConnection]", recorder: InstanceRecorder, dialled_ns: int
    ) -> None:
        """`dialled_ns`: when the dialling began."""
        self._worker = worker
        self._dialled_ns = dialled_ns
        self._pool = pool
        self._recorder = recorder
        self.transport: asyncio.Transport
        self.reused = False
        """It has answered before: silence may just mean that the instance hung up meanwhile."""
        self.blocked = False
        self.eof_pending = False
        self.deadline_ns = NEVER
        self.splices: set[Splice] = set()
        """Of either direction, under way; they end before the connection does."""
        # of one request
        self.user: UpstreamUser | None = None
        self.state = IDLE
        self.before: ResponseHead | None = None
        """The head of the last answer that came in one piece, to be compared with the next."""
        self._buffer: bytes | bytearray = b""
        self._body: ChunkedBody | None = None
        self._left = 0
        self.interims = 0
        self.received = 0
        """Bytes of the current answer so far, heads included."""
        self.reusable = False

    def __repr__(self) -> str:
        return f"<UpstreamConnection {_NAMES[self.state]}{', reused' if self.reused else ''}>"

    # the exchange's verbs

    def begin(self, user: UpstreamUser) -> None:
        """Serve this request from now on."""
        self.user = user
        self.state = HEAD
        self.received = 0
        self.interims = 0
        self.reusable = False

    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def taken_bytes(self) -> int:
        return (self.user.bytes_sent if self.user is not None else 0) - self.unsent_bytes()

    def let_go(self, now_ns: int, *, request_whole: bool) -> None:
        """The answer is over: back into the pool, if nothing speaks against it."""
        self.user = None
        self.deadline_ns = NEVER
        if not (self.reusable and request_whole) or self.blocked or self._worker.draining:
            self.close()
            return
        self.state = IDLE
        self._body = None
        self.reused = True
        surplus = self._pool.release(self, now_ns)
        if surplus is not None:
            if surplus is not self:
                self._worker.process.limit_reached("idle_connections")
            surplus.close()

    def close(self) -> None:
        """Close an idle or finished connection."""
        if self.splices:
            self._stop_splices()
        self.user = None
        self.state = DEAD
        self.deadline_ns = NEVER
        self.transport.close()

    def abort(self) -> None:
        """Close in the middle of something, so that the instance notices: a truncated request is never a whole one."""
        if self.splices:
            self._stop_splices()
        self.user = None
        self.state = DEAD
        self.deadline_ns = NEVER
        reset(self.transport)

    def half_close(self) -> None:
        """In a tunnel: nothing more will come from the client."""
        if self.blocked:
            self.eof_pending = True
        else:
            half_close(self.transport)

    def hold(self, *, held: bool) -> None:
        """Read no more of the answer while the client does not take it; held or not, again and again."""
        if not self.transport.is_closing():
            if held:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    # the splices' verbs

    @property
    def large_left(self) -> bool:
        """Whether so much of a counted answer is to come that it is worth splicing."""
        return self._left > SPLICE_BYTES_MIN and self.state == COUNTED

    def lend_answer(self) -> int:
        """Read no more: so many bytes of a counted answer are still to come."""
        assert self.state == COUNTED
        self.state = SPLICED
        self.transport.pause_reading()
        return self._left

    def take_answer_back(self) -> None:
        """All of it was read: read on."""
        self.state, self._left = COUNTED, 0
        self.hold(held=False)

    def answer_broken(self, why: str) -> None:
        """It came to its end before its time."""
        self._broken_off(why)

    def answer_surplus(self) -> None:
        """There is more of it than was announced."""
        self._fail(faults.BAD_RESPONSE, "bytes after the end of the answer")

    def _stop_splices(self) -> None:
        for splice in list(self.splices):
            splice.stop()

    # the loop's verbs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = unlimited(transport)
        self._worker.upstreams.add(self)
        self._recorder.dialled(self._worker.monotonic_ns() - self._dialled_ns)

    def data_received(self, data: bytes) -> None:
        try:
            if self.state != HEAD or self._buffer or self.user is None:
                self._arrived(data)
                return
            user = self.user
            if not user.answer(data):
                self.received += len(data)
                self.before = head = self._worker.response_parser.parse(data, user.method, self.before)
                self.head_read(user, head, data)
        except HttpFault as fault:
            self._worker.beyond(fault)
            self._fail(faults.BAD_RESPONSE, fault.reason)
        except Exception as bug:
            self._mistaken(bug)

    def _arrived(self, data: bytes) -> None:
        user = self.user
        if user is None:
            self._unasked(len(data))
            return
        self.received += len(data)
        state = self.state
        if state == HEAD:
            self._head_arrived(user, data)
        elif state == COUNTED:
            left = self._left = self._left - len(data)
            if left > 0:
                user.body_arrived(data, over=False)
            elif left == 0:
                user.body_arrived(data, over=True)
            else:
                self._fail(faults.BAD_RESPONSE, "bytes after the end of the answer")
        elif state == CHUNKED:
            self._chunks_arrived(user, data)
        elif state == UNTIL_CLOSE:
            user.body_arrived(data, over=False)
        elif state == TUNNEL:
            user.tunnel_from_instance(data)
        elif state == SPLICED:
            raise AssertionError("bytes came to a paused transport")

    def eof_received(self) -> bool:
        try:
            return self._ended()
        except Exception as bug:
            self._mistaken(bug)
            return False

    def _ended(self) -> bool:
        user = self.user
        if user is None:
            self._pool.remove(self)
        elif self.state == TUNNEL:
            user.tunnel_instance_ended()
            return True
        elif self.state == UNTIL_CLOSE:
            user.body_arrived(b"", over=True)
        else:
            self._broken_off("the instance closed the connection")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        worker = self._worker
        if self not in worker.upstreams:
            return
        worker.upstreams.discard(self)
        worker.stalled.pop(self, None)
        if self.splices:
            self._stop_splices()
        if exc is not None and self.state == HEAD and self.user is not None and (data := last_bytes(self.transport)):
            self.data_received(data)  # it answered before it had the whole request, and then reset the rest
        self._pool.remove(self)
        self._recorder.hung_up()
        if self.user is not None:
            self._broken_off("the instance reset the connection" if exc else "the connection was closed")
        self.state = DEAD

    def pause_writing(self) -> None:
        self.blocked = True
        self._worker.stalls(self)

    def resume_writing(self) -> None:
        self.blocked = False
        self._worker.stalled.pop(self, None)
        if self.eof_pending:
            self.eof_pending = False
            half_close(self.transport)
        if self.user is not None:
            self.user.upstream_drained()

    # the ticker's verbs

    def expired(self, now_ns: int) -> None:
        self.deadline_ns = NEVER
        if self.state == TUNNEL and self.user is not None:
            self.user.tunnel_forgotten()
            return
        self._worker.process.limit_reached("response_timeout")
        if self.state == HEAD:
            self._fail(faults.RESPONSE_TIMEOUT, "no answer within timeouts.response")
        else:
            self._fail(faults.RESPONSE_STALLED, "nothing came for timeouts.response")

    def write_stalled(self) -> None:
        self._fail(faults.REQUEST_STALLED, "the instance took no byte for timeouts.write")

    # the answer's bytes

    def _head_arrived(self, user: UpstreamUser, data: bytes) -> None:
        buffer: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            buffer = self._buffer
        try:
            self.head_read(user, self._worker.response_parser.parse(buffer, user.method), buffer)
        except HttpFault as fault:
            self._worker.beyond(fault)
            self._fail(faults.BAD_RESPONSE, fault.reason)

    def head_read(self, user: UpstreamUser, head: ResponseHead | None, buffer: bytes | bytearray) -> None:
        """Go on with the head that was read from the beginning of `buffer`, if it is the final one."""
        while head is not None and head.status < 200 and head.status != 101:
            buffer = buffer[head.size :]
            self.interims += 1
            if self.interims > INTERIM_MAX:
                self._worker.process.limit_reached("interim_answers")
                self._fail(faults.BAD_RESPONSE, f"more than {INTERIM_MAX} answers before the answer")
                return
            if not user.interim(head):
                self._fail(faults.BAD_RESPONSE, f"an unasked {head.status}")
                return
            head = self._worker.response_parser.parse(buffer, user.method) if buffer else None
        if head is None:
            self._buffer = bytearray(buffer)
            return
        self._buffer = b""
        self._final_head(user, head, bytes(buffer[head.size :]))

    def _final_head(self, user: UpstreamUser, head: ResponseHead, rest: bytes) -> None:
        """Set the body's framing; nothing goes on before the bytes that came with the head are found good."""
        self.reusable = head.keep_alive
        over = False
        if head.upgrade is not None:
            self.state = TUNNEL
        elif not head.has_body:
            over = True
        elif head.content_length >= 0:
            self.state = COUNTED
            self._left = head.content_length - len(rest)
            over = self._left <= 0
        elif head.chunked:
            self.state = CHUNKED
            self._body = ChunkedBody(self._worker.head_limits, fault_status=502)
            surplus = len(rest) - self._body.feed(rest)
            over = self._body.complete
            self._left = -surplus
        else:
            self.state = UNTIL_CLOSE
        if over and (rest if not head.has_body else self._left < 0):
            self._fail(faults.BAD_RESPONSE, "bytes after the end of the answer")
            return
        user.answered(head, rest, over=over)

    def _chunks_arrived(self, user: UpstreamUser, data: bytes) -> None:
        body = self._body
        assert body is not None
        try:
            surplus = len(data) - body.feed(data)
        except HttpFault as fault:
            self._worker.beyond(fault)
            self._fail(faults.BAD_RESPONSE, fault.reason)
            return
        if surplus:
            self._fail(faults.BAD_RESPONSE, "bytes after the end of the answer")
            return
        user.body_arrived(data, over=body.complete)

    # endings

    def _mistaken(self, bug: Exception) -> None:
        """A bug of ours: the request that has this connection ends, and the connection with it."""
        self._worker.mistake(bug)
        try:
            self._fail(faults.MISTAKE, f"{type(bug).__name__}: {bug}")
        except Exception as another:
            self._worker.mistake(another)

    def _unasked(self, size: int) -> None:
        """A byte on an idle connection: whatever it means, nobody will ever read it as an answer."""
        self._recorder.transferred(0, size)
        if self.state == IDLE:
            self._pool.remove(self)
            self.close()

    def _broken_off(self, why: str) -> None:
        nothing = self.state == HEAD and not self.received
        self._fail(faults.RESET if self.state == HEAD and nothing else faults.ABORTED, why)

    def _fail(self, fault: Fault, why: str) -> None:
        user = self.user
        self.abort()
        if user is not None:
            user.upstream_failed(fault, why)
