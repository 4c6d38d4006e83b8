"""Sizes and durations as a configuration writes them: `32KiB`, `15d`, `1h30m`."""

from __future__ import annotations

import re

from flyproxy.config.scalars import as_text, got
from flyproxy.errors import FlyproxyError
from flyproxy.series.durations import BadDurationError, format_duration, parse_duration_ms

_SIZE = re.compile(r"([0-9]{1,15})(?:\s?([A-Za-z]{1,3}))?")
_UNITS = {
    "B": 1,
    "KiB": 1024,
    "MiB": 1024**2,
    "GiB": 1024**3,
    "TiB": 1024**4,
    "kB": 1000,
    "KB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "TB": 1000**4,
}


class BadQuantityError(FlyproxyError):
    """What is no size or no duration; str() is the sentence."""


def parse_size(value: object) -> int:
    """Bytes of `32KiB`, `1MB` or a bare number of bytes."""
    text = value if isinstance(value, str) else as_text(value)
    match = _SIZE.fullmatch(text) if text is not None else None
    if match is None:
        raise BadQuantityError(f"wanted a size such as 32KiB, got {got(value)}")
    number, unit = int(match[1]), match[2] or "B"
    if unit not in _UNITS:
        lowered = {known.lower(): known for known in _UNITS}
        known = lowered.get(unit.lower()) or lowered.get(unit.lower() + "ib")
        hint = f"; did you mean '{number}{known}'?" if known else "; wanted B, KiB, MiB, GiB, TiB, kB, MB, GB or TB"
        raise BadQuantityError(f"'{unit}' is no unit of size{hint}")
    return number * _UNITS[unit]


def parse_seconds(value: object) -> float:
    """Seconds of `10s`, `500ms`, `1h30m` or `15d`."""
    text = as_text(value)
    if text is None:
        raise BadQuantityError(f"wanted a duration such as 10s, got {got(value)}")
    if not isinstance(value, str) or re.fullmatch(r"[0-9.]+", text):
        raise BadQuantityError(f"a duration has a unit: {text}ms, {text}s, {text}m, {text}h or {text}d")
    try:
        return parse_duration_ms(text) / 1000
    except BadDurationError:
        raise BadQuantityError(f"wanted a duration such as 10s, 1h30m or 15d, got {got(value)}") from None


def written_seconds(seconds: float) -> str:
    """A duration for a sentence: `1ms`, `1h`, `15d`."""
    return format_duration(round(seconds * 1000))


def written_size(size: int) -> str:
    """A size for a sentence: `1KiB`, `2GiB`."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size >= _UNITS[unit] and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return f"{size}B"
