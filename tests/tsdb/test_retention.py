"""What is older than the retention goes, in bounded steps, and what is kept stays whole."""

import os
import sqlite3
from collections.abc import Callable

import numpy as np
import pytest

from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import retention, schema
from flyproxy.tsdb.db import Reader, StoreError, Writer
from flyproxy.tsdb.log import KEY_ROWS

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]


MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]
ROWS = 10 * KEY_ROWS


@pytest.fixture
def writer(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch) -> Writer:
    """Rows at 0, 1, 2 ... ms of one target, and a second one that ended after three rows."""
    made = open_writer(retention_s=0.1)
    one = layout("a")
    made.append([batch(row, one, [row]) for row in range(ROWS)])
    made.append([batch(row, layout("b"), [row], target="gone") for row in range(3)])
    made.end_target("personal", "gone", 3)
    return made


def times_of(reader: Reader) -> list[int]:
    frames = reader.organization("personal").select((), 0, 10**9)
    return [time for frame in frames for time in frame.timestamps_ms.tolist()]


def test_whole_chains_older_than_asked_are_deleted(open_reader: OpenReader, writer: Writer) -> None:
    reader = open_reader()
    times_of(reader)
    assert writer.delete_before(2 * KEY_ROWS + 5) == 2 * KEY_ROWS + 4
    assert writer.delete_before(2 * KEY_ROWS + 5) == 0
    reader.refresh()
    assert times_of(open_reader()) == list(range(2 * KEY_ROWS, ROWS))
    assert set(range(2 * KEY_ROWS, ROWS)) <= set(times_of(reader))


def test_frames_left_without_a_row_are_forgotten_by_readers_too(open_reader: OpenReader, writer: Writer) -> None:
    reader = open_reader()
    times_of(reader)
    writer.delete_before(KEY_ROWS)
    reader.refresh()
    assert reader.organization("personal").label_values("__name__", None, 0, 10**9) == ["a"]
    assert reader.statistics()["frames"] == 1
    assert writer.statistics()["frames_deleted"] == 1


def test_a_call_is_bounded_and_the_next_goes_on(
    open_reader: OpenReader, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "ROWS_PER_CALL", KEY_ROWS + 1)
    steps = [writer.delete_before(ROWS) for _ in range(8)]
    assert sum(steps) == ROWS + 4
    assert max(steps) <= 2 * KEY_ROWS
    assert steps[-1] == 0
    assert times_of(open_reader()) == []


def test_frames_are_looked_at_in_turns(writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "FRAMES_PER_CALL", 1)
    assert sum(writer.delete_before(ROWS) for _ in range(4)) == ROWS + 4


def test_a_target_goes_on_after_all_its_rows_went(
    open_reader: OpenReader, writer: Writer, layout: MakeLayout, batch: MakeBatch
) -> None:
    reader = open_reader()
    times_of(reader)
    writer.delete_before(ROWS)
    assert writer.append([batch(ROWS + 5, layout("a"), [1])]) == []
    reader.refresh()
    assert times_of(reader) == times_of(open_reader()) == [ROWS + 5]


def test_a_chain_is_never_continued_once_its_key_row_is_gone(
    open_reader: OpenReader, sentences: list[str], writer: Writer, layout: MakeLayout, batch: MakeBatch
) -> None:
    one = layout("late")
    writer.append([batch(5, one, [1], target="late"), batch(1000, one, [2], target="late")])
    writer.delete_before(900)
    writer.append([batch(1001, one, [3], target="late")])
    view = open_reader().organization("personal")
    values = [frame.values.tolist() for frame in view.select((), 1000, 1001) if frame.labels[0][0][1] == "late"]
    assert values == [[[2.0, 3.0]]]
    assert not sentences


def test_freed_pages_are_given_back(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch) -> None:
    writer = open_writer()
    wide = layout(*(f"s{place}" for place in range(300)))
    writer.append([batch(row, wide, [row * place * 0.37 for place in range(300)]) for row in range(ROWS)])
    before = writer.statistics()["file_bytes"]
    while writer.delete_before(ROWS):
        pass
    assert writer.statistics()["file_bytes"] < before / 4


