# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The third reader of heads: the ordinary ones, in one pass over their bytes; all others are left to the careful one.

What it must never do is take what the strict reference refuses, or read it differently. So it knows little: origin-form,
HTTP/1.1, the everyday methods; names of letters, digits and `-`; one Host, one Content-Length, a Connection that says
`close` or `keep-alive`, lines that are dropped. At anything else (a fault, a doubt, a rare line, a head beyond a bound
or not complete) it says nothing, and CachedRequestParser or CachedResponseParser reads the head from its beginning.
The differential tests compare all readers.

Measured (bench/http1_parse.py): a fifth of the cached reader's time where all values are new.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcmp, memcpy
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE

from flyproxy.http1.faults import HttpFault
from flyproxy.http1.fields import CONNECTION, CONTENT_LENGTH_KIND, DROP, HOST, kinds
from flyproxy.http1.grammar import EVERYDAY_METHODS, PATH_BYTES, QUERY_BYTES, VALUE_BYTES, host_and_port
from flyproxy.http1.head import RequestHead, ResponseHead

HOSTS_REMEMBERED = 1024
"""Host values whose grammar was checked."""
_HOST_BYTES_REMEMBERED = 255

_DATE = -1
cdef int _CONNECTION = CONNECTION, _LENGTH = CONTENT_LENGTH_KIND, _DROP = DROP, _HOST = HOST

cdef enum:
    IS_NAME = 1
    IS_VALUE = 2
    IS_PATH = 4
    IS_QUERY = 8
    IS_HEX = 16

cdef unsigned char CLASS[256]


def _classes() -> None:
    cdef int byte
    for byte in range(256):
        CLASS[byte] = (
            (IS_NAME if byte < 128 and (chr(byte).isalnum() or byte == 45) else 0)
            | (IS_VALUE if byte in VALUE_BYTES else 0)
            | (IS_PATH if byte in PATH_BYTES else 0)
            | (IS_QUERY if byte in QUERY_BYTES else 0)
            | (IS_HEX if byte in b"0123456789abcdefABCDEF" else 0)
        )


_classes()

METHODS = tuple(sorted(EVERYDAY_METHODS))
cdef int _METHODS = len(METHODS)
cdef const char *_METHOD[16]
cdef Py_ssize_t _METHOD_SIZE[16]
for _number in range(_METHODS):
    _METHOD[_number] = PyBytes_AS_STRING(METHODS[_number])
    _METHOD_SIZE[_number] = PyBytes_GET_SIZE(METHODS[_number])


cdef inline Py_ssize_t _value_end(const unsigned char *raw, Py_ssize_t at, Py_ssize_t size) noexcept nogil:
    """Behind the last byte from `at` that a value may hold: eight at a time, as long as none is a control."""
    cdef uint64_t eight, other
    while at + 8 <= size:
        memcpy(&eight, raw + at, 8)
        other = eight ^ <uint64_t>0x7F7F7F7F7F7F7F7F
        if ((eight - <uint64_t>0x2020202020202020) & ~eight & <uint64_t>0x8080808080808080) or (
            (other - <uint64_t>0x0101010101010101) & ~other & <uint64_t>0x8080808080808080
        ):
            break
        at += 8
    while at < size and CLASS[raw[at]] & IS_VALUE:
        at += 1
    return at


cdef inline bint _says(const unsigned char *raw, Py_ssize_t size, const char *word, Py_ssize_t length) noexcept nogil:
    """Whether these bytes are the lower-case word, whatever their case."""
    cdef Py_ssize_t at
    if size != length:
        return False
    for at in range(size):
        if (raw[at] | 32) != <unsigned char>word[at]:
            return False
    return True


