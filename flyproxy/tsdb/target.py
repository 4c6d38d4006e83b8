"""What the writer remembers of one target, and how a batch becomes a row. Pure: no file is touched here.

A frame is a target's growing list of series. A layout that is the same object as last time costs no work per series;
a changed one costs a dictionary look-up for each series between what its two ends share with the old one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from flyproxy.series.frame import ABSENT, ABSENT_BITS, STALE, STALE_BITS, Bools, Floats
from flyproxy.series.labels import Labels
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.layout import LIVE_MS, NEVER_MS, Presence, Times
from flyproxy.tsdb.log import Births, Rows

DEAD_SERIES_MAX = 1024
"""A frame in which more series than this, and more than half, are gone is left for a new one."""
BIRTH_GAP_INTERVALS = 1.5
"""A newborn counter's zero stands at the previous row when that is no further back than this."""


class RefusedError(Exception):
    """This batch cannot be stored; the sentence says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What a batch became: one row of the frame, and what else changed with it."""

    timestamp_ms: int
    values: Floats
    """[series of the frame]"""
    births: Births | None
    presence_changed: bool


@dataclass(slots=True, eq=False)
class Target:
    """One target's current frame. Arrays are [series of the frame]."""

    organization: str
    name: str
    frame: int
    last_ms: int | None = None
    """The time of its last row, whichever frame that is in."""
    sealed_ms: int | None = None
    """All rows of this frame are sealed, up to this time: no zero can be put there any more."""
    blank: bool = True
    """What was there before its first row is not known, so nothing in that row counts as newborn."""
    index: dict[Labels, int] = field(default_factory=dict)
    first_seen_ms: Times = field(default_factory=lambda: np.empty(0, np.int64))
    last_seen_ms: Times = field(default_factory=lambda: np.empty(0, np.int64))
    """LIVE_MS: live; NEVER_MS: not born yet."""

    presence_owed: bool = False
    """Presence of this frame is not on the disk for all its series: some are new, or were taken over from another."""

    key_ms: int | None = None
    """The key row of the chain being written; None: the next row is a key row."""
    chain_rows: int = 0
    values: Floats = field(default_factory=lambda: np.empty(0, np.float64))
    """The last row of this chain, as written."""

    layout: Layout | None = None
    rows: Rows = field(default_factory=lambda: np.empty(0, np.int64))
    """[series of the layout] their rows in the frame."""
    in_order: bool = False
    """The layout's series are exactly the frame's, in the frame's order."""
    settled: bool = False
    """Every series of the layout is live and no other is: a row without NaN changes nothing but values."""

    def adopt(self, layout: Layout) -> list[Labels]:
        """Take over a changed layout; the series that are new to the frame, now its last rows. Raises RefusedError,
        after which this object must not be used again."""
        old = self.layout.series if self.layout is not None else ()
        new = layout.series
        head = _shared_length(old, new)
        tail = _shared_length(old[: head - 1 if head else None : -1], new[: head - 1 if head else None : -1])
        known = len(self.index)
        added: list[Labels] = []
        middle = np.empty(len(new) - head - tail, np.int64)
        for place, labels in enumerate(islice(new, head, len(new) - tail)):
            row = self.index.get(labels)
            if row is None:
                row = self.index[labels] = known + len(added)
                added.append(labels)
            middle[place] = row
        self.rows = np.concatenate((self.rows[:head], middle, self.rows[len(old) - tail :]))
        self.layout = layout
        self._refuse_duplicates(new)
        self.first_seen_ms = np.concatenate((self.first_seen_ms, np.full(len(added), LIVE_MS, np.int64)))
        self.last_seen_ms = np.concatenate((self.last_seen_ms, np.full(len(added), NEVER_MS, np.int64)))
        self.in_order = self.rows.size == len(self.index) and bool((self.rows == np.arange(self.rows.size)).all())
        self.settled = False
        self.presence_owed = self.presence_owed or bool(added)
        return added

    def mostly_gone(self) -> bool:
        """True when so many of the frame's series are not in the layout that a new frame is cheaper. Not before a
        layout was adopted: until then nothing is known to be gone."""
        gone = len(self.index) - self.rows.size
        return self.layout is not None and gone > DEAD_SERIES_MAX and gone > self.rows.size

    def row(self, batch: Batch, first_zero: bool) -> Row:
        """The row for a batch whose layout was adopted; series that left the layout end in it."""
        if self.in_order:
            values = np.array(batch.values, dtype=np.float64)
        else:
            values = self._nothing()
            values[self.rows] = batch.values
        if self.settled and not np.isnan(values).any():
            return Row(batch.timestamp_ms, values, None, False)
        live = self.last_seen_ms == LIVE_MS
        if not self.in_order:
            here = np.zeros(values.size, np.bool_)
            here[self.rows] = True
            values[live & ~here] = STALE
        births = self._births(batch, _samples(values)) if first_zero else None
        changed = self._see(batch.timestamp_ms, values, births) or self.presence_owed
        return Row(batch.timestamp_ms, values, births, changed)

    def end(self, timestamp_ms: int) -> Row | None:
        """The row that ends every live series; None when there is none."""
        live = self.last_seen_ms == LIVE_MS
        if not live.any():
            return None
        values = self._nothing()
        values[live] = STALE
        self._see(timestamp_ms, values, None)
        return Row(timestamp_ms, values, None, True)

    def hand_over(self, after: "Target", timestamp_ms: int) -> Row:
        """`after`, a new frame of this target that has adopted its layout, goes on with the series this one had.
        Returns the last row of this frame: it ends the series that go, and says nothing of those that go on."""
        known = np.array([self.index.get(labels, -1) for labels in after.index], np.int64)
        carried = np.flatnonzero(known >= 0)
        after.first_seen_ms[carried] = self.first_seen_ms[known[carried]]
        after.last_seen_ms[carried] = self.last_seen_ms[known[carried]]
        after.blank, after.presence_owed = False, True
        live = self.last_seen_ms == LIVE_MS
        values = self._nothing()
        values[live] = STALE
        values[known[carried]] = ABSENT
        self.last_seen_ms[live] = timestamp_ms if self.last_ms is None else self.last_ms
        return Row(timestamp_ms, values, None, True)

    def wrote(self, row: Row, key_ms: int) -> None:
        """The row is in the log, in the chain that starts at `key_ms`."""
        self.chain_rows = 1 if key_ms == row.timestamp_ms else self.chain_rows + 1
        self.key_ms = key_ms
        self.values = row.values
        self.last_ms = row.timestamp_ms
        self.blank = self.presence_owed = False

    def presence(self) -> Presence:
        """When each series of the frame was there; a view, valid until the next row."""
        return Presence(self.first_seen_ms, self.last_seen_ms)

    def live_count(self) -> int:
        """Series that have not ended."""
        return int(np.count_nonzero(self.last_seen_ms == LIVE_MS))

    def _nothing(self) -> Floats:
        return np.full(len(self.index), ABSENT[0])

    def _births(self, batch: Batch, samples: Bools) -> Births | None:
        """House rule "The first error is never lost": where, and at what time, a newborn counter was still 0."""
        if self.blank or self.last_ms is None:
            return None
        counters = np.zeros(samples.size, np.bool_)
        counters[self.rows] = batch.layout.counters
        newborn = np.flatnonzero(samples & counters & (self.last_seen_ms == NEVER_MS))
        if not newborn.size:
            return None
        near = batch.timestamp_ms - self.last_ms <= BIRTH_GAP_INTERVALS * batch.interval_ms
        at_ms = self.last_ms if near else batch.timestamp_ms - batch.interval_ms
        if self.sealed_ms is not None and at_ms <= self.sealed_ms:
            at_ms = max(self.sealed_ms + 1, batch.timestamp_ms - batch.interval_ms)
        return Births(at_ms, newborn) if self.last_ms <= at_ms < batch.timestamp_ms else None

    def _see(self, timestamp_ms: int, values: Floats, births: Births | None) -> bool:
        """Bring presence up to date with a row; True when it changed."""
        samples = _samples(values)
        stale = values.view(np.uint64) == np.uint64(STALE_BITS)
        live = self.last_seen_ms == LIVE_MS
        newborn = samples & (self.last_seen_ms == NEVER_MS)
        ended = live & stale
        begun = samples & ~live
        self.first_seen_ms[newborn] = timestamp_ms
        if births is not None:
            self.first_seen_ms[births.rows] = births.at_ms
        self.last_seen_ms[begun] = LIVE_MS
        self.last_seen_ms[ended] = timestamp_ms
        self.settled = bool((self.last_seen_ms[self.rows] == LIVE_MS).all()) and self.live_count() == self.rows.size
        return bool(begun.any() or ended.any())

    def _refuse_duplicates(self, series: Sequence[Labels]) -> None:
        times = np.bincount(self.rows, minlength=1)
        if int(times.max()) > 1:
            twice = next(labels for labels in series if times[self.index[labels]] > 1)
            raise RefusedError(f"the series {dict(twice)} is in the layout twice")


def _samples(values: Floats) -> Bools:
    """[series] True where there is a sample, a real NaN included."""
    bits = values.view(np.uint64)
    samples: Bools = (bits != np.uint64(ABSENT_BITS)) & (bits != np.uint64(STALE_BITS))
    return samples


def _shared_length(one: tuple[Labels, ...], other: tuple[Labels, ...]) -> int:
    """How many series two layouts share from their start: halves compared whole, in C."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
