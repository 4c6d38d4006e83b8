"""Fly-Request-Id and traceparent: unique, in order of time, and cheap (pure; chance is handed in).

A request id is a ULID: 48 bits of milliseconds and 80 of chance in Crockford's base 32. The specification lets ids of
one millisecond count up, so only the last 20 bits move from request to request; the 60 before them, and where the
count begins, are drawn anew every second and whenever the count wraps. Trace contexts are made in batches, each from
one draw. Ids are names, not secrets: nothing may be believed because somebody knows one.
"""

import re
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
PAIRS = [(a + b).encode() for a in _ALPHABET for b in _ALPHABET]
_COUNTER_MAX = 1 << 20
BLOCK_IDS = len(PAIRS)
_TRACE_DIGITS = 32 + 16
TRACE_CONTEXTS_DRAWN = 64
"""Trace contexts made at once: ahead of the requests that need them."""
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def base32(number: int, digits: int) -> bytes:
    """A number in Crockford's base 32, most significant digit first."""
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (digits - 1), -1, -5)).encode()


class RequestIds:
    """Makes the ids of one worker."""

    def __init__(self, getrandbits: Callable[[int], int]) -> None:
        self._getrandbits = getrandbits
        self._milliseconds = -1
        self._second = -1
        self._time_stem = self._chance_stem = self._stem = b""
        self._counter = _COUNTER_MAX
        self._lines: list[bytes] = []

    def ulid(self, unix_ms: int) -> bytes:
        """26 characters, larger than every one before within the same millisecond."""
        counter = self._counter = self._counter + 1
        if unix_ms != self._milliseconds or counter >= _COUNTER_MAX:
            counter = self._renew(unix_ms)
        return self._stem + PAIRS[counter >> 10] + PAIRS[counter & 1023]

    def block(self, unix_ms: int) -> bytes:
        """The beginning of BLOCK_IDS ids at once, all but their last two characters: one of PAIRS each, in order."""
        start = (self._counter // BLOCK_IDS + 1) * BLOCK_IDS
        if start + BLOCK_IDS > _COUNTER_MAX:
            self._counter = _COUNTER_MAX
        if unix_ms != self._milliseconds or self._counter == _COUNTER_MAX:
            start = (self._renew(unix_ms) // BLOCK_IDS + 1) * BLOCK_IDS
        self._counter = start + BLOCK_IDS - 1
        return self._stem + PAIRS[start // BLOCK_IDS]

    def trace_lines(self) -> bytes:
        """The lines of a new W3C trace context, not sampled; they end a head."""
        if not self._lines:
            self._draw()
        return self._lines.pop()

    def _renew(self, unix_ms: int) -> int:
        """Another millisecond, or no count left: the stem anew; returns the count to go on with."""
        second = unix_ms >> 10
        if second != self._second or self._counter >= _COUNTER_MAX:
            chance = self._getrandbits(79)
            self._second = second
            self._time_stem = base32(second, 8)
            self._chance_stem = base32(chance >> 19, 12)
            self._counter = chance & (_COUNTER_MAX >> 1) - 1
        self._milliseconds = unix_ms
        self._stem = self._time_stem + PAIRS[unix_ms & 1023] + self._chance_stem
        return self._counter

    def _draw(self) -> None:
        """Trace contexts from one draw; no 16 digits in a row are all zero, as no id may be."""
        size = TRACE_CONTEXTS_DRAWN * _TRACE_DIGITS
        digits = (b"%0*x" % (size, self._getrandbits(4 * size))).replace(b"0" * 16, b"0" * 15 + b"1")
        self._lines = [
            trace_lines(b"00-%b-%b-00" % (digits[begin : begin + 32], digits[begin + 32 : begin + _TRACE_DIGITS]))
            for begin in range(0, size, _TRACE_DIGITS)
        ]


def trace_lines(traceparent: bytes) -> bytes:
    """The end of a head that goes to an instance in this trace context."""
    return b"\r\nFly-Traceparent: %b\r\nTraceparent: %b\r\n\r\n" % (traceparent, traceparent)


def is_traceparent(value: bytes) -> bool:
    """Whether a client's trace context may go on (W3C Trace Context 3.2.2)."""
    return _TRACEPARENT.fullmatch(value) is not None
