"""When a frame's log is sealed, how much of it in one step, and what a target does afterwards."""

import os
import sqlite3
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from flyproxy.series.frame import Frame
from flyproxy.series.labels import Labels
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import compaction
from flyproxy.tsdb.compaction import SEAL_MS, stretch_ms
from flyproxy.tsdb.db import Reader, StoreError, StoreFullError, Writer
from flyproxy.tsdb.log import KEY_ROWS

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]
MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]
SealAll = Callable[..., int]
FOREVER = (-(2**60), 2**60)
BEAT_MS = 15_000


def times_of(reader: Reader) -> list[int]:
    frames = reader.organization("personal").select((), *FOREVER)
    return sorted(time for frame in frames for time in frame.timestamps_ms.tolist())


@pytest.fixture
def filled(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch) -> Callable[..., Writer]:
    """filled(rows): beats of a and b from 0 on."""

    def make(rows: int) -> Writer:
        writer = open_writer()
        writer.append([batch(beat * BEAT_MS, layout("a", "b"), [beat, beat / 8]) for beat in range(rows)])
        return writer

    return make


def test_nothing_is_sealed_before_a_stretch_and_its_margin_are_over(filled: Callable[..., Writer]) -> None:
    writer = filled(100)
    assert writer.seal(SEAL_MS + SEAL_MS // 4 - 1).frame is None
    assert writer.statistics()["rows_sealed"] == 0


def test_a_stretch_that_is_over_is_sealed_in_whole_chains_and_the_newest_rows_stay(
    filled: Callable[..., Writer], open_reader: OpenReader, seal_all: SealAll
) -> None:
    writer = filled(100)
    stretch = 40 * BEAT_MS
    assert seal_all(writer, 100 * BEAT_MS, stretch) == 64  # 2 x 32: the chains that are wholly in 40 beats
    reader = open_reader()
    assert times_of(reader) == [beat * BEAT_MS for beat in range(100)]
    counted = reader.statistics()
    assert (counted["chunks"], counted["rows"]) == (2, 36)


def test_the_chain_that_is_being_written_is_never_cut(
    filled: Callable[..., Writer],
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    seal_all: SealAll,
    sentences: list[str],
) -> None:
    writer = filled(5 * KEY_ROWS + 3)
    seal_all(writer, 5 * KEY_ROWS * BEAT_MS, 1)
    assert writer.statistics()["log_rows"] == 3
    key_rows = writer.statistics()["key_rows"]
    last = 5 * KEY_ROWS + 3
    writer.append([batch(last * BEAT_MS, layout("a", "b"), [7, 8])])
    assert writer.statistics()["key_rows"] == key_rows
    assert times_of(open_reader()) == [beat * BEAT_MS for beat in range(last + 1)]
    assert not sentences


def test_a_log_with_more_rows_than_a_chunk_takes_is_sealed_at_once(
    filled: Callable[..., Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SEAL_COLUMNS_MAX", 2 * KEY_ROWS)
    writer = filled(3 * KEY_ROWS + 1)
    sealed = writer.seal(0)
    assert (sealed.rows, sealed.chunks, sealed.samples) == (2 * KEY_ROWS, 1, 4 * KEY_ROWS)
    assert writer.seal(0).frame is None


def test_a_step_is_bounded_in_samples(
    filled: Callable[..., Writer], seal_all: SealAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "SEAL_SAMPLES_MAX", 2 * 2 * KEY_ROWS)
    writer = filled(10 * KEY_ROWS + 1)
    steps = []
    while (sealed := writer.seal(10**9)).more:
        steps.append(sealed.rows)
    assert steps == [2 * KEY_ROWS] * 5 + [1]


def test_a_step_looks_at_a_bounded_number_of_frames(
    open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "FRAMES_PER_CALL", 3)
    writer = open_writer()
    writer.append([batch(0, layout("a"), [1], target=f"t{place}") for place in range(8)])
    assert [writer.seal(0).more for _ in range(6)] == [True, True, False] * 2


@pytest.mark.parametrize("restart", [False, True])
def test_a_target_that_ended_is_sealed_soon_and_can_come_back(
    open_writer: OpenWriter,
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    seal_all: SealAll,
    samples: Callable[[Sequence[Frame]], dict[Labels, dict[int, int]]],
    sentences: list[str],
    restart: bool,
) -> None:
    writer = open_writer()
    writer.append([batch(beat * BEAT_MS, layout("a"), [beat]) for beat in range(3)])
    if not restart:
        writer.append([batch(3 * BEAT_MS, layout(), [])])  # all of it left the layout
    else:
        writer.end_target("personal", "own", 3 * BEAT_MS)
    reader = open_reader()
    times_of(reader)
    assert seal_all(writer, 4 * BEAT_MS, SEAL_MS) == 0
    assert seal_all(writer, 4 * BEAT_MS + SEAL_MS // 4, SEAL_MS) == 4
    assert writer.statistics()["log_rows"] == 0
    if restart:
        writer.close()
        writer = open_writer()
        assert writer.live_targets() == []
    old = writer.append([batch(3 * BEAT_MS, layout("a"), [9])])
    assert "is not newer than the last" in old[0]
    writer.append([batch(4 * BEAT_MS, layout("a", "b"), [1, 2])])
    writer.append([batch(5 * BEAT_MS, layout("a", "b"), [2, 3])])
    reader.refresh()
    found = samples(reader.organization("personal").select((), *FOREVER))
    assert found == samples(open_reader().organization("personal").select((), *FOREVER))
    a, b = (found[labels] for labels in sorted(found))
    assert sorted(a) == [beat * BEAT_MS for beat in range(6)]
    # b's zero cannot stand in the sealed column at 3 beats, so it has one of its own right after it
    assert sorted(b) == [3 * BEAT_MS + 1, 4 * BEAT_MS, 5 * BEAT_MS]
    assert b[3 * BEAT_MS + 1] == 0
    assert not sentences


def test_a_frame_that_was_quiet_for_a_stretch_is_sealed_whole_though_nothing_ended(
    filled: Callable[..., Writer], open_writer: OpenWriter, open_reader: OpenReader, seal_all: SealAll
) -> None:
    writer = filled(3)
    stretch = 1000 * BEAT_MS
    assert seal_all(writer, 1200 * BEAT_MS, stretch) == 0
    assert seal_all(writer, 1300 * BEAT_MS, stretch) == 3
    writer.close()
    again = open_writer()
    assert again.live_targets() == [("personal", "own")]
    assert again.end_target("personal", "own", 0) == 2
    assert times_of(open_reader()) == [0, BEAT_MS, 2 * BEAT_MS, 2 * BEAT_MS + 1]


def test_a_short_retention_has_short_stretches() -> None:
    assert stretch_ms(None) == stretch_ms(15 * 86_400.0) == SEAL_MS
    assert stretch_ms(600.0) == 60_000
    assert stretch_ms(0.0) == 1


def test_a_damaged_row_is_named_before_its_chain_goes_and_the_rest_is_sealed(
    filled: Callable[..., Writer], open_reader: OpenReader, store_path: str, seal_all: SealAll, sentences: list[str]
) -> None:
    writer = filled(3 * KEY_ROWS)
    connection = sqlite3.connect(store_path)
    connection.execute(
        "UPDATE log SET blob = substr(blob, 1, 9) || x'5a5a' || substr(blob, 12) WHERE ts_ms = ?",
        ((KEY_ROWS + 3) * BEAT_MS,),
    )
    connection.commit()
    connection.close()
    assert seal_all(writer, 10**12, SEAL_MS) == 3 * KEY_ROWS
    assert f"the row of frame 1 at {(KEY_ROWS + 3) * BEAT_MS} ms is skipped: its checksum" in sentences[0]
    assert len(sentences) == KEY_ROWS - 3 == writer.statistics()["rows_damaged"]
    kept = [beat for beat in range(3 * KEY_ROWS) if not KEY_ROWS + 3 <= beat < 2 * KEY_ROWS]
    reader = open_reader()
    assert times_of(reader) == [beat * BEAT_MS for beat in kept]
    assert reader.statistics()["rows_damaged"] == 0


def test_a_stretch_of_nothing_but_damage_goes_when_it_was_named(
    filled: Callable[..., Writer], open_reader: OpenReader, store_path: str, seal_all: SealAll, sentences: list[str]
) -> None:
    writer = filled(KEY_ROWS)
    connection = sqlite3.connect(store_path)
    connection.execute("UPDATE log SET blob = zeroblob(40)")
    connection.commit()
    connection.close()
    assert seal_all(writer, 10**12, SEAL_MS) == KEY_ROWS
    assert len(sentences) == KEY_ROWS
    assert times_of(open_reader()) == []


def test_a_series_whose_layout_is_damaged_is_sealed_with_the_others(
    filled: Callable[..., Writer], store_path: str, seal_all: SealAll, open_reader: OpenReader
) -> None:
    writer = filled(KEY_ROWS)
    connection = sqlite3.connect(store_path)
    connection.execute("UPDATE layouts SET blob = zeroblob(40)")
    connection.commit()
    connection.close()
    assert seal_all(writer, 10**12, SEAL_MS) == KEY_ROWS
    assert writer.statistics()["samples_sealed"] == 2 * KEY_ROWS
    assert times_of(open_reader()) == []


def test_a_step_that_fails_seals_nothing_and_the_next_one_goes_on_behind_that_frame(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    writer.append([batch(beat, layout("a"), [beat], target=name) for name in "xy" for beat in range(20)])
    writer._connection.set_authorizer(lambda action, *_: int(action == sqlite3.SQLITE_DELETE))
    with pytest.raises(StoreError, match="not authorized while sealing"):
        writer.seal(10**12)
    writer._connection.set_authorizer(None)
    reader = open_reader()
    assert len(times_of(reader)) == 40
    assert reader.statistics()["chunks"] == 0
    assert writer.seal(10**12).frame == 2
    reader.refresh()
    assert len(times_of(reader)) == 40


def test_a_full_disk_while_sealing_loses_nothing(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    wide = layout(gauges=[f"s{place}" for place in range(500)])
    random = np.random.default_rng(1)
    writer.append([batch(beat, wide, random.random(500)) for beat in range(50)])
    (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
    writer._connection.execute(f"PRAGMA max_page_count = {pages}").fetchall()
    with pytest.raises(StoreFullError, match="no room left while sealing"):
        writer.seal(10**12)
    writer._connection.execute("PRAGMA max_page_count = 1000000").fetchall()
    assert times_of(open_reader()) == list(range(50))
    assert writer.append([batch(50, wide, random.random(500))]) == []


def test_a_sealed_store_takes_less_room_and_gives_it_to_the_next_rows(
    open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch, store_path: str, seal_all: SealAll
) -> None:
    writer = open_writer()
    wide = layout(*(f"s{place}" for place in range(500)))
    for beat in range(1000):
        writer.append([batch(beat * BEAT_MS, wide, np.arange(500) * (beat // 3))])
        if beat == 499:
            before = writer.statistics()["file_bytes"]
            seal_all(writer, beat * BEAT_MS, 50 * BEAT_MS)
    assert writer.statistics()["file_bytes"] < 1.5 * before
    assert os.path.getsize(store_path) < 1.5 * before


def test_a_reader_that_stays_open_does_not_keep_decoded_what_was_sealed_or_deleted(
    filled: Callable[..., Writer],
    open_reader: OpenReader,
    layout: MakeLayout,
    batch: MakeBatch,
    seal_all: SealAll,
) -> None:
    writer = filled(20)
    reader = open_reader()
    held = []
    both = layout("a", "b")
    for beat in range(20, 2000):
        writer.append([batch(beat * BEAT_MS, both, [beat, beat / 8])])
        if beat % 20 == 0:
            seal_all(writer, beat * BEAT_MS, 40 * BEAT_MS)
            while writer.delete_before((beat - 100) * BEAT_MS):
                pass
            reader.refresh()
            reader.organization("personal").select((), (beat - 10) * BEAT_MS, beat * BEAT_MS)
            held.append(reader.statistics()["head_bytes"])
    assert max(held[60:]) <= max(held[:20])
    reader.refresh()
    times = times_of(reader)
    assert times == list(range(times[0], 2000 * BEAT_MS, BEAT_MS))
