"""Telemetry's side of the query workers: a free worker for each question, a deadline that holds, a successor for a
worker that died.

The deadline is first the worker's own (it looks at the clock between blocks of work); a worker that is still not
done a grace later is killed, and the supervisor starts another. Questions beyond the workers wait in line.
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.errors import NotReadyError
from flyproxy.runtime.query_channel import Hello, read_value, write_value

log = logging.getLogger("flyproxy.telemetry")

DEADLINE_GRACE_S = 1.0
"""Beyond a question's own timeout, before its worker is killed."""
CONNECT_RETRY_S = 0.02
STREAM_BUFFER_BYTES = 1 << 20


class QueryClient:
    """Asks the query workers behind these sockets; `killed` is called for each worker ended at its deadline."""

    def __init__(self, paths: list[str], killed: Callable[[], None]) -> None:
        self._paths = paths
        self._killed = killed
        self._free: asyncio.Queue[_Worker] = asyncio.Queue()
        for path in paths:
            self._free.put_nowait(_Worker(path))

    async def ask(self, request: QueryRequest) -> QueryAnswer:
        """One answer. Raises TimeoutError at the deadline, NotReadyError when no worker is there to answer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout_s
        async with asyncio.timeout_at(deadline):
            worker = await self._free.get()
        try:
            return await self._ask_one(worker, request, deadline)
        finally:
            self._free.put_nowait(worker)

    async def _ask_one(self, worker: "_Worker", request: QueryRequest, deadline: float) -> QueryAnswer:
        # A worker that dies under a question answered nothing and changed nothing: its successor gets it once.
        for attempt in range(2):
            try:
                async with asyncio.timeout_at(deadline + DEADLINE_GRACE_S):
                    return await worker.ask(request, deadline)
            except TimeoutError:
                if worker.connected:
                    log.warning("query worker %d overran its deadline and is killed", worker.pid)
                    self._killed()
                    worker.kill()
                worker.close()
                raise
            except (OSError, asyncio.IncompleteReadError):
                worker.close()
                if attempt:
                    raise NotReadyError("the query worker ended while answering; try again") from None
            except asyncio.CancelledError:
                worker.close()
                raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close every idle connection."""
        while not self._free.empty():
            self._free.get_nowait().close()


class _Worker:
    """One query worker's socket, and the connection to whoever serves it now."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.pid = 0
        self._threaded = False

    @property
    def connected(self) -> bool:
        return self.pid != 0

    async def ask(self, request: QueryRequest, deadline: float) -> QueryAnswer:
        reader, writer = await self._connected()
        remaining = deadline - asyncio.get_running_loop().time()
        write_value(writer, (request, max(0.001, remaining)))
        await writer.drain()
        answer = await read_value(reader)
        assert isinstance(answer, QueryAnswer)
        return answer

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is None or self._writer is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_unix_connection(self._path, limit=STREAM_BUFFER_BYTES)
            hello = await read_value(self._reader)
            assert isinstance(hello, Hello)
            self.pid, self._threaded = hello.pid, hello.threaded
        return self._reader, self._writer

    def kill(self) -> None:
        if self.pid and not self._threaded:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None
        self.pid = 0
