"""Text with time stamps into the store, as frames of its own: targets `import/<id>/<number>`.

The whole file is read and checked before anything is stored. What fits into memory is then placed at once; a larger
file is read again for each stretch of time that does (as promtool's backfill does), so that rows come in the order of
time whatever the order of the file. The id is the content's digest: the same file twice changes nothing, and an import
that was broken off goes on.
"""

from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import IO

import numpy as np

from flyproxy.series.frame import ABSENT, NAN_BITS, Floats, Times
from flyproxy.series.labels import Labels
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.faults import StoreError
from flyproxy.tsdb.import_groups import Group, Numbers, groups_of
from flyproxy.tsdb.merging import IMPORT_PREFIX
from flyproxy.tsdb.openmetrics_lines import ImportFault, Lines
from flyproxy.tsdb.writer import Writer

SAMPLES_AT_ONCE = 8_000_000
"""Samples held in memory: 20 bytes each as read, about as much again when they are placed."""
ROWS_A_TRANSACTION = 512
TARGETS_MAX = 10_000
"""Frames one import may make; each is looked at by every query."""
END_AFTER_MS = 300_001
"""Imported series end this long after their last sample: until then an instant query still finds it."""
_MINUTE_MS = 60_000


@dataclass(slots=True)
class Imported:
    """What an import did."""

    id: str
    series: int = 0
    samples: int = 0
    """Stored by this import."""
    targets: int = 0
    too_old: int = 0
    """Left out: beyond the retention."""
    repeated: int = 0
    """Left out: the same series had another value for the same millisecond later in the file."""
    already_there: int = 0
    """Left out: stored by an earlier import of the same file."""
    first_ms: int | None = None
    last_ms: int | None = None


