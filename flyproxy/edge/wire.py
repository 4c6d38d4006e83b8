"""What asyncio's transports do not offer, or not safely: half a close, a close that says it is a failure, and what has
become of the bytes the kernel took.

uvloop 0.22 and 0.23 abort the process when `transport.write_eof()` meets connection churn, so it is never called; the
kernel's own shutdown on a duplicate of the descriptor does the same without the loop's knowledge.
"""

import asyncio
import asyncio.trsock
import contextlib
import fcntl
import os
import socket
import struct
import sys
import termios

SILENCE_S, PROBE_S, PROBES_MAX = 60, 15, 4
"""A silent tunnel is probed after SILENCE_S, then every PROBE_S; after PROBES_MAX without an echo it is dead: 2 min."""
LAST_BYTES = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_STATE_CLOSED = 7  # TCP_CLOSE of linux/tcp_states.h, the first byte of tcp_info


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


def last_bytes(transport: asyncio.Transport) -> bytes:
    """In `connection_lost`: what came before a write of ours failed. asyncio's transports end there and do not look;
    uvloop's read first, and their descriptor is gone by then."""
    if isinstance(transport, asyncio.Transport):
        with contextlib.suppress(OSError):
            return os.read(transport.get_extra_info("socket").fileno(), LAST_BYTES)
    return b""


def notice_death(sock: "socket.socket | asyncio.trsock.TransportSocket | None") -> None:
    """Let the kernel ask now and then whether the other side of a silent connection still exists (RFC 9293 3.8.4): a
    tunnel has no other bound, and a machine that lost its power says no goodbye."""
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, SILENCE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES_MAX)


def has_vanished(transport: asyncio.Transport) -> bool:
    """Whether the other side has answered our bytes with a RST: a loop that no longer reads is not told."""
    pseudo = transport.get_extra_info("socket")
    try:
        return pseudo is None or pseudo.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _STATE_CLOSED
    except OSError:
        return True


def untaken_bytes(transport: asyncio.Transport) -> int:
    """Bytes the kernel has of ours that the other side's kernel has not acknowledged (SIOCOUTQ); 0 if it cannot say."""
    pseudo = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):
        if pseudo is not None:
            return int.from_bytes(fcntl.ioctl(pseudo.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)
    return 0
