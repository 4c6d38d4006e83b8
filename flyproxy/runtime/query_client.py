"""Telemetry's side of the query workers: a free worker for each question, a deadline that holds, a successor for a
worker that died.

The deadline is first the worker's own (it looks at the clock between blocks of work); a worker that is still not
done a grace later is killed, and the supervisor starts another. That goes for a question whose asker went away too: its
worker gets no other question before it has let go of this one, and counts as its organization's until then. Questions
beyond the workers wait in line (seats.py).
"""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable

from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.errors import NotReadyError
from flyproxy.runtime.query_channel import Hello, read_answer, read_value, write_value
from flyproxy.runtime.seats import Seats

log = logging.getLogger("flyproxy.telemetry")

DEADLINE_GRACE_S = 1.0
"""Beyond a question's own timeout, before its worker is killed."""
STREAM_BUFFER_BYTES = 1 << 20


class QueryClient:
    """Asks the query workers behind these sockets; `killed` is called for each worker ended at its deadline."""

    def __init__(self, paths: list[str], killed: Callable[[], None]) -> None:
        self._killed = killed
        self._workers = [_Worker(path) for path in paths]
        self._free = list(self._workers)
        self._seats = Seats(len(paths))
        self._taking_back: set[asyncio.Task[None]] = set()

    async def ask(self, request: QueryRequest) -> QueryAnswer:
        """One answer. Raises TimeoutError at the deadline, NotReadyError when no worker is there to answer."""
        deadline = asyncio.get_running_loop().time() + request.timeout_s
        async with asyncio.timeout_at(deadline):
            await self._seats.take(request.organization)
        worker = self._free.pop()
        try:
            answer = await self._ask_one(worker, request, deadline)
        except asyncio.CancelledError:
            self._take_back(worker, request.organization, deadline)
            raise
        except BaseException:
            self._release(worker, request.organization)
            raise
        self._release(worker, request.organization)
        return answer

    def _release(self, worker: "_Worker", organization: str) -> None:
        # The last one used is the next one: its memory is fresh. A successor that is still starting comes last.
        self._free.insert(len(self._free) if worker.is_connected else 0, worker)
        self._seats.give_back(organization)

    async def _ask_one(self, worker: "_Worker", request: QueryRequest, deadline: float) -> QueryAnswer:
        # A worker that dies under a question answered nothing and changed nothing: its successor gets it once.
        for attempt in range(2):
            try:
                async with asyncio.timeout_at(deadline + DEADLINE_GRACE_S):
                    return await worker.ask(request, deadline)
            except TimeoutError:
                self._overrun(worker)
                raise
            except (OSError, asyncio.IncompleteReadError):
                worker.close()
                if attempt:
                    raise NotReadyError("the query worker ended while answering; try again") from None
        raise AssertionError("unreachable")

    def _take_back(self, worker: "_Worker", organization: str, deadline: float) -> None:
        worker.hang_up()
        waiting = self._wait_free(worker, organization, deadline)
        task = asyncio.create_task(waiting, name="taking back a question")
        self._taking_back.add(task)
        task.add_done_callback(self._taking_back.discard)

    async def _wait_free(self, worker: "_Worker", organization: str, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline + DEADLINE_GRACE_S):
                await worker.wait_free()
        except TimeoutError:
            self._overrun(worker)
        except (OSError, asyncio.IncompleteReadError):
            worker.close()
        self._release(worker, organization)

    def _overrun(self, worker: "_Worker") -> None:
        if worker.kill():
            log.warning("query worker %d overran its deadline and is killed", worker.pid)
            self._killed()
        worker.close()

    def close(self) -> None:
        """Hang up everywhere; nothing is asked any more."""
        for task in self._taking_back:
            task.cancel()
        for worker in self._workers:
            worker.close()


class _Worker:
    """One query worker's socket, and the connection to whoever serves it now."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self.pid = 0
        """Of the process that said hello last; 0: none did, or it is a thread."""
        self._process: int | None = None
        """A descriptor of that process: unlike its pid, it never comes to mean another one."""

    async def ask(self, request: QueryRequest, deadline: float) -> QueryAnswer:
        reader, writer = await self._connected()
        remaining = deadline - asyncio.get_running_loop().time()
        write_value(writer, (request, max(0.001, remaining)))
        await writer.drain()
        return await read_answer(reader)

    @property
    def is_connected(self) -> bool:
        """Somebody said hello and has not been hung up on."""
        return self._reader is not None and not self._reader.at_eof()

    async def wait_free(self) -> None:
        """Until it, or its successor, says hello: then it is done with what it was asked before."""
        await self._connected()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is not None and self._reader.at_eof():
            self.close()  # it ended between two questions
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_unix_connection(self._path, limit=STREAM_BUFFER_BYTES)
            try:
                hello = await read_value(self._reader)
            except asyncio.CancelledError:
                self.hang_up()
                raise
            assert isinstance(hello, Hello)
            self._meet(hello)
        return self._reader, self._writer

    def _meet(self, hello: Hello) -> None:
        self._forget_process()
        if not hello.threaded:
            self.pid = hello.pid
            with contextlib.suppress(PermissionError):  # a container that does not allow it
                self._process = os.pidfd_open(hello.pid)

    def kill(self) -> bool:
        """End the process that said hello last; False where there is none (a thread cannot be ended)."""
        try:
            if self._process is not None:
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            elif self.pid:
                os.kill(self.pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        return bool(self.pid)

    def hang_up(self) -> None:
        """Close the connection: what was asked over it is not wanted any more."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    def close(self) -> None:
        """Hang up, and forget who was there."""
        self.hang_up()
        self._forget_process()

    def _forget_process(self) -> None:
        self.pid = 0
        if self._process is not None:
            os.close(self._process)
            self._process = None
