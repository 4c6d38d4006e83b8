"""What is appended is what is selected: random histories against a plain dictionary, read in every way there is, while
the log is being sealed and retention deletes."""

import copy
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from flyproxy.series.frame import ABSENT, ABSENT_BITS, STALE, STALE_BITS, Frame
from flyproxy.series.labels import Labels
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import merging as merging_module
from flyproxy.tsdb import reader as reader_module
from flyproxy.tsdb import target as target_module
from flyproxy.tsdb.db import Reader, Writer

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]


Samples = dict[Labels, dict[int, int]]
Collect = Callable[[Sequence[Frame]], Samples]

ODD = [0.0, -0.0, 1.5, 2.0**60, float("inf"), -3.0, *STALE.tolist()]
BEATS = 200
START_MS, END_MS = -(2**62), 2**62


class Oracle:
    """The rules, one series at a time."""

    def __init__(self) -> None:
        self.samples: Samples = {}
        self._last_ms: dict[str, int] = {}
        self._live: dict[str, set[Labels]] = {}
        self._born: dict[str, set[Labels]] = {}

    def append(self, batch: Batch) -> None:
        last_ms = self._last_ms.get(batch.target)
        live = self._live.setdefault(batch.target, set())
        born = self._born.setdefault(batch.target, set())
        for labels in live - set(batch.layout.series):
            self._put(labels, batch.timestamp_ms, STALE_BITS)
        live &= set(batch.layout.series)
        for labels, counter, bits in zip(
            batch.layout.series, batch.layout.counters.tolist(), batch.values.view(np.uint64).tolist(), strict=True
        ):
            if bits == ABSENT_BITS:
                continue
            self._put(labels, batch.timestamp_ms, bits)
            if bits == STALE_BITS:
                live.discard(labels)
                continue
            if counter and labels not in born and last_ms is not None:
                near = batch.timestamp_ms - last_ms <= 1.5 * batch.interval_ms
                self._put(labels, last_ms if near else batch.timestamp_ms - batch.interval_ms, 0)
            live.add(labels)
            born.add(labels)
        self._last_ms[batch.target] = batch.timestamp_ms

    def end(self, target: str, timestamp_ms: int) -> None:
        for labels in self._live.get(target, set()):
            self._put(labels, timestamp_ms, STALE_BITS)
        if self._live.get(target):
            self._last_ms[target] = timestamp_ms
        self._live[target] = set()

    def between(self, start_ms: int, end_ms: int) -> Samples:
        """Series with nothing there are left out."""
        cut = {
            labels: {time: bits for time, bits in row.items() if start_ms <= time <= end_ms}
            for labels, row in self.samples.items()
        }
        return {labels: row for labels, row in cut.items() if row}

    def _put(self, labels: Labels, timestamp_ms: int, bits: int) -> None:
        self.samples.setdefault(labels, {})[timestamp_ms] = bits


def part_of(some: Samples, every: Samples) -> bool:
    return all(row.items() <= every.get(labels, {}).items() for labels, row in some.items())


def without_lone_ends(found: Samples) -> Samples:
    """A series of which only end markers are in the window may be left out: they say nothing."""
    return {labels: row for labels, row in found.items() if any(bits != STALE_BITS for bits in row.values())}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("head_bytes", [0, 4_000, 1 << 24])
