"""One data-plane process: the edge and its recorder, nothing else. It knows no query and waits for nobody's store.

It stands ready (routes built, counters at zero in its segment) before it is told to open its doors.
"""

import gc
import socket
from pathlib import Path

from flyproxy.clock import SystemClock
from flyproxy.config.resolved import Edge, Resolved
from flyproxy.edge.server import EdgeServer
from flyproxy.instrument.recorder import Recorder
from flyproxy.runtime.child_channel import ChildChannel
from flyproxy.runtime.entry import enter
from flyproxy.runtime.log_pipe import LogPipe
from flyproxy.runtime.loop_watch import LoopWatch
from flyproxy.runtime.messages import Message, Open, Start
from flyproxy.runtime.segment import OwnSegment

STANDARD_OUTPUT = 1
GC_THRESHOLD_ALLOCATIONS = 50_000
"""Container objects between two young collections: the request path makes no cycles, so few are enough."""


class EdgeWorker:
    """The part of this process that is not the channel."""

    def __init__(self) -> None:
        self._waiting: tuple[Edge, list[socket.socket]] | None = None
        self._open = False

    async def start(self, start: Start, sockets: list[socket.socket]) -> None:
        self._own = OwnSegment(str(Path(start.run_dir) / f"{start.name}.cells"), start.worker, "edge")
        self._recorder = Recorder(self._own.segment, proxy_id=start.proxy_id)
        self._own.keep_trying(self._recorder.rotate)
        self._server = EdgeServer(self._recorder, SystemClock(), LogPipe(STANDARD_OUTPUT).write)
        await self._server.prepare(start.resolved.edge)
        self._waiting = (start.resolved.edge, sockets)
        self._recorder.fold()
        self._watch = LoopWatch(self._recorder.process(), whole_process=not start.threaded)
        self._watch.start()
        if not start.threaded:
            gc.collect()
            gc.freeze()
            gc.set_threshold(GC_THRESHOLD_ALLOCATIONS, 20, 100)

    async def prepare(self, resolved: Resolved) -> None:
        await self._server.prepare(resolved.edge)
        self._recorder.fold()

    async def commit(self, resolved: Resolved, sockets: list[socket.socket]) -> None:
        if self._open:
            await self._server.commit(resolved.edge, sockets)
            if self._recorder.mostly_gone(sum(len(app.instances) for app in resolved.edge.apps)):
                self._own.renew(self._recorder.rotate)
        else:
            for sock in self._waiting[1] if self._waiting else []:
                sock.close()
            self._waiting = (resolved.edge, sockets)

    async def other(self, message: Message) -> None:
        if isinstance(message, Open) and self._waiting is not None:
            edge, sockets = self._waiting
            self._waiting = None
            self._open = True
            await self._server.start(edge, sockets)

    async def drain(self, timeout_s: float) -> None:
        if self._open:
            await self._server.drain(timeout_s)
        for sock in self._waiting[1] if self._waiting else []:
            sock.close()
        self._own.stop()
        self._watch.stop()
        self._recorder.fold()
        # The segment is left to the end of the process: what ends after the drain may still be counted.


async def serve(sock: socket.socket, threaded: bool) -> None:
    """An edge worker's life."""
    await ChildChannel(sock, threaded).serve(EdgeWorker())


if __name__ == "__main__":
    enter(serve)
