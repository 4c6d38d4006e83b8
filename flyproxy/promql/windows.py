"""The window of every step over rows of samples, in index space.

Rows of one frame share their timestamps, so one search per frame finds the edges of every window: dense rows use them
as they are ([steps]). Rows with gaps are packed into one flat array without the gaps, and the shared edges are
translated by a running count ([rows, steps]); that is exact, and costs one pass. A kernel (range_functions) reads
both forms through `at` and `time_at`; what needs every sample of a window asks for `flat`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flyproxy.series.frame import ABSENT_BITS, STALE_BITS, Bools, Floats, Frame, Times

Index = npt.NDArray[np.int64]

_INTERVAL_SAMPLES = 20


@dataclass(frozen=True, slots=True, eq=False)
class WindowTimes:
    """When the windows of one range selector begin and end."""

    evaluated_ms: Times
    """[steps], the time the query asks for."""
    end_ms: Times
    """[steps], that time moved by offset and @."""
    range_ms: int
    left_open: bool
    """True: (end - range, end], Prometheus 3. False: closed, Prometheus 2."""
    reach_back_ms: int = 0
    """MetricsQL: how old the sample may be that a window too short for two samples reaches back to; 0 = strict."""

    @property
    def start_ms(self) -> Times:
        return self.end_ms - self.range_ms


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """All samples of some rows one after the other; every window is [lo, hi) of them."""

    values: Floats
    times: Times
    lo: Index
    """[rows, steps]"""
    hi: Index


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Some rows and their windows. Dense: values [rows, n], edges [steps]. Packed: values [m], edges [rows, steps]."""

    values: Floats
    times: Times
    lo: Index
    hi: Index
    at_times: WindowTimes
    interval_ms: int
    """How far apart the samples usually are."""
    checkpoint: Callable[[], None]
    """What a kernel calls between two pieces of long work; may raise to end the query."""
    row_begin: Index | int = 0
    """Packed: [rows, 1], where the row's samples begin."""
    ended: Index | None = None
    """Packed: [m], how many stale markers lie before this sample; None when there are none."""
    ended_by_step: Index | None = None
    """Packed: [rows, steps], how many lie before the end of the window."""

    @property
    def dense(self) -> bool:
        return self.values.ndim == 2

    @property
    def rows(self) -> int:
        return len(self.values) if self.dense else len(self.lo)

    @property
    def count(self) -> Index:
        """[steps] or [rows, steps], samples in each window."""
        return self.hi - self.lo

    def at(self, index: Index) -> Floats:
        """[rows, steps], the sample at this index (meaningless outside the window)."""
        return self.values.take(index, axis=-1, mode="clip")

    def time_at(self, index: Index) -> Times:
        """[steps] or [rows, steps]"""
        return self.times.take(index, mode="clip")

    def flat(self) -> Flat:
        """The windows over one flat array."""
        if not self.dense:
            return Flat(self.values, self.times, self.lo, self.hi)
        rows, width = self.values.shape
        begin = (np.arange(rows, dtype=np.int64) * width)[:, np.newaxis]
        times = np.broadcast_to(self.times, (rows, width)).ravel()
        return Flat(np.ascontiguousarray(self.values).ravel(), times, begin + self.lo, begin + self.hi)


def sample_interval_ms(timestamps_ms: Times) -> int:
    """How far apart samples usually are: the 60th percentile of the last gaps, 0 for fewer than two samples."""
    gaps = np.diff(timestamps_ms[-_INTERVAL_SAMPLES - 1 :])
    return int(np.sort(gaps)[int((gaps.size - 1) * 0.6)]) if gaps.size else 0


def edges(timestamps_ms: Times, times: WindowTimes) -> tuple[Index, Index]:
    """lo, hi [steps]: every window is [lo, hi) of the timestamps."""
    low_side = "right" if times.left_open else "left"
    lo = np.searchsorted(timestamps_ms, times.start_ms, side=low_side)  # type: ignore[call-overload]
    hi = np.searchsorted(timestamps_ms, times.end_ms, side="right")
    return lo.astype(np.int64), np.maximum(hi, lo).astype(np.int64)


def trimmed(frame: Frame, times: WindowTimes) -> Frame:
    """The frame without the columns no window can see (a view)."""
    oldest = int(times.end_ms.min()) - times.range_ms - times.reach_back_ms
    first = int(np.searchsorted(frame.timestamps_ms, oldest, side="left"))
    stop = int(np.searchsorted(frame.timestamps_ms, times.end_ms.max(), side="right"))
    return Frame(frame.labels, frame.timestamps_ms[first:stop], frame.values[:, first:stop])


def split(
    timestamps_ms: Times,
    values: Floats,
    lo: Index,
    hi: Index,
    times: WindowTimes,
    interval_ms: int,
    checkpoint: Callable[[], None],
    *,
    keep_stale: bool,
) -> Iterator[tuple[slice | npt.NDArray[np.intp], Windows]]:
    """The rows without gaps, then the others: (which rows, their windows). `keep_stale`: markers count as samples."""
    whole = Windows(values, timestamps_ms, lo, hi, times, interval_ms, checkpoint)
    holes = np.isnan(values).any(axis=1)
    if not holes.any():
        yield slice(None), whole
        return
    full = np.flatnonzero(~holes)
    if full.size:
        yield full, replace(whole, values=values[full])
    gappy = np.flatnonzero(holes)
    yield gappy, _packed(replace(whole, values=values[gappy]), keep_stale)


def _packed(windows: Windows, keep_stale: bool) -> Windows:
    rows, width = windows.values.shape
    bits = np.ascontiguousarray(windows.values).view(np.uint64)
    stale = bits == np.uint64(STALE_BITS)
    valid = bits != np.uint64(ABSENT_BITS)
    if not keep_stale:
        valid &= ~stale
    before = _running_count(valid)
    begin = (np.arange(rows, dtype=np.int64) * width)[:, np.newaxis]
    low, high = begin + windows.lo, begin + windows.hi
    ended = ended_by_step = None
    if not keep_stale and stale.any():
        markers = _running_count(stale)
        ended, ended_by_step = markers[:-1][valid.ravel()], markers[high]
    values, times = windows.values[valid], np.broadcast_to(windows.times, (rows, width))[valid]
    if not values.size:  # one sample in no window, so that there is something to take
        values, times = np.zeros(1), np.zeros(1, dtype=np.int64)
    return replace(
        windows,
        values=values,
        times=times,
        lo=before[low],
        hi=before[high],
        row_begin=before[begin],
        ended=ended,
        ended_by_step=ended_by_step,
    )


def _running_count(mask: Bools) -> Index:
    """[size + 1], how many are True before each place."""
    counts = np.zeros(mask.size + 1, dtype=np.int64)
    np.cumsum(mask.ravel(), out=counts[1:])
    return counts
