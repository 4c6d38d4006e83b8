"""The channel between the supervisor and one child: messages and file descriptors over a socket pair.

A frame is a length (4 bytes, big-endian) and a pickled message. The pair is anonymous and inherited, so both ends
are our own code. Descriptors ride on frames of length 0, at most 200 each (the kernel takes 253), before the
message they belong to; they cannot overtake it, so the receiver hands over whatever has arrived.
"""

import asyncio
import os
import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from flyproxy.runtime.messages import Message

DESCRIPTORS_PER_FRAME = 200
FRAME_BYTES_MAX = 256 * 1024 * 1024
_LENGTH = struct.Struct(">I")

Receive = Callable[[Message, list[int]], None]


class Channel:
    """One end. `on_message(message, descriptors)` is called in order; `on_close()` once, when the other end is gone.

    The receiver owns the descriptors it is handed. Must be created and used on the running loop's thread."""

    def __init__(self, sock: socket.socket, on_message: Receive, on_close: Callable[[], None]) -> None:
        self._sock = sock
        self._on_message = on_message
        self._on_close = on_close
        self._loop = asyncio.get_running_loop()
        self._incoming = bytearray()
        self._descriptors: list[int] = []
        self._outgoing: deque[tuple[memoryview, tuple[int, ...]]] = deque()
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        return self._closed

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        """Queue a message; the descriptors are duplicated, so the caller keeps its own. Silent once closed."""
        if self._closed:
            return
        for start in range(0, len(descriptors), DESCRIPTORS_PER_FRAME):
            parcel = tuple(os.dup(number) for number in descriptors[start : start + DESCRIPTORS_PER_FRAME])
            self._outgoing.append((memoryview(_LENGTH.pack(0)), parcel))
        payload = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
        self._outgoing.append((memoryview(_LENGTH.pack(len(payload)) + payload), ()))
        self._writable()

    def close(self) -> None:
        """Let go of the socket and of descriptors nobody took; `on_close` is not called."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        unsent = [number for _, parcel in self._outgoing for number in parcel]
        for number in (*unsent, *self._descriptors):
            os.close(number)
        self._outgoing.clear()
        self._descriptors.clear()

    def _writable(self) -> None:
        while self._outgoing:
            data, parcel = self._outgoing[0]
            try:
                sent = socket.send_fds(self._sock, [data], list(parcel)) if parcel else self._sock.send(data)
            except BlockingIOError:
                self._loop.add_writer(self._sock.fileno(), self._writable)
                return
            except OSError:
                self._lost()
                return
            for number in parcel:
                os.close(number)
            if sent < len(data):
                self._outgoing[0] = (data[sent:], ())
            else:
                self._outgoing.popleft()
        self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._sock, 1 << 20, 253)
        except BlockingIOError:
            return
        except OSError:
            self._lost()
            return
        self._descriptors.extend(descriptors)
        if not data:
            self._lost()
            return
        self._incoming += data
        while not self._closed and len(self._incoming) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._incoming)
            assert length <= FRAME_BYTES_MAX, "a frame of our own is bounded"
            end = _LENGTH.size + length
            if len(self._incoming) < end:
                return
            payload = bytes(self._incoming[_LENGTH.size : end])
            del self._incoming[:end]
            if length:
                taken, self._descriptors = self._descriptors, []
                self._on_message(pickle.loads(payload), taken)

    def _lost(self) -> None:
        if not self._closed:
            self.close()
            self._on_close()


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets: the supervisor's and the child's."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
