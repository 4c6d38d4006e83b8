"""One place an app runs: its address, its load, its idle connections, and how to dial it.

Dialling is the only task of the request path. It is told to whoever waits by `dialled` or `dial_failed`, exactly once,
unless the waiter cancels.
"""

import asyncio
import errno
from collections.abc import Callable
from typing import Protocol

from flyproxy.config import resolved
from flyproxy.edge import faults
from flyproxy.edge.faults import Fault
from flyproxy.edge.pool import Pool
from flyproxy.edge.proxy_protocol import Addresses, encode
from flyproxy.edge.upstream import UpstreamConnection
from flyproxy.edge.worker import Worker
from flyproxy.instrument.recorder import InstanceRecorder

_UNREACHABLE = frozenset((errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN))


class Waiter(Protocol):
    """Whoever wants the connection."""

    def dialled(self, upstream: UpstreamConnection) -> None: ...

    def dial_failed(self, fault: Fault, why: str) -> None: ...

    def fail(self, fault: Fault, why: str) -> None: ...

    def addresses(self) -> Addresses | None:
        """Whose connection is carried, as far as one can say."""
        ...


class Instance:
    """An instance as one worker knows it; kept across generations as long as the configuration keeps it."""

    __slots__ = ("_send_proxy", "_worker", "address", "host", "id", "pool", "port", "recorder", "region")

    def __init__(
        self, worker: Worker, settings: resolved.Instance, recorder: InstanceRecorder, send_proxy: int = 0
    ) -> None:
        """`send_proxy`: the version of the PROXY header that a connection begins with; 0: none."""
        self._worker = worker
        self._send_proxy = send_proxy
        self.id = settings.id
        self.region = settings.region
        self.host = settings.host
        self.port = settings.port
        self.address = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        self.recorder = recorder
        self.pool: Pool[UpstreamConnection] = Pool()
        if send_proxy:
            self.pool.close()  # a connection that began as one client's is never another's

    def __repr__(self) -> str:
        return f"<Instance {self.id} {self.region} {self.address}: {self.load} in flight, {self.pool!r}>"

    @property
    def load(self) -> int:
        """Requests and connections given to it and not finished, by this worker."""
        return self.recorder.in_flight

    def dial(self, waiter: Waiter) -> "asyncio.Task[None]":
        """Open a connection and tell the waiter; the waiter keeps the task and cancels it when it waits no more."""
        return self._worker.loop.create_task(self._dial(waiter))

    def tidy(self, now_ns: int) -> None:
        """Close what has been idle for too long."""
        for connection in self.pool.expired(now_ns):
            connection.close()

    def retire(self) -> None:
        """The configuration has it no more: nothing is kept, what is under way goes on."""
        for connection in self.pool.close():
            connection.close()

    async def _dial(self, waiter: Waiter) -> None:
        worker = self._worker
        upstream = UpstreamConnection(worker, self.pool, self.recorder, worker.monotonic_ns())
        try:
            await self._connect(upstream)
        except TimeoutError:
            worker.process.limit_reached("connect_timeout")
            fault, why = faults.CONNECT_TIMEOUT, f"no connection within {worker.connect_s:g} s"
        except OSError as refusal:
            worker.not_opened(refusal.errno)
            fault, why = dial_fault(refusal.errno), refusal.strerror or str(refusal)
        else:
            if not self._tell(waiter, lambda: self._dialled(waiter, upstream)):
                upstream.abort()
            return
        self._tell(waiter, lambda: waiter.dial_failed(fault, f"{self.address}: {why}"))

    async def _connect(self, upstream: UpstreamConnection) -> None:
        try:
            async with asyncio.timeout(self._worker.connect_s):
                await self._worker.loop.create_connection(lambda: upstream, self.host, self.port)
        except BaseException:
            # cancelled between its opening and our knowing: uvloop closes the socket then, and tells nobody
            upstream.connection_lost(None)
            raise

    def _dialled(self, waiter: Waiter, upstream: UpstreamConnection) -> None:
        if self._send_proxy and not upstream.transport.is_closing():
            upstream.transport.write(encode(self._send_proxy, waiter.addresses()))
        waiter.dialled(upstream)

    def _tell(self, waiter: Waiter, news: Callable[[], None]) -> bool:
        """Nobody awaits the task: what goes wrong here would leave the waiter waiting."""
        try:
            news()
            return True
        except Exception as bug:
            self._worker.mistake(bug)
            waiter.fail(faults.MISTAKE, f"{type(bug).__name__}: {bug}")
            return False


def dial_fault(number: int | None) -> Fault:
    """The fault of a connection that could not be opened, by errno."""
    if number == errno.ECONNREFUSED:
        return faults.REFUSED
    if number in _UNREACHABLE:
        return faults.UNREACHABLE
    if number == errno.ETIMEDOUT:
        return faults.CONNECT_TIMEOUT
    if number in (errno.ECONNRESET, errno.ECONNABORTED):
        return faults.RESET
    return faults.CONNECT_IO
