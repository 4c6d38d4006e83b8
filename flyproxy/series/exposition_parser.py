"""The text formats of /metrics, read: Prometheus' 0.0.4 and OpenMetrics 1.0.

Goal: the second and every later scrape of a target costs what its numbers cost. Between scrapes only values change, so
a Reader keeps the text of each line up to its value. A line is cut at its last space; when all these texts and all
comments are those of last time, the answer is last time's series and a new array of values. Otherwise each line whose
text is known costs a dictionary look-up, and only new ones are taken apart. Lines with a time stamp or an exemplar are
cut by a regular expression instead, since their last word is not the value. Measured on 10,000 lines: 2.6 M lines/s
unchanged, 0.3 with time stamps, 0.1 when all are new; prometheus_client's parser 0.05.

Worst case: 16 MiB from a stranger. Every expression here is linear (no nested repetition can match the same text in two
ways). Lines, samples and the longest line are counted in the bytes before any of them costs an object, and the text is
decoded slice by slice: so no call holds the interpreter for long (16 MB of 200,000 series: read in 1.3 s, then 0.1 s,
with a loop beside it at most 20 ms late), and a refused page costs no more memory than its bytes. A reader remembers no
more than the last page; equal labels of a page are one object.

Time stamps and exemplars are checked for their form and left out: all samples of a target get the scrape's own time.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from flyproxy.errors import FlyproxyError
from flyproxy.series.exposition_metadata import QUOTED, Comments, metadata_of, unescaped
from flyproxy.series.labels import METRIC_NAME, Labels
from flyproxy.series.metadata import Metadata
from flyproxy.series.samples import Bools, Floats

# Loops are unrolled (text, then quoted and text again): each character is matched in one way only, and in long strides.
_BLOCK = rf'\{{[^"}}]*(?:{QUOTED}[^"}}]*)*\}}'
# Possessive (`*+`) wherever two runs of blanks meet: else a line of n blanks would be tried in n * n ways.
_SERIES = rf'(?:[^\s{{"#]*+[ \t]*+{_BLOCK}[ \t]*+|[^\s{{"#]++[ \t]++)'
_LINE = re.compile(rf"[ \t]*+({_SERIES})([^\s#{{}}]+)(?:[ \t]+([^\s#]+))?[ \t]*(#.*)?")
_EXEMPLAR = re.compile(rf"#[ \t]*{_BLOCK}[ \t]+([^\s]+)(?:[ \t]+([^\s]+))?[ \t]*")
_LABEL = re.compile(rf"[ \t]*([a-zA-Z_][a-zA-Z0-9_]*|{QUOTED})[ \t]*(?:=[ \t]*({QUOTED})[ \t]*)?(,|\Z)", re.ASCII)
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*", re.ASCII)
_TYPE = re.compile(rf'#[ \t]*TYPE[ \t]+({QUOTED}|[^\s"]+)[ \t]+([a-z]+)[ \t]*')

Body = bytes | bytearray | memoryview
SLICE_BYTES = 256 * 1024
"""Decoded and cut into lines at once."""

_GROWING: dict[str, tuple[str, ...]] = {
    "counter": ("", "_total"),
    "histogram": ("_bucket", "_count", "_sum"),
    "summary": ("_count", "_sum"),
}
"""The suffixes of a family's series that only ever grow, by the family's type."""


class ExpositionError(FlyproxyError):
    """A page that cannot be read; the whole scrape fails. Says the line where it is known."""


class ExpositionLimitError(ExpositionError):
    """A page beyond a bound; `limit` is its name in Bounds. The sentence says what was got and what is accepted."""

    def __init__(self, limit: str, message: str, samples: int = 0) -> None:
        super().__init__(message)
        self.limit = limit
        self.samples = samples
        """On the page, where that was the bound."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one page may hold."""

    samples: int = 100_000
    labels: int = 64
    """Of one series."""
    label_name_characters: int = 512
    label_value_characters: int = 8192
    """The metric's name is one."""
    lines: int = 500_000
    """Comments too: each family has some, each sample may be a family of its own."""
    metadata_characters: int = 512 * 1024
    """Of all names, helps and units that are remembered; families beyond have no metadata."""

    @property
    def line_bytes(self) -> int:
        """Of one line; longer than any that keeps to the other bounds and escapes little."""
        return max(1024 * 1024, 4 * (self.label_name_characters + self.label_value_characters))


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """One scrape's samples, in the order of the page; a series may be there twice."""

    series: tuple[Labels, ...]
    """The same object as long as the page's series are the same."""
    counters: Bools
    """[series] by `# TYPE`; the same object as long as `series` is."""
    values: Floats
    """[series]"""
    metadata: Mapping[str, Metadata] = field(default_factory=dict)
    """By metric name; the same object as long as the page's comments are the same."""


