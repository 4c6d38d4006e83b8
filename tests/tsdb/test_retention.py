"""What is older than the retention goes, in bounded steps, and what is kept stays whole."""

import sqlite3
from collections.abc import Callable

import pytest

from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import retention
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
