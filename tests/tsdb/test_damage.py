"""Damage is named, skipped and counted, and the rest is served."""

import sqlite3
from collections.abc import Callable

import pytest

from flyproxy.series.frame import is_absent
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Reader, Writer
from flyproxy.tsdb.log import KEY_ROWS

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]


ROWS = 3 * KEY_ROWS


@pytest.fixture
def damaged(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    store_path: str,
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
) -> Callable[[str], Reader]:
    """Three chains of rows at 0, 1, 2 ... ms, then a statement that breaks something, then a reader."""
    writer = open_writer()
    one = layout("a")
    writer.append([batch(row, one, [row]) for row in range(ROWS)])
    writer.append([batch(row, layout("b"), [row], target="other") for row in range(3)])
    writer.close()

    def broken(statement: str) -> Reader:
        connection = sqlite3.connect(store_path)
        connection.execute(statement)
        connection.commit()
        connection.close()
        return open_reader()

    return broken


def times_in(reader: Reader) -> list[int]:
    frames = reader.organization("personal").select((), 0, 10**6)
    return sorted(time for frame in frames for time in frame.timestamps_ms.tolist())


FLIP = "UPDATE log SET blob = substr(blob, 1, 20) || x'5a' || substr(blob, 22) WHERE frame = 1 AND ts_ms = "
TEAR = "UPDATE log SET blob = substr(blob, 1, length(blob) - 3) WHERE frame = 1 AND ts_ms = "


