"""The usual request: a plain head on an idle connection, answered in one piece.

A lane belongs to a client's connection and stands where an Exchange would stand. It knows one story: a head that asks
and nothing more, a host that leads to an app, an instance with an idle connection, an answer that comes whole; it tells
it straight, because that is what nearly all requests are. Whatever is not so goes the usual way from the beginning
(`ask`), or, once the request is sent, to the Exchange that the lane makes of itself: whoever calls one of an Exchange's
verbs on it gets the Exchange's. So every rule about failures, timeouts and half-closed clients is written once, in
proxy.py.

typed_lane.pyx tells the same story without the interpreter; tests/edge runs over both. Measured, all that Python does
for a request: 12.9 µs before there was a lane, 4 with this one, 2.6 with the typed one, where values repeat.
"""

from typing import Any

from flyproxy.edge.access_log import Entry
from flyproxy.edge.balancer import choose
from flyproxy.edge.client import BUSY, ClientConnection
from flyproxy.edge.forwarding import OURS, request_head
from flyproxy.edge.instance import Instance
from flyproxy.edge.proxy import Exchange
from flyproxy.edge.route import Doorway, Route
from flyproxy.edge.upstream import HEAD as ANSWER_HEAD
from flyproxy.edge.upstream import IDLE, UpstreamConnection
from flyproxy.edge.worker import NEVER, Worker
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.head import RequestHead, ResponseHead


class Lane:
    """One client connection's usual requests, one after the other."""

    __slots__ = (
        "_begun_ns", "_client", "_door", "_head", "_instance", "_request_id", "_route", "_upstream", "_worker",
        "bytes_sent",
    )  # fmt: skip

    def __init__(self, worker: Worker, door: Doorway, client: ClientConnection) -> None:
        """For a connection that was made."""
        self._worker = worker
        self._door = door
        self._client = client
        self._head: RequestHead | None = None
        """Of the last plain request, to be compared with the next."""
        # of a request
        self._route: Route
        self._instance: Instance
        self._upstream: UpstreamConnection
        self._request_id = b""
        self._begun_ns = 0
        self.bytes_sent = 0

    def __getattr__(self, name: str) -> Any:
        """The Exchange's, which is made if it was not."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._unfold(), name)

    @property
    def method(self) -> bytes:
        """Of the request."""
        return self._head.method if self._head is not None else b""

    def ask(self, data: bytes, begun_ns: int) -> bool:
        """Take the first bytes of a request, which came at `begun_ns`, or hand them on: True, always."""
        worker, client = self._worker, self._client
        try:
            head = worker.request_parser.parse(data, self._head)
        except HttpFault as fault:
            client.refuse_head(fault, len(data))
            return True
        if head is None or not head.plain or head.size != len(data):
            self._head = None
            client.head_read(head, data)
            return True
        self._head = head
        door = self._door
        route = door.router.route(head.host) or door.unmatched
        if client.counted is None:
            client.count_for(route)
        instance = route.only or choose(route.tiers, (), worker.random)
        if instance is None or not instance.pool.idle:
            client.begin(route, head)
            return True
        ids = worker.ids
        start_us = begun_ns // 1000 + worker.unix_offset_us
        request_id = self._request_id = ids.ulid(start_us // 1000) + door.request_id_suffix
        data = request_head(head, client.suffix, request_id, start_us, ids.trace_lines())
        upstream = instance.pool.idle.popitem()[0]
        if upstream.transport.is_closing():
            client.begin(route, head)
            return True
        self._route, self._instance, self._upstream, self._begun_ns = route, instance, upstream, begun_ns
        self.bytes_sent = len(data)
        client.state = BUSY
        client.deadline_ns = NEVER
        client.exchange = self  # type: ignore[assignment]  # it stands for one
        upstream.user = self
        upstream.state = ANSWER_HEAD
        upstream.received = upstream.interims = 0
        upstream.deadline_ns = begun_ns + worker.response_ns
        recorder = instance.recorder
        recorder.in_flight += 1
        if not recorder.dirty:
            recorder.mark()
        upstream.transport.write(data)
        return True

    def answer(self, data: bytes) -> bool:
        """Take the first bytes of the answer, or hand them on: True, always. Raises HttpFault."""
        worker, client, upstream, asked = self._worker, self._client, self._upstream, self._head
        assert asked is not None
        size = upstream.received = len(data)
        head = worker.response_parser.parse(data, asked.method, upstream.before)
        if head is None or head.extent != size or client.ended_ns or worker.draining or self._door.closing:
            upstream.head_read(self._unfold(), head, data)
            return True
        upstream.before = head
        end = b"\r\n" if asked.keep_alive else b"Connection: close\r\n\r\n"
        date = b"" if head.dated else worker.date_line()
        out = b"".join((head.start, date, OURS, self._request_id, b"\r\n", head.framing, end, data[head.size :]))
        client.transport.write(out)
        now_ns = worker.monotonic_ns()
        if client.blocked:
            upstream.reusable = head.keep_alive
            self._unfold().answer_written(head.status, len(out), keep=asked.keep_alive)
            return True
        try:
            self._finish(asked, head, len(out), now_ns)
        except Exception as bug:  # ours; the answer has gone out, so nothing may be said or counted again
            worker.mistake(bug)
            client.exchange = None
            upstream.abort()
            client.abort()
        return True

    def _finish(self, asked: RequestHead, head: ResponseHead, size: int, now_ns: int) -> None:
        """The answer is the kernel's, `size` bytes: count it, and let both connections go on."""
        worker, client, upstream = self._worker, self._client, self._upstream
        instance, route, duration_ns = self._instance, self._route, now_ns - self._begun_ns
        route.edge.exchanged(
            instance.recorder, head.status, duration_ns, duration_ns, asked.size, size, self.bytes_sent,
            upstream.received,
        )  # fmt: skip
        if worker.log.enabled and route.access_log:
            worker.log.add(self._entry(asked, head.status, size, duration_ns))
        del self._instance, self._route, self._upstream  # an idle client keeps none of them alive
        pool = instance.pool
        idle = pool.idle
        if head.keep_alive and not upstream.blocked and not pool.closed and len(idle) < pool.idle_max:
            upstream.user = None
            upstream.state = IDLE
            upstream.deadline_ns = NEVER
            upstream.reused = True
            idle[upstream] = now_ns
        else:
            upstream.reusable = head.keep_alive
            upstream.let_go(now_ns, request_whole=True)
        client.exchange_over(now_ns, keep=asked.keep_alive)

    def _entry(self, asked: RequestHead, status: int, bytes_out: int, duration_ns: int) -> Entry:
        return Entry(
            self._worker.unix_ms(self._begun_ns), self._route.app, self._door.region, self._client.ip, asked.method,
            asked.host, asked.target, status, asked.size, bytes_out, duration_ns, self._instance.id, duration_ns,
            self._request_id.decode(), None, None,
        )  # fmt: skip

    def _unfold(self) -> Exchange:
        """The Exchange this one stands for."""
        client = self._client
        exchange = client.exchange
        if exchange is self:  # type: ignore[comparison-overlap]  # it stands for one
            assert self._head is not None
            exchange = Exchange(self._worker, self._door, client, self._route, self._head, self._begun_ns)
            exchange.take_over(self._instance, self._upstream, self._request_id, self.bytes_sent)
            client.exchange = exchange
            if self._upstream.user is self:
                self._upstream.user = exchange
            del self._instance, self._route, self._upstream
        assert isinstance(exchange, Exchange)
        return exchange
