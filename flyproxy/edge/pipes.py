"""The kernel's pipes through which bytes go from one socket to another without entering Python, and how many there
may be.

A pipe is taken when a socket has bytes and given back when they have all gone on, mostly within the same turn of the
loop: a few pipes serve any number of connections, and only who waits for a reader keeps one. One that is not empty is
never used again: whatever is in it belongs to a connection that has ended, and goes with the pipe. (Taken out last in,
first out, a pipe's memory is also still in the processor's cache.)

Splicing must not eat the descriptors connections are accepted with: it has a share of those the process may open, and
`Worker` does not count on that share.
"""

import contextlib
import fcntl
import os
import resource
from collections.abc import Callable

PIPE_BYTES = 1024 * 1024
PIPE_BYTES_MIN = 64 * 1024
"""A user who has many pipes is given ones of two pages: those are slower than copying."""
PIPES_MAX = 64
"""Pipes one process holds for splicing, 64 MiB when readers leave all of them full; what gets none is copied."""
PIPES_IDLE_MAX = 4
"""Empty ones that are kept."""
SPLICES_MAX = 1024
"""Bodies one process moves by splice at a time, two descriptors each; what is beyond goes through Python."""
FILES_SHARE = 8
"""One in this many descriptors of the process may be splicing's."""


class Pipe:
    """Two descriptors, and how many bytes are between them."""

    __slots__ = ("held", "sink", "source")

    def __init__(self, source: int, sink: int) -> None:
        """`sink`: what is written to; it comes out at `source`."""
        self.source = source
        self.sink = sink
        self.held = 0

    def __repr__(self) -> str:
        return f"<Pipe {self.sink} to {self.source}, {self.held} bytes in it>"

    def fill(self, source: int, size: int) -> int:
        """Take at most `size` bytes from a socket; 0: it has ended. BlockingIOError: there is nothing now."""
        taken = os.splice(source, self.sink, size, flags=_FLAGS)
        self.held += taken
        return taken

    def empty(self, sink: int) -> int:
        """Give what a socket takes now; returns how much that was."""
        given = 0
        with contextlib.suppress(BlockingIOError, InterruptedError):
            while self.held:
                size = os.splice(self.source, sink, self.held, flags=_FLAGS)
                self.held -= size
                given += size
        return given

    def close(self) -> None:
        """Once; what is in it is gone."""
        os.close(self.source)
        os.close(self.sink)


class Pipes:
    """All pipes of one process."""

    def __init__(self, limit_reached: Callable[[str], None], files_max: int | None = None) -> None:
        """`limit_reached` is told the name of a bound that was reached; `files_max`: descriptors the process may
        have open."""
        self._limit_reached = limit_reached
        self.pipes_max, self.splices_max = bounds(files_max if files_max is not None else files_allowed())
        self._idle: list[Pipe] = []
        self._open = 0
        self._splices = 0

    def __repr__(self) -> str:
        return f"<Pipes {self._open} open, {len(self._idle)} of them idle; {self._splices} splices>"

    def take(self) -> Pipe | None:
        """An empty pipe; None: there is none to be had, copy."""
        if self._idle:
            return self._idle.pop()
        if self._open < self.pipes_max:
            pipe = _open_pipe()
            if pipe is not None:
                self._open += 1
            return pipe
        return None

    def give_back(self, pipe: Pipe) -> None:
        """A pipe that is used no more, empty or not."""
        if pipe.held or len(self._idle) >= PIPES_IDLE_MAX:
            pipe.close()
            self._open -= 1
        else:
            self._idle.append(pipe)

    def refused(self) -> None:
        """Something is copied because it got no pipe."""
        self._limit_reached("pipes")

    def begin_splice(self) -> bool:
        """Whether one more body may be moved by splice; then `end_splice` must follow."""
        if self._splices >= self.splices_max:
            if _SPLICES:
                self._limit_reached("splices")
            return False
        self._splices += 1
        return True

    def end_splice(self) -> None:
        """It is over, whichever way."""
        self._splices -= 1

    def close(self) -> None:
        """Keep none of the empty ones."""
        while self._idle:
            self._idle.pop().close()
            self._open -= 1

    def statistics(self) -> dict[str, int]:
        """Pipes with somebody's bytes in them, pipes open in all, bodies being spliced."""
        return {"pipes": self._open - len(self._idle), "pipes_open": self._open, "splices": self._splices}


def files_allowed() -> int:
    """Descriptors this process may have open."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def bounds(files_max: int) -> tuple[int, int]:
    """Pipes and splices for a process that may open so many descriptors."""
    if not _SPLICES:
        return 0, 0
    share = files_max // FILES_SHARE
    pipes_max = min(PIPES_MAX, share // 4)
    return pipes_max, min(SPLICES_MAX, (share - 2 * pipes_max) // 2)


def files_reserved(files_max: int) -> int:
    """Descriptors that splicing may use at most."""
    return 2 * sum(bounds(files_max))


def _open_pipe() -> Pipe | None:
    try:
        source, sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    pipe = Pipe(source, sink)
    with contextlib.suppress(OSError):
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    if fcntl.fcntl(sink, fcntl.F_GETPIPE_SZ) < PIPE_BYTES_MIN:
        pipe.close()
        return None
    return pipe


_SPLICES = hasattr(os, "splice")
_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE if _SPLICES else 0
