"""The life of one request, top to bottom.

  begin      it is routed; bounds are checked
  _pick      an instance is chosen, a connection leased or dialled; a refused dial chooses again, TRIES_MAX in all
  _forward   the head goes on, with what is there of the body; more body follows as it comes
  answered   the instance's head goes to the client, then the body as it comes; 101 makes a tunnel
  _finish    counted once, logged once, whichever way it ended

Ways to end early: `fail` (a coded fault: an answer of our own, or a break-off when the answer has begun) and
`client_gone` (499). A request that got no byte of an answer on a connection that had served before is sent again once,
if it is idempotent and has no body: then the instance had hung up before it could have read it.

Waiting bytes are bounded both ways: while one side does not take more than `limits.buffer_bytes`, the other is not
read.
"""

import asyncio
from typing import Protocol

from flyproxy.edge import faults
from flyproxy.edge.account import Account
from flyproxy.edge.balancer import TRIES_MAX, choose
from flyproxy.edge.dechunk import Dechunker
from flyproxy.edge.faults import CLIENT_CLOSED_REQUEST, Fault
from flyproxy.edge.forwarding import (
    IDEMPOTENT,
    interim_head,
    is_event_stream,
    own_response,
    request_head,
    response_head,
)
from flyproxy.edge.instance import Instance
from flyproxy.edge.proxy_protocol import Addresses
from flyproxy.edge.request_ids import is_traceparent, trace_lines
from flyproxy.edge.route import Doorway, Route
from flyproxy.edge.splice import SPLICE_BYTES_MIN, AnswerSplice, UploadingClient, UploadSplice
from flyproxy.edge.upstream import UpstreamConnection
from flyproxy.edge.wire import has_vanished, notice_death, untaken_bytes
from flyproxy.edge.worker import COPIED_BYTES_MAX, NEVER, Worker
from flyproxy.http1.head import RequestHead, ResponseHead


class ClientSide(UploadingClient, Protocol):
    """What a request knows of the connection it came on."""

    ip: str
    suffix: bytes
    """Header lines of this connection for the instance."""
    deadline_ns: int
    """When the ticker looks at it."""
    blocked: bool
    """The last write was not taken whole."""
    ended_ns: int
    """When the client said that it sends no more; 0: it has not."""

    def addresses(self) -> Addresses | None:
        """Both ends of the client's connection, as far as one can say."""
        ...

    @property
    def large_left(self) -> bool:
        """Whether so much of a counted body is to come that it is worth splicing."""
        ...

    def start_tunnel(self) -> bytes:
        """Everything from here on is the tunnel's; returns what came early."""
        ...

    def half_close(self) -> None: ...

    def abort(self) -> None: ...

    def exchange_over(self, now_ns: int, *, keep: bool) -> None:
        """The request is finished; `keep`: the connection may bring another."""
        ...


