"""Two things asyncio's transports do not offer safely: half a close, and a close that says it is a failure.

uvloop 0.22 and 0.23 abort the process when `transport.write_eof()` meets connection churn, so it is never called; the
kernel's own shutdown on a duplicate of the descriptor does the same without the loop's knowledge.
"""

import asyncio
import contextlib
import os
import socket
import struct

_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def unlimited(transport: asyncio.BaseTransport) -> asyncio.Transport:
    """The transport, set to write at once and to call pause_writing as soon as the kernel does not take everything:
    so that a message is over when its last byte is the kernel's, and not a buffer's."""
    assert isinstance(transport, asyncio.Transport) or hasattr(transport, "set_write_buffer_limits")
    stream: asyncio.Transport = transport  # type: ignore[assignment]  # uvloop's transports are no subclass
    stream.set_write_buffer_limits(high=0)
    return stream


def half_close(transport: asyncio.Transport) -> None:
    """Say that nothing more will be sent; only with nothing unsent in the transport."""
    pseudo = transport.get_extra_info("socket")
    if pseudo is None or transport.is_closing():
        return
    with contextlib.suppress(OSError):
        real = socket.socket(fileno=os.dup(pseudo.fileno()))
        try:
            real.shutdown(socket.SHUT_WR)
        finally:
            real.close()


def reset(transport: asyncio.Transport) -> None:
    """Close with a RST, so that a truncated message cannot be taken for a whole one."""
    pseudo = transport.get_extra_info("socket")
    if pseudo is not None and not transport.is_closing():
        with contextlib.suppress(OSError):
            pseudo.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    transport.abort()
