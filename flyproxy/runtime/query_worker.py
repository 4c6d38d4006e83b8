"""A query worker: reads the database read-only, answers one question at a time, may be killed at any moment.

It is a process of its own because a thread can neither be ended at its deadline nor be kept from taking all memory.
Between blocks of work it looks at the clock and at its asker; beyond that the kernel holds the memory limit and
telemetry the last deadline.
"""

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import select
import socket
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.api.query_service import answer, refusal
from flyproxy.config.resolved import Resolved, Telemetry
from flyproxy.instrument.allotment import Allotment
from flyproxy.instrument.own_metrics import ProcessRecorder
from flyproxy.promql.engine import Engine
from flyproxy.promql.errors import QueryCanceled, QueryTimeout
from flyproxy.promql.options import Options
from flyproxy.runtime.child_channel import ChildChannel
from flyproxy.runtime.entry import enter, give_way
from flyproxy.runtime.loop_watch import LoopWatch
from flyproxy.runtime.messages import Message, Start
from flyproxy.runtime.places import database_path
from flyproxy.runtime.query_channel import Hello, read_value, write_answer, write_value
from flyproxy.runtime.segment import OwnSegment
from flyproxy.series.matchers import forget_patterns
from flyproxy.tsdb.db import Reader, StoreError

log = logging.getLogger("flyproxy.query")

HEAD_SHARE = 4
"""The decoded samples a worker keeps take at most this part of its memory."""
KEPT_BYTES = 64 * 1024 * 1024
"""How much more than before a worker may hold after a question, beside decoded samples: compiled patterns, and what the
C library keeps for the next one. Beyond that it gives back what it can."""
NICE = 10
"""Traffic, and telemetry, which has the organizations' beats to keep, go before a question."""
LOOK_EVERY_S = 0.02
"""How often a running query looks whether its asker is still there."""


class QueryWorker:
    """The part of this process that is not the channel."""

    def __init__(self) -> None:
        self._reader: Reader | None = None
        self._floor_bytes = private_bytes()
        """What it held, beside decoded samples, when it last had nothing to give back."""
        self._server: asyncio.Server | None = None
        self._watch: LoopWatch | None = None

    async def start(self, start: Start, sockets: list[socket.socket]) -> None:
        self._threaded = start.threaded
        self._use(start.resolved.telemetry)
        segment = OwnSegment(str(Path(start.run_dir) / f"{start.name}.cells"), start.worker, "query")
        own = ProcessRecorder(segment.segment)
        self._segment = segment
        segment.keep_trying(lambda shared: own.move(Allotment(shared)))
        self._watch = LoopWatch(own, whole_process=not start.threaded)
        self._watch.start()
        if not start.threaded:
            give_way(NICE)
            limit_memory(start.resolved.telemetry.query_memory_bytes)
        (sock,) = sockets
        self._server = await asyncio.start_unix_server(self._converse, sock=sock)

    async def prepare(self, resolved: Resolved) -> None:
        """Nothing can go wrong before it is in force."""

    async def commit(self, resolved: Resolved, sockets: list[socket.socket]) -> None:
        self._use(resolved.telemetry)

    async def drain(self, timeout_s: float) -> None:
        if self._server is not None:
            self._server.close()
        if self._watch is not None:
            self._segment.stop()
            self._watch.stop()
        if self._reader is not None:
            self._reader.close()

    async def other(self, message: Message) -> None:
        """No other messages come here."""

    def _use(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._engine = Engine(
            Options(
                mode="prometheus2" if telemetry.promql_mode == "prometheus2" else "prometheus3",
                metricsql=telemetry.metricsql,
                samples_max=telemetry.query_samples,
            )
        )

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One asker's connection: its questions, one after the other."""
        write_value(writer, Hello(os.getpid(), self._threaded))
        sock = writer.get_extra_info("socket")
        try:
            while True:
                request, timeout_s = await read_value(reader)
                await write_answer(writer, self._answer(request, timeout_s, sock))
                self._tidy()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, request: QueryRequest, timeout_s: float, sock: socket.socket) -> QueryAnswer:
        checkpoint = checkpoint_until(time.monotonic() + timeout_s, lambda: asker_is_gone(sock))
        try:
            reader = self._fresh_reader()
            return answer(request, self._engine, reader.organization(request.organization, checkpoint), checkpoint)
        except MemoryError:
            self._forget_reader()
            sentence = "query needs more memory than telemetry.query_memory allows"
            return refusal(422, "execution", sentence, "query_memory")
        except StoreError as fault:
            log.error("%s", fault)
            self._forget_reader()
            return refusal(503, "unavailable", "the store cannot be read; the operator's log says why")
        except Exception as fault:
            log.error("a query failed: %s", place_of(fault))
            self._forget_reader()
            return refusal(500, "internal", "an internal error; the operator's log has its place")

    def _tidy(self) -> None:
        """One organization's hostile questions must not leave the next question less memory."""
        if self._threaded:
            return
        held = private_bytes()
        if held <= self._floor_bytes + KEPT_BYTES:
            self._floor_bytes = min(self._floor_bytes, held)
        elif held > self._floor_bytes + KEPT_BYTES + self._head_bytes():
            forget_patterns()
            trim_memory()
            self._floor_bytes = max(0, private_bytes() - self._head_bytes())

    def _head_bytes(self) -> int:
        if self._reader is None:
            return 0
        try:
            return self._reader.statistics()["head_bytes"]
        except StoreError:  # the next question will say so
            return 0

    def _forget_reader(self) -> None:
        """What was interrupted in the middle of growing may be half grown; it is read again from the disk."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _fresh_reader(self) -> Reader:
        if self._reader is None:
            self._reader = Reader.open(
                database_path(self._telemetry.data_dir),
                head_bytes=self._telemetry.query_memory_bytes // HEAD_SHARE,
                report=log.error,
            )
        self._reader.refresh()
        return self._reader


def place_of(fault: Exception) -> str:
    """Where it happened, not what was in it: an exception's words may quote a tenant's query."""
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(fault.__traceback__)]
    return f"{type(fault).__name__} at {' < '.join(reversed(frames))}"


def checkpoint_until(deadline: float, gone: Callable[[], bool]) -> Callable[[], None]:
    """What the engine calls between blocks: raises QueryTimeout after `deadline` (time.monotonic), QueryCanceled once
    the asker is gone."""
    next_look = 0.0

    def checkpoint() -> None:
        nonlocal next_look
        now = time.monotonic()
        if now > deadline:
            raise QueryTimeout("query timed out in expression evaluation")
        if now > next_look:
            next_look = now + LOOK_EVERY_S
            if gone():
                raise QueryCanceled("query was canceled: the client went away")

    return checkpoint


def asker_is_gone(sock: socket.socket) -> bool:
    """The other end closed the connection (it never sends a second question before the first is answered)."""
    poll = select.poll()
    poll.register(sock.fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def private_bytes() -> int:
    """Memory this process holds by itself (not shared, not of files)."""
    with open("/proc/self/statm", "rb") as file:
        _, resident, shared, *_ = file.read().split()
    return (int(resident) - int(shared)) * resource.getpagesize()


def trim_memory() -> None:
    """Freed memory goes back to the kernel, where the C library can be told so (glibc)."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def limit_memory(limit_bytes: int) -> None:
    """Beyond this much private memory an allocation fails here, and only here."""
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, hard))


async def serve(sock: socket.socket, threaded: bool) -> None:
    """A query worker's life."""
    await ChildChannel(sock, threaded).serve(QueryWorker())


if __name__ == "__main__":
    enter(serve)
