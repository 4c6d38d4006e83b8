"""Fly-Request-Id and traceparent: unique, in order of time, and cheap (pure; chance is handed in).

A request id is a ULID: 48 bits of milliseconds and 80 of chance in Crockford's base 32. The specification lets ids of
one millisecond count up, so only the last 20 bits move from request to request; the 60 before them are drawn anew
whenever they wrap. Ids are names, not secrets: nothing may be believed because somebody knows one.
"""

import re
from collections.abc import Callable

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [(a + b).encode() for a in _ALPHABET for b in _ALPHABET]
_COUNTER_MAX = 1 << 20
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def base32(number: int, digits: int) -> bytes:
    """A number in Crockford's base 32, most significant digit first."""
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (digits - 1), -1, -5)).encode()


class RequestIds:
    """Makes the ids of one worker."""

    def __init__(self, getrandbits: Callable[[int], int]) -> None:
        self._getrandbits = getrandbits
        self._milliseconds = -1
        self._stem = b""
        self._counter = _COUNTER_MAX

    def ulid(self, unix_ms: int) -> bytes:
        """26 characters, larger than every one before within the same millisecond."""
        counter = self._counter + 1
        if unix_ms != self._milliseconds or counter >= _COUNTER_MAX:
            counter = self._renew(unix_ms)
        self._counter = counter
        return self._stem + _PAIRS[counter >> 10] + _PAIRS[counter & 1023]

    def traceparent(self) -> bytes:
        """A new W3C trace context, not sampled."""
        getrandbits = self._getrandbits
        return b"00-%032x-%016x-00" % (getrandbits(128) or 1, getrandbits(64) or 1)

    def _renew(self, unix_ms: int) -> int:
        chance = self._getrandbits(79)
        self._milliseconds = unix_ms
        self._stem = base32(unix_ms, 10) + base32(chance >> 19, 12)
        return chance & (_COUNTER_MAX >> 1) - 1


def is_traceparent(value: bytes) -> bool:
    """Whether a client's trace context may go on (W3C Trace Context 3.2.2)."""
    return _TRACEPARENT.fullmatch(value) is not None
