"""Connections that begin with a PROXY header: read it, then hand the connection on as the client's own.

A door with the handler `proxy_proto` gives each new connection to one of the two small classes here, and nothing else
of the edge knows. HTTP: the header's reader is the transport's protocol until the header is whole, then the client
connection is, with what came along. Raw TCP: the reader takes from the kernel what is the header's and no more, so that
the passthrough finds a socket nobody has read from. Both loops look the protocol up anew for every read, so that
`set_protocol` may be called while one is being delivered, and in connection_made.

What refuses (a stranger, no header, a damaged one, a late one) is the client connection or the passthrough: their
answers, counts and log lines. `timeouts.head` runs from the beginning of the connection: whoever opens one to carry a
client has the header ready. A peer that leaves without a byte has only looked whether the door is open.
"""

import asyncio
import contextlib
import socket

from flyproxy.edge import faults
from flyproxy.edge.client import ClientConnection
from flyproxy.edge.faults import Fault
from flyproxy.edge.passthrough import Passthrough
from flyproxy.edge.proxy_protocol import (
    HEADER_BYTES_MAX,
    Addresses,
    ProxyHeader,
    ProxyHeaderError,
    ProxyHeaderTooLongError,
    decode,
)
from flyproxy.edge.route import Doorway
from flyproxy.edge.wire import reset
from flyproxy.edge.worker import DRAIN_GRACE_NS, NEVER, Worker

_LATE = "The PROXY header did not arrive in time."
_BROKEN_OFF = "The connection ended within its PROXY header."


class ProxiedClient(ClientConnection):
    """A client connection whose peer is a proxy, and said for whom."""

    __slots__ = ("_addresses",)

    def __init__(self, worker: Worker, door: Doorway, addresses: Addresses | None) -> None:
        """`addresses` None: the peer speaks for itself."""
        ClientConnection.__init__(self, worker, door)
        self._addresses = addresses

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        ClientConnection.connection_made(self, transport)
        if self._addresses is not None:
            self.ip = self._addresses.source
            ip = self.ip.encode()
            self.suffix = self._door.suffix_template % (ip, ip)

    def addresses(self) -> Addresses | None:
        return self._addresses or ClientConnection.addresses(self)

    def refuse(self, fault: Fault, size: int, reason: str) -> None:
        """Answer the `size` bytes that came instead of a header."""
        if not self.transport.is_closing():
            self._refuse(fault, size, reason)


class ProxiedConnection(asyncio.Protocol):
    """An HTTP door's connection until its header is whole."""

    __slots__ = ("_buffer", "_door", "_transport", "_worker", "deadline_ns")

    def __init__(self, worker: Worker, door: Doorway) -> None:
        self._worker = worker
        self._door = door
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self.deadline_ns = NEVER

    def __repr__(self) -> str:
        return f"<ProxiedConnection {len(self._buffer)} bytes of a header>"

    # the loop's verbs

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        worker = self._worker
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "set_protocol")
        self._transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclass
        peer = transport.get_extra_info("peername")
        self.deadline_ns = _deadline(worker)
        worker.joined(self)
        if len(worker.clients) > worker.connections_max:
            self._become(None)  # which refuses itself
        elif not self._door.trusted.believe(peer[0] if peer else ""):
            self._become(None).refuse(faults.UNTRUSTED_PROXY, 0, "")

    def data_received(self, data: bytes) -> None:
        try:
            self._arrived(data)
        except Exception as bug:
            self._worker.mistake(bug)
            reset(self._transport)

    def _arrived(self, data: bytes) -> None:
        self._buffer += data
        try:
            header = decode(self._buffer)
        except ProxyHeaderError as fault:
            _note_length(self._worker, fault)
            self._refuse(faults.BAD_PROXY_HEADER, str(fault))
            return
        if header is not None:
            client, rest = self._become(header.addresses), bytes(self._buffer[header.size :])
            if rest:
                client.data_received(rest)

    def eof_received(self) -> bool:
        if self._buffer:
            self._refuse(faults.BAD_PROXY_HEADER, _BROKEN_OFF)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        edge = self._door.unmatched.edge
        edge.connected()
        edge.disconnected()
        if self._buffer:
            edge.transferred(len(self._buffer), 0)
        self.deadline_ns = NEVER
        self._worker.left(self)

    # the ticker's verbs

    def expired(self, now_ns: int) -> None:
        self.deadline_ns = NEVER
        if self._worker.draining and not self._buffer:
            self._transport.close()
        else:
            self._worker.process.limit_reached("head_timeout")
            self._refuse(faults.HEAD_TIMEOUT, _LATE)

    def leave_soon(self, deadline_ns: int) -> None:
        if not self._buffer:
            self.deadline_ns = min(self.deadline_ns, deadline_ns)

    def cut_off(self) -> None:
        self._transport.close()

    # onwards

    def _refuse(self, fault: Fault, reason: str) -> None:
        self._become(None).refuse(fault, len(self._buffer), reason)

    def _become(self, addresses: Addresses | None) -> ProxiedClient:
        worker, transport = self._worker, self._transport
        self.deadline_ns = NEVER
        client = ProxiedClient(worker, self._door, addresses)
        worker.clients.discard(self)  # not `left`: somebody is still here
        transport.set_protocol(client)
        client.connection_made(transport)
        return client


