"""One organization's samples as OpenMetrics text with time stamps, as `promtool tsdb create-blocks-from openmetrics`
takes it: family by family, all samples of a series in a run and in the order of time, `# EOF` at the end.

Same samples, same bytes: neither the frames they lie in nor the slices they are read in show. A stale marker has no
spelling, so a series simply has no more samples; a newborn counter's zero is a sample like any other.

The store keeps columns of many series, the text wants one series after the other. Memory is bounded by reading a family
in slices of time (SLICE_SAMPLES a second's beat would fill) and laying their texts, in the order of the series, into a
spool on disk; then each series collects its pieces from all slices.

Time stamps: Prometheus cuts seconds * 1000 to whole milliseconds instead of rounding (textparse, 2.x and 3.x), so where
the nearest float lies below the millisecond the next one is written: 1700000000.1230001.
"""

import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from tempfile import SpooledTemporaryFile

import numpy as np

from flyproxy.series.frame import ABSENT_BITS, STALE_BITS, Bools, Floats, Frame, Times
from flyproxy.series.labels import METRIC_NAME, Labels, label_value
from flyproxy.series.matchers import Matcher, MatchOp
from flyproxy.tsdb.openmetrics_families import NamedFamily, families_of
from flyproxy.tsdb.reader import MatcherSets, OrganizationView

Write = Callable[[bytes], object]

SLICE_SAMPLES = 1 << 24
"""How many samples of a family are read at once, were there one a second of each series."""
SPOOL_BYTES = 64 << 20
"""Text of one family that is kept in memory before it goes to a temporary file."""
EARLIEST_MS, LATEST_MS = -(1 << 52), 1 << 52

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*", re.ASCII)
_BOUND = re.compile(r"[+-]?(?:Inf|\d+(?:\.\d*)?(?:e[+-]?\d+)?)", re.ASCII)
_PIECE = struct.Struct("<qq")
"""Before each piece of the spool: the series' number, the bytes of text."""
_WHOLE_MAX = 1e15
_NO_MORE = -1


@dataclass(slots=True)
class Exported:
    """What an export wrote."""

    families: int = 0
    series: int = 0
    samples: int = 0


def export(
    view: OrganizationView,
    write: Write,
    *,
    types: Mapping[str, str],
    matcher_sets: MatcherSets = (),
    start_ms: int = EARLIEST_MS,
    end_ms: int = LATEST_MS,
) -> Exported:
    """Writes the samples with start_ms <= t <= end_ms of the series that any set takes (none at all: every series), as
    they were when the reader was last refreshed. Raises StoreError, BadPatternError, and what `write` raises."""
    sets = [tuple(matchers) for matchers in matcher_sets] or [()]
    done = Exported()
    span = _span(view, sets, start_ms, end_ms)
    if span is not None:
        for family in families_of(view.label_values(METRIC_NAME, sets, *span), types):
            _export_family(view, family, sets, span, write, done)
    write(b"# EOF\n")
    return done


