"""The log decoded: a matrix that grows by a column for each row of the log, and by a row for each new series.

What was handed out as a view stays true: columns and rows are only added beyond it, and whenever cells must move they
move to a new array. (One cell can change under a view: a newborn counter's zero, where there was no sample.)
"""

from collections.abc import Sequence

import numpy as np

from flyproxy.series.frame import ABSENT, Floats, Times
from flyproxy.tsdb.log import Births, Bits, Rows

TILE_COLUMNS = 32
"""Columns turned over at once when many rows of the log are decoded."""
_SLACK = 8


class Head:
    """Every column of one frame with from_ms <= t, for all its series or for some of them."""

    def __init__(self, from_ms: int, series: int, columns: int) -> None:
        self.from_ms = from_ms
        self._series = series
        self._used = 0
        self._times: Times = np.empty(columns, np.int64)
        self._values: Floats = np.full((series, columns), ABSENT[0])

    @property
    def bytes(self) -> int:
        """What it occupies, spare room included."""
        return self._values.nbytes + self._times.nbytes

    @property
    def columns(self) -> int:
        return self._used

    def span(self, start_ms: int, end_ms: int) -> slice:
        """The columns with start_ms <= t <= end_ms."""
        times = self._times[: self._used]
        low = int(np.searchsorted(times, start_ms, "left"))
        return slice(low, int(np.searchsorted(times, end_ms, "right")))

    def times(self, columns: slice) -> Times:
        """[times] A view."""
        return self._times[columns]

    def values(self, rows: Rows | slice, columns: slice) -> Floats:
        """[rows, times] A view where the rows follow each other, else a copy; each row is contiguous."""
        if isinstance(rows, np.ndarray):
            if not rows.size or int(rows[-1]) - int(rows[0]) + 1 != rows.size:
                return self._values[rows, columns]
            rows = slice(int(rows[0]), int(rows[-1]) + 1)
        return self._values[rows, columns]

    def append(self, timestamp_ms: int, bits: Bits) -> None:
        """One column; series it does not reach have no sample in it."""
        self.extend([timestamp_ms], bits[np.newaxis])

    def extend(self, timestamps_ms: Sequence[int], columns: Bits) -> None:
        """Several columns [times, series], oldest first."""
        count, series = columns.shape
        self._reserve(series, count)
        start, self._used = self._used, self._used + count
        self._times[start : self._used] = timestamps_ms
        self._values.view(np.uint64)[:series, start : self._used] = columns.T

    def give_birth(self, births: Births) -> None:
        """Zeros for newborn counters: in the last column, or in one of their own after it."""
        if births.at_ms < self.from_ms:
            return
        if not self._used or self._times[self._used - 1] < births.at_ms:
            self._reserve(self._series, 1)
            self._times[self._used] = births.at_ms
            self._used += 1
        self._reserve(int(births.rows.max()) + 1, 0)
        self._values[births.rows, self._used - 1] = 0.0

    def prepend(self, earlier: "Head") -> None:
        """Columns before those here."""
        if not earlier.columns:
            self.from_ms = earlier.from_ms
            return
        values, times, used = self._values, self._times, self._used
        self._reallocate(len(values), earlier._used + len(times))
        self._times[: earlier._used] = earlier._times[: earlier._used]
        self._times[earlier._used : earlier._used + used] = times[:used]
        self._values[: len(earlier._values), : earlier._used] = earlier._values[:, : earlier._used]
        self._values[: self._series, earlier._used : earlier._used + used] = values[: self._series, :used]
        self._used = earlier._used + used
        self.from_ms = earlier.from_ms  # last: it must not claim what memory had no room for

    def keep_newest(self, columns: int) -> None:
        """Let older columns go, and spare room."""
        if columns >= self._used:
            columns = self._used
        elif columns:
            self.from_ms = int(self._times[self._used - columns])
        values, times, start = self._values, self._times, self._used - columns
        self._reallocate(self._series, columns + _SLACK)
        self._times[:columns] = times[start : self._used]
        self._values[:, :columns] = values[: self._series, start : self._used]
        self._used = columns

    def _reserve(self, series: int, columns: int) -> None:
        """Room for so many series in all, and so many more columns."""
        self._series = max(self._series, series)
        rows, room = self._values.shape
        if self._series <= rows and self._used + columns <= room:
            return
        if self._series > rows:
            rows = self._series + self._series // 8
        if self._used + columns > room:
            room = (self._used + columns) * 5 // 4 + _SLACK
        values, times = self._values, self._times
        self._reallocate(rows, room)
        self._times[: self._used] = times[: self._used]
        self._values[: len(values), : self._used] = values[:, : self._used]

    def _reallocate(self, rows: int, columns: int) -> None:
        values, times = np.full((rows, columns), ABSENT[0]), np.empty(columns, np.int64)
        self._values, self._times = values, times
