"""TYPE, HELP and UNIT of a page of /metrics, by the metric's name. Pure.

A name may be anything (a gauge named `x_total`, a counter named `x_count`), a HELP may be empty, and a line that cannot
be read says nothing. OpenMetrics names the family; a counter's samples are called `<family>_total` and an info's
`<family>_info`, which is the name a query has, so that is the name here.
"""

import re
from collections.abc import Iterable

from flyproxy.series.metadata import Metadata

QUOTED = r'"[^"\\]*(?:\\.[^"\\]*)*"'
"""The loop is unrolled: each character is matched in one way only."""

_LINE = re.compile(rf"#[ \t]*(TYPE|HELP|UNIT)[ \t]+({QUOTED}|[^\s\"]+)(?:[ \t]([^\n]*))?")
_SAYS = re.compile(r"#[ \t]*(TYPE|HELP|UNIT)[ \t]")
_ESCAPE = re.compile(r'\\([\\"n])')
_UNESCAPED = {"\\": "\\", '"': '"', "n": "\n"}
_TYPES = frozenset(
    ("counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset", "unknown"),
)
_SUFFIX = {"counter": "_total", "info": "_info"}
"""Of the samples of an OpenMetrics family."""
_UNKNOWN = Metadata("unknown", "", "")


class Comments:
    """Those of one page that say something, as far as they are worth keeping while it is read."""

    def __init__(self, characters_max: int, types_max: int) -> None:
        self.said: list[str] = []
        self._characters_left = characters_max
        """Of helps and units."""
        self._types_left = types_max

    def add(self, line: str) -> None:
        """A line that begins with `#`."""
        found = _SAYS.match(line)
        if found is None:
            return
        if found[1] == "TYPE":
            self._types_left -= 1
            keep = self._types_left >= 0
        else:
            self._characters_left -= len(line)
            keep = self._characters_left >= 0
        if keep:
            self.said.append(line)


def metadata_of(comments: Iterable[str], openmetrics: bool, characters_max: int) -> dict[str, Metadata]:
    """By metric name, of the first families that keep to this many characters."""
    found: dict[str, dict[str, str]] = {}
    left = characters_max
    for comment in comments:
        line = _LINE.fullmatch(comment)
        if line is None:
            continue
        name = unescaped(line[2][1:-1]) if line[2][0] == '"' else line[2]
        said = (line[3] or "") if line[1] == "HELP" else (line[3] or "").strip()
        left -= len(said) + (0 if name in found else len(name))
        if left < 0:
            break
        found.setdefault(name, {})[line[1]] = said
    return dict(_entry(name, said, openmetrics) for name, said in found.items())


def unescaped(text: str) -> str:
    """A label's value, a help text or a quoted name as it was before it was written."""
    return _ESCAPE.sub(lambda found: _UNESCAPED[found[1]], text) if "\\" in text else text


def _entry(name: str, said: dict[str, str], openmetrics: bool) -> tuple[str, Metadata]:
    kind = said.get("TYPE", "").lower()
    if kind not in _TYPES:
        kind = _UNKNOWN.type
    suffix = _SUFFIX.get(kind, "") if openmetrics else ""
    if not name.endswith(suffix):
        name += suffix
    return name, Metadata(kind, unescaped(said.get("HELP", "")), said.get("UNIT", ""))