cdef class Reader:
    """Reads heads under fixed settings; keeps nothing."""

    def __init__(self, limits: object, owned: frozenset[bytes], dropped: frozenset[bytes], *, request: bool) -> None:
        self.small_bytes = min(limits.line_bytes, limits.head_bytes)
        self.header_count = min(limits.header_count, 1 << 20)
        self.of_requests = request
        self.kinds = kinds(owned, dropped, request=request)
        if not request:
            self.kinds.setdefault(b"date", _DATE)
        for name in self.kinds:
            self.letters[min(len(name), 63)] |= 1u << (name[0] & 31)

    cdef bint read_request(self, const unsigned char *raw, Py_ssize_t size, Span *span):
        """Whether the buffer begins with an ordinary request's head."""
        cdef Py_ssize_t at
        cdef int number
        for number in range(_METHODS):
            at = _METHOD_SIZE[number]
            if size > at + 1 and raw[at] == 32 and memcmp(raw, _METHOD[number], at) == 0:
                break
        else:
            return False
        span.method = number
        at += 1
        if raw[at] != 47:
            return False
        span.target = at
        while at < size:
            if CLASS[raw[at]] & IS_PATH:
                at += 1
            elif raw[at] == 37 and at + 2 < size and CLASS[raw[at + 1]] & CLASS[raw[at + 2]] & IS_HEX:
                at += 3
            else:
                break
        if at < size and raw[at] == 63:
            at += 1
            while at < size and CLASS[raw[at]] & IS_QUERY:
                at += 1
        span.target_end = at
        if size < at + 11 or memcmp(raw + at, " HTTP/1.1\r\n", 11) != 0:
            return False
        span.lines = at + 11
        span.keep_alive = True
        return self._lines(raw, size, span) and span.host_end > 0

    cdef bint read_answer(self, const unsigned char *raw, Py_ssize_t size, Span *span):
        """Whether the buffer begins with an ordinary final answer's head: one with a body whose length it says."""
        cdef Py_ssize_t at
        if size < 15 or memcmp(raw, "HTTP/1.1 ", 9) != 0 or raw[12] != 32:
            return False
        if not (50 <= raw[9] <= 53 and 48 <= raw[10] <= 57 and 48 <= raw[11] <= 57):
            return False
        span.status = (raw[9] - 48) * 100 + (raw[10] - 48) * 10 + (raw[11] - 48)
        if span.status == 204 or span.status == 304:
            return False
        span.target = 13
        at = span.target_end = _value_end(raw, 13, size)
        if size < at + 2 or raw[at] != 13 or raw[at + 1] != 10:
            return False
        span.lines = at + 2
        span.keep_alive = True
        return self._lines(raw, size, span) and span.length_end > 0

    cdef bint _lines(self, const unsigned char *raw, Py_ssize_t size, Span *span):
        cdef Py_ssize_t at = span.lines, begin, colon
        cdef int count = 0
        span.specials = 0
        span.dated = False
        span.host = span.host_end = span.length = span.length_end = 0
        span.content_length = -1
        while at + 2 <= size:
            if raw[at] == 13:
                if raw[at + 1] != 10:
                    return False
                span.lines_end = at
                span.size = at + 2
                span.verbatim = (
                    span.specials == 1 and span.host_end > 0 and span.special[0] == span.lines
                    and span.host == span.lines + 6 and memcmp(raw + span.lines, "Host: ", 6) == 0
                    and span.host_end == span.special_end[0] - 2
                )
                return span.size <= self.small_bytes and count <= self.header_count
            begin = at
            while at < size and CLASS[raw[at]] & IS_NAME:
                at += 1
            if at == begin or at >= size or raw[at] != 58:
                return False
            colon = at
            at = _value_end(raw, at + 1, size)
            if at + 2 > size or raw[at] != 13 or raw[at + 1] != 10:
                return False
            count += 1
            if self.letters[min(colon - begin, 63)] & (1u << (raw[begin] & 31)):
                if not self._special(raw, begin, colon, at, span):
                    return False
            at += 2
        return False

    cdef bint _special(self, const unsigned char *raw, Py_ssize_t begin, Py_ssize_t colon, Py_ssize_t end, Span *span):
        """Read a line that may be special; False: not here."""
        cdef object found = self.kinds.get(PyBytes_FromStringAndSize(<char *>raw + begin, colon - begin).lower())
        cdef Py_ssize_t value = colon + 1, behind = end
        cdef long long number = 0
        cdef int kind
        if found is None:
            return True
        kind = found
        if kind == -1:
            span.dated = True
            return True
        if span.specials == SPECIAL_MAX:
            return False
        span.special[span.specials] = begin
        span.special_end[span.specials] = end + 2
        span.specials += 1
        if kind == _DROP:
            return True
        while value < behind and (raw[value] == 32 or raw[value] == 9):
            value += 1
        while behind > value and (raw[behind - 1] == 32 or raw[behind - 1] == 9):
            behind -= 1
        if kind == _HOST:
            if span.host_end or value == behind:
                return False
            span.host, span.host_end = value, behind
        elif kind == _CONNECTION:
            if _says(raw + value, behind - value, "close", 5):
                span.keep_alive = False
            elif not _says(raw + value, behind - value, "keep-alive", 10):
                return False
        elif kind == _LENGTH:
            if span.length_end or value == behind or behind - value > 18 or (raw[value] == 48 and behind - value > 1):
                return False
            span.length, span.length_end = value, behind
            while value < behind:
                if not 48 <= raw[value] <= 57:
                    return False
                number = number * 10 + (raw[value] - 48)
                value += 1
            span.content_length = number
        else:
            return False
        return True


