"""What is counted and logged of one request: its status, bytes and times, once, whichever way it ended.

An ordinary answer is counted when its last byte was the kernel's. An upgrade and a stream of events are counted at
their head, in the time until then; their bytes are reported as they go (the ticker calls `report`), the rest at the
end.
"""

from flyproxy.edge.access_log import Entry
from flyproxy.edge.faults import Blame, Fault
from flyproxy.edge.instance import Instance
from flyproxy.edge.route import Doorway, Route
from flyproxy.edge.upstream import UpstreamConnection
from flyproxy.edge.worker import Worker
from flyproxy.http1.head import RequestHead


class Account:
    """One request's books; the exchange is built on top of them."""

    __slots__ = (
        "_door", "_duration_ns", "_fault", "_head", "_instance", "_instance_id", "_instance_ns", "_reported",
        "_request_id", "_route", "_sent_ns", "_started_ns", "_started_us", "_status", "_streaming", "_upstream",
        "_why", "_worker", "bytes_in", "bytes_out", "bytes_sent",
    )  # fmt: skip

    def __init__(self, worker: Worker, door: Doorway, route: Route, head: RequestHead, started_ns: int) -> None:
        """`started_ns`: when the first byte of the head came."""
        self._worker = worker
        self._door = door
        self._route = route
        self._head = head
        self._started_ns = started_ns
        started_us = self._started_us = started_ns // 1000 + worker.unix_offset_us
        """Unix time."""
        self._request_id = worker.ids.ulid(started_us // 1000) + door.request_id_suffix
        self._instance: Instance | None = None
        self._upstream: UpstreamConnection | None = None
        self._instance_id: str | None = None
        self._sent_ns = 0
        """When the request was sent to the instance."""
        self.bytes_in = head.size
        self.bytes_out = 0
        self.bytes_sent = 0
        """To the instance; what came from it its connection knows."""
        self._status = 0
        self._fault: Fault | None = None
        self._why: str | None = None
        self._streaming = False
        """Counted at its head: from now on only bytes are reported."""
        self._reported: tuple[int, int, int, int]
        """Of a streaming one: bytes in, out, to and from the instance, as far as they were counted."""
        self._duration_ns = 0
        self._instance_ns: int | None = None

    def report(self) -> None:
        """Count the bytes of a tunnel or a stream of events so far."""
        before_in, before_out, before_sent, before_received = self._reported
        instance, upstream = self._instance, self._upstream
        sent, received = before_sent, before_received
        if instance is not None and upstream is not None:
            sent, received = self.bytes_sent, upstream.received
            if sent != before_sent or received != before_received:
                instance.recorder.transferred(sent - before_sent, received - before_received)
        if self.bytes_in != before_in or self.bytes_out != before_out:
            self._route.edge.transferred(self.bytes_in - before_in, self.bytes_out - before_out)
        self._reported = self.bytes_in, self.bytes_out, sent, received

    def _count_at_head(self) -> None:
        """This is an upgrade or a stream of events: it has answered now."""
        now_ns = self._worker.monotonic_ns()
        assert self._instance is not None
        self._streaming = True
        self._duration_ns = now_ns - self._started_ns
        self._instance_ns = now_ns - self._sent_ns
        self._instance.recorder.response(self._status, self._instance_ns)
        self._route.edge.response(self._status, self._duration_ns, self.bytes_in, self.bytes_out)
        self._reported = self.bytes_in, self.bytes_out, 0, 0
        self._worker.tunnels.add(self)

    def _leave_instance(self, answered_ns: int | None = None) -> None:
        """The instance is done with this request; `answered_ns`: with an answer, or a part of one."""
        instance, upstream = self._instance, self._upstream
        assert instance is not None
        recorder = instance.recorder
        if self._streaming:
            self.report()
        else:
            if answered_ns is not None:
                self._instance_ns = duration_ns = answered_ns - self._sent_ns
                recorder.response(self._status, duration_ns)
            if upstream is not None:
                recorder.transferred(self.bytes_sent, upstream.received)
                self.bytes_sent = 0
        recorder.finished()
        self._instance = self._upstream = None

    def _count_at_end(self, now_ns: int) -> None:
        """The client has its answer, or will not get one."""
        worker, fault = self._worker, self._fault
        if self._streaming:
            self.report()
            worker.tunnels.discard(self)
        else:
            self._duration_ns = duration_ns = now_ns - self._started_ns
            self._route.edge.response(self._status, duration_ns, self.bytes_in, self.bytes_out)
        ours = fault is not None and fault.blame is not Blame.CLIENT
        if ours or (worker.log.enabled and self._route.access_log):
            worker.log.add(self._entry(fault))

    def _entry(self, fault: Fault | None) -> Entry:
        head = self._head
        return Entry(
            unix_ms=self._started_us // 1000,
            app=self._route.app,
            region=self._door.region,
            client=self._client_ip(),
            method=head.method,
            host=head.host,
            target=head.target,
            status=self._status,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            duration_ns=self._duration_ns,
            instance=self._instance_id,
            instance_ns=self._instance_ns,
            request_id=self._request_id.decode(),
            code=fault.code if fault is not None else None,
            why=self._why,
        )

    def _client_ip(self) -> str:
        raise NotImplementedError
