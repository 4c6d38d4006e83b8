"""The clock, as a thing one can be handed: rooms that wait or stamp take a Clock; tests hand them a ManualClock."""

import time
from typing import Protocol


class Clock(Protocol):
    """Wall time for stamping, monotonic time for measuring."""

    def now_ms(self) -> int:
        """Unix time, milliseconds."""
        ...

    def monotonic_ns(self) -> int:
        """A clock that never goes back, nanoseconds."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    monotonic_ns = staticmethod(time.monotonic_ns)  # itself, not a call of it: it is read several times a request


class ManualClock:
    """A clock that moves only when told to (tests)."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ns = now_ms * 1_000_000

    def now_ms(self) -> int:
        return self._now_ns // 1_000_000

    def monotonic_ns(self) -> int:
        return self._now_ns

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now_ns += int(seconds * 1e9)
