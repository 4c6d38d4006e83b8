"""/federate: the newest sample of each series as Prometheus' text, with its own time stamp in milliseconds.

What a page of an app said about its metrics is not stored with the samples, so a series' family is found by its name:
`x_bucket`, `x_sum` and `x_count` belong to a histogram `x`, `x_total` to a counter that OpenMetrics calls `x`. What
nobody said anything about is `untyped`. Families come in the order of their names, each once, as the format wants it.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from flyproxy.api.render import value_text
from flyproxy.series.exposition_writer import TEXT_TYPE
from flyproxy.series.labels import METRIC_NAME, Labels, label_value

CONTENT_TYPES = {False: TEXT_TYPE, True: "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"}
"""By whether the reader said it takes names beyond the old grammar."""
_METRIC = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*")
_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_STRANGE = re.compile(r"[^A-Za-z0-9_]")
_TEXT_TYPES = frozenset({"counter", "gauge", "histogram", "summary"})
"""What the text format 0.0.4 has a word for."""
_PARTS = {
    "_bucket": frozenset({"histogram"}),
    "_sum": frozenset({"histogram", "summary"}),
    "_count": frozenset({"histogram", "summary"}),
}


class LatestSample(Protocol):
    """One sample of one series."""

    @property
    def labels(self) -> Labels: ...
    @property
    def timestamp_ms(self) -> int: ...
    @property
    def value(self) -> float: ...


def federated(samples: Iterable[LatestSample], types: Mapping[str, str], *, utf8_names: bool = False) -> bytes:
    """The page. `types` by family; a series without a name is left out, since the format has no place for it. Names
    beyond the old grammar are quoted for who takes `utf8_names`; for others every strange character becomes `_`."""
    families: dict[str, list[bytes]] = {}
    kinds: dict[str, str] = {}
    lines: list[bytes] = []
    known: str | None = None
    shown = _quoted if utf8_names else _underscored
    for sample in samples:
        name = label_value(sample.labels, METRIC_NAME)
        if not name:
            continue
        if name != known:
            known = name
            family, kind = family_of(name, types)
            lines = families.setdefault(family, [])
            if kinds.setdefault(family, kind) != kind:  # two apps mean different things by one name
                kinds[family] = "untyped"
        lines.append(_line(name, sample, shown))
    pieces: list[bytes] = []
    for family in sorted(families):
        name = family if _METRIC.fullmatch(family) else shown(family)
        pieces.append(f"# TYPE {name} {kinds[family]}\n".encode())
        pieces += families[family]
    return b"".join(pieces)


def family_of(name: str, types: Mapping[str, str]) -> tuple[str, str]:
    """(family, its type in the text format) of a series by its name."""
    found = types.get(name)
    if found in _TEXT_TYPES and found != "histogram":
        return name, found
    for suffix, kinds in _PARTS.items():
        family = name.removesuffix(suffix)
        if family != name and (kind := types.get(family)) in kinds:
            return family, kind
    if name.endswith("_total") and types.get(name.removesuffix("_total")) == "counter":
        return name, "counter"
    return name, "untyped"


def _line(name: str, sample: LatestSample, shown: Callable[[str], str]) -> bytes:
    labels = [
        f'{key if _LABEL.fullmatch(key) else shown(key)}="{_escaped(value)}"'
        for key, value in sample.labels
        if key != METRIC_NAME
    ]
    if not _METRIC.fullmatch(name):
        name = shown(name)
        if name.startswith('"'):  # a quoted name stands among the labels
            name, labels = "", [name, *labels]
    block = "{" + ",".join(labels) + "}" if labels else ""
    return b"%s%s %s %d\n" % (name.encode(), block.encode(), value_text(sample.value), sample.timestamp_ms)


def _quoted(name: str) -> str:
    return f'"{_escaped(name)}"'


def _underscored(name: str) -> str:
    text = _STRANGE.sub("_", name)
    return f"_{text}" if text[:1].isdigit() else text


def _escaped(value: str) -> str:
    if "\\" in value or '"' in value or "\n" in value:
        return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return value