def test_what_was_deleted_is_deleted_though_its_pages_cannot_be_given_back(
    open_reader: OpenReader, writer: Writer, layout: MakeLayout, batch: MakeBatch
) -> None:
    """A row after it must not be a difference to one that is gone, nor of a frame that is."""

    def refuse_giving_back(action: int, pragma: str | None, *_: object) -> int:
        return int(action == sqlite3.SQLITE_PRAGMA and pragma == "incremental_vacuum")

    deletes: list[Callable[[], int]] = [lambda: writer.delete_before(10**9), lambda: writer.shrink(1)]
    for delete in deletes:
        writer.append([batch(ROWS, layout("a"), [1])])
        writer._connection.set_authorizer(refuse_giving_back)
        with pytest.raises(StoreError, match="not authorized while giving space back"):
            delete()
        writer._connection.set_authorizer(None)
        assert writer.append([batch(ROWS + 1, layout("a"), [2])]) == []
        assert times_of(open_reader()) == [ROWS + 1]
        writer.delete_before(10**9)


def test_expire_uses_the_stores_retention(open_writer: OpenWriter, writer: Writer) -> None:
    assert writer.expire(100 + KEY_ROWS) == KEY_ROWS + 4
    writer.close()
    assert open_writer().expire(10**9) == 0


def test_a_failed_deletion_deletes_nothing(open_reader: OpenReader, writer: Writer) -> None:
    writer._connection.set_authorizer(lambda action, *_: int(action == sqlite3.SQLITE_UPDATE))
    with pytest.raises(StoreError, match="not authorized while deleting"):
        writer.delete_before(ROWS)
    writer._connection.set_authorizer(None)
    assert len(times_of(open_reader())) == ROWS + 4


@pytest.fixture
def sealed(writer: Writer, seal_all: Callable[..., int]) -> Writer:
    """The same store; but for the last two chains its rows are in chunks, each of two chains."""
    assert seal_all(writer, ROWS, 2 * KEY_ROWS) == 8 * KEY_ROWS + 4
    return writer


def test_chunks_that_are_past_go_whole_before_any_row_of_the_log(open_reader: OpenReader, sealed: Writer) -> None:
    reader = open_reader(0)
    times_of(reader)
    assert sealed.delete_before(5 * KEY_ROWS) == 3  # two of four, and the one of the target that is gone
    assert sealed.delete_before(5 * KEY_ROWS) == 0
    for each in (reader, open_reader()):
        each.refresh()
        assert times_of(each) == list(range(4 * KEY_ROWS, ROWS))
        assert each.organization("personal").label_values("__name__", None, 0, 10**9) == ["a"]
    assert sealed.delete_before(9 * KEY_ROWS) == 2 + KEY_ROWS
    assert times_of(open_reader()) == list(range(9 * KEY_ROWS, ROWS))
    assert sealed.statistics()["chunks_deleted"] == 5


def test_a_frame_with_chunks_and_no_row_in_the_log_stays(
    sealed: Writer, seal_all: Callable[..., int], open_writer: OpenWriter, open_reader: OpenReader
) -> None:
    seal_all(sealed, 10**9, 2 * KEY_ROWS)
    assert sealed.delete_before(KEY_ROWS) == 1
    assert sealed.statistics()["log_rows"] == 0
    sealed.close()
    assert open_writer().live_targets() == [("personal", "own")]
    assert times_of(open_reader()) == list(range(ROWS))


