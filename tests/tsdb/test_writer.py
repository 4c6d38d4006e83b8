"""What the writer promises: durable beats, refusals with a sentence, and no second writer."""

import os
import resource
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flyproxy.series.frame import ABSENT
from flyproxy.series.labels import labels_from
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import target as target_module
from flyproxy.tsdb.db import (
    Reader,
    StoreBusyError,
    StoreError,
    StoreForeignError,
    StoreFullError,
    StoreReadOnlyError,
    Writer,
)
from flyproxy.tsdb.faults import StoreDamagedError, translated
from flyproxy.tsdb.log import KEY_ROWS
from flyproxy.tsdb.schema import FORMAT_VERSION
from flyproxy.tsdb.target import DEAD_SERIES_MAX

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]


MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]


def times_of(reader: Reader, name: str = "a") -> list[int]:
    frames = reader.organization("personal").select((), 0, 2**60)
    return sorted(
        time
        for frame in frames
        if labels_from({"__name__": name}) in frame.labels
        for time in frame.timestamps_ms.tolist()
    )


def test_a_batch_not_newer_than_the_last_is_left_out_and_the_others_stored(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    one = layout("a")
    assert writer.append([batch(15_000, one, [1])]) == []
    for old_ms in (15_000, 14_999):
        refused = writer.append([batch(old_ms, one, [2]), batch(old_ms, one, [2], target=f"other{old_ms}")])
        assert refused == [
            f"target 'own' of 'personal': its row at {old_ms} ms is not newer than the last, at 15000 ms"
        ]
    assert writer.statistics()["batches_refused"] == 2
    assert times_of(open_reader()) == [14_999, 15_000, 15_000]


def test_values_that_do_not_fit_the_layout_are_left_out(
    open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch
) -> None:
    assert "layout of 1 series" in open_writer().append([batch(0, layout("a"), [1, 2])])[0]


def test_a_series_twice_is_left_out_and_the_target_goes_on(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    writer.append([batch(0, layout("a"), [1])])
    assert "is in the layout twice" in writer.append([batch(15_000, layout("a", "b", "b"), [1, 2, 3])])[0]
    assert writer.append([batch(30_000, layout("a", "b"), [1, 2])]) == []
    assert times_of(open_reader()) == [0, 15_000, 30_000]  # 15,000 for b's zero


def test_a_target_that_never_had_a_series_leaves_nothing(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    assert writer.append([batch(0, layout(), [])]) == []
    assert open_reader().organization("personal").select((), 0, 2**60) == []


def test_a_second_writer_is_refused_until_the_first_is_gone(open_writer: OpenWriter, store_path: str) -> None:
    first = open_writer()
    with pytest.raises(StoreBusyError, match=f"process {os.getpid()} already writes"):
        Writer.open(store_path)
    first.close()
    open_writer()


def test_a_file_of_another_program_is_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "other.db")
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE notes (text)")
    other.close()
    (tmp_path / "text.db").write_text("not a database at all, " * 100)
    for foreign in (path, str(tmp_path / "text.db")):
        for door in (Writer.open, Reader.open):
            with pytest.raises(StoreForeignError, match="not a flyproxy store"):
                door(foreign)


def test_a_newer_format_is_refused_with_a_sentence(open_writer: OpenWriter, store_path: str) -> None:
    open_writer().close()
    connection = sqlite3.connect(store_path)
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    connection.close()
    sentence = f"written in format {FORMAT_VERSION + 1}, and this flyproxy knows format {FORMAT_VERSION}"
    for door in (Writer.open, Reader.open):
        with pytest.raises(StoreForeignError, match=sentence):
            door(store_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/metrics\.db"):
        Writer.open(str(tmp_path / "nowhere" / "metrics.db"))


def test_a_full_disk_loses_the_beat_and_nothing_else(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    one, two = layout("a"), layout("a", "b")
    writer.append([batch(0, one, [1])])
    (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
    writer._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    noise = Layout(tuple(labels_from({"__name__": f"noise{place}"}) for place in range(3000)), np.zeros(3000, np.bool_))
    with pytest.raises(StoreFullError, match="no room left while appending; free some space"):
        writer.append(
            [batch(15_000, two, [1, 2]), batch(15_000, noise, np.random.default_rng(1).random(3000), target="n")]
        )
    assert writer.statistics()["appends_failed"] == 1
    reader = open_reader()
    assert times_of(reader) == [0]
    writer._connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert writer.append([batch(30_000, two, [1, 3])]) == []
    reader.refresh()
    frames = reader.organization("personal").select((), 0, 2**60)
    assert frames[0].timestamps_ms.tolist() == [0, 15_000, 30_000]  # b's zero is still given
    assert frames[0].values[1, 1:].tolist() == [0.0, 3.0]


def test_a_write_that_fails_half_way_loses_the_beat_and_nothing_else(
    open_writer: OpenWriter, open_reader: OpenReader, store_path: str, layout: MakeLayout, batch: MakeBatch
) -> None:
    """The kernel refuses bytes beyond a file size, in the middle of the write-ahead log."""
    writer = open_writer()
    wide = layout(*(f"s{place}" for place in range(3000)))
    random = np.random.default_rng(1)
    writer.append([batch(0, wide, random.random(3000))])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(store_path + "-wal") + 9_000, hard))
    try:
        with pytest.raises(StoreError, match="the device failed"):
            writer.append([batch(15_000, wide, random.random(3000))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert times_of(open_reader(), "s0") == [0]
    assert writer.append([batch(15_000, wide, random.random(3000))]) == []
    assert times_of(open_reader(), "s0") == [0, 15_000]


def test_a_database_that_turns_read_only_says_so(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch) -> None:
    writer = open_writer()
    writer._connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreReadOnlyError, match="not writable while appending"):
        writer.append([batch(0, layout("a"), [1])])
    writer._connection.execute("PRAGMA query_only = OFF")
    assert writer.append([batch(0, layout("a"), [1])]) == []


def test_a_database_held_by_somebody_else_is_tried_again(
    open_writer: OpenWriter, store_path: str, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    writer._connection.execute("PRAGMA busy_timeout = 1")
    other = sqlite3.connect(store_path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusyError, match="held by another process"):
        writer.append([batch(0, layout("a"), [1])])
    other.close()
    assert writer.append([batch(0, layout("a"), [1])]) == []


def test_broken_pages_are_named_as_damage() -> None:
    fault = sqlite3.DatabaseError("database disk image is malformed")
    fault.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    assert isinstance(translated(fault, "x.db", "appending"), StoreDamagedError)


def test_commits_are_synced_to_the_disk(open_writer: OpenWriter) -> None:
    writer = open_writer()
    assert writer._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert writer._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_beat_is_one_transaction(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    reader = open_reader()
    one = layout("a")
    writer.append([batch(0, one, [1], target=f"t{place}") for place in range(20)])
    assert writer.statistics()["transactions"] == 1
    reader.refresh()
    assert len(times_of(reader)) == 20


def test_after_a_restart_a_target_goes_on_in_its_frame(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    first = open_writer()
    first.append([batch(0, layout("a", "b"), [1, 2])])
    first.close()
    again = open_writer()
    assert again.append([batch(0, layout("a"), [1])]) != []
    assert again.append([batch(15_000, layout("a", "c"), [1, 3])]) == []
    (frame,) = open_reader().organization("personal").select((), 0, 2**60)
    assert frame.values.view(np.uint64)[1, 1] == 0x7FF0000000000002  # b ended
    assert frame.values[2, 0] == 0.0  # c was born


def test_after_a_restart_a_target_of_many_series_goes_on_in_its_frame_too(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    wide = layout(*(f"s{place}" for place in range(2 * DEAD_SERIES_MAX)))
    for beat in range(3):
        writer = open_writer()
        assert writer.append([batch(beat * 15_000, wide, range(2 * DEAD_SERIES_MAX))]) == []
        assert writer.statistics()["layouts"] == (beat == 0)
        writer.close()
    assert open_reader().statistics()["frames"] == 1


def test_targets_that_live_on_the_disk_are_listed_and_can_be_ended(
    open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch
) -> None:
    first = open_writer()
    one = layout("a")
    first.append([batch(0, one, [1], target=name) for name in ("x", "y", "z")])
    first.end_target("personal", "y", 10)
    first.close()
    again = open_writer()
    assert again.live_targets() == [("personal", "x"), ("personal", "z")]
    assert again.end_target("personal", "x", -5) == 1  # never before its last row
    assert again.end_target("personal", "x", 20) == 0
    assert again.end_target("personal", "unknown", 20) == 0
    assert again.live_targets() == [("personal", "z")]
    assert again.append([batch(30, one, [1], target="x")]) == []
    assert again.live_targets() == [("personal", "x"), ("personal", "z")]


def test_a_target_whose_layout_is_damaged_goes_on_in_a_new_frame(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    store_path: str,
    sentences: list[str],
    layout: MakeLayout,
    batch: MakeBatch,
) -> None:
    first = open_writer()
    first.append([batch(0, layout("a"), [100])])
    first.close()
    connection = sqlite3.connect(store_path)
    connection.execute("UPDATE layouts SET blob = zeroblob(40)")
    connection.commit()
    connection.close()
    again = open_writer()
    assert again.append([batch(15_000, layout("a"), [101])]) == []
    assert "goes on in a new frame" in sentences[0]
    assert times_of(open_reader()) == [15_000]  # and no zero was invented for a
    assert "1 series of frame 1 are skipped" in sentences[1]


def test_after_a_restart_series_that_never_had_a_sample_are_still_waited_for(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch, sentences: list[str]
) -> None:
    first = open_writer()
    first.append([batch(0, layout("a"), [1])])
    first.append([batch(15_000, layout("a", "b"), [1, ABSENT[0]])])
    first.close()
    again = open_writer()
    again.append([batch(30_000, layout("a", "b"), [1, 5])])
    (frame,) = open_reader().organization("personal").select((), 0, 2**60)
    assert frame.values[1, 1:].tolist() == [0.0, 5.0]
    assert not sentences


def test_after_a_restart_a_target_whose_series_all_went_goes_on_where_it_was(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch, sentences: list[str]
) -> None:
    first = open_writer()
    many = layout(*(f"s{place}" for place in range(DEAD_SERIES_MAX + 1)))
    first.append([batch(0, many, range(len(many.series)))])
    first.append([batch(15_000, layout(), [])])  # a frame of those that die
    first.append([batch(30_000, layout(), [])])  # and one that is begun for nothing
    first.close()
    again = open_writer()
    assert "is not newer than the last" in again.append([batch(0, layout("a"), [1])])[0]
    assert again.append([batch(45_000, layout("a"), [1])]) == []
    assert times_of(open_reader()) == [45_000]
    assert not sentences


def test_a_frame_of_mostly_dead_series_is_left_for_a_new_one(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    many = layout("a", *(f"s{place}" for place in range(DEAD_SERIES_MAX + 2)))
    writer.append([batch(0, many, range(len(many.series)))])
    few = layout("a")
    for beat in range(1, 4):
        writer.append([batch(beat * 15_000, few, [beat])])
    reader = open_reader()
    assert reader.statistics()["frames"] == 2
    frames = reader.organization("personal").select((), 15_000, 2**60)
    last = [frame for frame in frames if frame.timestamps_ms[-1] == 45_000]
    assert [(frame.labels, frame.values.tolist()) for frame in last] == [
        ([labels_from({"__name__": "a"})], [[2.0, 3.0]])
    ]
    writer.close()
    again = open_writer()
    assert again.live_targets() == [("personal", "own")]
    assert again.append([batch(60_000, few, [9])]) == []
    reader.refresh()
    assert reader.statistics()["frames"] == 2


def test_statistics_count_what_was_done(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch) -> None:
    writer = open_writer()
    two = layout("a", "b")
    for beat in range(KEY_ROWS + 1):
        writer.append([batch(beat * 15_000, two, [beat, 1])])
    counted = writer.statistics()
    assert (counted["rows"], counted["key_rows"], counted["samples"]) == (KEY_ROWS + 1, 2, 2 * KEY_ROWS + 2)
    assert (counted["targets"], counted["series"], counted["layouts"]) == (1, 2, 1)
    assert counted["row_bytes"] > 0
    assert counted["file_bytes"] > 0


def test_a_frame_left_for_one_without_a_series_still_says_when_the_last_row_was(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else a newborn's zero would stand where the frame that was left has a sample of the same series."""
    monkeypatch.setattr(target_module, "DEAD_SERIES_MAX", 2)
    writer, every, none = open_writer(), layout("a", "b", "c"), layout()
    writer.append([batch(0, every, [1, 2, 3]), batch(10_000, every, [1, 2, 3]), batch(11_000, none, [])])
    writer.append([batch(12_000, none, [])])
    assert len(writer.append([batch(12_000, every, [4, 5, 6])])) == 1
    writer.append([batch(26_000, every, [4, 5, 6])])
    times = [frame.timestamps_ms.tolist() for frame in open_reader().organization("personal").select((), 0, 60_000)]
    assert times == [[0, 10_000, 11_000, 12_000], [12_000, 26_000]]
