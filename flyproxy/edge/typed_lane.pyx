# cython: language_level=3, boundscheck=False, wraparound=False
"""The lane of lane.py once more, typed: its story without the interpreter, in the same words where they are the same.

It says no (`ask`, `answer`) where lane.py hands on, and the bytes go the usual way from their beginning.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdio cimport snprintf
from libc.string cimport memcpy

from flyproxy.http1.typed cimport Reader, Span, TypedRequestParser, TypedResponseParser, copy_lines
from flyproxy.instrument.typed cimport exchanged

from flyproxy.edge.access_log import Entry
from flyproxy.edge.balancer import choose
from flyproxy.edge.client import BUSY, HEAD
from flyproxy.edge.forwarding import OURS
from flyproxy.edge.proxy import Exchange
from flyproxy.edge.route import HOSTS_REMEMBERED
from flyproxy.edge.request_ids import BLOCK_IDS, PAIRS
from flyproxy.edge.upstream import HEAD as ANSWER_HEAD
from flyproxy.edge.upstream import IDLE
from flyproxy.edge.worker import NEVER
from flyproxy.http1 import typed

cdef object _BUSY = BUSY, _CLIENT_HEAD = HEAD, _ANSWER_HEAD = ANSWER_HEAD, _IDLE = IDLE, _NEVER = NEVER
cdef object _EXCHANGE = Exchange, _ENTRY = Entry
cdef list _PAIRS = PAIRS
cdef Py_ssize_t _BLOCK_IDS = BLOCK_IDS
cdef bytes _OURS = OURS
cdef tuple _METHODS = typed.METHODS
cdef int _HEAD = _METHODS.index(b"HEAD")
cdef Py_ssize_t _OURS_SIZE = len(_OURS)
cdef const char *_START = b"\r\nX-Request-Start: t="
cdef enum:
    START_SIZE = 21
    ID_SIZE = 26
    CLOSE_SIZE = 19
    DIGITS_MAX = 24


cdef inline char *_put(char *to, bytes piece):
    memcpy(to, PyBytes_AS_STRING(piece), PyBytes_GET_SIZE(piece))
    return to + PyBytes_GET_SIZE(piece)


cdef inline char *_put_raw(char *to, const char *piece, Py_ssize_t size):
    memcpy(to, piece, size)
    return to + size


cdef Py_ssize_t _lines_size(Span *span):
    """Bytes of the header lines that go on as they are."""
    cdef Py_ssize_t size = span.lines_end - span.lines
    cdef int number
    for number in range(span.specials):
        size -= span.special_end[number] - span.special[number]
    return size


cdef class Lanes:
    """What the lanes of a worker share."""

    cdef object worker, ids
    cdef long long milliseconds
    cdef Py_ssize_t used
    cdef bytes stem

    def __init__(self, worker: object) -> None:
        self.worker, self.ids = worker, worker.ids
        self.milliseconds, self.used = -1, 0
        self.stem = b""

    def lane(self, door: object, client: object) -> object:
        """For a connection that was made."""
        return Lane(self, self.worker, door, client)

    cdef _next_id(self, long long unix_ms, char *to):
        """Write a new request id of this millisecond."""
        if unix_ms != self.milliseconds or self.used == _BLOCK_IDS:
            self.stem = self.ids.block(unix_ms)
            self.milliseconds, self.used = unix_ms, 0
        memcpy(_put(to, self.stem), PyBytes_AS_STRING(<bytes>_PAIRS[self.used]), 2)
        self.used += 1


cdef class Lane:
    """As lane.Lane."""

    # of the connection
    cdef Lanes lanes
    cdef object client, worker, door, write
    cdef bytes suffix
    # of a request
    cdef bytes data
    cdef char request_id[ID_SIZE]
    cdef bytes region
    cdef object parser, route, instance, upstream
    cdef Span span
    cdef long long begun_ns
    cdef readonly object bytes_sent

    def __init__(self, lanes: Lanes, worker: object, door: object, client: object) -> None:
        self.lanes, self.worker, self.door, self.client = lanes, worker, door, client
        self.region = door.request_id_suffix
        self.write = client.transport.write

    def __repr__(self) -> str:
        return f"<Lane {'busy' if self.upstream is not None else 'idle'}>"

    def __getattr__(self, name: str) -> object:
        """The Exchange's, which is made if it was not."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._unfold(), name)

    @property
    def method(self) -> bytes:
        """Of the request."""
        return _METHODS[self.span.method]

    def ask(self, data: object, begun_ns: object) -> bool:
        """Whether this was the usual request, and is on its way; `begun_ns`: when it came."""
        cdef object parser = self.worker.request_parser, worker = self.worker, door = self.door
        cdef const char *raw
        cdef Py_ssize_t size
        cdef dict idle
        if type(data) is not bytes or type(parser) is not TypedRequestParser:
            return False
        raw = PyBytes_AS_STRING(data)
        size = PyBytes_GET_SIZE(data)
        if not (<TypedRequestParser>parser).reader.read_request(<const unsigned char *>raw, size, &self.span):
            return False
        if self.span.size != size or self.span.content_length >= 0:
            return False
        if worker.draining or door.closing:
            return False
        value = raw[self.span.host : self.span.host_end]
        route = (<dict>door.hosts).get(value)
        if route is None:
            route = self._find(<TypedRequestParser>parser, value)
            if route is None:
                return False
        if self.suffix is None:
            self.suffix = self.client.suffix
        if self.client.counted is None:
            self.client.count_for(route)
        instance = route.only
        if instance is None:
            instance = choose(route.tiers, (), worker.random)
            if instance is None:
                return False
        idle = <dict>instance.pool.idle
        if not idle:
            return False
        out = self._head(<bytes>data, begun_ns)
        upstream = (<tuple>idle.popitem())[0]
        if upstream.transport.is_closing():
            return False
        client, recorder = self.client, instance.recorder
        self.data, self.begun_ns, self.parser = <bytes>data, begun_ns, parser
        self.route, self.instance, self.upstream = route, instance, upstream
        self.bytes_sent = len(out)
        client.state, client.deadline_ns, client.exchange = _BUSY, _NEVER, self
        upstream.user, upstream.state, upstream.interims, upstream.received = self, _ANSWER_HEAD, 0, 0
        upstream.deadline_ns = begun_ns + worker.response_ns
        recorder.in_flight = recorder.in_flight + 1
        if not recorder.dirty:
            recorder.mark()
        upstream.transport.write(out)
        return True

    cdef object _find(self, TypedRequestParser parser, bytes value):
        """Where this Host value leads, remembered with the door until it leads elsewhere; None: nowhere."""
        cdef object door = self.door
        host = parser.host_of(value)
        route = door.router.route(host) if host is not None else None
        if route is None or route is door.unmatched:
            return None
        if len(door.hosts) >= HOSTS_REMEMBERED:
            door.hosts.clear()
        door.hosts[value] = route
        return route

    cdef bytes _head(self, bytes data, object begun_ns):
        """The head for the instance."""
        cdef object worker = self.worker
        cdef const char *raw = PyBytes_AS_STRING(data)
        cdef long long begun = begun_ns
        cdef long long start_us = begun // 1000 + <long long>worker.unix_offset_us
        cdef bytes trace_lines = self.lanes.ids.trace_lines()
        cdef char digits[DIGITS_MAX]
        cdef Py_ssize_t count = snprintf(digits, DIGITS_MAX, b"%lld", start_us)
        cdef Py_ssize_t host = self.span.host_end - self.span.host
        cdef Py_ssize_t lines = _lines_size(&self.span)
        if self.span.verbatim:
            lines = self.span.lines_end - self.span.lines
        else:
            lines += host + 8
        cdef bytes out = PyBytes_FromStringAndSize(
            NULL,
            self.span.lines + lines + PyBytes_GET_SIZE(self.suffix) + ID_SIZE + PyBytes_GET_SIZE(self.region)
            + START_SIZE + count + PyBytes_GET_SIZE(trace_lines),
        )
        cdef char *to = PyBytes_AS_STRING(out)
        if self.span.verbatim:
            to = _put_raw(to, raw, self.span.lines_end)
        else:
            to = _put_raw(to, raw, self.span.lines)
            to = _put_raw(to, b"Host: ", 6)
            to = _put_raw(to, raw + self.span.host, host)
            to = _put_raw(to, b"\r\n", 2)
            to += copy_lines(to, raw, &self.span)
        to = _put(to, self.suffix)
        self.lanes._next_id(start_us // 1000, self.request_id)
        to = _put(_put_raw(to, self.request_id, ID_SIZE), self.region)
        to = _put_raw(to, _START, START_SIZE)
        to = _put_raw(to, digits, count)
        _put(to, trace_lines)
        return out

    def answer(self, data: object) -> bool:
        """Whether this was the usual answer, and is over; if not, nothing happened."""
        cdef object worker = self.worker, client = self.client, upstream = self.upstream, parser = worker.response_parser
        cdef Span span
        cdef const char *raw
        cdef Py_ssize_t size
        if upstream is None or self.span.method == _HEAD or type(data) is not bytes:
            return False
        if type(parser) is not TypedResponseParser or worker.draining or self.door.closing or client.ended_ns:
            return False
        raw = PyBytes_AS_STRING(data)
        size = PyBytes_GET_SIZE(data)
        if not (<TypedResponseParser>parser).reader.read_answer(<const unsigned char *>raw, size, &span):
            return False
        if span.size + span.content_length != size:
            return False
        cdef Py_ssize_t length = span.length_end - span.length
        cdef bytes date = b"" if span.dated else worker.date_line()
        cdef bytes out = PyBytes_FromStringAndSize(
            NULL,
            span.lines + _lines_size(&span) + PyBytes_GET_SIZE(date) + _OURS_SIZE + ID_SIZE + PyBytes_GET_SIZE(self.region) + 18 + length + 4
            + (0 if self.span.keep_alive else CLOSE_SIZE) + span.content_length,
        )
        cdef char *to = _put_raw(PyBytes_AS_STRING(out), raw, span.lines)
        to += copy_lines(to, raw, &span)
        to = _put(_put(to, date), _OURS)
        to = _put(_put_raw(to, self.request_id, ID_SIZE), self.region)
        to = _put_raw(to, b"\r\nContent-Length: ", 18)
        to = _put_raw(to, raw + span.length, length)
        if not self.span.keep_alive:
            to = _put_raw(to, b"\r\nConnection: close", CLOSE_SIZE)
        to = _put_raw(to, b"\r\n\r\n", 4)
        _put_raw(to, raw + span.size, span.content_length)
        upstream.received = size
        upstream.reusable = span.keep_alive
        status = span.status
        self.write(out)
        now_ns = worker.monotonic_ns()
        if client.blocked:
            self._unfold().answer_written(status, PyBytes_GET_SIZE(out), keep=self.span.keep_alive)
            return True
        try:
            self._finish(status, PyBytes_GET_SIZE(out), now_ns)
        except Exception as bug:  # ours; the answer has gone out, so nothing may be said or counted again
            worker.mistake(bug)
            client.exchange = None
            upstream.abort()
            client.abort()
        return True

    cdef _finish(self, object status, object size, object now_ns):
        """The answer is the kernel's, `size` bytes: count it, and let both connections go on."""
        cdef object worker = self.worker, client = self.client, upstream = self.upstream, route = self.route
        cdef object instance = self.instance, edge = route.edge, pool = instance.pool, log = worker.log
        cdef dict idle = <dict>pool.idle
        duration_ns = now_ns - self.begun_ns
        bytes_in, bytes_sent, received = self.span.size, self.bytes_sent, upstream.received
        if not exchanged(
            edge, instance.recorder, status, duration_ns, duration_ns, bytes_in, size, bytes_sent, received
        ):
            edge.exchanged(instance.recorder, status, duration_ns, duration_ns, bytes_in, size, bytes_sent, received)
        if log.enabled and route.access_log:
            log.add(self._entry(status, size, duration_ns))
        self.data = self.instance = self.upstream = self.route = self.parser = None
        if upstream.reusable and not upstream.blocked and not pool.closed and len(idle) < pool.idle_max:
            upstream.user, upstream.state, upstream.deadline_ns, upstream.reused = None, _IDLE, _NEVER, True
            idle[upstream] = now_ns
        else:
            upstream.let_go(now_ns, request_whole=True)
        if not self.span.keep_alive or client._buffer or client._held or client.state != _BUSY:
            client.exchange_over(now_ns, keep=self.span.keep_alive)
        else:
            client.exchange, client.state, client.free_ns = None, _CLIENT_HEAD, now_ns
            client.deadline_ns = now_ns + worker.idle_ns

    cdef object _entry(self, object status, object bytes_out, object duration_ns):
        cdef const char *raw = PyBytes_AS_STRING(self.data)
        return _ENTRY(
            self.worker.unix_ms(self.begun_ns), self.route.app, self.door.region, self.client.ip,
            _METHODS[self.span.method], self._host_name(), raw[self.span.target : self.span.target_end], status,
            self.span.size, bytes_out, duration_ns, self.instance.id, duration_ns,
            (self.request_id[:ID_SIZE] + self.region).decode(), None, None,
        )

    cdef object _host_name(self):
        return (<TypedRequestParser>self.parser).host_of(self.data[self.span.host : self.span.host_end])

    cdef object _unfold(self):
        """The Exchange this one stands for."""
        cdef object client = self.client
        if client.exchange is self:
            head = self.parser.parse(self.data)  # by the bounds it was read with
            exchange = _EXCHANGE(self.worker, self.door, client, self.route, head, self.begun_ns)
            request_id = self.request_id[:ID_SIZE] + self.region
            exchange.take_over(self.instance, self.upstream, request_id, self.bytes_sent)
            client.exchange = exchange
            if self.upstream.user is self:
                self.upstream.user = exchange
            self.data = self.instance = self.upstream = self.route = self.parser = None
        return client.exchange
