"""What all connections of one edge process share: settings, clocks, the live connections, and one coarse ticker.

Deadlines. A loop timer per request would cost more than its head's parsing, and nearly none ever fires. So a connection
just writes down when its patience ends (`deadline_ns`), and the ticker looks at all of them four times a second: 10,000
connections cost about 0.5 ms a look. A bound is kept within TICK_S.
"""

import asyncio
import errno
import random
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, ParamSpec, Protocol

from flyproxy.clock import Clock
from flyproxy.config import resolved
from flyproxy.edge.access_log import AccessLog
from flyproxy.edge.forwarding import OWNED, REPLACED
from flyproxy.edge.pipes import Pipes, files_allowed, files_reserved
from flyproxy.edge.readiness import Readiness
from flyproxy.edge.request_ids import RequestIds
from flyproxy.http1.faults import HttpFault
from flyproxy.http1.limits import HeadLimits
from flyproxy.http1.parser import request_parser, response_parser
from flyproxy.instrument.recorder import Recorder

TICK_S = 0.25
"""Between two looks at the deadlines; also how late bytes of tunnels and log lines may be."""
NEVER = 1 << 62
"""A deadline that does not come, nanoseconds."""
DRAIN_GRACE_NS = 250_000_000
"""How long an idle connection may still bring a request after the drain began; its answer says `Connection: close`."""
BODY_RATE_NS = 2_000_000
"""Nanoseconds a byte of a request body may take on average: 500 B/s."""
COPIED_BYTES_MAX = 4096
"""Of a body: a piece up to here is put together with the head in front of it, a longer one is written behind it."""
CLOCK_SLACK_US = 2_000
"""How far the kept offset between the two clocks may be off before it is set anew, microseconds."""
NO_DESCRIPTORS = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""Errors that say nothing can be opened or accepted until something is closed."""

P = ParamSpec("P")

FILES_RESERVED = 64
"""Descriptors of a worker that are neither a client's nor an instance's connection, and not splicing's."""