def test_chunks_of_one_call_are_bounded_and_the_next_goes_on(sealed: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNKS_PER_CALL", 2)
    steps = [sealed.delete_before(8 * KEY_ROWS) for _ in range(4)]
    assert steps == [2, 2, 1, 0]


def test_a_frame_all_of_whose_chunks_are_past_is_forgotten(open_reader: OpenReader, sealed: Writer) -> None:
    sealed.delete_before(ROWS)
    assert sealed.statistics()["frames_deleted"] == 2
    assert open_reader().statistics()["frames"] == open_reader().statistics()["chunks"] == 0


@pytest.fixture
def large(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch) -> Callable[[], Writer]:
    """A writer with 100 beats of two targets, 2 x 150 noisy series, in the log."""

    def make() -> Writer:
        writer = open_writer()
        random = np.random.default_rng(1)
        wide = layout(gauges=[f"s{place}" for place in range(150)])
        for row in range(100):
            writer.append([batch(row, wide, random.random(150), target=name) for name in "xy"])
        return writer

    return make


def used(writer: Writer) -> int:
    counted = writer.statistics()
    return counted["file_bytes"] - counted["free_bytes"]


@pytest.mark.parametrize("stretch", [10**9, 30])
def test_a_store_beyond_its_size_loses_the_oldest_of_all_frames_until_it_fits(
    large: Callable[[], Writer], open_reader: OpenReader, seal_all: Callable[..., int], stretch: int
) -> None:
    writer = large()
    seal_all(writer, 100, stretch)
    bytes_max = used(writer) // 2
    assert writer.shrink(10**9) == 0
    assert len(times_of(open_reader())) == 200
    while writer.shrink(bytes_max):
        pass
    assert bytes_max * 0.6 < used(writer) <= bytes_max
    reader = open_reader()
    frames = reader.organization("personal").select((), 0, 10**9)
    begins = [frame.timestamps_ms[0] for frame in frames]
    assert len(begins) == 2
    assert abs(begins[0] - begins[1]) <= max(KEY_ROWS, min(stretch, 32))
    assert [frame.timestamps_ms[-1] for frame in frames] == [99, 99]


def test_a_target_goes_on_after_its_size_took_everything(
    large: Callable[[], Writer],
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    sentences: list[str],
) -> None:
    writer = large()
    while writer.shrink(0):
        pass
    assert times_of(open_reader()) == []
    for row in (100, 101):
        assert writer.append([batch(row, layout("a"), [row], target="x")]) == []
    assert times_of(open_reader()) == [100, 101]
    assert not sentences


def test_space_is_given_back_but_for_a_share(large: Callable[[], Writer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "PAGES_PER_CALL", 8)
    writer = large()
    writer.delete_before(80)
    steps = []
    while given := writer.give_back():
        steps.append(given)
    assert len(steps) > 1
    assert set(steps) == {8}
    counted = writer.statistics()
    assert 0 < counted["free_bytes"] <= 8 * 4096


def test_a_write_ahead_log_that_readers_kept_from_being_folded_away_is_cut_back(
    large: Callable[[], Writer],
    open_writer: OpenWriter,
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    store_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    large().close()
    reader = open_reader()
    reader._connection.execute("BEGIN")
    reader._connection.execute("SELECT count(*) FROM log").fetchall()
    writer = open_writer()
    writer.append([batch(row, layout("a"), [row], target="z") for row in range(100, 300)])
    grown = os.path.getsize(store_path + "-wal")
    monkeypatch.setattr(schema, "WAL_BYTES_MAX", grown // 2)
    writer.give_back()  # a reader is in the way, and is not waited for
    assert os.path.getsize(store_path + "-wal") >= grown
    reader._connection.execute("COMMIT")
    writer.give_back()
    assert os.path.getsize(store_path + "-wal") == 0
    reader.refresh()
    assert len(times_of(reader)) == 400


def test_the_oldest_chains_of_many_frames_go_in_one_call(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    """Else a fleet would fill its log faster than a call a chain can empty it."""
    writer, one = open_writer(), layout("a")
    for row in range(3 * KEY_ROWS):
        writer.append([batch(row, one, [row], target=f"t{number}") for number in range(20)])
    writer.append([batch(10**6, one, [1], target="late")])
    assert writer.shrink(1) == 20 * KEY_ROWS
    assert set(times_of(open_reader())) == {*range(KEY_ROWS, 3 * KEY_ROWS), 10**6}
    assert [writer.shrink(1) for _ in range(4)] == [20 * KEY_ROWS, 20 * KEY_ROWS, 1, 0]