cdef Py_ssize_t copy_lines(char *to, const char *raw, Span *span):
    """Copy the header lines that go on as they are; how many bytes they take."""
    cdef Py_ssize_t at = span.lines, written = 0, piece
    cdef int number
    for number in range(span.specials):
        piece = span.special[number] - at
        memcpy(to + written, raw + at, piece)
        written += piece
        at = span.special_end[number]
    piece = span.lines_end - at
    memcpy(to + written, raw + at, piece)
    return written + piece


cdef class TypedRequestParser:
    """Reads requests' heads (RequestParser)."""

    def __init__(self, limits: object, owned: frozenset[bytes], careful: object) -> None:
        """`careful` reads what is not ordinary, under the same settings."""
        self.reader = Reader(limits, owned, frozenset(), request=True)
        self.careful = careful
        self.hosts = {}

    def statistics(self) -> dict[str, int]:
        return self.careful.statistics()

    cdef object host_of(self, bytes value):
        """The name of a Host value, lower case; None: not an ordinary one."""
        host = self.hosts.get(value)
        if host is None and not value.endswith(b":"):
            try:
                host = host_and_port(value)[0]
            except HttpFault:
                return None
            if len(self.hosts) >= HOSTS_REMEMBERED:
                self.hosts.clear()
            self.hosts[value] = host
        return host

    def parse(self, buffer: bytes | bytearray, before: object = None) -> object:
        cdef Span span
        cdef const char *raw
        cdef bytes block
        cdef bytes value
        cdef char *to
        if type(buffer) is not bytes:
            return self.careful.parse(buffer)
        raw = PyBytes_AS_STRING(buffer)
        if not self.reader.read_request(<const unsigned char *>raw, PyBytes_GET_SIZE(buffer), &span):
            return self.careful.parse(buffer)
        value = raw[span.host : span.host_end]
        host = self.host_of(value)
        if host is None:
            return self.careful.parse(buffer)
        if span.verbatim:
            block = raw[span.lines : span.lines_end]
        else:
            # the lines that are left out hold at least a Host line of the value's length
            block = PyBytes_FromStringAndSize(NULL, span.lines_end - span.lines + len(value) + 8)
            to = PyBytes_AS_STRING(block)
            memcpy(to, "Host: ", 6)
            memcpy(to + 6, raw + span.host, len(value))
            memcpy(to + 6 + len(value), "\r\n", 2)
            block = block[: 8 + len(value) + copy_lines(to + 8 + len(value), raw, &span)]
        return RequestHead(
            METHODS[span.method], raw[span.target : span.target_end], 1, host, block, None, span.content_length, False,
            span.keep_alive, False, None, False, span.size, span.content_length < 0,
        )


cdef class TypedResponseParser:
    """Reads answers' heads (ResponseParser)."""

    def __init__(self, limits: object, dropped: frozenset[bytes], careful: object) -> None:
        """`careful` reads what is not ordinary, under the same settings."""
        self.reader = Reader(limits, frozenset(), dropped, request=False)
        self.careful = careful

    def statistics(self) -> dict[str, int]:
        return self.careful.statistics()

    def parse(self, buffer: bytes | bytearray, request_method: bytes, before: object = None) -> object:
        cdef Span span
        cdef const char *raw
        cdef bytes start
        cdef char *to
        if type(buffer) is not bytes or request_method == b"HEAD":
            return self.careful.parse(buffer, request_method)
        raw = PyBytes_AS_STRING(buffer)
        if not self.reader.read_answer(<const unsigned char *>raw, PyBytes_GET_SIZE(buffer), &span):
            return self.careful.parse(buffer, request_method)
        start = PyBytes_FromStringAndSize(NULL, span.lines_end)
        to = PyBytes_AS_STRING(start)
        memcpy(to, raw, span.lines)
        start = start[: span.lines + copy_lines(to + span.lines, raw, &span)]
        return ResponseHead(
            span.status, raw[span.target : span.target_end], 1, start, span.content_length, False, span.keep_alive,
            None, span.size, True, span.size + span.content_length,
            b"Content-Length: %b\r\n" % raw[span.length : span.length_end], span.dated,
        )
