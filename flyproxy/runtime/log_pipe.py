"""Whole lines to a shared descriptor (standard output), without ever waiting for its reader.

The descriptor stays blocking, because it is shared with whoever started us. A pipe that polls writable takes at
least PIPE_BUF bytes without blocking, and takes them in one piece; so lines go out in such pieces, and what the
reader does not take stays here until the next call.
"""

import os
import select

PIECE_BYTES_MAX = 4096
"""PIPE_BUF on Linux."""


class LogPipe:
    """Writes to one descriptor."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._rest = b""

    def write(self, lines: bytes) -> None:
        """Take these lines; raises BlockingIOError, taking none, while earlier ones wait for the reader."""
        self._flush()
        if self._rest:
            raise BlockingIOError
        self._rest = lines
        self._flush()

    def _flush(self) -> None:
        while self._rest:
            if not any(event & select.POLLOUT for _, event in self._poll.poll(0)):
                return
            piece = _whole_lines(self._rest)
            try:
                written = os.write(self._descriptor, piece)
            except OSError:  # nobody will ever read this: there is nowhere to say so
                self._rest = b""
                return
            self._rest = self._rest[written:]


def _whole_lines(data: bytes) -> bytes:
    """As many whole lines as fit one piece; a longer line goes out in parts."""
    if len(data) <= PIECE_BYTES_MAX:
        return data
    end = data.rfind(b"\n", 0, PIECE_BYTES_MAX)
    return data[: end + 1] if end >= 0 else data[:PIECE_BYTES_MAX]
