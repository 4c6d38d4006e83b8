"""How a child comes to life: as a process (the rule), or as a thread with its own loop (`workers: 0`)."""

import asyncio
import contextlib
import importlib
import logging
import os
import socket
import sys
import threading
from typing import Protocol

from flyproxy.runtime.entry import Serve, run_on_loop

log = logging.getLogger("flyproxy.supervisor")

MODULES = {
    "edge": "flyproxy.runtime.edge_worker",
    "telemetry": "flyproxy.runtime.telemetry",
    "query": "flyproxy.runtime.query_worker",
}


class Running(Protocol):
    """A child that has been started."""

    pid: int

    def kill(self) -> None:
        """End it at once, if that is possible."""
        ...

    async def wait_gone(self) -> int | None:
        """Wait for its end; the exit code, where there is one."""
        ...


class ProcessChild:
    """A child process; it gets one socket and the name of its loop."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(cls, kind: str, sock: socket.socket, loop_name: str) -> "ProcessChild":
        # One BLAS thread: a query worker's arrays are not products, and each thread would hold memory.
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULES[kind],
            str(sock.fileno()),
            loop_name,
            pass_fds=(sock.fileno(),),
            stdin=asyncio.subprocess.DEVNULL,
            env=environment,
        )
        sock.close()
        return cls(process)

    def kill(self) -> None:
        if self._process.returncode is None:
            self._process.kill()

    async def wait_gone(self) -> int | None:
        return await self._process.wait()


class ThreadChild:
    """A child on a thread of this process: the same code, no promise of isolation."""

    def __init__(self, kind: str, sock: socket.socket, loop_name: str) -> None:
        self.pid = os.getpid()
        self._kind = kind
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(sock, loop_name), name=f"flyproxy-{kind}", daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """A thread cannot be killed; closing its channel is what ends it."""

    async def wait_gone(self) -> int | None:
        await self._ended.wait()
        return None

    def _run(self, sock: socket.socket, loop_name: str) -> None:
        try:
            run_on_loop(serve_function(self._kind), sock, loop_name, threaded=True)
        except BaseException:
            log.exception("the %s thread failed", self._kind)
        finally:
            sock.close()
            with contextlib.suppress(RuntimeError):  # the supervisor's loop may be gone already
                self._loop.call_soon_threadsafe(self._ended.set)


def serve_function(kind: str) -> Serve:
    """The coroutine function of one kind of child, imported only in the process that runs it."""
    serve: Serve = importlib.import_module(MODULES[kind]).serve
    return serve


async def start_child(kind: str, sock: socket.socket, loop_name: str, *, threaded: bool) -> Running:
    """Start a child; it owns `sock` from here."""
    if threaded:
        return ThreadChild(kind, sock, loop_name)
    return await ProcessChild.start(kind, sock, loop_name)
