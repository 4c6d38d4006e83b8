"""Which rows of a frame match: label columns, dictionary-coded.

A matcher is asked once per distinct value of its label, whatever the number of series and frames, and then becomes one
comparison of integers (one value wanted) or one look-up per row. A frame without the wanted value is left unread.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from flyproxy.series.labels import Labels
from flyproxy.series.matchers import Matcher, MatchOp
from flyproxy.tsdb.layout import Codes, Column

Rows = npt.NDArray[np.int64]

VERDICTS_MAX = 256
"""Matchers whose verdicts on label values are kept."""
VERDICT_VALUES_MAX = 1_000_000
"""Distinct values kept for all matchers together; beyond it the matchers that were not used for longest go."""


class Verdicts:
    """Which label values each matcher takes, remembered across frames and queries."""

    def __init__(self) -> None:
        self._known: OrderedDict[Matcher, tuple[Callable[[str], bool], dict[str, bool]]] = OrderedDict()
        self._values = 0

    def of(self, matcher: Matcher, values: Sequence[str]) -> list[bool]:
        """[values] Raises BadPatternError."""
        held = self._known.get(matcher)
        if held is None:
            held = self._known[matcher] = (matcher.predicate(), {})
        self._known.move_to_end(matcher)
        accepts, known = held
        before = len(known)
        verdicts = []
        for value in values:
            verdict = known.get(value)
            if verdict is None:
                verdict = known[value] = accepts(value)
            verdicts.append(verdict)
        self._values += len(known) - before
        while len(self._known) > VERDICTS_MAX or self._values > VERDICT_VALUES_MAX:
            self._values -= len(self._known.popitem(last=False)[1][1])
        return verdicts


class FrameIndex:
    """The labels of one frame's series; grows as series are appended."""

    def __init__(self) -> None:
        self.count = 0
        self._columns: dict[str, _Column] = {}
        self._labels: list[Labels | None] = []
        self._lost: list[tuple[int, int]] = []

    def extend(self, count: int, columns: Sequence[Column]) -> None:
        """Append `count` series."""
        for column in columns:
            self._columns.setdefault(column.name, _Column(column.name)).append(self.count, column)
        self.count += count
        self._labels += [None] * count

    def extend_lost(self, count: int) -> None:
        """Append series whose labels were damaged; they never match."""
        self._lost.append((self.count, self.count + count))
        self.extend(count, ())

    def match(self, matchers: Sequence[Matcher], verdicts: Verdicts) -> Rows:
        """Rows, ascending, of the series all matchers take. Raises BadPatternError."""
        rows: Rows | None = None
        for matcher in sorted(matchers, key=lambda matcher: matcher.op is not MatchOp.EQUAL):
            column = self._columns.get(matcher.name)
            if column is None:
                if not verdicts.of(matcher, ("",))[0]:
                    return _NO_ROWS
                continue
            rows = column.match(matcher, verdicts, rows, self.count)
            if not rows.size:
                return rows
        if rows is None:
            rows = np.arange(self.count)
        for start, end in self._lost:
            rows = rows[(rows < start) | (rows >= end)]
        return rows

    def labels(self, rows: Rows) -> list[Labels]:
        """[rows] Their label sets, built when first asked for."""
        wanted = rows.tolist()
        missing = [row for row in wanted if self._labels[row] is None]
        if missing:
            for row, labels in zip(missing, self._built(np.array(missing)), strict=True):
                self._labels[row] = labels
        if len(wanted) < 2:
            return [self._labels[row] for row in wanted]
        return list(itemgetter(*wanted)(self._labels))

    def names(self, rows: Rows) -> set[str]:
        """The label names those series have."""
        return {name for name, column in self._columns.items() if column.codes_at(rows).any()}

    def values(self, name: str, rows: Rows) -> set[str]:
        """The values the label has among those series."""
        column = self._columns.get(name)
        if column is None:
            return set()
        return {column.values[code] for code in np.unique(column.codes_at(rows)).tolist() if code}

    def columns(self) -> list[Column]:
        """Every label of the frame's series, as a layout of all of them would have it."""
        every = np.arange(self.count)
        return [Column(name, held.values[1:], held.codes_at(every)) for name, held in self._columns.items()]

    def _built(self, rows: Rows) -> list[Labels]:
        columns = []
        for name in sorted(self._columns):
            pairs = self._columns[name].pairs
            columns.append([pairs[code] for code in self._columns[name].codes_at(rows).tolist()])
        if not columns:
            return [()] * rows.size
        return [tuple(filter(None, row)) for row in zip(*columns, strict=True)]


class _Column:
    """One label: `codes` [series of the frame] into `values`; code 0 is "", absent."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.values = [""]
        self.pairs: list[tuple[str, str] | None] = [None]
        self._code: dict[str, int] = {"": 0}
        self._codes = np.zeros(0, np.int32)
        self._used = 0

    def append(self, start: int, column: Column) -> None:
        """Series `start` ... have the codes of `column`; those between the last run and this one have no such label."""
        recoded = np.array([0] + [self._coded(value) for value in column.values], np.int32)
        end = start + column.codes.size
        if end > self._codes.size:
            grown = np.zeros(max(end, self._codes.size * 3 // 2), np.int32)
            grown[: self._used] = self._codes[: self._used]
            self._codes = grown
        self._codes[start:end] = recoded[column.codes]
        self._used = end

    def codes_at(self, rows: Rows) -> Codes:
        """[rows]"""
        if not rows.size or rows[-1] < self._used:
            return self._codes[rows]
        codes = np.zeros(rows.size, np.int32)
        there = rows < self._used
        codes[there] = self._codes[rows[there]]
        return codes

    def match(self, matcher: Matcher, verdicts: Verdicts, rows: Rows | None, count: int) -> Rows:
        """Those of `rows` (ascending; None: all `count`) that the matcher takes."""
        if matcher.op is MatchOp.EQUAL and matcher.value:
            code = self._code.get(matcher.value)
            if code is None:
                return _NO_ROWS
            if rows is None:
                return np.flatnonzero(self._codes[: self._used] == code)
            among: Rows = rows[self.codes_at(rows) == code]
            return among
        taken = np.array(verdicts.of(matcher, self.values))
        if rows is None:
            if self._used == count or not taken[0]:
                return np.flatnonzero(taken[self._codes[: self._used]])
            rows = np.arange(count)
        left: Rows = rows[taken[self.codes_at(rows)]]
        return left

    def _coded(self, value: str) -> int:
        code = self._code.get(value)
        if code is None:
            code = self._code[value] = len(self.values)
            self.values.append(value)
            self.pairs.append((self.name, value))
        return code


_NO_ROWS: Rows = np.empty(0, np.int64)
