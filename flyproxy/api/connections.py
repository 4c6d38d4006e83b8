"""What one stranger may hold of the telemetry address: connections, the time of a head, the memory of an answer.

aiohttp bounds how large a head is and how long a connection idles. It does not bound how many connections there are, a
first head that never ends (within its keep-alive time), or an answer nobody reads: a query's may be hundreds of
megabytes, and is kept until it is read. So each connection's protocol is wrapped in one that watches these three. The
last places are kept for this machine, so that strangers cannot shut out who looks after it. Where all places are taken,
the newcomer gets that of the connection that is idle for longest: who only holds connections open shuts out nobody.
"""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import Callable
from typing import cast

from aiohttp import web

from flyproxy.api.access import comes_from_here
from flyproxy.api.faults import error_json
from flyproxy.api.unparsed import PlainRefusals, awaits_request

CONNECTIONS_MAX = 512
"""Open at once; for one more an idle one is closed, or it is told so and closed itself."""
CONNECTIONS_KEPT = 32
"""Of these, open only to this machine."""
CONNECTIONS_OF_ONE_ADDRESS = 128
"""Of these, open to one address elsewhere (one /64 of IPv6): one visitor cannot shut out the others."""
HEAD_TIMEOUT_S = 10.0
"""For the first head, from the connection's beginning. Later ones have aiohttp's keep-alive time."""
WRITE_TIMEOUT_S = 30.0
"""For a reader that takes nothing of an answer."""

_FULL = error_json("unavailable", "too many connections; ask again in a moment")
_FULL_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: flyproxy\r\nContent-Type: application/json\r\n"
    b"Retry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)


class BoundedConnections:
    """Makes a protocol for each connection, as the server behind it does. `reached` is told which bound was; `idle`
    says of the server's protocol whether no request is under way there."""

    def __init__(
        self,
        server: Callable[[], asyncio.Protocol],
        reached: Callable[[str], None],
        *,
        connections_max: int = CONNECTIONS_MAX,
        address_max: int = CONNECTIONS_OF_ONE_ADDRESS,
        head_timeout_s: float = HEAD_TIMEOUT_S,
        write_timeout_s: float = WRITE_TIMEOUT_S,
        idle: Callable[[asyncio.Protocol], bool] = lambda protocol: False,
    ) -> None:
        self.serve = server
        self.reached = reached
        self.head_timeout_s = head_timeout_s
        self.write_timeout_s = write_timeout_s
        self.idle = idle
        self._connections_max = connections_max
        self._address_max = address_max
        self._open: dict[_Connection, str] = {}
        """Each with the address that has it; "" is this machine. The one that asked something last is the last."""
        self._of_address: Counter[str] = Counter()

    def __call__(self) -> asyncio.Protocol:
        return _Connection(self)

    def admit(self, connection: "_Connection", transport: asyncio.Transport) -> bool:
        """Whether there is a place for it, or an idle connection to make one: of the same address where that one's are
        taken, else of anybody. `left` gives the place back. `reached` is told what is full."""
        address = "" if comes_from_here(transport) else _address_of(transport)
        if address and self._of_address[address] >= self._address_max:
            self.reached("api_connections_of_one")
            if not self._make_room(address):
                return False
        if len(self._open) >= self._connections_max - (CONNECTIONS_KEPT if address else 0):
            self.reached("api_connections")
            if not self._make_room(None):
                return False
        self._open[connection] = address
        self._of_address[address] += 1
        return True

    def _make_room(self, address: str | None) -> bool:
        """Close the connection (of that address; None: of any) that has been idle for longest."""
        for connection, whose in self._open.items():
            if address in (None, whose) and connection.is_idle:
                self.left(connection)
                connection.close()
                return True
        return False

    def asked(self, connection: "_Connection") -> None:
        """A whole head, or more of what follows one, came over it."""
        if connection in self._open:
            self._open[connection] = self._open.pop(connection)

    def left(self, connection: "_Connection") -> None:
        """It is closed."""
        address = self._open.pop(connection, None)
        if address is not None:
            self._of_address[address] -= 1
            if not self._of_address[address]:
                del self._of_address[address]

    def statistics(self) -> dict[str, int]:
        """Connections open now."""
        return {"connections": len(self._open)}


class ApiRunner(web.AppRunner):
    """An AppRunner whose sites accept within the bounds."""

    def __init__(self, application: web.Application, reached: Callable[[str], None], **settings: object) -> None:
        super().__init__(application, **settings)  # type: ignore[arg-type]  # aiohttp's own, of many types
        self._reached = reached

    @property
    def server(self) -> web.Server | None:
        """What a site calls once for each connection; that is all it does with it."""
        server = super().server
        if server is None:
            return None

        def serve() -> asyncio.Protocol:
            protocol = server()
            protocol.__class__ = PlainRefusals  # the server has no place to say which class it should make
            return protocol

        return cast(web.Server, BoundedConnections(serve, self._reached, idle=awaits_request))


class _Connection(asyncio.Protocol):
    """Hands everything on to the server's own protocol, and watches the clock."""

    def __init__(self, bounds: BoundedConnections) -> None:
        self._bounds = bounds
        self._inner: asyncio.Protocol | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None
        self._tail = b""
        """The last bytes of a head that has not ended."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if not self._bounds.admit(self, self._transport):
            self._transport.write(_FULL_ANSWER)
            self._transport.close()
            return
        self._head_timer = asyncio.get_running_loop().call_later(self._bounds.head_timeout_s, self._head_is_late)
        self._inner = self._bounds.serve()
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._inner is None:
            return
        if self._head_timer is not None:
            self._look_for_its_end(data)
        if self._head_timer is None:
            self._bounds.asked(self)
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._inner is None else self._inner.eof_received()

    def pause_writing(self) -> None:
        if self._inner is not None:
            self._inner.pause_writing()
            self._watch_reader(self._transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        self._stop_write_timer()
        if self._inner is not None:
            self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_write_timer()
        self._bounds.left(self)
        if self._inner is not None:
            self._inner.connection_lost(exc)

    @property
    def is_idle(self) -> bool:
        """No request is under way, or its head does not end."""
        return self._head_timer is not None or (self._inner is not None and self._bounds.idle(self._inner))

    def close(self) -> None:
        """Somebody else needs the place."""
        self._transport.close()

    def _look_for_its_end(self, data: bytes) -> None:
        seen = self._tail + data
        self._tail = seen[-3:]
        if b"\r\n\r\n" in seen:
            self._stop_head_timer()

    def _head_is_late(self) -> None:
        self._head_timer = None
        self._bounds.reached("api_head_timeout")
        self._transport.abort()

    def _watch_reader(self, unsent: int) -> None:
        loop = asyncio.get_running_loop()
        self._write_timer = loop.call_later(self._bounds.write_timeout_s, self._judge_reader, unsent)

    def _judge_reader(self, unsent: int) -> None:
        now = self._transport.get_write_buffer_size()
        if now < unsent:
            self._watch_reader(now)
            return
        self._write_timer = None
        self._bounds.reached("api_write_timeout")
        self._transport.abort()

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _stop_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None


def _address_of(transport: asyncio.BaseTransport) -> str:
    """Whose connection it is: an IPv4 address, or the network a visitor has of IPv6."""
    peer = transport.get_extra_info("peername")
    text = str(peer[0]) if isinstance(peer, tuple) else "unknown"
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))
    return text
