"""One client connection: its requests' bytes, one after the other, and how it ends.

States: HEAD (idle, or part of a head), COUNTED and CHUNKED (a request's body), SPLICED (one whose rest is read by
somebody else: splice.py; or was, and now goes nowhere), BUSY (the request is whole, its answer
is not), TUNNEL, LINGER (answered and half closed: what still comes is thrown away for a moment, so that no RST
overtakes the answer), CLOSED. While a request is busy the connection is read on, to notice a client that leaves; what
it sends early (pipelining) waits, in order, within `limits.buffer_bytes`. Data in any state is tolerated: uvloop may
deliver some after pause_reading.

A FIN in the middle of a request says two things that TCP does not tell apart: the client has left, or it has asked and
said so (`nc -N`, some HTTP/1.0 clients). nginx takes all for gone, HAProxy none. Here the answer has HALF_CLOSED_NS to
begin; after that, or when the client's kernel refuses our bytes, it was a 499 of the moment the FIN came.
"""

import asyncio
from typing import Protocol

from flyproxy.edge import faults
from flyproxy.edge.faults import Fault, fault_of_status
from flyproxy.edge.forwarding import OWNED
from flyproxy.edge.proxy import Exchange
from flyproxy.edge.proxy_protocol import Addresses, addresses_of
from flyproxy.edge.route import Doorway, Route
from flyproxy.edge.splice import SPLICE_BYTES_MIN
from flyproxy.edge.wire import half_close, reset, unlimited
from flyproxy.edge.worker import BODY_RATE_NS, COPIED_BYTES_MAX, DRAIN_GRACE_NS, NEVER, Worker
from flyproxy.http1.body import ChunkedBody
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.head import RequestHead
from flyproxy.instrument.recorder import EdgeRecorder

HEAD, COUNTED, CHUNKED, BUSY, TUNNEL, LINGER, CLOSED, SPLICED = range(8)
_NAMES = ("head", "counted", "chunked", "busy", "tunnel", "linger", "closed", "spliced")
_BODY = (COUNTED, CHUNKED, SPLICED)

LINGER_NS = 2_000_000_000
"""How long a client may go on sending what nobody reads, after its last answer, nanoseconds."""
HALF_CLOSED_NS = 1_000_000_000
"""How long the answer to a client that sends no more may take to begin, or to go on, nanoseconds: it may have left."""
EMPTY_LINES_BYTES = 4
"""Of a buffer that holds nothing but empty lines."""


class Asker(Protocol):
    """What a connection has its usual requests taken by: a Lane, of one kind or the other."""

    def ask(self, data: bytes, begun_ns: int) -> bool:
        """The first bytes of a request, which came at `begun_ns`; False: they have not been looked at."""
        ...


