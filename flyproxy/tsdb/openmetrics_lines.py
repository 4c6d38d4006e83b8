"""Samples with time stamps, line by line: OpenMetrics 1.0 (seconds) and Prometheus' text 0.0.4 (milliseconds).

Unlike a scrape's page (series/exposition_parser) a file says when every sample was, and may be larger than memory. A
line whose series was met before costs one look-up. Every expression here is linear.
"""

import math
import re
from collections.abc import Iterator
from typing import IO, NamedTuple

from flyproxy.errors import FlyproxyError
from flyproxy.series.labels import METRIC_NAME, Labels, labels_from

LINE_BYTES_MAX = 1 << 20
"""Of one line."""
STAMP_MAX_MS = 1 << 52
SHOWN_MAX = 64

_QUOTED = r'"[^"\\]*+(?:\\.[^"\\]*+)*"'
_BLOCK = rf'\{{[^"}}]*+(?:{_QUOTED}[^"}}]*+)*\}}'
_LINE = re.compile(rf'[ \t]*+([^\s{{"#]*+(?:[ \t]*+{_BLOCK})?)[ \t]++([^\s#]++)(?:[ \t]++([^\s#]++))?[ \t]*+(?:#.*+)?')
_LABEL = re.compile(
    rf"[ \t]*+([a-zA-Z_][a-zA-Z0-9_]*+|{_QUOTED})[ \t]*+(?:=[ \t]*+({_QUOTED})[ \t]*+)?(,|\Z)", re.ASCII
)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_ESCAPE = re.compile(r'\\([\\"n])')
_UNESCAPED = {"\\": "\\", '"': '"', "n": "\n"}
_EOF = b"# EOF"


class ImportFault(FlyproxyError):
    """A file that cannot be taken; nothing of it was stored. Says the line."""


class Line(NamedTuple):
    """One sample."""

    series: int
    """Its number in `Lines.series`."""
    time_ms: int
    value: float


class Lines:
    """The samples of a seekable file; numbers of series stay the same however often it is read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._numbers: dict[Labels, int] = {}
        self._known: dict[bytes, int] = {}
        self.openmetrics = _ends_with_eof(file)

    @property
    def series(self) -> list[Labels]:
        """Every series met so far, by number."""
        return list(self._numbers)

    def __iter__(self) -> Iterator[Line]:
        """All samples, in the file's order. Raises ImportFault at the first line that is none."""
        self._file.seek(0)
        known, ended = self._known, False
        number = 0
        while line := self._file.readline(LINE_BYTES_MAX + 1):
            number += 1
            if len(line) > LINE_BYTES_MAX:
                raise ImportFault(f"line {number}: longer than {LINE_BYTES_MAX} bytes")
            line = line.rstrip(b"\r\n")
            if ended:
                raise ImportFault(f"line {number}: something after # EOF")
            if not line or line[0] == 0x23:
                ended = line.rstrip() == _EOF
                continue
            words = line.rsplit(b" ", 2)
            series = known.get(words[0])
            if series is None or len(words) != 3:
                found = self._taken_apart(number, line)
                if found is None:
                    continue
                series, value, stamp = found
            else:
                value, stamp = words[1].decode("utf-8", "replace"), words[2].decode("utf-8", "replace")
            yield Line(series, self._time_ms(number, stamp), _number(number, value))

    def _taken_apart(self, number: int, raw: bytes) -> tuple[int, str, str] | None:
        """Series, value and time stamp of a line that is met first, or not of the plain form; None for a blank one."""
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            raise ImportFault(f"line {number}: not UTF-8") from None
        if not line.strip() or line.lstrip()[0] == "#":
            return None
        found = _LINE.fullmatch(line)
        if found is None or not found[1]:
            raise ImportFault(f"line {number}: not `name{{labels}} value timestamp`: {_shown(line)}")
        text, value, stamp = found.groups()
        if stamp is None:
            raise ImportFault(f"line {number}: the sample has no time stamp: {_shown(line)}")
        labels = _labels(number, text)
        series = self._numbers.setdefault(labels, len(self._numbers))
        if line == f"{text} {value} {stamp}":
            self._known[text.encode()] = series
        return series, value, stamp

    def _time_ms(self, number: int, stamp: str) -> int:
        if not self.openmetrics:
            if not stamp.removeprefix("-").isdecimal() or not stamp.isascii() or len(stamp) > 17:
                raise ImportFault(
                    f"line {number}: {_shown(stamp)} is no time stamp in milliseconds (in OpenMetrics it is seconds, "
                    "and the last line is # EOF)"
                )
            time_ms = int(stamp)
        else:
            seconds = _number(number, stamp)
            if not math.isfinite(seconds):
                raise ImportFault(f"line {number}: {_shown(stamp)} is no time stamp")
            time_ms = round(max(min(seconds, 1e15), -1e15) * 1000)
        if abs(time_ms) > STAMP_MAX_MS:
            raise ImportFault(f"line {number}: the time stamp {_shown(stamp)} is beyond all times")
        return time_ms


def _ends_with_eof(file: IO[bytes]) -> bool:
    size = file.seek(0, 2)
    file.seek(max(0, size - 4096))
    return file.read().rstrip().rpartition(b"\n")[2].rstrip() == _EOF


def _number(number: int, text: str) -> float:
    try:
        if "_" in text or not text.isascii():
            raise ValueError
        return float(text)
    except ValueError:
        raise ImportFault(f"line {number}: {_shown(text)} is no number") from None


def _labels(number: int, text: str) -> Labels:
    """Of `name{a="b"}` or `{"a name",a="b"}`."""
    name, brace, rest = text.partition("{")
    name = name.rstrip(" \t")
    if name and not _NAME.fullmatch(name):
        raise ImportFault(f"line {number}: {_shown(name)} is no metric name")
    block = rest[:-1].rstrip(" \t") if brace else ""
    pairs: list[tuple[str, str]] = []
    place = 0
    while place < len(block):
        found = _LABEL.match(block, place)
        if found is None:
            raise ImportFault(f"line {number}: not a label: {_shown(block[place:])}")
        key, value = found[1], found[2]
        place = found.end()
        is_quoted = key[0] == '"'
        if is_quoted:
            key = _unescaped(key[1:-1])
        if value is not None:
            pairs.append((key, _unescaped(value[1:-1])))
        elif is_quoted and not name and not pairs:
            name = key
        else:
            raise ImportFault(f"line {number}: the label {_shown(key)} has no value")
    if not name:
        raise ImportFault(f"line {number}: a sample without a metric name")
    keys = {key for key, _ in pairs}
    if len(keys) != len(pairs) or METRIC_NAME in keys or "" in keys:
        raise ImportFault(f"line {number}: a label is given twice, is empty, or is {METRIC_NAME}")
    return labels_from([(METRIC_NAME, name), *pairs])


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda found: _UNESCAPED[found[1]], text) if "\\" in text else text


def _shown(text: str) -> str:
    """What was there, short enough for a sentence."""
    return repr(text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 3] + "...")
