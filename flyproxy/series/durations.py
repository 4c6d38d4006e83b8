"""Durations as Prometheus writes them, in and out: 1h30m, 15s, 100ms. Inside, a duration is an int of milliseconds."""

import math
import re

from flyproxy.errors import FlyproxyError

DURATION_MS_MAX = (2**63 - 1) // 1_000_000
"""What Prometheus holds in nanoseconds, about 292 years."""

UNITS_MS = (
    ("y", 31_536_000_000),
    ("w", 604_800_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
)
"""Largest first, the order they must be written in. A year is 365 days."""

# The groups are not possessive: Python before 3.11.5 loses its place where one with a backtracking part in it fails.
_DURATION = re.compile("".join(f"(?:([0-9]++){unit}(?![a-z]))?" for unit, _ in UNITS_MS))
_CALENDAR = 3


class BadDurationError(FlyproxyError, ValueError):
    """A text that is not a duration, or one too long to hold."""


def parse_duration_ms(text: str) -> int:
    """Milliseconds of "1h30m", units in falling order, each at most once; also a plain "0". Raises BadDurationError."""
    if text == "0":
        return 0
    if not text:
        raise BadDurationError("empty duration string")
    found = _DURATION.fullmatch(text)
    if found is None:
        raise BadDurationError(f'not a valid duration string: "{text[:40]}"')
    if any(count is not None and len(count) > 20 for count in found.groups()):
        raise BadDurationError("duration out of range")
    total = sum(int(count) * size for count, (_, size) in zip(found.groups(), UNITS_MS, strict=True) if count)
    if total > DURATION_MS_MAX:
        raise BadDurationError("duration out of range")
    return total


def parse_seconds_or_duration(text: str) -> int:
    """Milliseconds of "0.5", "300" (seconds) or "1m30s": what `step=` and `timeout=` hold. Raises BadDurationError."""
    try:
        seconds = float(text)
    except ValueError:
        return parse_duration_ms(text)
    return seconds_to_ms(seconds)


def seconds_to_ms(seconds: float) -> int:
    """Whole milliseconds, the rest cut off as Prometheus does; the sign is kept. Raises BadDurationError for what is no
    number or too long."""
    if math.isnan(seconds) or abs(seconds) * 1000 > DURATION_MS_MAX:
        raise BadDurationError("duration out of range")
    return int(seconds * 1000)


def format_duration(duration_ms: int) -> str:
    """As 1h30m, 0s or -5m; years, weeks and days only where nothing smaller is left over."""
    if duration_ms == 0:
        return "0s"
    rest = abs(duration_ms)
    text = "-" if duration_ms < 0 else ""
    for rank, (unit, size) in enumerate(UNITS_MS):
        if rank < _CALENDAR and rest % size:
            continue
        count, rest = divmod(rest, size)
        if count:
            text += f"{count}{unit}"
    return text