class ClientConnection(asyncio.Protocol):
    """Reads requests, hands them to exchanges, one at a time."""

    __slots__ = (
        "_begun_ns", "_body", "_body_from_ns", "_buffer", "_door", "_full", "_held", "_lane", "_left", "_lent",
        "_reading", "_taken", "_unread", "_worker", "blocked", "counted", "deadline_ns", "ended_ns", "eof_pending",
        "exchange", "free_ns", "ip", "state", "suffix", "transport",
    )  # fmt: skip

    def __init__(self, worker: Worker, door: Doorway) -> None:
        self._worker = worker
        self._door = door
        # of the connection
        self.transport: asyncio.Transport
        self.ip = ""
        self.suffix = b""
        self.deadline_ns = NEVER
        self.blocked = False
        self.eof_pending = False
        self.ended_ns = 0
        """When the client said that it sends no more; 0: it has not."""
        self._lane: Asker
        """What takes the usual requests."""
        self.counted: EdgeRecorder | None = None
        self.state = HEAD
        self._buffer: bytes | bytearray = b""
        self._reading = False
        self._full = False
        self._held = False
        self._lent = False
        """A splice reads, not the transport."""
        self._unread = False
        self.free_ns = 0
        """When the last answer was over."""
        # of a request
        self.exchange: Exchange | None = None
        self._begun_ns = 0
        self._body: ChunkedBody | None = None
        self._body_from_ns = 0
        self._left = 0
        self._taken = 0

    def __repr__(self) -> str:
        return f"<ClientConnection {self.ip} {_NAMES[self.state]}, {len(self._buffer)} bytes waiting>"

    # the loop's verbs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker = self._worker
        self.transport = unlimited(transport)
        peer = transport.get_extra_info("peername")
        self.ip = peer[0].removeprefix("::ffff:") if peer else "unknown"
        ip = self.ip.encode("ascii", "replace")
        self.suffix = self._door.suffix_template % (ip, ip)
        now_ns = self._begun_ns = worker.monotonic_ns()
        self.deadline_ns = now_ns + (DRAIN_GRACE_NS if worker.draining else worker.idle_ns)
        self._lane = worker.lane(self._door, self)
        worker.joined(self)
        if len(worker.clients) > worker.connections_max:
            worker.process.limit_reached("connections")
            self._refuse(faults.CONNECTION_LIMIT, 0)

    def data_received(self, data: bytes) -> None:
        try:
            if self.state == HEAD and not self._buffer:
                self._begun_ns = begun_ns = self._worker.monotonic_ns()
                if not self._lane.ask(data, begun_ns):
                    self.head_read(None, data)
            else:
                self._arrived(data)
        except Exception as bug:
            self._mistaken(bug)

    def _arrived(self, data: bytes) -> None:
        state = self.state
        if state == HEAD:
            self._buffer += data
            self._read_requests()
        elif state in (COUNTED, CHUNKED):
            self._body_arrived(data)
        elif state == BUSY:
            self._pipelined(data)
        elif state == TUNNEL and self.exchange is not None:
            self.exchange.tunnel_from_client(data)
        else:
            assert not self._lent
            self._throw_away(len(data))

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is None:
            return False
        if self.state == TUNNEL:
            exchange.tunnel_client_ended()
            return self.state == TUNNEL
        if self.state == BUSY and exchange.may_go_on():
            self.ended_ns = self.ended_ns or self._worker.monotonic_ns()
            self.deadline_ns = self.ended_ns + HALF_CLOSED_NS
            return True
        exchange.client_gone()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        worker = self._worker
        self.state = CLOSED
        del self._lane  # it refers to us
        self.deadline_ns = NEVER
        worker.left(self)
        worker.stalled.pop(self, None)
        if self.exchange is not None:
            try:
                self.exchange.client_gone()
            except Exception as bug:
                worker.mistake(bug)
        if self._buffer:
            self._throw_away(len(self._buffer))
        if self.counted is None:
            self.counted = self._door.unmatched.edge
            self.counted.connected()
        self.counted.disconnected()

    def pause_writing(self) -> None:
        self.blocked = True
        self._worker.stalls(self)

    def resume_writing(self) -> None:
        self.blocked = False
        self._worker.stalled.pop(self, None)
        if self.eof_pending:
            self.eof_pending = False
            half_close(self.transport)
        if self.exchange is not None:
            try:
                self.exchange.client_drained()
            except Exception as bug:
                self._mistaken(bug)

    # the ticker's verbs

    def expired(self, now_ns: int) -> None:
        process = self._worker.process
        self.deadline_ns = NEVER
        if self.state == HEAD and self._buffer:
            process.limit_reached("head_timeout")
            self._refuse(faults.HEAD_TIMEOUT, len(self._buffer))
        elif self.state in _BODY and self.exchange is not None:
            process.limit_reached("body_timeout")
            self.exchange.fail(faults.BODY_TIMEOUT)
        elif self.state == HEAD:
            if not self._worker.draining:
                process.limit_reached("idle_timeout")
            self._close()
        elif self.state == LINGER:
            self.abort()
        elif self.exchange is not None and self.ended_ns:
            self.deadline_ns = now_ns + HALF_CLOSED_NS
            self.exchange.look_after_client(now_ns)

    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size()

    def taken_bytes(self) -> int:
        return (self.exchange.bytes_out if self.exchange is not None else 0) - self.unsent_bytes()

    def write_stalled(self) -> None:
        if self.exchange is not None:
            self.exchange.fail(faults.SLOW_READER)
        else:
            self.abort()

    def leave_soon(self, deadline_ns: int) -> None:
        """The front door goes down, or this door does: between requests, wait no longer than this."""
        if self.state == HEAD and not self._buffer:
            self.deadline_ns = min(self.deadline_ns, deadline_ns)

    def cut_off(self) -> None:
        if self.exchange is not None:
            self.exchange.fail(faults.DRAINED)
        if self.state != CLOSED:
            self._close()

    # requests

    def head_read(self, head: RequestHead | None, data: bytes) -> None:
        """The beginning of a request that is not the lane's, with what it read of it already."""
        self._buffer = data
        self._read_requests(head)

    def begin(self, route: Route, head: RequestHead) -> None:
        """A plain request for which the lane found no idle connection."""
        self.state = BUSY
        self.deadline_ns = NEVER
        self.exchange = Exchange(self._worker, self._door, self, route, head, self._begun_ns)
        self.exchange.begin(b"", whole=True)

    def _read_requests(self, head: RequestHead | None = None) -> None:
        """All requests the buffer holds whole, as far as each one's answer is there before the next; `head`: what was
        read of it already."""
        worker = self._worker
        self._reading = True
        while self.state == HEAD and self._buffer:
            buffer = self._buffer
            try:
                head = head or worker.request_parser.parse(buffer)
            except HttpFault as fault:
                self.refuse_head(fault, len(buffer))
                break
            if head is None:
                self._head_begun(buffer)
                break
            self._request(head, buffer)
            head = None
            if self.ended_ns:
                self._ended_with(self.exchange)
        self._reading = False
        if self.ended_ns and self.state == HEAD:
            self._close()
        if self._full and len(self._buffer) <= worker.buffer_bytes:
            self._full = False
            self._steer()

    def _head_begun(self, buffer: bytes | bytearray) -> None:
        """Wait for the rest of a head. Empty lines alone are none: some clients send one after a body and then idle."""
        if len(buffer) <= EMPTY_LINES_BYTES and not buffer.strip(b"\r\n") and buffer.endswith(b"\n"):
            self._throw_away(len(buffer))
            self._buffer = b""
            return
        if isinstance(buffer, bytes):
            self._buffer = bytearray(buffer)
        self.deadline_ns = max(self._begun_ns, self.free_ns) + self._worker.head_ns

    def _ended_with(self, exchange: Exchange | None) -> None:
        """This request was pipelined by a client that sends no more: it must be whole, and is the next to wait."""
        if exchange is None:
            return
        if self.state == BUSY:
            self.deadline_ns = self._worker.monotonic_ns() + HALF_CLOSED_NS
        else:
            exchange.client_gone()

    def _request(self, head: RequestHead, buffer: bytes | bytearray) -> None:
        door = self._door
        route = door.router.route(head.host) or door.unmatched
        if self.counted is None:
            self.count_for(route)
        exchange = self.exchange = Exchange(self._worker, door, self, route, head, self._begun_ns)
        if head.content_length <= 0 and not head.chunked:
            self.state = BUSY
            self._buffer = buffer[head.size :] if len(buffer) != head.size else b""
            self.deadline_ns = NEVER
            exchange.begin(b"", whole=True)
            return
        self._buffer = b""
        self._begin_body(head)
        rest: bytes | memoryview
        if not head.chunked and len(buffer) - head.size > COPIED_BYTES_MAX and isinstance(buffer, bytes):
            rest = memoryview(buffer)[head.size :]
        else:
            rest = bytes(buffer[head.size :])
        try:
            part = self._take(rest)
        except HttpFault as fault:
            self._worker.beyond(fault)
            exchange.bytes_in += len(rest)
            exchange.fail(fault_of_status(fault.status), reason=fault.reason)
            return
        exchange.begin(part, whole=self.state == BUSY)
        self._check_body_size(exchange)

    def count_for(self, route: Route) -> None:
        """The connection counts for the app of its first routed request."""
        if route is not self._door.unmatched:
            self.counted = route.edge
            route.edge.connected()

    def _begin_body(self, head: RequestHead) -> None:
        worker = self._worker
        self._taken = 0
        self._body_from_ns = worker.now_ns
        self.deadline_ns = worker.now_ns + worker.body_ns
        if head.chunked:
            self.state = CHUNKED
            self._body = ChunkedBody(worker.head_limits, owned=OWNED)
        else:
            self.state = COUNTED
            self._left = head.content_length

    def _body_arrived(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self._throw_away(len(data))
            return
        try:
            part = self._take(data)
        except HttpFault as fault:
            self._worker.beyond(fault)
            exchange.bytes_in += len(data)
            exchange.fail(fault_of_status(fault.status), reason=fault.reason)
            return
        if not self._held and self.state != BUSY:
            self._be_patient()
        exchange.body_arrived_from_client(part, whole=self.state == BUSY)
        self._check_body_size(exchange)

    def _be_patient(self) -> None:
        """More of a body came: wait for the rest, if it does not come too slowly."""
        worker = self._worker
        steady_ns = self._body_from_ns + worker.body_ns + self._taken * BODY_RATE_NS
        self.deadline_ns = min(worker.now_ns + worker.body_ns, steady_ns)

    def _take(self, data: bytes | memoryview) -> bytes | memoryview:
        """The part of these bytes that is the body's; when it ends here the rest waits and the state is BUSY."""
        if self.state == COUNTED:
            taken = min(self._left, len(data))
            self._left -= taken
            whole = not self._left
        else:
            assert self._body is not None
            assert isinstance(data, bytes)
            taken = self._body.feed(data)
            whole = self._body.complete
        self._taken += taken
        if whole:
            self.state = BUSY
            self.deadline_ns = NEVER
        if taken == len(data):
            return data
        self._pipelined(data[taken:])
        return data[:taken]

    def _check_body_size(self, exchange: Exchange) -> None:
        """A chunked body says only as it comes how long it is."""
        limit, body = self._worker.body_bytes, self._body
        if body is not None and limit is not None and self.exchange is exchange and body.content > limit:
            exchange.body_too_large(limit)

    def _pipelined(self, data: bytes | memoryview) -> None:
        """The beginning of the next request, or all of it, while this one is busy."""
        if not self._buffer:
            self._begun_ns = self._worker.monotonic_ns()
            self._buffer = bytearray(data)
        else:
            self._buffer += data
        if len(self._buffer) > self._worker.buffer_bytes and not self._full:
            self._full = True
            self._steer()

    def refuse_head(self, fault: HttpFault, size: int) -> None:
        self._worker.beyond(fault)
        self._refuse(fault_of_status(fault.status), size, fault.reason)

    def _refuse(self, fault: Fault, size: int, reason: str = "") -> None:
        """Answer the `size` bytes that are no request; they count under no app."""
        door = self._door
        self._buffer = b""
        self._unread = fault is not faults.CONNECTION_LIMIT  # no time to wait for one too many
        self.state = BUSY
        nobody = RequestHead(b"", b"", 1, b"", b"", None, -1, False, False, False, None, False, size, False)
        self.exchange = Exchange(self._worker, door, self, door.unmatched, nobody, self._begun_ns)
        self.exchange.fail(fault, reason=reason)

    # the exchange's verbs

    def addresses(self) -> Addresses | None:
        """Both ends of the connection, for an instance that wants to know; None: it is gone."""
        peer, own = (self.transport.get_extra_info(name) for name in ("peername", "sockname"))
        return addresses_of(peer[:2], own[:2]) if peer and own else None

    def hold(self, *, held: bool) -> None:
        if held == self._held:
            return
        self._held = held
        worker = self._worker
        if self.state in _BODY:
            # the client is not to blame for the wait: its time begins anew
            self._taken, self._body_from_ns = 0, worker.monotonic_ns()
            self.deadline_ns = NEVER if held else self._body_from_ns + worker.body_ns
        self._steer()

    @property
    def large_left(self) -> bool:
        """Whether so much of a counted body is to come that it is worth splicing."""
        return self.state == COUNTED and self._left > SPLICE_BYTES_MIN

    def lend_body(self) -> int:
        """Read no more: so many bytes of a counted body are still to come."""
        assert self.state == COUNTED
        self.state = SPLICED
        self._lent = True
        self._steer()
        return self._left

    def body_went(self, size: int) -> None:
        """So many bytes of it were read."""
        self._taken += size
        if not self._held:
            self._be_patient()

    def take_body_back(self, left: int) -> None:
        """Read on: `left` bytes of the body that go nowhere any more, then what comes after it."""
        self._lent = False
        if not left and self.state == SPLICED:
            self.state = BUSY
            self.deadline_ns = NEVER
        self._steer()

    def start_tunnel(self) -> bytes:
        self.state = TUNNEL
        early, self._buffer = bytes(self._buffer), b""
        if self._full:
            self._full = False
            self._steer()
        return early

    def half_close(self) -> None:
        if self.blocked:
            self.eof_pending = True
        else:
            half_close(self.transport)

    def abort(self) -> None:
        self.state = CLOSED
        self.deadline_ns = NEVER
        reset(self.transport)

    def exchange_over(self, now_ns: int, *, keep: bool) -> None:
        self.exchange = None
        self._body = None
        state = self.state
        if state == CLOSED:
            return
        if self._held:
            self._held = False
            self._steer()
        if keep and state == BUSY:
            self.state = HEAD
            self.free_ns = now_ns
            worker = self._worker
            self.deadline_ns = now_ns + (DRAIN_GRACE_NS if worker.draining else worker.idle_ns)
            if (self._buffer or self.ended_ns) and not self._reading:
                self._read_on()
        elif self.ended_ns:
            self._close()
        elif self._unread or self._buffer or state in _BODY:
            self._linger(now_ns)
        else:
            self._close()

    def _read_on(self) -> None:
        """The next request's trouble is not that of whoever ended this one."""
        try:
            self._read_requests()
        except Exception as bug:
            self._mistaken(bug)

    # endings

    def _mistaken(self, bug: Exception) -> None:
        """A bug of ours: this request ends, and this connection; nobody else notices."""
        self._worker.mistake(bug)
        exchange = self.exchange
        try:
            if exchange is not None:
                exchange.fail(faults.MISTAKE, f"{type(bug).__name__}: {bug}")
        except Exception as another:
            self._worker.mistake(another)
        if self.state not in (LINGER, CLOSED) and not (self.exchange is not None and self.blocked):
            self.abort()

    def _linger(self, now_ns: int) -> None:
        self.state = LINGER
        self.deadline_ns = now_ns + LINGER_NS
        if self._full:
            self._full = False
            self._steer()
        if self._buffer:
            early, self._buffer = len(self._buffer), b""
            self._throw_away(early)
        self.half_close()

    def _close(self) -> None:
        self.state = CLOSED
        self.deadline_ns = NEVER
        self.transport.close()

    def _throw_away(self, size: int) -> None:
        """Bytes that belong to no request are counted all the same: for the app of the connection."""
        (self.counted or self._door.unmatched.edge).transferred(size, 0)

    def _steer(self) -> None:
        """Read, unless somebody cannot take more."""
        if self.ended_ns or self.transport.is_closing():
            return
        if self._held or self._full or self._lent:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()
