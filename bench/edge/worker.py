"""One edge worker by itself, for the benchmark: python -m bench.edge.worker SETTINGS.json, or --path.

What flyproxy/runtime/edge_worker.py runs, without a supervisor: the edge, the real recorder on a real segment of shared
memory, garbage collection frozen as there. `--path` prints which path it takes, pure or typed, and leaves.
"""

import asyncio
import gc
import json
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop

from bench.edge.load import host_name
from bench.edge.peers import WorkerSettings, connections_max
from bench.edge.remembered import WATCHED, FoldingRecorder, Remembered
from bench.edge.uncounted import UncountedRecorder
from flyproxy import extension
from flyproxy.clock import SystemClock
from flyproxy.config import resolved
from flyproxy.edge.server import EdgeServer
from flyproxy.instrument.cells import CELLS_MAX, Segment
from flyproxy.instrument.recorder import Recorder
from flyproxy.runtime.edge_worker import GC_THRESHOLD_ALLOCATIONS, STANDARD_OUTPUT
from flyproxy.runtime.log_pipe import LogPipe

SHARED_MEMORY = Path("/dev/shm")
CELLS_PER_APP = 100
RECORD_BYTES_PER_CELL = 32
"""Room for the counters of 10,000 apps, which the segment of `flyproxy run` has not."""


def edge_of(settings: WorkerSettings) -> resolved.Edge:
    """The apps, each with its instances; one door."""
    apps = tuple(
        resolved.App(
            f"app-{number}",
            "personal",
            (host_name(number, len(settings.apps)),),
            tuple(
                resolved.Instance(f"{number:07x}{index:07x}", "127.0.0.1", port, "ord", "aaaa")
                for index, port in enumerate(ports)
            ),
            (),
        )
        for number, ports in enumerate(settings.apps)
    )
    return resolved.Edge(
        region="ord",
        host="2bc3",
        loop=settings.loop,
        listeners=(resolved.Listener("127.0.0.1", 0, not settings.tcp, "ord", "app-0" if settings.tcp else None),),
        apps=apps,
        default_app=None,
        any_host=False,
        limits=resolved.Limits(connections=connections_max()),
        timeouts=resolved.Timeouts(),
        region_positions=(),
        access_log="json" if settings.access_log else "off",
    )


async def serve(settings: WorkerSettings, segment: Segment) -> None:
    watched = FoldingRecorder(segment, proxy_id="blue") if settings.watch else None
    counted = Recorder if settings.counting else UncountedRecorder
    recorder = watched or counted(segment, proxy_id="blue")
    server = EdgeServer(recorder, SystemClock(), LogPipe(STANDARD_OUTPUT).write)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", settings.port))
    sock.listen(1024)
    sock.setblocking(False)
    await server.start(edge_of(settings), [sock])
    remembered = Remembered(server) if settings.watch == "lines" else None
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_ALLOCATIONS, 20, 100)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    if watched is not None:
        lines = remembered.statistics() if remembered is not None else {}
        (Path(settings.folder) / WATCHED).write_text(json.dumps({"folds": watched.folds, **lines}))
    await server.drain(0)


def main() -> None:
    if sys.argv[1:] == ["--path"]:
        print(extension.words())
        return
    settings = WorkerSettings(**json.loads(Path(sys.argv[1]).read_text()))
    name = SHARED_MEMORY / f"flyproxy-bench-{os.getpid()}.cells"
    factory = uvloop.new_event_loop if settings.loop == "uvloop" else asyncio.new_event_loop
    cells_max = max(CELLS_MAX, CELLS_PER_APP * len(settings.apps))
    segment = Segment.create(str(name), 0, cells_max=cells_max, records_bytes_max=cells_max * RECORD_BYTES_PER_CELL)
    name.unlink()  # mapped already: it ends with this process, however it ends
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(settings, segment))


if __name__ == "__main__":
    main()