class Reader:
    """Reads the pages of one target, one after the other."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        """May be changed between two pages."""
        self._keys: list[str] | None = None
        # Per sample, the line up to its last space; None when that is not all there is to know of some line.
        self._commented: int | None = None
        # A hash over all comments and the format. They are not kept, since they may be all of a page; and no page can
        # be made that hashes alike, since Python's hashes are keyed.
        self._known: dict[str, Labels] = {}
        self._series: tuple[Labels, ...] = ()
        self._counters: Bools = np.zeros(0, np.bool_)
        self._metadata: Mapping[str, Metadata] = {}

    def read(self, body: Body, *, openmetrics: bool) -> Page:
        """The page's samples; raises ExpositionError, after which the reader can be used on."""
        _check_counts(body, self.bounds)
        end = _before_eof(body) if openmetrics else len(body)
        if self._keys is not None:
            values = self._read_unchanged(body, end, openmetrics)
            if values is not None:
                return Page(self._series, self._counters, values, self._metadata)
        return self._read_changed(body, end, openmetrics)

    def _read_unchanged(self, body: Body, end: int, openmetrics: bool) -> Floats | None:
        """The values, when nothing else is on the page that was not there the last time."""
        keys: list[str] = []
        words: list[str] = []
        commented = hash(openmetrics)
        for _, lines in _slices(body, end):
            for line in lines:
                if not line:
                    continue
                if line[0] == "#":
                    commented = hash((commented, line))
                    continue
                key, _, word = line.rpartition(" ")
                keys.append(key)
                words.append(word)
        if keys == self._keys and commented == self._commented:
            return _numbers(words)
        return None

    def _read_changed(self, body: Body, end: int, openmetrics: bool) -> Page:
        known = self._known
        keys: list[str] = []
        series: list[Labels] = []
        words: list[str] = []
        commented = hash(openmetrics)
        comments = Comments(self.bounds.metadata_characters, self.bounds.samples)
        seen: dict[str, Labels] = {}
        pairs: dict[tuple[str, str], tuple[str, str]] = {}
        cuttable = True
        for first, lines in _slices(body, end):
            for number, line in enumerate(lines, first):
                if not line:
                    continue
                if line[0] == "#":
                    commented = hash((commented, line))
                    comments.add(line)
                    continue
                key, _, word = line.rpartition(" ")
                labels = known.get(key)
                if labels is None or "\t" in word or "#" in word or "}" in word:  # then the last word is not the value
                    if not line.strip():
                        continue
                    if line.lstrip()[0] == "#":
                        commented = hash((commented, line))
                        comments.add(line.lstrip())
                        cuttable = False
                        continue
                    key, word, whole = _split(number, line, openmetrics)
                    cuttable = cuttable and whole
                    labels = seen.get(key) or known.get(key)
                    if labels is None:
                        labels = _labels_of(number, key, self.bounds, pairs)
                if len(keys) >= self.bounds.samples:  # indented lines were not counted before
                    raise _too_many("samples", len(keys) + 1, self.bounds.samples, "or more ")
                seen[key] = labels
                keys.append(key)
                series.append(labels)
                words.append(word)
        values = _numbers(words)
        if values is None:
            raise _bad_number(body, end)
        if commented != self._commented:
            self._metadata = metadata_of(comments.said, openmetrics, self.bounds.metadata_characters)
        self._remember(tuple(series), comments, commented)
        self._known, self._keys = seen, keys if cuttable else None
        return Page(self._series, self._counters, values, self._metadata)

    def _remember(self, series: tuple[Labels, ...], comments: Comments, commented: int) -> None:
        if series != self._series or commented != self._commented:
            growing = frozenset(_growing_names(comments.said))
            counters = np.array([labels_name(labels) in growing for labels in series], np.bool_)
            if series != self._series or not np.array_equal(counters, self._counters):
                self._series, self._counters = series, counters
        self._commented = commented