class ProxiedSocket:
    """A raw TCP door's connection until its header is whole."""

    __slots__ = ("_buffer", "_client", "_door", "_ip", "_worker", "deadline_ns")

    def __init__(self, worker: Worker, door: Doorway, client: socket.socket, ip: str) -> None:
        self._worker = worker
        self._door = door
        self._client = client
        self._ip = ip
        self._buffer = b""
        self.deadline_ns = _deadline(worker)
        worker.joined(self)

    def __repr__(self) -> str:
        return f"<ProxiedSocket {len(self._buffer)} bytes of a header>"

    def begin(self) -> None:
        """Read the header, if this peer's is believed."""
        if self._door.trusted.believe(self._ip):
            self._worker.readiness.add_reader(self._client.fileno(), self._readable)
        else:
            self._become(None).refuse(faults.UNTRUSTED_PROXY, "")

    def _readable(self) -> None:
        try:
            seen = self._client.recv(HEADER_BYTES_MAX, socket.MSG_PEEK)
            header = decode(self._buffer + seen)
            # as much of it as is the header's: all of it, as long as there is no end
            wanted = len(seen) if header is None else header.size - len(self._buffer)
            taken = self._client.recv(wanted) if wanted else b""
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._end()
            return
        except ProxyHeaderError as fault:
            _note_length(self._worker, fault)
            self._refuse(faults.BAD_PROXY_HEADER, str(fault))
            return
        self._took(header, taken)

    def _took(self, header: ProxyHeader | None, taken: bytes) -> None:
        self._buffer += taken
        if header is not None:
            self._stop()
            self._become(header.addresses).begin()
        elif taken:
            return
        elif self._buffer:
            self._refuse(faults.BAD_PROXY_HEADER, _BROKEN_OFF)
        else:
            self._end()

    # the ticker's verbs

    def expired(self, now_ns: int) -> None:
        if self._worker.draining and not self._buffer:
            self._end()
        else:
            self._worker.process.limit_reached("head_timeout")
            self._refuse(faults.HEAD_TIMEOUT, _LATE)

    def leave_soon(self, deadline_ns: int) -> None:
        if not self._buffer:
            self.deadline_ns = min(self.deadline_ns, deadline_ns)

    def cut_off(self) -> None:
        self._refuse(faults.DRAINED, "")

    # onwards

    def _refuse(self, fault: Fault, why: str) -> None:
        self._stop()
        self._become(None).refuse(fault, why)

    def _become(self, addresses: Addresses | None) -> Passthrough:
        worker, door = self._worker, self._door
        assert door.raw is not None
        worker.clients.discard(self)  # not `left`: somebody is still here
        ip = self._ip if addresses is None else addresses.source
        return Passthrough(worker, door, door.raw, self._client, ip, addresses)

    def _stop(self) -> None:
        self.deadline_ns = NEVER
        self._worker.readiness.remove_reader(self._client.fileno())

    def _end(self) -> None:
        """It leaves without a header begun, or is not there any more."""
        self._stop()
        with contextlib.suppress(OSError):
            self._client.close()
        if self._door.raw is not None:
            self._door.raw.edge.connected()
            self._door.raw.edge.disconnected()
        self._worker.left(self)


def _deadline(worker: Worker) -> int:
    """When the header has to be whole."""
    return worker.monotonic_ns() + (min(DRAIN_GRACE_NS, worker.head_ns) if worker.draining else worker.head_ns)


def _note_length(worker: Worker, fault: ProxyHeaderError) -> None:
    if isinstance(fault, ProxyHeaderTooLongError):
        worker.process.limit_reached("proxy_header_bytes")