class Exchange(Account):
    """One request and its answer. Refers to the connections it uses, and they to it; `_finish` cuts both."""

    __slots__ = (
        "_answer_begun", "_client", "_client_ended", "_continued", "_dechunker", "_dial", "_flushed_ns", "_flushing",
        "_held", "_instance_ended", "_keep", "_looked_at", "_out_at_end", "_over", "_replayed", "_request_whole",
        "_seen", "_tried", "_waiting", "method",
    )  # fmt: skip

    def __init__(
        self, worker: Worker, door: Doorway, client: ClientSide, route: Route, head: RequestHead, started_ns: int
    ) -> None:
        Account.__init__(self, worker, door, route, head, started_ns)
        self._client = client
        self.method = head.method
        # the request
        self._request_whole = False
        self._waiting: bytes | memoryview = b""
        # the instance
        self._tried: tuple[Instance, ...] = ()
        self._replayed = False
        self._dial: asyncio.Task[None] | None = None
        # the answer
        self._continued = False
        self._answer_begun = False
        self._keep = False
        self._dechunker: Dechunker | None = None
        self._held = False
        self._flushing = False
        self._flushed_ns = 0
        """When a client that sends no more had its answer's last byte in the kernel, as far as we can tell."""
        self._looked_at = 0
        """Bytes of the answer when such a client was last looked after."""
        self._out_at_end = 0
        """Bytes of the answer when it ended: if it turns out to have left, no more were taken."""
        self._seen = False
        """Its answer had begun when it ended."""
        self._client_ended = self._instance_ended = False
        self._over = False

    # 1. in: from the client

    def begin(self, body: bytes | memoryview, *, whole: bool) -> None:
        """The head has arrived, with `body`, the part of the body that came with it; `whole`: that was all."""
        self._request_whole = whole
        self.bytes_in += len(body)
        self._waiting = body
        if self._route is self._door.unmatched:
            self.fail(faults.UNKNOWN_HOST, host_named=True)
            return
        limit = self._worker.body_bytes
        if limit is not None and self._head.content_length > limit:
            self.body_too_large(limit)
            return
        self._pick()

    def body_arrived_from_client(self, data: bytes | memoryview, *, whole: bool) -> None:
        """More of the request's body."""
        self.bytes_in += len(data)
        self._request_whole = whole
        upstream = self._upstream
        if upstream is None:
            self._waiting = b"".join((self._waiting, data))
            if len(self._waiting) > self._worker.buffer_bytes:
                self._client.hold(held=True)
            return
        self._to_instance(upstream, data)
        if whole and not self._answer_begun and self._upstream is not None:
            upstream.deadline_ns = self._worker.monotonic_ns() + self._worker.response_ns

    def body_too_large(self, limit: int) -> None:
        """`limits.body_bytes` is exceeded, announced or in fact."""
        self._worker.process.limit_reached("body_bytes")
        self.fail(faults.BODY_TOO_LARGE, reason=f"At most {limit} bytes are taken.")

    def take_over(self, instance: Instance, upstream: UpstreamConnection, request_id: bytes, bytes_sent: int) -> None:
        """Go on with a plain request that a lane has sent, under its id."""
        self._request_whole = True
        self._instance, self._upstream, self._instance_id = instance, upstream, instance.id
        self._request_id, self.bytes_sent, self._sent_ns = request_id, bytes_sent, self._started_ns

    def answer_written(self, status: int, size: int, *, keep: bool) -> None:
        """The lane has written the whole answer, and the kernel does not take it at once."""
        self._status, self.bytes_out = status, size
        self._answer_begun, self._keep = True, keep
        self._answer_over()

    # 2. on: to an instance

    def _pick(self) -> None:
        instance = choose(self._route.tiers, self._tried, self._worker.random)
        if instance is None:
            self.fail(faults.NO_INSTANCE, "the app has no instances")
            return
        self._instance = instance
        instance.recorder.started()
        upstream = None if self._replayed else instance.pool.lease()
        while upstream is not None and upstream.transport.is_closing():
            upstream = instance.pool.lease()
        if upstream is None:
            self._dial = instance.dial(self)
        else:
            self._forward(upstream)

    def dialled(self, upstream: UpstreamConnection) -> None:
        """A new connection is there."""
        self._dial = None
        if upstream.transport.is_closing():
            self._upstream = upstream
            self.upstream_failed(faults.RESET, "closed or spoken on as soon as it was open")
        else:
            self._forward(upstream)

    def addresses(self) -> Addresses | None:
        return self._client.addresses()

    def dial_failed(self, fault: Fault, why: str) -> None:
        """Nothing was sent, so any request may try another instance."""
        self._dial = None
        assert self._instance is not None
        self._tried = (*self._tried, self._instance)
        self._leave_instance()
        exhausted = len(self._tried) >= TRIES_MAX
        if exhausted:
            self._worker.process.limit_reached("retries")
        if exhausted or choose(self._route.tiers, self._tried, self._worker.random) is None:
            self.fail(fault if len(self._tried) == 1 else faults.TRIES_EXHAUSTED, why)
        else:
            self._pick()

    def _forward(self, upstream: UpstreamConnection) -> None:
        worker, head, instance = self._worker, self._head, self._instance
        assert instance is not None
        self._upstream = upstream
        self._instance_id = instance.id
        upstream.begin(self)
        traceparent = head.owned.get(b"traceparent") if head.owned is not None else None
        known = traceparent is not None and is_traceparent(traceparent)
        lines = trace_lines(traceparent) if known and traceparent is not None else worker.ids.trace_lines()
        if not head.host:
            head.block, head.host = b"Host: %b\r\n%b" % (self._route.host, head.block), self._route.host
        data = request_head(head, self._client.suffix, self._request_id, self._started_us, lines)
        body = self._waiting
        if body:
            self._waiting = b""
            self._client.hold(held=False)
        self._sent_ns = now_ns = worker.monotonic_ns()
        if self._request_whole:
            upstream.deadline_ns = now_ns + worker.response_ns
        self._to_instance(upstream, data, body)
        if not self._request_whole and head.content_length > SPLICE_BYTES_MIN:
            self._splice_upload()

    def _to_instance(
        self, upstream: UpstreamConnection, data: bytes | memoryview, body: bytes | memoryview = b""
    ) -> None:
        self.bytes_sent += len(data) + len(body)
        if not body:
            upstream.transport.write(data)
        elif len(body) <= COPIED_BYTES_MAX:
            upstream.transport.write(b"".join((data, body)))
        else:
            upstream.transport.writelines((data, body))
        if upstream.blocked and upstream.unsent_bytes() > self._worker.buffer_bytes:
            self._client.hold(held=True)

    def upstream_drained(self) -> None:
        self._client.hold(held=False)
        if not self._request_whole and self._head.content_length > SPLICE_BYTES_MIN:
            self._splice_upload()

    def upstream_failed(self, fault: Fault, why: str) -> None:
        """The connection broke, or what came over it did."""
        upstream, head = self._upstream, self._head
        if upstream is None:  # let go of already: one of our own mistakes
            self.fail(fault, why)
            return
        bodiless = head.content_length <= 0 and not head.chunked
        stale = fault is faults.RESET and upstream.reused and not self._replayed
        if stale and bodiless and head.method in IDEMPOTENT:
            self._replayed = True
            self._leave_instance()
            self._pick()
        else:
            self.fail(fault, f"{self._instance.address if self._instance else ''}: {why}")

    # 3. back: to the client

    def interim(self, head: ResponseHead) -> bool:
        if head.status == 100:
            if self._continued or not self._head.expect_continue:
                return False
            self._continued = True
        if self._head.minor:
            self._to_client(interim_head(head))
        return True

    def answered(self, head: ResponseHead, body: bytes, *, over: bool) -> None:
        upstream, request, worker = self._upstream, self._head, self._worker
        assert upstream is not None
        if head.upgrade is not None and head.upgrade not in (request.upgrade or b"").split(b", "):
            self.fail(faults.BAD_RESPONSE, "an unasked 101")
            return
        measured = not head.has_body or head.content_length >= 0
        dechunk = head.chunked and not request.minor
        self._keep = (
            request.keep_alive
            and self._request_whole
            and (measured or (head.chunked and not dechunk))
            and not worker.draining
            and not self._door.closing
        )
        self._status = head.status
        self._answer_begun = True
        if dechunk and head.has_body:
            self._dechunker = Dechunker()
            body = self._dechunker.feed(body)
        data = response_head(
            head,
            self._request_id,
            body if head.upgrade is None else b"",
            date_line=b"" if head.dated else worker.date_line(),
            close=not self._keep,
            keep_alive_said=not request.minor,
            dechunk=dechunk,
        )
        if over:
            self._to_client(data)
            self._answer_over()
        elif head.upgrade is not None:
            self._tunnel(upstream, data, body)
        else:
            if not measured and not self._client.ended_ns and is_event_stream(head.lines):
                self._count_at_head()
                notice_death(upstream.transport.get_extra_info("socket"))
                notice_death(self._client.transport.get_extra_info("socket"))
            upstream.deadline_ns = NEVER if self._streaming else worker.monotonic_ns() + worker.response_ns
            self._to_client(data)
            if upstream.large_left:
                self._splice_answer(upstream)

    def answer(self, data: bytes) -> bool:
        """A lane reads some answers by itself; here they are read by the connection."""
        return False

    def body_arrived(self, body: bytes, *, over: bool) -> None:
        if self._dechunker is not None:
            body = self._dechunker.feed(body)
        if body:
            self._to_client(body)
        if over:
            self._answer_over()
        elif not self._streaming and not self._held and self._upstream is not None:
            self._upstream.deadline_ns = self._worker.now_ns + self._worker.response_ns

    def _to_client(self, data: bytes) -> None:
        client = self._client
        self.bytes_out += len(data)
        client.transport.write(data)
        if client.blocked and not self._held and self._upstream is not None:
            unsent = client.transport.get_write_buffer_size()
            if unsent > self._worker.buffer_bytes:
                self._held = True
                self._upstream.hold(held=True)
                self._upstream.deadline_ns = NEVER

    def client_drained(self) -> None:
        """The client has taken everything written so far."""
        if self._flushing:
            self._flush(self._worker.monotonic_ns())
        elif self._held and self._upstream is not None:
            self._held = False
            if not self._streaming:
                self._upstream.deadline_ns = self._worker.now_ns + self._worker.response_ns
            elif self._client_ended or self._instance_ended:
                self._upstream.deadline_ns = self._worker.now_ns + self._worker.idle_ns
            self._upstream.hold(held=False)
            if self._upstream.large_left:
                self._splice_answer(self._upstream)

    def _answer_over(self) -> None:
        upstream = self._upstream
        assert upstream is not None
        now_ns = self._worker.monotonic_ns()
        if self._held:
            self._held = False
            upstream.hold(held=False)
        self._leave_instance(now_ns)
        upstream.let_go(now_ns, request_whole=self._request_whole)
        self._flush(now_ns)

    def _flush(self, now_ns: int) -> None:
        if self._client.blocked:
            self._flushing = True  # over when the last byte is the kernel's: client_drained
        elif self._client.ended_ns:
            self._flushed_ns = now_ns
            self.look_after_client(now_ns)
        else:
            self._finish(now_ns)

    # large bodies, either way: splice.py moves them

    def _splice_answer(self, upstream: UpstreamConnection) -> None:
        AnswerSplice(self._worker, self, self._client, upstream).start()

    def _splice_upload(self) -> None:
        upstream = self._upstream
        if upstream is not None and self._client.large_left:
            UploadSplice(self._worker, self, self._client, upstream).start()

    def answer_spliced(self) -> None:
        """All bytes of the answer are the client's kernel's."""
        self._answer_over()

    def upload_spliced(self) -> None:
        """All bytes of the request are the instance's kernel's."""
        self._request_whole = True
        if not self._answer_begun and self._upstream is not None:
            self._upstream.deadline_ns = self._worker.monotonic_ns() + self._worker.response_ns

    def client_lost(self) -> None:
        """The client's connection is gone: a splice has seen it."""
        if not self._over:
            self._client.abort()
            self.client_gone()

    def splice_mistaken(self, bug: Exception) -> None:
        self._worker.mistake(bug)
        self.fail(faults.MISTAKE, f"{type(bug).__name__}: {bug}")

    # 4. a tunnel

    def _tunnel(self, upstream: UpstreamConnection, data: bytes, body: bytes) -> None:
        self._to_client(data)
        self._count_at_head()
        upstream.deadline_ns = NEVER
        notice_death(upstream.transport.get_extra_info("socket"))
        notice_death(self._client.transport.get_extra_info("socket"))
        early = self._client.start_tunnel()
        if body:
            self._to_client(body)
        if early:
            self.tunnel_from_client(early)
        if self._client.ended_ns:
            self.tunnel_client_ended()

    def tunnel_from_client(self, data: bytes) -> None:
        """Bytes for the instance."""
        upstream = self._upstream
        if upstream is not None:
            self.bytes_in += len(data)
            self._to_instance(upstream, data)
            if self._instance_ended:
                upstream.deadline_ns = self._worker.now_ns + self._worker.idle_ns

    def tunnel_from_instance(self, data: bytes) -> None:
        self._to_client(data)
        if self._client_ended and self._upstream is not None:
            self._upstream.deadline_ns = self._worker.now_ns + self._worker.idle_ns

    def tunnel_client_ended(self) -> None:
        """The client sends no more; what the instance still says goes to it, for `timeouts.idle` of silence."""
        self._client_ended = True
        if self._upstream is not None:
            self._upstream.half_close()
            self._half_closed()

    def tunnel_instance_ended(self) -> None:
        self._instance_ended = True
        self._client.half_close()
        self._half_closed()

    def tunnel_forgotten(self) -> None:
        self._worker.process.limit_reached("idle_timeout")
        self.client_gone()

    def _half_closed(self) -> None:
        upstream = self._upstream
        assert upstream is not None
        if self._client_ended and self._instance_ended:
            now_ns = self._worker.monotonic_ns()
            self._leave_instance(now_ns)
            upstream.close()
            self._flush(now_ns)
        else:
            upstream.deadline_ns = self._worker.now_ns + self._worker.idle_ns

    # 5. the end

    def fail(self, fault: Fault, why: str = "", *, reason: str = "", host_named: bool = False) -> None:
        """End with a coded fault. `why` is for the log, `reason` for the client as well."""
        if self._over:
            return
        self._drop_instance()
        self._fault, self._why = fault, why or reason or None
        self._route.edge.error(fault.code)
        if self._answer_begun:
            self._client.abort()
            self._finish(self._worker.monotonic_ns())
            return
        self._answer_begun = True
        self._status = fault.status
        self._keep = (
            self._head.keep_alive
            and bool(self._head.minor)
            and self._request_whole
            and fault is not faults.MISTAKE
            and not self._worker.draining
            and not self._door.closing
        )
        if host_named and not reason:
            reason = self._head.host.decode("ascii", "replace")
        self._to_client(self._own_answer(fault, reason))
        self._flush(self._worker.monotonic_ns())

    def client_gone(self) -> None:
        """The client left. Before the answer began, or before it took one it had only seemed to wait for: 499."""
        if self._over:
            return
        ended_ns = self._client.ended_ns
        if not self._answer_begun or (ended_ns and not (self._seen or self._streaming or self._fault)):
            self._status = CLIENT_CLOSED_REQUEST
            if ended_ns:
                self.bytes_out = self._out_at_end  # what came after the FIN was refused
        self._drop_instance()
        self._why = self._why or "the client left"
        self._keep = False
        self._finish(max(ended_ns, self._started_ns) if ended_ns else self._worker.monotonic_ns())

    def may_go_on(self) -> bool:
        """Whether an answer makes sense although the client sends no more; a stream that says nothing for hours could
        not tell whether anybody listens."""
        self._seen, self._out_at_end = self._answer_begun, self.bytes_out
        return self._request_whole and not self._streaming

    def look_after_client(self, now_ns: int) -> None:
        """It sends no more. Has it its answer, does it get more of it?"""
        flushed_ns, transport, idle = self._flushed_ns, self._client.transport, self.bytes_out == self._looked_at
        self._looked_at = self.bytes_out
        if has_vanished(transport) or not (self._answer_begun and (flushed_ns or self._client.blocked or not idle)):
            self.client_gone()
        elif flushed_ns and not untaken_bytes(transport):
            self._finish(flushed_ns)
        elif flushed_ns and now_ns - flushed_ns > self._worker.write_ns:
            self.client_gone()
        elif flushed_ns:
            self._client.deadline_ns = now_ns  # at the next tick

    def _drop_instance(self) -> None:
        """Let go of whatever we had of an instance, in the middle."""
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        upstream = self._upstream
        if self._instance is not None:
            self._leave_instance(self._worker.monotonic_ns() if self._answer_begun else None)
        if upstream is not None:
            upstream.abort()

    def _own_answer(self, fault: Fault, reason: str) -> bytes:
        request_id = self._request_id
        kind, page = faults.body(
            fault, reason=reason, request_id=request_id.decode(), html=faults.wants_html(self._head.lines)
        )
        head_only = self.method == b"HEAD"
        unix_s = self._worker.clock.now_ms() // 1000
        return own_response(fault, kind, page, request_id, unix_s, close=not self._keep, head_only=head_only)

    def _finish(self, now_ns: int) -> None:
        self._over = True
        self._count_at_end(now_ns)
        self._client.exchange_over(now_ns, keep=self._keep)

    def _client_ip(self) -> str:
        return self._client.ip
