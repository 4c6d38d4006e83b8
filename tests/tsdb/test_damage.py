"""Damage is named, skipped and counted, and the rest is served."""

import sqlite3
from collections.abc import Callable

import pytest

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