def _export_family(
    view: OrganizationView,
    family: NamedFamily,
    sets: MatcherSets,
    span: tuple[int, int],
    write: Write,
    done: Exported,
) -> None:
    wanted = [[*matchers, Matcher(METRIC_NAME, MatchOp.EQUAL, name)] for name in family.metrics for matchers in sets]
    series = sorted(view.series(wanted, *span), key=_order)
    if not series:
        return
    number = {labels: place for place, labels in enumerate(series)}
    slice_ms = max(1000 * SLICE_SAMPLES // len(series), 1000)
    header = f"# TYPE {_metric_text(family.name)} {family.type}\n".encode()
    with SpooledTemporaryFile(SPOOL_BYTES) as file:
        spool = _Spool(file)
        for begin in range(span[0], span[1] + 1, slice_ms):
            end = min(begin + slice_ms - 1, span[1])
            frames = [frame for matchers in wanted for frame in view.select(matchers, begin, end)]
            done.samples += spool.add(_texts(frames, number))
        written = 0
        for text, is_first in spool.in_order(len(series)):
            if not written:
                write(header)
            written += is_first
            write(text)
    done.series += written
    done.families += written > 0


def _order(labels: Labels) -> tuple[str, Labels, float, Labels]:
    """By metric name, then by labels, the buckets of one histogram ascending."""
    bound = label_value(labels, "le")
    rest = tuple([pair for pair in labels if pair[0] != "le"])
    return label_value(labels, METRIC_NAME), rest, float(bound) if _BOUND.fullmatch(bound) else -math.inf, labels


def _span(view: OrganizationView, sets: MatcherSets, start_ms: int, end_ms: int) -> tuple[int, int] | None:
    """The first and the last millisecond at which a series may have been there; None where there is nothing."""
    if start_ms > end_ms or not view.label_values(METRIC_NAME, sets, start_ms, end_ms):
        return None
    first, low = end_ms, start_ms
    while low < first:
        middle = (low + first) // 2
        if view.label_values(METRIC_NAME, sets, start_ms, middle):
            first = middle
        else:
            low = middle + 1
    last, high = first, end_ms
    while last < high:
        middle = (last + high + 1) // 2
        if view.label_values(METRIC_NAME, sets, middle, end_ms):
            last = middle
        else:
            high = middle - 1
    return first, last


class _Spool:
    """Texts of series, slice by slice in the order of their numbers, read back series by series."""

    def __init__(self, file: "SpooledTemporaryFile[bytes]") -> None:
        self._file = file
        self._slices: list[int] = []
        """Where the next piece of each slice stands."""

    def add(self, texts: Iterator[tuple[int, bytes, int]]) -> int:
        """One more slice: number, text and samples of each of its series, numbers ascending. Returns its samples."""
        begin, samples = self._file.tell(), 0
        for number, text, count in texts:
            self._file.write(_PIECE.pack(number, len(text)) + text)
            samples += count
        if samples:
            self._file.write(_PIECE.pack(_NO_MORE, 0))
            self._slices.append(begin)
        return samples

    def in_order(self, series: int) -> Iterator[tuple[bytes, bool]]:
        """Every series' texts, slice after slice; True with the first of each series."""
        heads = [self._head(at) for at in self._slices]
        for number in range(series):
            is_first = True
            for place, (here, size) in enumerate(heads):
                if here == number:
                    at = self._slices[place] + _PIECE.size
                    self._file.seek(at)
                    yield self._file.read(size), is_first
                    is_first = False
                    self._slices[place] = at + size
                    heads[place] = self._head(at + size)

    def _head(self, at: int) -> tuple[int, int]:
        self._file.seek(at)
        number, size = _PIECE.unpack(self._file.read(_PIECE.size))
        return number, size


def _texts(frames: Sequence[Frame], number: Mapping[Labels, int]) -> Iterator[tuple[int, bytes, int]]:
    """Number, text and samples of every series that has a sample, numbers ascending."""
    stamps = [_stamps(frame.timestamps_ms) for frame in frames]
    places: dict[int, list[tuple[int, int]]] = {}
    for place, frame in enumerate(frames):
        for row, labels in enumerate(frame.labels):
            if labels in number:  # else it was born, or taken in, after the export began
                places.setdefault(number[labels], []).append((place, row))
    for series in sorted(places):
        where = places[series]
        frame = frames[where[0][0]]
        prefix = _series_text(frame.labels[where[0][1]])
        if len(where) == 1:
            values, there = _samples(frame.values[where[0][1]])
            texts = stamps[where[0][0]]
            times = texts if there is None else [texts[column] for column in np.flatnonzero(there).tolist()]
        else:
            moments, values = _merged([(frames[place], row) for place, row in where])
            times = _stamps(moments)
        if values.size:
            lines = [f"{prefix} {value} {time}\n" for value, time in zip(_numbers(values), times, strict=True)]
            yield series, "".join(lines).encode(), values.size


def _samples(row: Floats) -> tuple[Floats, Bools | None]:
    """The samples of a row, and where they stand; None where that is everywhere."""
    bits = row.view(np.uint64)
    there = (bits != np.uint64(ABSENT_BITS)) & (bits != np.uint64(STALE_BITS))
    return (row, None) if there.all() else (row[there], there)


def _merged(rows: Sequence[tuple[Frame, int]]) -> tuple[Times, Floats]:
    """The samples of one series that lies in several frames, in the order of time; of one time the first frame's."""
    moments, values = [], []
    for frame, row in rows:
        some, there = _samples(np.ascontiguousarray(frame.values[row]))
        values.append(some)
        moments.append(frame.timestamps_ms if there is None else frame.timestamps_ms[there])
    times, first = np.unique(np.concatenate(moments), return_index=True)
    return times, np.concatenate(values)[first]


def _stamps(times_ms: Times) -> list[str]:
    return [stamp_text(time_ms) for time_ms in times_ms.tolist()]


def stamp_text(time_ms: int) -> str:
    """Seconds that are this millisecond again, whether a reader rounds or cuts."""
    if time_ms % 1000 == 0:
        return str(time_ms // 1000)
    seconds = time_ms / 1000
    if int(seconds * 1000) == time_ms:
        return repr(seconds)
    away = math.inf if time_ms > 0 else -math.inf
    while int(seconds * 1000) != time_ms:
        seconds = math.nextafter(seconds, away)
    return repr(seconds)


def _numbers(values: Floats) -> list[str]:
    """The shortest texts that read back as the same floats."""
    whole = (np.abs(values) < _WHOLE_MAX) & (np.trunc(values) == values) & ~((values == 0) & np.signbit(values))
    if whole.all():
        return [str(value) for value in values.astype(np.int64).tolist()]
    texts = [_number(value) for value in values.tolist()]
    return [text.removesuffix(".0") if is_whole else text for text, is_whole in zip(texts, whole, strict=True)]


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return repr(value)


def _series_text(labels: Labels) -> str:
    name = label_value(labels, METRIC_NAME)
    pairs = [
        f'{key if _LABEL.fullmatch(key) else _quoted(key)}="{_escaped(value)}"'
        for key, value in labels
        if key != METRIC_NAME
    ]
    if not _NAME.fullmatch(name):
        return "{" + ",".join([_quoted(name), *pairs]) + "}"
    return name + "{" + ",".join(pairs) + "}" if pairs else name


def _metric_text(name: str) -> str:
    return name if _NAME.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    if "\\" in text or '"' in text or "\n" in text:
        return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return text
