"""One line a request, never blocking: lines wait in a bounded buffer, and what does not fit is dropped and counted."""

from collections.abc import Callable
from dataclasses import dataclass
from time import gmtime, strftime

import orjson

BUFFER_BYTES_MAX = 1024 * 1024
"""Lines one worker holds between two beats of its ticker; beyond that they are dropped."""
TEXT_BYTES_MAX = 1024
"""Of a path or a host; the rest is cut off."""


@dataclass(slots=True)
class Entry:
    """What is known of one finished request."""

    unix_ms: int
    app: str
    region: str
    client: str
    method: bytes
    host: bytes
    target: bytes
    status: int
    bytes_in: int
    bytes_out: int
    duration_ns: int
    instance: str | None
    instance_ns: int | None
    """From the request sent to the instance to its last byte; None if no answer came."""
    request_id: str
    code: str | None
    """The fault's, if there was one."""
    why: str | None


class AccessLog:
    """Writes entries as JSON lines or for a console; `style` is "json", "console" or "off"."""

    def __init__(self, write: Callable[[bytes], None], dropped: Callable[[int], None], style: str) -> None:
        """`write` takes whole lines at once and may raise BlockingIOError: then they are kept for the next flush.
        `dropped` is told the number of lines lost."""
        self._write = write
        self._dropped = dropped
        self._lines: list[bytes] = []
        self._bytes = 0
        self.set_style(style)

    def set_style(self, style: str) -> None:
        """Another style from the next line on."""
        self.enabled = style != "off"
        self._render = console_line if style == "console" else json_line

    def add(self, entry: Entry) -> None:
        """Remember one line until the next flush."""
        line = self._render(entry)
        if self._bytes + len(line) > BUFFER_BYTES_MAX:
            self._dropped(1)
            return
        self._lines.append(line)
        self._bytes += len(line)

    def flush(self) -> None:
        """Hand over what is there."""
        if not self._lines:
            return
        try:
            self._write(b"".join(self._lines))
        except BlockingIOError:
            return
        self._lines.clear()
        self._bytes = 0

    def statistics(self) -> dict[str, int]:
        """Lines and bytes that wait."""
        return {"access_log_lines_waiting": len(self._lines), "access_log_bytes_waiting": self._bytes}


def json_line(entry: Entry) -> bytes:
    """One JSON object and a newline; times in milliseconds, the path without its query (it may hold secrets)."""
    fields: dict[str, object] = {
        "ts": _timestamp(entry.unix_ms),
        "app": entry.app,
        "region": entry.region,
        "client": entry.client,
        "method": _text(entry.method),
        "host": _text(entry.host),
        "path": _path(entry.target),
        "status": entry.status,
        "bytes_in": entry.bytes_in,
        "bytes_out": entry.bytes_out,
        "dur_ms": round(entry.duration_ns / 1e6, 3),
        "request_id": entry.request_id,
    }
    if entry.instance is not None:
        fields["instance"] = entry.instance
    if entry.instance_ns is not None:
        fields["instance_ms"] = round(entry.instance_ns / 1e6, 3)
    if entry.code is not None:
        fields["fault"] = entry.code
    if entry.why is not None:
        fields["why"] = entry.why
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def console_line(entry: Entry) -> bytes:
    """One line for a reader's eyes."""
    parts = [
        _timestamp(entry.unix_ms)[11:19],
        entry.region,
        str(entry.status),
        _text(entry.method) or "-",
        (_text(entry.host) or "-") + _path(entry.target),
        f"{entry.duration_ns / 1e6:.1f}ms",
        f"{entry.bytes_in}/{entry.bytes_out}B",
        entry.client,
        entry.instance or "-",
    ]
    if entry.code is not None:
        parts.append(entry.code)
    if entry.why is not None:
        parts.append(entry.why)
    return (" ".join(parts) + "\n").encode("utf-8", "backslashreplace")


def _text(value: bytes) -> str:
    return value[:TEXT_BYTES_MAX].decode("ascii", "backslashreplace")


def _path(target: bytes) -> str:
    return _text(target.partition(b"?")[0])


_second = (-1, "")


def _timestamp(unix_ms: int) -> str:
    """RFC 3339 with milliseconds, UTC; the seconds part is made once a second."""
    global _second
    second = unix_ms // 1000
    if _second[0] != second:
        _second = second, strftime("%Y-%m-%dT%H:%M:%S", gmtime(second))
    return f"{_second[1]}.{unix_ms % 1000:03d}Z"