@pytest.mark.parametrize("damage", [FLIP, TEAR])
@pytest.mark.parametrize("row", [0, KEY_ROWS - 1, KEY_ROWS, KEY_ROWS + 10, ROWS - 1])
def test_a_damaged_row_takes_the_rest_of_its_chain_and_no_more(
    damaged: Callable[[str], Reader], sentences: list[str], damage: str, row: int
) -> None:
    reader = damaged(damage + str(row))
    lost = set(range(row, (row // KEY_ROWS + 1) * KEY_ROWS))
    for _ in range(2):
        assert times_in(reader) == sorted([0, 1, 2, *(set(range(ROWS)) - lost)])
    counted = reader.statistics()
    assert (counted["rows_damaged"], counted["rows_lost"]) == (1, len(lost) - 1)
    assert any(f"the row of frame 1 at {row} ms is skipped: its checksum" in said for said in sentences)
    assert len(sentences) == len(lost)


def test_a_missing_row_is_noticed_by_the_one_after_it(damaged: Callable[[str], Reader], sentences: list[str]) -> None:
    reader = damaged("DELETE FROM log WHERE frame = 1 AND ts_ms = 5")
    times_in(reader)
    assert reader.statistics()["rows_damaged"] == 1
    assert "it is row 6 of its chain where row 5 belongs" in sentences[0]


def test_a_row_under_another_frame_is_noticed(damaged: Callable[[str], Reader]) -> None:
    reader = damaged(f"UPDATE log SET frame = 2 WHERE frame = 1 AND ts_ms = {KEY_ROWS}")
    times_in(reader)
    assert reader.statistics()["rows_damaged"] >= 1


def test_a_damaged_layout_hides_its_series_and_no_others(
    damaged: Callable[[str], Reader], sentences: list[str]
) -> None:
    reader = damaged("UPDATE layouts SET blob = x'00112233445566778899' WHERE frame = 1")
    view = reader.organization("personal")
    assert view.label_values("__name__", None, 0, 10**6) == ["b"]
    assert reader.statistics()["layouts_damaged"] == 1
    assert "1 series of frame 1 are skipped: their layout" in sentences[0]


def test_damaged_presence_costs_no_sample(damaged: Callable[[str], Reader]) -> None:
    reader = damaged("UPDATE presence SET blob = x'0011'")
    assert len(times_in(reader)) == ROWS + 3
    assert reader.statistics()["layouts_damaged"] == 2


def test_a_frame_whose_owner_is_damaged_is_shown_to_nobody(
    damaged: Callable[[str], Reader], sentences: list[str]
) -> None:
    reader = damaged("UPDATE frames SET organization = 'somebody' WHERE id = 1")
    assert reader.organization("somebody").select((), 0, 10**6) == []
    assert reader.organization("personal").label_values("__name__", None, 0, 10**6) == ["b"]
    assert "frame 1 is skipped" in sentences[0]


def test_a_writer_goes_on_behind_a_damaged_row(
    damaged: Callable[[str], Reader],
    open_writer: OpenWriter,
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
) -> None:
    reader = damaged(FLIP + str(ROWS - 5))
    assert open_writer().append([batch(ROWS, layout("a"), [7])]) == []
    reader.refresh()
    frame = reader.organization("personal").select((), 0, 10**6)[0]
    assert frame.timestamps_ms[-2:].tolist() == [ROWS - 6, ROWS]


@pytest.fixture
def sealed(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    store_path: str,
    layout: Callable[..., Layout],
    batch: Callable[..., Batch],
    seal_all: Callable[..., int],
) -> Callable[[str], Reader]:
    """100 series with rows at 0, 1 ... 47 ms in three chunks, and a chain in the log; then a statement that breaks
    something, then a reader."""
    writer = open_writer()
    wide = layout(*(f"s{place:03}" for place in range(100)))
    writer.append([batch(row, wide, [row * place for place in range(100)]) for row in range(ROWS + 2)])
    assert seal_all(writer, ROWS + KEY_ROWS // 4, KEY_ROWS) == ROWS
    writer.close()

    def broken(statement: str) -> Reader:
        connection = sqlite3.connect(store_path)
        connection.execute(statement)
        connection.commit()
        connection.close()
        return open_reader(1 << 12)

    return broken


def times_by_series(reader: Reader) -> list[list[int]]:
    """[series] The times at which it has a sample."""
    (frame,) = reader.organization("personal").select((), 0, 10**6)
    assert len(frame.labels) == 100
    for place, row in enumerate(frame.values):
        there = ~is_absent(row)
        assert row[there].tolist() == [time * place for time in frame.timestamps_ms[there].tolist()]
    return [frame.timestamps_ms[~is_absent(row)].tolist() for row in frame.values]


EVERY = list(range(ROWS + 2))
WITHOUT_THE_SECOND = [time for time in EVERY if not KEY_ROWS <= time < 2 * KEY_ROWS]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE blocks SET blob = substr(blob, 1, 20) || x'5a5a' || substr(blob, 23) WHERE chunk = 2 AND block = 1",
        "UPDATE blocks SET blob = substr(blob, 1, length(blob) - 3) WHERE chunk = 2 AND block = 1",
        "UPDATE blocks SET blob = (SELECT blob FROM blocks AS o WHERE o.chunk = 3 AND o.block = 1) "
        "WHERE chunk = 2 AND block = 1",
        "UPDATE blocks SET blob = (SELECT blob FROM blocks AS o WHERE o.chunk = 2 AND o.block = 0) "
        "WHERE chunk = 2 AND block = 1",
        "UPDATE blocks SET blob = 3 WHERE chunk = 2 AND block = 1",
        "DELETE FROM blocks WHERE chunk = 2 AND block = 1",
    ],
)
def test_a_damaged_block_costs_its_series_its_stretch_and_no_more(
    sealed: Callable[[str], Reader], sentences: list[str], damage: str
) -> None:
    reader = sealed(damage)
    for _ in range(2):
        times = times_by_series(reader)
        assert sorted(map(len, times)) == [len(WITHOUT_THE_SECOND)] * 36 + [len(EVERY)] * 64
        assert WITHOUT_THE_SECOND in times
    assert reader.statistics()["blocks_damaged"] == len(sentences) == 1
    assert "36 series of a frame have no samples from 16 to 31 ms: block 1 of chunk 2: " in sentences[0]


def test_a_damaged_chunk_head_costs_its_stretch_and_no_more(
    sealed: Callable[[str], Reader], sentences: list[str]
) -> None:
    reader = sealed("UPDATE chunks SET head = substr(head, 1, 9) || x'5a5a' || substr(head, 12) WHERE id = 2")
    for _ in range(2):
        assert times_by_series(reader) == [WITHOUT_THE_SECOND] * 100
    assert reader.statistics()["chunks_damaged"] == len(sentences) == 1
    assert "the samples of frame 1 from 16 to 31 ms are skipped: the head of chunk 2: its checksum" in sentences[0]


def test_a_chunk_under_another_time_is_noticed(sealed: Callable[[str], Reader], sentences: list[str]) -> None:
    reader = sealed("UPDATE chunks SET first_ms = 17 WHERE id = 2")
    assert times_by_series(reader) == [WITHOUT_THE_SECOND] * 100
    assert "the head of chunk 2" in sentences[0]


def test_a_chunk_that_retention_took_since_the_last_refresh_is_no_damage(
    sealed: Callable[[str], Reader], sentences: list[str], open_writer: OpenWriter
) -> None:
    reader = sealed("SELECT 1")
    times_by_series(reader)  # the heads of the chunks are kept, not all blocks
    assert open_writer().delete_before(2 * KEY_ROWS) == 2
    kept = times_by_series(reader)
    assert {time for times in kept for time in times if time >= 2 * KEY_ROWS} == set(EVERY[2 * KEY_ROWS :])
    reader.refresh()
    assert times_by_series(reader) == [EVERY[2 * KEY_ROWS :]] * 100
    assert not sentences