def labels_name(labels: Labels) -> str:
    """The metric's name. It sorts before every label that begins with a lower-case letter, so it is mostly first."""
    for name, value in labels:
        if name == METRIC_NAME:
            return value
    return ""


def _check_counts(body: Body, bounds: Bounds) -> None:
    """Refuses too many lines or samples, and too long a line, before any of them costs an object."""
    if len(body) <= min(bounds.lines, 2 * bounds.samples, bounds.line_bytes):
        return  # a line has an end, and a sample a letter too
    lines = sum(int(np.count_nonzero(slice_ == _NEWLINE)) for _, slice_ in _arrays(body))
    if lines > bounds.lines:
        raise _too_many("lines", lines, bounds.lines)
    samples = 0
    begin = 0  # of the line that a slice begins within
    for start, slice_ in _arrays(body):
        ends = np.flatnonzero(slice_ == _NEWLINE) + start
        begins = np.concatenate(([begin], ends + 1))
        longest = int(np.diff(begins, append=start + len(slice_) + 1).max()) - 1
        if longest > bounds.line_bytes:
            raise ExpositionLimitError("label_value_characters", f"a line of more than {bounds.line_bytes} bytes")
        inside = begins[(begins >= start) & (begins < start + len(slice_))]
        samples += int(np.count_nonzero(_BEGINS_SAMPLE[slice_[inside - start]]))
        begin = int(begins[-1])
    if samples > bounds.samples:
        raise _too_many("samples", samples, bounds.samples)


def _arrays(body: Body) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
    """(place, bytes) of one slice after the other."""
    for start in range(0, len(body), SLICE_BYTES):
        yield start, np.frombuffer(body, np.uint8, min(SLICE_BYTES, len(body) - start), start)


_NEWLINE = ord("\n")
_BEGINS_SAMPLE = np.array([chr(byte).isalpha() or chr(byte) in "_:{" for byte in range(128)] + [False] * 128, np.bool_)
"""[byte] True for what a line of a sample can begin with; blanks before it are not looked past."""


def _too_many(limit: str, got: int, accepted: int, at_least: str = "") -> ExpositionLimitError:
    samples = got if limit == "samples" else 0
    return ExpositionLimitError(limit, f"{got} {at_least}{limit}, at most {accepted} are accepted", samples)


def _slices(body: Body, end: int) -> Iterator[tuple[int, list[str]]]:
    """(number of the first line, lines) of one slice after the other, which end where lines end."""
    number = 1
    start = 0
    while start < end:
        slice_ = _whole_lines(body, start, end)
        try:
            text = slice_.decode("utf-8")
        except UnicodeDecodeError as fault:
            line = number + slice_.count(b"\n", 0, fault.start)
            raise ExpositionError(f"line {line}: not UTF-8 at byte {start + fault.start}") from None
        if number == 1 and text[0] == "\ufeff":
            raise ExpositionError("line 1: a byte order mark, which is no part of the format")
        if "\r\n" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        if not lines[-1]:
            lines.pop()
        yield number, lines
        number += len(lines)
        start += len(slice_)


def _whole_lines(body: Body, start: int, end: int) -> bytes:
    """About a slice from there on, up to the end of a line."""
    size = SLICE_BYTES
    while True:
        slice_ = bytes(body[start : min(start + size, end)])
        if start + size >= end:
            return slice_
        length = slice_.rfind(b"\n") + 1
        if length:
            return slice_[:length]
        size *= 2


def _before_eof(body: Body) -> int:
    """How long the page is before its end mark: OpenMetrics says where it ends, so one that was cut short is known."""
    tail = bytes(body[-8:])
    for mark in (b"# EOF\n", b"# EOF", b"# EOF\r\n"):
        end = len(body) - len(mark)
        if tail.endswith(mark) and (end == 0 or body[end - 1] == _NEWLINE):
            return end
    raise ExpositionError("no `# EOF` at the end: the page was cut short, or goes on after it")


def _numbers(words: list[str]) -> Floats | None:
    """None when one is no number. Python reads more than the format has: `1_000`, digits of other scripts, blanks."""
    joined = "".join(words)
    if "_" in joined or not joined.isascii() or not joined.isprintable():
        return None
    try:
        return np.array(list(map(float, words)), dtype=np.float64)
    except ValueError:
        return None


def _is_number(word: str) -> bool:
    return _numbers([word]) is not None


