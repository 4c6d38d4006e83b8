"""One edge worker on one port, for benchmarks: one_worker.py FOLDER PORT UPSTREAM_PORT [uvloop|asyncio] [PROFILE]."""

import asyncio
import cProfile
import gc
import signal
import socket
import sys
from pathlib import Path

import uvloop

from flyproxy.clock import SystemClock
from flyproxy.config import resolved
from flyproxy.edge.server import EdgeServer
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.recorder import Recorder


def settings(upstream: int) -> resolved.Edge:
    """One app, one instance, no log."""
    instance = resolved.Instance("00000000000001", "127.0.0.1", upstream, "ord", "aaaa")
    return resolved.Edge(
        region="ord",
        host="2bc3",
        loop="uvloop",
        listeners=(resolved.Listener("127.0.0.1", 0, True, "ord", None),),
        apps=(resolved.App("hello", "personal", ("hello.test",), (instance,), ()),),
        default_app=None,
        any_host=False,
        limits=resolved.Limits(),
        timeouts=resolved.Timeouts(),
        region_positions=(),
        access_log="off",
    )


async def serve(folder: Path, port: int, upstream: int) -> None:
    recorder = Recorder(Segment.create(str(folder / "edge-0.cells"), 0), proxy_id="blue")
    server = EdgeServer(recorder, SystemClock(), lambda lines: None)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(1024)
    sock.setblocking(False)
    await server.start(settings(upstream), [sock])
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    await server.drain(0)


def main() -> None:
    folder, port, upstream, loop, *profile = [*sys.argv[1:], "uvloop"][:5] if len(sys.argv) < 5 else sys.argv[1:]
    factory = uvloop.new_event_loop if loop == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        if not profile:
            runner.run(serve(Path(folder), int(port), int(upstream)))
            return
        profiler = cProfile.Profile()
        profiler.runcall(runner.run, serve(Path(folder), int(port), int(upstream)))
        profiler.dump_stats(profile[0])


if __name__ == "__main__":
    main()
