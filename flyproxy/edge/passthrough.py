"""A raw TCP door's connection: dial an instance, move bytes both ways, close each half when its side is done.

Raw non-blocking sockets, no transport: half-close is `shutdown(SHUT_WR)`, and bytes can be spliced (flow.py). A dial
that fails tries the next instance, as for a request; nothing of the client's has been read by then. There is no idle
bound on an open connection (a database session may sleep); a half-closed one has `timeouts.idle`.
"""

import contextlib
import errno
import os
import socket
import struct

from flyproxy.edge import faults
from flyproxy.edge.access_log import Entry
from flyproxy.edge.balancer import TRIES_MAX, choose
from flyproxy.edge.faults import Blame, Fault
from flyproxy.edge.flow import Flow
from flyproxy.edge.instance import Instance, dial_fault
from flyproxy.edge.proxy_protocol import Addresses, addresses_of, encode
from flyproxy.edge.route import Doorway, Route
from flyproxy.edge.wire import notice_death
from flyproxy.edge.worker import NEVER, Worker

_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class Passthrough:
    """One client connection of a raw door, and the one it leads to."""

    __slots__ = (
        "_addresses", "_begun_ns", "_client", "_dialled_ns", "_door", "_fault", "_in", "_instance", "_ip", "_out",
        "_over", "_reported", "_route", "_tried", "_upstream", "_watched", "_why", "_worker", "deadline_ns",
    )  # fmt: skip

    def __init__(
        self,
        worker: Worker,
        door: Doorway,
        route: Route,
        client: socket.socket,
        ip: str,
        addresses: Addresses | None = None,
    ) -> None:
        """`addresses`: whose connection the peer said it carries; None: its own."""
        self._addresses = addresses
        self._worker = worker
        self._door = door
        self._route = route
        self._client = client
        self._ip = ip
        self._begun_ns = worker.monotonic_ns()
        self.deadline_ns = NEVER
        self._tried: tuple[Instance, ...] = ()
        self._instance: Instance | None = None
        self._upstream: socket.socket | None = None
        self._dialled_ns = 0
        self._in: Flow | None = None
        self._out: Flow | None = None
        self._reported = (0, 0, 0, 0)
        self._fault: Fault | None = None
        self._why: str | None = None
        self._over = False
        self._watched = False
        """The kernel asks whether both sides still exist."""
        worker.joined(self)
        worker.tunnels.add(self)
        route.edge.connected()

    # dialling

    def begin(self) -> None:
        """Choose an instance and dial it."""
        worker = self._worker
        instance = choose(self._route.tiers, self._tried, worker.random)
        if instance is None or len(self._tried) >= TRIES_MAX:
            self._fail(self._fault or faults.NO_INSTANCE, self._why or "the app has no instances")
            return
        self._instance = instance
        self._tried = (*self._tried, instance)
        instance.recorder.started()
        self._dialled_ns = worker.monotonic_ns()
        try:
            upstream = socket.socket(socket.AF_INET6 if ":" in instance.host else socket.AF_INET, _STREAM)
        except OSError as fault:
            self._refused(fault.errno or 0)
            return
        self._upstream = upstream
        upstream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        address = instance.host, self._door.instance_port or instance.port
        result = upstream.connect_ex(address)
        if result == errno.EINPROGRESS:
            result = upstream.connect_ex(address)  # on this machine it is open by now, and needs no waiting
        if result == 0:
            self._connected()
        elif result in (errno.EINPROGRESS, errno.EALREADY):
            self.deadline_ns = self._dialled_ns + int(worker.connect_s * 1e9)
            worker.readiness.add_writer(upstream.fileno(), self._dial_settled)
        else:
            self._refused(result)

    def refuse(self, fault: Fault, why: str) -> None:
        """Instead of `begin`."""
        self._fail(fault, why)

    def _dial_settled(self) -> None:
        upstream = self._upstream
        assert upstream is not None
        self._worker.readiness.remove_writer(upstream.fileno())
        self.deadline_ns = NEVER
        result = upstream.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if result:
            self._refused(result)
        else:
            self._connected()

    def _refused(self, number: int) -> None:
        self._worker.not_opened(number)
        self._try_another(dial_fault(number), os.strerror(number))

    def _try_another(self, fault: Fault, why: str) -> None:
        instance = self._instance
        assert instance is not None
        instance.recorder.finished()
        self._instance = None
        if self._upstream is not None:
            self._upstream.close()
            self._upstream = None
        port = f" (port {self._door.instance_port})" if self._door.instance_port else ""
        self._fault, self._why = fault, f"{instance.address}{port}: {why}"
        self.begin()

    def _connected(self) -> None:
        worker, upstream, instance = self._worker, self._upstream, self._instance
        assert upstream is not None
        assert instance is not None
        if self._door.send_proxy and not self._introduced(upstream):
            return
        self._fault = self._why = None
        instance.recorder.dialled(worker.monotonic_ns() - self._dialled_ns)
        self._in = Flow(worker.readiness, worker.pipes, self, self._client, upstream)
        self._out = Flow(worker.readiness, worker.pipes, self, upstream, self._client)
        self._in.start()
        self._out.start()

    def _introduced(self, upstream: socket.socket) -> bool:
        """Say whose connection this is. Nothing was sent before, so it is taken whole, or the instance is gone."""
        header = encode(self._door.send_proxy, self._addresses or self._own_addresses())
        try:
            sent = upstream.send(header)
        except OSError as fault:
            self._refused(fault.errno or 0)
            return False
        if sent != len(header):
            self._try_another(faults.CONNECT_IO, "its PROXY header was not taken whole")
        return sent == len(header)

    def _own_addresses(self) -> Addresses | None:
        try:
            return addresses_of(self._client.getpeername()[:2], self._client.getsockname()[:2])
        except OSError:  # it has left
            return None

    # the flows' verbs

    def flow_ended(self, flow: Flow) -> None:
        assert self._in is not None
        assert self._out is not None
        if self._in.over and self._out.over:
            self._finish()  # which closes what would be half closed
        else:
            sink = self._upstream if flow is self._in else self._client
            assert sink is not None
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)
            self.deadline_ns = self._worker.monotonic_ns() + self._worker.idle_ns

    def flow_broken(self, flow: Flow, why: str, *, at_sink: bool) -> None:
        """One of the two sockets is gone: the other must notice, so it is reset too."""
        self._reset()
        self._why = why
        self._finish()

    def flow_stalled(self, flow: Flow) -> None:
        self._worker.stalls(_Stalled(self, flow))

    def flow_moves(self, flow: Flow) -> None:
        self._worker.stalled.pop(_Stalled(self, flow), None)

    def flow_mistaken(self, flow: Flow, bug: Exception) -> None:
        self._worker.mistake(bug)
        self._fail(faults.MISTAKE, f"{type(bug).__name__}: {bug}")

    # the ticker's verbs

    def report(self) -> None:
        """Count the bytes moved since the last report."""
        if self._in is None or self._out is None or self._instance is None:
            return
        if not self._watched and not self._over:
            self._watched = True  # not sooner: most connections are over before it matters
            notice_death(self._client)
            if self._upstream is not None:
                notice_death(self._upstream)
        now = self._in.taken, self._out.moved, self._in.moved, self._out.taken
        before = self._reported
        if now != before:
            self._route.edge.transferred(now[0] - before[0], now[1] - before[1])
            self._instance.recorder.transferred(now[2] - before[2], now[3] - before[3])
            self._reported = now
            if self.deadline_ns != NEVER:
                self.deadline_ns = self._worker.now_ns + self._worker.idle_ns

    def expired(self, now_ns: int) -> None:
        self.deadline_ns = NEVER
        process = self._worker.process
        if self._in is None and self._upstream is not None:
            process.limit_reached("connect_timeout")
            self._worker.readiness.remove_writer(self._upstream.fileno())
            self._try_another(faults.CONNECT_TIMEOUT, f"no connection within {self._worker.connect_s:g} s")
        else:
            process.limit_reached("idle_timeout")
            self._finish()

    def write_stalled(self, flow: Flow) -> None:
        """One side took no byte for `timeouts.write`."""
        self._fail(faults.SLOW_READER if flow is self._out else faults.REQUEST_STALLED, "no byte taken")

    def leave_soon(self, deadline_ns: int) -> None:
        """A raw connection is always under way."""

    def cut_off(self) -> None:
        self._fail(faults.DRAINED, "")

    # the end

    def _fail(self, fault: Fault, why: str) -> None:
        if not self._over:
            self._fault, self._why = fault, why or None
            self._route.edge.error(fault.code)
            self._reset()
            self._finish()

    def _reset(self) -> None:
        for one in (self._client, self._upstream):
            if one is not None:
                with contextlib.suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _finish(self) -> None:
        if self._over:
            return
        self._over = True
        self.deadline_ns = NEVER
        worker = self._worker
        self.report()
        worker.tunnels.discard(self)
        if self._in is not None and self._out is not None:
            for flow in (self._in, self._out):
                worker.stalled.pop(_Stalled(self, flow), None)
                if not flow.over:
                    flow.stop()
        elif self._upstream is not None:
            worker.readiness.remove_writer(self._upstream.fileno())
        self._client.close()
        if self._upstream is not None:
            self._upstream.close()
        instance = self._instance
        if instance is not None:
            instance.recorder.finished()
            if self._in is not None:
                instance.recorder.hung_up()
        self._route.edge.disconnected()
        worker.left(self)
        ours = self._fault is not None and self._fault.blame is not Blame.CLIENT
        if ours or (worker.log.enabled and self._route.access_log):
            worker.log.add(self._entry(instance))
        self._in = self._out = None

    def _entry(self, instance: Instance | None) -> Entry:
        return Entry(
            unix_ms=self._worker.unix_ms(self._begun_ns),
            app=self._route.app,
            region=self._door.region,
            client=self._ip,
            method=b"TCP",
            host=b"",
            target=b"",
            status=0,
            bytes_in=self._reported[0],
            bytes_out=self._reported[1],
            duration_ns=self._worker.monotonic_ns() - self._begun_ns,
            instance=instance.id if instance is not None else None,
            instance_ns=None,
            request_id="",
            code=self._fault.code if self._fault is not None else None,
            why=self._why,
        )


class _Stalled:
    """One flow of one connection that waits for its sink; equal for the same flow."""

    __slots__ = ("_flow", "_passthrough")

    def __init__(self, passthrough: Passthrough, flow: Flow) -> None:
        self._passthrough = passthrough
        self._flow = flow

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Stalled) and other._flow is self._flow

    def __hash__(self) -> int:
        return id(self._flow)

    def taken_bytes(self) -> int:
        return self._flow.moved

    def write_stalled(self) -> None:
        self._passthrough.write_stalled(self._flow)