def test_every_read_of_a_random_history_agrees(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    sentences: list[str],
    layout: Callable[..., Layout],
    samples: Collect,
    seed: int,
    head_bytes: int,
) -> None:
    random = np.random.default_rng(seed)
    oracle, writer, clock = Oracle(), open_writer(), {"x": 0, "y": 0, "z": 0}
    reader = open_reader(head_bytes)
    layouts = {name: layout(*(f"{name}{place}" for place in range(5))) for name in clock}
    for _ in range(BEATS):
        beats = [draw(random, name, layouts, clock, layout) for name in clock if random.random() < 0.9]
        for batch in beats:
            oracle.append(batch)
        assert writer.append(beats) == []
        if random.random() < 0.02:
            name = str(random.choice(list(clock)))
            clock[name] += 1_000
            oracle.end(name, clock[name])
            writer.end_target("personal", name, clock[name])
        if random.random() < 0.02:
            writer.close()
            writer = open_writer()
        if random.random() < 0.1:
            reader.refresh()
        if random.random() < 0.1:
            reader.refresh()
            agrees(reader, oracle, samples, random, max(clock.values()))
    reader.refresh()
    assert without_lone_ends(samples(reader.organization("personal").select((), START_MS, END_MS))) == oracle.samples
    fresh = open_reader(head_bytes).organization("personal").select((), START_MS, END_MS)
    assert without_lone_ends(samples(fresh)) == oracle.samples
    assert writer.statistics()["key_rows"] < BEATS
    assert reader.statistics()["head_bytes"] <= head_bytes
    assert not sentences


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("head_bytes", [0, 6_000, 1 << 24])
def test_no_sample_is_missing_or_there_twice_while_the_log_is_sealed(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    sentences: list[str],
    layout: Callable[..., Layout],
    samples: Collect,
    seal_all: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
    head_bytes: int,
) -> None:
    """A reader that stays open, and is seldom told to refresh, while rows it did and did not see are sealed."""
    if seed % 2:  # frames are left behind, and sealed to their ends; which makes counters that come back newborn again
        monkeypatch.setattr(target_module, "DEAD_SERIES_MAX", 6)
        draw_layout, layout = layout, lambda *names, gauges=(): draw_layout(gauges=[*names, *gauges])
    monkeypatch.setattr(merging_module, "MERGE_FRAMES_MIN", 2)
    monkeypatch.setattr(reader_module, "ROWS_FOLLOWED_MAX", 100)
    random = np.random.default_rng(seed)
    oracle, writer, clock = Oracle(), open_writer(), {"x": 0, "y": 0, "z": 0}
    reader, known, deleted_ms, short_ms = open_reader(head_bytes), {}, START_MS, 0
    layouts = {name: layout(*(f"{name}{place}" for place in range(5))) for name in clock}
    for beat in range(BEATS):
        beats = [draw(random, name, layouts, clock, layout) for name in clock if random.random() < 0.9]
        for batch in beats:
            oracle.append(batch)
        assert writer.append(beats) == []
        if random.random() < 0.2:  # a target that lives for two rows
            name, short_ms = f"short{beat}", max(short_ms + 10, *clock.values())
            brief = layout(gauges=["shared", name])
            rows = [Batch("personal", name, short_ms + row, brief, random.random(2), 1) for row in range(2)]
            for batch in rows:
                oracle.append(batch)
            assert writer.append(rows) == []
            oracle.end(name, short_ms + 2)
            writer.end_target("personal", name, short_ms + 2)
        if random.random() < 0.1:
            writer.merge(min(clock.values()), 60_000)
        if random.random() < 0.02:
            writer.close()
            writer = open_writer()
        for _ in range(random.integers(0, 8) if random.random() < 0.3 else 0):
            writer.seal(min(clock.values()), int(random.choice([60_000, 600_000])))
        if seed > 1 and random.random() < 0.05:
            deleted_ms = max(0, min(clock.values()) - 900_000)
            writer.delete_before(deleted_ms)
        if random.random() < 0.1:
            reader.refresh()
            known = copy.deepcopy(oracle.samples)
        if random.random() < 0.3:
            start_ms = int(random.integers(0, max(clock.values()) + 1))
            end_ms = int(random.integers(start_ms, max(clock.values()) + 20_000))
            found = samples(reader.organization("personal").select((), start_ms, end_ms))
            assert part_of(found, oracle.between(start_ms, end_ms))
            wanted = {
                labels: {time: bits for time, bits in row.items() if max(start_ms, deleted_ms) <= time <= end_ms}
                for labels, row in known.items()
            }
            assert part_of(without_ends(wanted) if seed % 2 else without_lone_ends(wanted), found)
    seal_all(writer, max(clock.values()) + 10**9, 600_000)
    assert writer.statistics()["log_rows"] == 0
    merged = 0
    while frames := writer.merge(max(clock.values()) + 10**9, 600_000):
        merged += frames
    assert merged > 0
    reader.refresh()
    for each in (reader, open_reader(head_bytes)):
        found = without_lone_ends(samples(each.organization("personal").select((), START_MS, END_MS)))
        assert part_of(found, oracle.samples)
        wanted = oracle.between(deleted_ms, END_MS)
        assert part_of(without_ends(wanted) if seed % 2 else without_lone_ends(wanted), found)
        counted = each.statistics()
        assert counted["head_bytes"] + counted["block_bytes"] <= head_bytes
        assert counted["chunks"] > 3
    assert not sentences


def without_ends(found: Samples) -> Samples:
    """In a frame of its own an end marker can be alone though its series has samples in another."""
    return {labels: {time: bits for time, bits in row.items() if bits != STALE_BITS} for labels, row in found.items()}


def draw(
    random: np.random.Generator,
    name: str,
    layouts: dict[str, Layout],
    clock: dict[str, int],
    make: Callable[..., Layout],
) -> Batch:
    clock[name] += int(random.choice([15_000, 15_000, 15_000, 14_000, 40_000]))
    if random.random() < 0.15:
        chosen = random.permutation(30)[: random.integers(0, 12)].tolist()
        counters, gauges = [place for place in chosen if place % 3], [place for place in chosen if not place % 3]
        layouts[name] = make(*(f"{name}{place}" for place in counters), gauges=[f"{name}{place}" for place in gauges])
    count = len(layouts[name].series)
    values = np.where(random.random(count) < 0.9, random.integers(0, 10**6, count), random.choice(ODD[:-1], count))
    values[random.random(count) < 0.02] = STALE[0]
    values[random.random(count) < 0.02] = ABSENT[0]
    return Batch("personal", name, clock[name], layouts[name], values, 15_000)


def agrees(reader: Reader, oracle: Oracle, samples: Collect, random: np.random.Generator, now_ms: int) -> None:
    view = reader.organization("personal")
    start_ms = int(random.integers(0, now_ms + 1))
    end_ms = int(random.integers(start_ms, now_ms + 20_000))
    wanted = without_lone_ends(oracle.between(start_ms, end_ms))
    assert without_lone_ends(samples(view.select((), start_ms, end_ms))) == wanted
    listed = view.series(None, start_ms, end_ms)
    assert listed == sorted(listed)
    assert set(wanted) <= set(listed)


def test_every_bit_of_a_value_is_kept(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
    samples: Collect,
) -> None:
    bits = np.array([0x7FF8000000000001, 0xFFF8DEADBEEF0001, 0x8000000000000000, 1, STALE_BITS], np.uint64)
    writer = open_writer()
    wide = layout(gauges=list("abcde"))
    writer.append([batch(0, wide, [0, 0, 0, 0, 0]), batch(1, wide, bits.view(np.float64))])
    found = samples(open_reader().organization("personal").select((), 1, 1))
    assert [row[1] for row in found.values()] == bits.tolist()