def _connections_for_files() -> int:
    """Client connections there are descriptors for, three for every two: most wait for their next request and have no
    instance's connection, and one too many can still be told so."""
    files_max = files_allowed()
    return max(1, (files_max - FILES_RESERVED - files_reserved(files_max)) * 2 // 3)


class Expiring(Protocol):
    """A connection with a deadline."""

    deadline_ns: int

    def expired(self, now_ns: int) -> None:
        """The deadline has passed: end, or set another."""


class Mortal(Expiring, Protocol):
    """A client's connection."""

    def leave_soon(self, deadline_ns: int) -> None:
        """The front door goes down: if nothing is under way, wait no longer than this."""

    def cut_off(self) -> None:
        """The drain's patience has ended: end now."""


class Writer(Protocol):
    """A connection whose other side does not take what we write."""

    def taken_bytes(self) -> int:
        """Moves whenever the other side takes some of our bytes; counted from anywhere."""
        ...

    def write_stalled(self) -> None: ...


class Tunnel(Protocol):
    """Something that moves bytes for longer than a message and reports them as it goes."""

    def report(self) -> None: ...


class Worker:
    """One edge process' shared state."""

    def __init__(self, recorder: Recorder, clock: Clock, log: Callable[[bytes], None], edge: resolved.Edge) -> None:
        self.loop = asyncio.get_running_loop()
        self.clock = clock
        self.monotonic_ns = clock.monotonic_ns
        self.recorder = recorder
        self.process = recorder.process()
        self.log = AccessLog(log, self._lines_dropped, edge.access_log)
        self.ids = RequestIds(random.getrandbits)
        self.random = random.random
        self.pipes = Pipes(self.process.limit_reached)
        self.readiness = Readiness(self.loop, self.mistake)
        self.clients: set[Mortal] = set()
        self.upstreams: set[Expiring] = set()
        self.stalled: dict[Writer, tuple[int, int]] = {}
        """Connections that cannot be written to: bytes taken when last looked at, and when patience ends."""
        self.tunnels: set[Tunnel] = set()
        self.draining = False
        self.empty = asyncio.Event()
        """Set while no client is connected."""
        self.empty.set()
        self.now_ns = self.monotonic_ns()
        """As of the last tick."""
        self.unix_offset_us = 0
        """Unix time minus the monotonic clock, microseconds."""
        self.lane: Callable[[Any, Any], Any]
        """Makes what takes a connection's usual requests: of a doorway and a client's connection, an Asker."""
        self._dated_s, self._date_line = -1, b""
        self.on_tick: Callable[[int], None] = lambda now_ns: None
        self._timer: asyncio.TimerHandle | None = None
        self.settle(edge)
        self._follow_clock()

    def settle(self, edge: resolved.Edge) -> None:
        """The bounds of another generation, for what begins from now on."""
        limits, timeouts = edge.limits, edge.timeouts
        self.head_limits = HeadLimits(
            head_bytes=limits.head_bytes, line_bytes=limits.line_bytes, header_count=limits.header_count
        )
        self.request_parser = request_parser(self.head_limits, OWNED)
        self.response_parser = response_parser(self.head_limits, REPLACED)
        self.buffer_bytes = limits.buffer_bytes
        self.body_bytes = limits.body_bytes
        self.connections_max = min(limits.connections, _connections_for_files())
        self.head_ns = int(timeouts.head_s * 1e9)
        self.body_ns = int(timeouts.body_s * 1e9)
        self.idle_ns = int(timeouts.idle_s * 1e9)
        self.write_ns = int(timeouts.write_s * 1e9)
        self.response_ns = int(timeouts.response_s * 1e9)
        self.connect_s = timeouts.connect_s
        self.log.set_style(edge.access_log)

    def start(self) -> None:
        """Begin to tick."""
        self._timer = self.loop.call_later(TICK_S, self._tick)

    def stop(self) -> None:
        """Tick no more; what is to be reported is reported."""
        if self._timer is not None:
            self._timer.cancel()
        for tunnel in list(self.tunnels):
            tunnel.report()
        self.readiness.close()
        self.pipes.close()
        self.log.flush()
        self.recorder.fold()

    def joined(self, client: Mortal) -> None:
        """A client connection has begun."""
        self.clients.add(client)
        self.empty.clear()

    def left(self, client: Mortal) -> None:
        """A client connection has ended."""
        self.clients.discard(client)
        if not self.clients:
            self.empty.set()

    def stalls(self, connection: Writer) -> None:
        """It does not take what we write, from now on."""
        self.stalled[connection] = connection.taken_bytes(), self.monotonic_ns() + self.write_ns

    def beyond(self, fault: HttpFault) -> None:
        """Count the bound that a message is beyond, if that is its fault; whoever sent it."""
        if fault.limit:
            self.process.limit_reached(fault.limit)

    def not_opened(self, fault_number: int | None) -> None:
        """Count it if a connection to an instance could not be opened for want of descriptors."""
        if fault_number in NO_DESCRIPTORS:
            self.process.limit_reached("descriptors")

    def mistake(self, bug: Exception) -> None:
        """A bug of ours showed: say it where a loop says such things, once. What it broke is its owner's to end."""
        self.loop.call_exception_handler({"message": "the front door made a mistake", "exception": bug})

    def date_line(self) -> bytes:
        """What an answer says that its instance has not dated; made once a second."""
        second = self.clock.now_ms() // 1000
        if second != self._dated_s:
            self._dated_s, self._date_line = second, b"Date: %b\r\n" % formatdate(second, usegmt=True).encode()
        return self._date_line

    def unix_ms(self, monotonic_ns: int) -> int:
        """Unix time of a monotonic one."""
        return (monotonic_ns // 1000 + self.unix_offset_us) // 1000

    def _tick(self) -> None:
        self._timer = self.loop.call_later(TICK_S, self._tick)
        self._follow_clock()
        now_ns = self.now_ns = self.monotonic_ns()
        groups: tuple[set[Mortal] | set[Expiring], ...] = (self.clients, self.upstreams)
        for group in groups:
            for connection in [one for one in group if one.deadline_ns <= now_ns]:
                self.guarded(connection.expired, now_ns)
        if self.stalled:
            self._look_at_stalled(now_ns)
        for tunnel in list(self.tunnels):
            self.guarded(tunnel.report)
        self.process.connections(len(self.clients))
        self.on_tick(now_ns)
        self.log.flush()

    def _look_at_stalled(self, now_ns: int) -> None:
        for connection, (before, until_ns) in list(self.stalled.items()):
            if connection not in self.stalled:
                continue  # one that was let go before it has taken this one along
            taken = connection.taken_bytes()
            if taken != before:
                self.stalled[connection] = taken, now_ns + self.write_ns
            elif until_ns <= now_ns:
                del self.stalled[connection]
                self.process.limit_reached("write_timeout")
                self.guarded(connection.write_stalled)

    def guarded(self, verb: Callable[P, None], *arguments: P.args, **named: P.kwargs) -> None:
        """One connection's trouble must not keep the ticker from the others."""
        try:
            verb(*arguments, **named)
        except Exception as bug:  # ours, whatever it is
            self.mistake(bug)

    def _follow_clock(self) -> None:
        offset = self.clock.now_ms() * 1000 - self.monotonic_ns() // 1000
        if abs(offset - self.unix_offset_us) > CLOCK_SLACK_US:
            self.unix_offset_us = offset

    def _lines_dropped(self, lines: int) -> None:
        self.process.access_log_dropped(lines)
        self.process.limit_reached("access_log_lines", lines)