def _bad_number(body: Body, end: int) -> ExpositionError:
    """The first line whose value is none; looked for only when there is one."""
    for first, lines in _slices(body, end):
        for number, line in enumerate(lines, first):
            if not line.strip() or line.lstrip()[0] == "#":
                continue
            found = _LINE.fullmatch(line)
            if found is None:
                return _bad_line(number, line)
            if not _is_number(found[2]):
                return ExpositionError(f"line {number}: {_shown(found[2])} is no number")
    raise AssertionError("only called when there is one")


def _bad_line(number: int, line: str) -> ExpositionError:
    return ExpositionError(f"line {number}: not `name{{labels}} value`: {_shown(line)}")


def _split(number: int, line: str, openmetrics: bool) -> tuple[str, str, bool]:
    """(series, value, whether the value is what follows the line's last space)."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise _bad_line(number, line)
    series, value, stamp, exemplar = found.groups()
    if stamp is not None and not _is_number(stamp):
        raise ExpositionError(f"line {number}: {_shown(stamp)} is no time stamp")
    if exemplar is not None and not (openmetrics and _is_exemplar(exemplar)):
        raise ExpositionError(f"line {number}: unexpected {_shown(exemplar)} after the value")
    key = series.rstrip(" \t")
    return key, value, line == f"{key} {value}"


def _is_exemplar(text: str) -> bool:
    found = _EXEMPLAR.fullmatch(text)
    return found is not None and _is_number(found[1]) and (found[2] is None or _is_number(found[2]))


def _labels_of(number: int, text: str, bounds: Bounds, known: dict[tuple[str, str], tuple[str, str]]) -> Labels:
    """Sorted, without empty ones; `known` are the page's pairs so far, each kept once."""
    pairs = _pairs(number, text)
    if len(pairs) - 1 > bounds.labels:
        raise ExpositionLimitError(
            "labels", f"line {number}: {len(pairs) - 1} labels, at most {bounds.labels} are accepted"
        )
    for name, value in pairs:
        for limit, text, accepted in (
            ("label_name_characters", name, bounds.label_name_characters),
            ("label_value_characters", value, bounds.label_value_characters),
        ):
            if len(text) > accepted:
                what = "name" if text is name else "value"
                raise ExpositionLimitError(
                    limit,
                    f"line {number}: the {what} of the label {_shown(name)} has {len(text)} characters, "
                    f"at most {accepted} are accepted",
                )
    return tuple(sorted(known.setdefault(pair, pair) for pair in pairs if pair[1]))


def _pairs(number: int, text: str) -> list[tuple[str, str]]:
    """Labels of `name{a="b"}` or `{"a name",a="b"}`, the name among them as `__name__`."""
    name, brace, rest = text.partition("{")
    name = name.rstrip(" \t")
    if name and not _NAME.fullmatch(name):
        raise ExpositionError(f"line {number}: {_shown(name)} is no metric name")
    pairs: list[tuple[str, str]] = []
    block = rest[:-1].rstrip(" \t") if brace else ""
    place = 0
    while place < len(block):
        found = _LABEL.match(block, place)
        if found is None:
            raise ExpositionError(f"line {number}: not a label: {_shown(block[place:])}")
        key, value = found[1], found[2]
        place = found.end()
        if key[0] == '"':
            key = unescaped(key[1:-1])
        if value is not None:
            pairs.append((key, unescaped(value[1:-1])))
        elif found[1][0] == '"' and not name and not pairs:
            name = key
        else:
            raise ExpositionError(f"line {number}: the label {_shown(key)} has no value")
    if not name:
        raise ExpositionError(f"line {number}: a sample without a metric name")
    names = {key for key, _ in pairs}
    if len(names) != len(pairs) or METRIC_NAME in names or "" in names:
        raise ExpositionError(f"line {number}: a label is given twice, is empty, or is {METRIC_NAME}")
    return [(METRIC_NAME, name), *pairs]


def _growing_names(comments: Iterable[str]) -> Iterator[str]:
    for comment in comments:
        found = _TYPE.fullmatch(comment)
        if found is None:
            continue
        name = unescaped(found[1][1:-1]) if found[1][0] == '"' else found[1]
        for suffix in _GROWING.get(found[2], ()):
            yield name + suffix


def _shown(text: str) -> str:
    """What was there, short enough for a sentence."""
    return repr(text if len(text) <= 64 else text[:61] + "...")
