"""How a child process begins: `python -m flyproxy.runtime.<kind> DESCRIPTOR LOOP`.

Children ignore the terminal's and the service manager's signals: only the supervisor decides when they leave, so
that a ^C to the whole process group still drains in order. When its end of the channel closes they leave at once.
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine

Serve = Callable[[socket.socket, bool], Coroutine[None, None, None]]
LoopFactory = Callable[[], asyncio.AbstractEventLoop]

LARGE_BLOCK_BYTES = 1 << 20
_M_MMAP_THRESHOLD = -3
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def loop_factory(name: str) -> LoopFactory | None:
    """The event loop by its configured name; None is the standard library's."""
    if name == "uvloop":
        import uvloop

        factory: LoopFactory = uvloop.new_event_loop
        return factory
    return None


def return_large_blocks() -> None:
    """From now on a freed block of LARGE_BLOCK_BYTES and more goes back to the kernel at once (glibc). By itself it
    learns from the first large one to keep them, and a moment of large answers would stay this process' size."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


def give_way(nice: int) -> None:
    """Traffic goes first: beside an edge worker that wants the same CPU this process, and the threads it makes from now
    on, get the smaller share. Never more than it was started with."""
    with contextlib.suppress(OSError):
        os.nice(nice)


def enter(serve: Serve) -> None:
    """The main function of every child process."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    sock = socket.socket(fileno=int(sys.argv[1]))
    run_on_loop(serve, sock, sys.argv[2], threaded=False)


def run_on_loop(serve: Serve, sock: socket.socket, loop_name: str, *, threaded: bool) -> None:
    """Run one child to its end on a loop of its own."""
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(serve(sock, threaded))
