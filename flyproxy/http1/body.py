"""Framing of bodies: how many of these bytes belong to the body. They go on as they are; nothing is rewritten.

A chunked body is checked as strictly as a head, because the next reader will look for its end too (RFC 9112 7.1):
sizes are hex digits alone, extensions match their grammar and are bounded per line and per body, lines end in CRLF,
trailers are validated, bounded, and must not carry what belongs into a head. A fault is raised before `feed` returns,
so no complete faulty line is ever passed on; what went on before it is the beginning of a message that never ends.

Work: one search and one pattern per chunk, none per byte; a piece inside a chunk costs one subtraction.
"""

import re

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.grammar import AS_APPS_READ, HEADER_LINE, TCHAR, header_line_fault
from flyproxy.http1.limits import HeadLimits

_CRLF = b"\r\n"
_EXTENSIONS = (
    rb"(?:;[" + TCHAR + rb"]++(?:=(?:[" + TCHAR + rb"]++|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*\"))?)*"
)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15}+)(" + _EXTENSIONS + rb")")
_CHUNK_LINE_START = re.compile(rb"(?:[0-9A-Fa-f]{1,15}+(?:;[\t -~\x80-\xff]*+)?\r?+)?")
_TRAILER_START = re.compile(rb"(?:\r|[" + TCHAR + rb"]++(?::[\t -~\x80-\xff]*+\r?+)?)?")
# RFC 9110 6.5.1: what frames, routes, authenticates or describes the content must not come after it.
_NEVER_TRAILERS = frozenset(
    b"authorization cache-control connection content-encoding content-length content-range content-type cookie expect"
    b" host keep-alive max-forwards proxy-authorization proxy-connection range set-cookie te trailer transfer-encoding"
    b" upgrade".split()
)

_SIZE, _DATA, _DATA_END, _TRAILER, _DONE = range(5)


class CountedBody:
    """A body of `length` bytes."""

    __slots__ = ("complete", "received", "remaining")

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.received = 0
        self.complete = length == 0

    def feed(self, data: bytes) -> int:
        """How many bytes at the beginning of `data` belong to this body."""
        taken = len(data)
        if taken >= self.remaining:
            taken = self.remaining
            self.complete = True
        self.remaining -= taken
        self.received += taken
        return taken

    def ends_well(self) -> bool:
        """Whether the body is whole if the sender's connection ends now."""
        return self.complete


class UntilClose:
    """An answer's body that only the end of the connection ends."""

    __slots__ = ("complete", "received")

    def __init__(self) -> None:
        self.received = 0
        self.complete = False

    def feed(self, data: bytes) -> int:
        """All of it."""
        self.received += len(data)
        return len(data)

    def ends_well(self) -> bool:
        """Always: there is no other end."""
        self.complete = True
        return True


class ChunkedBody:
    """A body in chunks.

    fault_status   400 for a client's body, 502 for an instance's
    owned          lower-case names only the front door may set: refused as trailers, which some apps merge into heads
    received       bytes on the wire, chunk lines and trailers included
    content        bytes inside the chunks
    """

    __slots__ = (
        "_forbidden",
        "_held",
        "_left",
        "_limits",
        "_state",
        "_status",
        "_used",
        "complete",
        "content",
        "received",
    )

    def __init__(self, limits: HeadLimits, *, fault_status: int = 400, owned: frozenset[bytes] = frozenset()) -> None:
        self._limits = limits
        self._status = fault_status
        self._forbidden = _NEVER_TRAILERS | owned if owned else _NEVER_TRAILERS
        self._state = _SIZE
        self._left = 0  # bytes of the current chunk still to come, or of its line end
        self._held = b""  # the beginning of a line whose end has not come
        self._used = 0  # bytes of extensions so far; in the trailer section, of trailers
        self.received = 0
        self.content = 0
        self.complete = False

    def feed(self, data: bytes) -> int:
        """How many bytes at the beginning of `data` belong to this body; raises HttpFault."""
        position, size = 0, len(data)
        while position < size:
            state = self._state
            if state == _DATA:
                taken = min(self._left, size - position)
                position += taken
                self._left -= taken
                self.content += taken
                if not self._left:
                    self._state, self._left = _DATA_END, 2
            elif state == _DATA_END:
                position = self._data_end(data, position)
            elif state == _DONE:
                break
            else:
                position = self._line(data, position)
        self.received += position
        return position

    def ends_well(self) -> bool:
        """Whether the body is whole if the sender's connection ends now."""
        return self.complete

    def _data_end(self, data: bytes, position: int) -> int:
        wanted = _CRLF[2 - self._left :]
        got = data[position : position + len(wanted)]
        if not wanted.startswith(got):
            raise self._fault("a chunk is longer or shorter than it says")
        self._left -= len(got)
        if not self._left:
            self._state = _SIZE
        return position + len(got)

    def _line(self, data: bytes, position: int) -> int:
        """Take a chunk or trailer line, or the part of one that is there; where the next begins."""
        limits = self._limits
        in_trailers = self._state == _TRAILER
        bound = limits.trailer_bytes - self._used if in_trailers else limits.chunk_line_bytes
        held = len(self._held)
        piece = self._held + data[position : position + bound + 2 - held]
        end = piece.find(_CRLF)
        if end < 0:
            self._check_begun(piece, bound, in_trailers)
            self._held = piece
            return position + len(piece) - held
        self._held = b""
        if in_trailers:
            self._trailer(piece[:end])
        else:
            self._chunk_line(piece[:end])
        return position + end + 2 - held

    def _check_begun(self, piece: bytes, bound: int, in_trailers: bool) -> None:
        if len(piece) - piece.endswith(b"\r") > bound:
            raise self._too_long(in_trailers)
        if (_TRAILER_START if in_trailers else _CHUNK_LINE_START).fullmatch(piece) is None:
            raise self._trailer_fault(piece) if in_trailers else self._chunk_fault()

    def _chunk_line(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise self._chunk_fault()
        digits, extensions = match.groups()
        if extensions:
            self._used += len(extensions)
            if self._used > self._limits.chunk_extension_bytes:
                raise self._fault("the body's chunk extensions are too long together", "chunk_extension_bytes")
        self._left = int(digits, 16)
        if self._left:
            self._state = _DATA
        else:
            self._state, self._used = _TRAILER, 0

    def _trailer(self, line: bytes) -> None:
        if not line:
            self._state, self.complete = _DONE, True
            return
        self._used += len(line) + 2
        if self._used > self._limits.trailer_bytes:
            raise self._too_long(True)
        match = HEADER_LINE.fullmatch(line)
        if match is None:
            raise self._trailer_fault(line)
        if match[1].lower().translate(AS_APPS_READ) in self._forbidden:
            raise self._fault("a trailer carries what belongs into the head")

    def _too_long(self, in_trailers: bool) -> HttpFault:
        if in_trailers:
            return self._fault("the trailers are too long", "trailer_bytes")
        return self._fault("a chunk's size line is too long", "chunk_line_bytes")

    def _chunk_fault(self) -> HttpFault:
        return self._fault("a chunk's size line is not a hexadecimal number and proper extensions")

    def _trailer_fault(self, line: bytes) -> HttpFault:
        return self._fault(header_line_fault(line).reason)

    def _fault(self, reason: str, limit: str = "") -> HttpFault:
        return HttpFault(self._status, reason, limit)