def import_samples(file: IO[bytes], writer: Writer, organization: str, *, oldest_ms: int) -> Imported:
    """All samples of a seekable file that are not older than `oldest_ms`. Raises ImportFault with nothing stored, or
    StoreError; after that the same import may be tried again. The writer must not add zeros (`first_zero=False`)."""
    assert not writer.first_zero
    lines = Lines(file)
    read = _Read()
    done = Imported(_digest(file))
    minutes: Counter[int] = Counter()
    kept = 0
    for series, time_ms, value in lines:
        if time_ms < oldest_ms:
            done.too_old += 1
            continue
        kept += 1
        minutes[time_ms // _MINUTE_MS] += 1
        if kept <= SAMPLES_AT_ONCE:
            read.add(series, time_ms, value)
    if not kept:
        return done
    placing = _Placing(writer, organization, lines.series, done)
    if kept <= SAMPLES_AT_ONCE:
        placing.place(read)
    else:
        del read
        for begin_ms, end_ms in _stretches(minutes):
            placing.place(_between(lines, max(begin_ms, oldest_ms), end_ms))
    placing.end()
    return done


class _Read:
    """Samples as they were read: three columns."""

    def __init__(self) -> None:
        self._series, self._times, self._values = array("i"), array("q"), array("d")

    def add(self, series: int, time_ms: int, value: float) -> None:
        self._series.append(series)
        self._times.append(time_ms)
        self._values.append(value)

    def ordered(self) -> tuple[Numbers, Times, Floats, int]:
        """Sorted by series, then by time; and how many were left out because a later line has the same place."""
        series = np.array(self._series, dtype=np.int64)
        times = np.array(self._times, dtype=np.int64)
        values = np.array(self._values, dtype=np.float64)
        values.view(np.uint64)[np.isnan(values)] = NAN_BITS
        order = np.lexsort((times, series))  # stable: lines of one place stay in the file's order
        series, times, values = series[order], times[order], values[order]
        last = np.ones(series.size, np.bool_)
        last[:-1] = (series[1:] != series[:-1]) | (times[1:] != times[:-1])
        return series[last], times[last], values[last], int(series.size - np.count_nonzero(last))


@dataclass(slots=True, eq=False)
class _ImportTarget:
    """One frame that is being written; its layout only grows, so no series ends before all do."""

    name: str
    was_there: bool
    rows: dict[int, int] = field(default_factory=dict)
    """Series to row."""
    layout: Layout | None = None
    last_ms: int = 0


class _Placing:
    """Stretch after stretch, in the order of time."""

    def __init__(self, writer: Writer, organization: str, series: Sequence[Labels], done: Imported) -> None:
        self._writer = writer
        self._organization = organization
        self._series = series
        self._done = done
        self._targets: list[_ImportTarget] = []
        self._home: dict[int, int] = {}
        """Series to target."""

    def place(self, read: _Read) -> None:
        """Raises ImportFault with nothing of this stretch stored."""
        series, times, values, repeated = read.ordered()
        groups = groups_of(series, times)
        targets = self._targets_of(groups)
        self._done.repeated += repeated
        owner = np.empty(len(self._series), np.int64)
        for number, group in enumerate(groups):
            owner[group.series] = number
        owners = owner[series]
        order = np.lexsort((series, times, owners))
        series, times, values = series[order], times[order], values[order]
        edges = np.searchsorted(owners[order], np.arange(len(groups) + 1))
        for number, (group, target) in enumerate(zip(groups, targets, strict=True)):
            part = slice(int(edges[number]), int(edges[number + 1]))
            self._write(target, group, series[part], times[part], values[part])
        first, last = int(times.min()), int(times.max())
        done = self._done
        done.series, done.targets = len(self._home), len(self._targets)
        done.first_ms = first if done.first_ms is None else min(first, done.first_ms)
        done.last_ms = last if done.last_ms is None else max(last, done.last_ms)

    def end(self) -> None:
        """Nothing more is to come."""
        for target in self._targets:
            if not target.was_there:
                self._writer.end_target(self._organization, target.name, target.last_ms + END_AFTER_MS)

    def _targets_of(self, groups: Sequence[Group]) -> list[_ImportTarget]:
        """For every group the target most of its series went to before, if no other group has it; else a new one."""
        chosen: list[int] = []
        taken: set[int] = set()
        new = 0
        for group in groups:
            before = Counter([self._home[each] for each in group.series if each in self._home])
            free = next((number for number, _ in before.most_common() if number not in taken), None)
            if free is None:
                free, new = len(self._targets) + new, new + 1
            chosen.append(free)
            taken.add(free)
        if len(self._targets) + new > TARGETS_MAX:
            raise ImportFault(
                f"more than {TARGETS_MAX:,} groups of series with time stamps of their own; import the file in parts"
            )
        for _ in range(new):
            name = f"{IMPORT_PREFIX}{self._done.id}/{len(self._targets)}"
            was_there = self._organization in self._writer.organizations_of(name)
            self._targets.append(_ImportTarget(name, was_there))
        for group, number in zip(groups, chosen, strict=True):
            self._home.update(dict.fromkeys(group.series, number))
        return [self._targets[number] for number in chosen]

    def _write(self, target: _ImportTarget, group: Group, series: Numbers, times: Times, values: Floats) -> None:
        """Samples sorted by time, all of the group's series."""
        known = len(target.rows)
        for each in group.series:
            target.rows.setdefault(each, len(target.rows))
        if target.layout is None or known < len(target.rows):
            labels = tuple([self._series[each] for each in target.rows])
            target.layout = Layout(labels, np.zeros(len(labels), np.bool_))
        rows = np.array([target.rows[each] for each in group.series])[np.searchsorted(group.series, series)]
        edges = np.searchsorted(times, group.times_ms)
        interval_ms = max(1, int(np.median(np.diff(group.times_ms)))) if group.times_ms.size > 1 else 1
        batches: list[Batch] = []
        for begin, end, time_ms in zip(edges, [*edges[1:], times.size], group.times_ms.tolist(), strict=True):
            row = np.full(len(target.rows), ABSENT[0])
            row[rows[begin:end]] = values[begin:end]
            batches.append(Batch(self._organization, target.name, time_ms, target.layout, row, interval_ms))
            if len(batches) == ROWS_A_TRANSACTION:
                self._append(target, batches)
        self._append(target, batches)

    def _append(self, target: _ImportTarget, batches: list[Batch]) -> None:
        if not batches:
            return
        refused = self._writer.append(batches)
        if refused and not target.was_there:
            raise StoreError(f"the import cannot go on: {refused[0]}")
        # What was there is refused from the front: rows that are not newer than the target's last.
        stored = batches[len(refused) :]
        samples = [np.count_nonzero(~np.isnan(batch.values) | _is_nan_sample(batch.values)) for batch in batches]
        self._done.already_there += int(sum(samples[: len(refused)]))
        self._done.samples += int(sum(samples[len(refused) :]))
        if stored:
            target.was_there = False
        target.last_ms = batches[-1].timestamp_ms
        batches.clear()


def _is_nan_sample(values: Floats) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = values.view(np.uint64) == np.uint64(NAN_BITS)
    return found


def _digest(file: IO[bytes]) -> str:
    """Names the content."""
    file.seek(0)
    digest = blake2b(digest_size=6)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()


def _stretches(minutes: Counter[int]) -> Iterator[tuple[int, int]]:
    """Times [begin, end) that hold as many samples as memory may, a minute at least."""
    begin, held = None, 0
    last = 0
    for minute in sorted(minutes):
        if begin is not None and held + minutes[minute] > SAMPLES_AT_ONCE:
            yield begin * _MINUTE_MS, minute * _MINUTE_MS
            begin, held = None, 0
        begin = minute if begin is None else begin
        held += minutes[minute]
        last = minute
    assert begin is not None
    yield begin * _MINUTE_MS, (last + 1) * _MINUTE_MS


def _between(lines: Lines, begin_ms: int, end_ms: int) -> _Read:
    read = _Read()
    for series, time_ms, value in lines:
        if begin_ms <= time_ms < end_ms:
            read.add(series, time_ms, value)
    return read
