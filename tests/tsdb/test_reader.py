"""What a reader promises: one organization only, what was committed, and views that stay true."""

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from flyproxy.series.frame import ABSENT, Frame
from flyproxy.series.labels import Labels, labels_from
from flyproxy.series.matchers import BadPatternError, Matcher, MatchOp
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Reader, StoreMissingError, Writer

OpenWriter = Callable[..., Writer]
OpenReader = Callable[..., Reader]


MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]
FOREVER = (0, 2**60)


def named(name: str, op: MatchOp = MatchOp.EQUAL) -> list[Matcher]:
    return [Matcher("__name__", op, name)]


def names_of(found: Sequence[Labels]) -> list[str]:
    return [dict(labels)["__name__"] for labels in found]


@pytest.fixture
def filled(open_writer: OpenWriter, layout: MakeLayout, batch: MakeBatch) -> Writer:
    """100 beats of a, b, c from one target, and of c, d from another target of another organization."""
    writer = open_writer()
    abc, cd = layout("a", "b", "c"), layout("c", {"__name__": "d", "app": "secret"})
    for beat in range(100):
        now_ms = beat * 15_000
        writer.append([
            batch(now_ms, abc, [beat, 2 * beat, 3]),
            batch(now_ms, cd, [7, 8], organization="other", target="own"),
        ])  # fmt: skip
    return writer


def test_there_is_no_store_before_a_writer_made_one(tmp_path: Path) -> None:
    with pytest.raises(StoreMissingError, match="there is no store here yet"):
        Reader.open(str(tmp_path / "metrics.db"))
    (tmp_path / "metrics.db").touch()
    with pytest.raises(StoreMissingError, match="still being made"):
        Reader.open(str(tmp_path / "metrics.db"))


def test_an_organization_sees_its_own_frames_only(open_reader: OpenReader, filled: Writer) -> None:
    reader = open_reader()
    personal, other, nobody = (reader.organization(name) for name in ("personal", "other", "nobody"))
    assert names_of(personal.series(None, *FOREVER)) == ["a", "b", "c"]
    assert names_of(other.series(None, *FOREVER)) == ["c", "d"]
    assert [frame.values.shape for frame in personal.select(named("c"), *FOREVER)] == [(1, 100)]
    assert personal.label_names(None, *FOREVER) == ["__name__"]
    assert personal.label_values("app", None, *FOREVER) == []
    assert other.label_values("app", None, *FOREVER) == ["secret"]
    assert nobody.select((), *FOREVER) == []
    assert nobody.series(None, *FOREVER) == []
    assert nobody.label_names(None, *FOREVER) == []


def test_the_organizations_that_stored_something_are_listed(open_reader: OpenReader, filled: Writer) -> None:
    assert open_reader().organizations() == ["other", "personal"]


def test_both_ends_of_the_window_belong_to_it(open_reader: OpenReader, filled: Writer) -> None:
    (frame,) = open_reader().organization("personal").select(named("a"), 30_000, 60_000)
    assert frame.timestamps_ms.tolist() == [30_000, 45_000, 60_000]
    assert frame.values.tolist() == [[2, 3, 4]]


def test_a_window_between_two_rows_is_empty(open_reader: OpenReader, filled: Writer) -> None:
    view = open_reader().organization("personal")
    assert view.select(named("a"), 30_001, 44_999) == []
    assert view.select(named("a"), 10**9, 10**9) == []


def test_neighbouring_series_are_handed_out_without_a_copy(open_reader: OpenReader, filled: Writer) -> None:
    view = open_reader().organization("personal")
    (first,) = view.select(named("a|b", MatchOp.MATCH), *FOREVER)
    (second,) = view.select(named("b"), *FOREVER)
    assert np.shares_memory(first.values, second.values)


def test_frames_handed_out_stay_true_while_the_head_grows(
    open_reader: OpenReader, filled: Writer, layout: MakeLayout, batch: MakeBatch
) -> None:
    reader = open_reader(head_bytes=6_000)
    view = reader.organization("personal")
    (held,) = view.select((), *FOREVER)
    before = held.values.copy()
    many = layout("a", *(f"n{place}" for place in range(9)))
    for beat in range(100, 200):
        filled.append([batch(beat * 15_000, many, range(10))])
        reader.refresh()
        view.select(named("a"), 1_400_000, beat * 15_000)
    assert held.values.tolist() == before.tolist()
    assert reader.statistics()["head_bytes"] <= 6_000


def test_matcher_sets_are_joined(open_reader: OpenReader, filled: Writer) -> None:
    view = open_reader().organization("personal")
    assert names_of(view.series([named("c"), named("a"), named("nothing")], *FOREVER)) == ["a", "c"]
    assert view.label_values("__name__", [named("a|b", MatchOp.MATCH), named("b")], *FOREVER) == ["a", "b"]
    assert view.label_names([named("nothing")], *FOREVER) == []
    with pytest.raises(BadPatternError):
        view.series([named("(", MatchOp.MATCH)], *FOREVER)


class TooLongError(Exception):
    """What an asker raises at its deadline."""


def test_a_long_search_ends_where_its_asker_says(open_reader: OpenReader, filled: Writer) -> None:
    """A hundred patterns over all labels: the deadline is looked at before each."""
    reader, left = open_reader(), [3]

    def checkpoint() -> None:
        left[0] -= 1
        if not left[0]:
            raise TooLongError

    view = reader.organization("personal", checkpoint)
    sets = [named("a"), named("b"), named("c")]
    for search in (view.series, view.label_names, lambda *asked: view.label_values("__name__", *asked)):
        left[0] = 3
        with pytest.raises(TooLongError):
            search(sets, *FOREVER)
    left[0] = 1
    with pytest.raises(TooLongError):
        view.select(named("a"), *FOREVER)
    left[0] = 5
    assert names_of(view.series(sets, *FOREVER)) == ["a", "b", "c"]
    assert len(reader.organization("personal").select(named("a"), *FOREVER)) == 1


def test_series_that_were_not_there_at_the_time_are_not_listed(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    writer.append([batch(0, layout("a", "old"), [1, 1])])
    writer.append([batch(15_000, layout("a"), [1])])
    writer.append([batch(30_000, layout("a", gauges=["new", "never"]), np.concatenate(([1.0, 1.0], ABSENT)))])
    view = open_reader().organization("personal")
    assert names_of(view.series(None, *FOREVER)) == ["a", "new", "old"]
    assert names_of(view.series(None, 15_001, 29_999)) == ["a"]
    assert view.label_values("__name__", None, 30_000, 99_000) == ["a", "new"]
    assert view.label_values("__name__", None, 30_001, 99_000) == []


def test_a_refresh_shows_what_was_committed_since(
    open_reader: OpenReader, filled: Writer, layout: MakeLayout, batch: MakeBatch
) -> None:
    reader = open_reader()
    view = reader.organization("personal")
    assert view.select(named("late"), *FOREVER) == []
    (before,) = view.select(named("a"), *FOREVER)
    filled.append([batch(1_500_000, layout("a", "late"), [100, 5])])
    assert view.select(named("late"), *FOREVER) == []
    reader.refresh()
    (late,) = view.select(named("late"), *FOREVER)
    assert late.values[0, -2:].tolist() == [0.0, 5.0]
    (after,) = view.select(named("a"), *FOREVER)
    assert after.values.tolist() == [[*before.values[0].tolist(), 100.0]]
    assert reader.statistics()["rows_decoded"] == 100  # the head advanced; nothing was decoded twice


def test_a_refresh_with_nothing_new_reads_nothing(open_reader: OpenReader, filled: Writer) -> None:
    reader = open_reader()
    statements: list[str] = []
    reader._connection.set_trace_callback(statements.append)
    reader.refresh()
    assert statements == ["PRAGMA data_version"]


@pytest.mark.parametrize("closed", [True, False])
def test_a_reader_needs_no_wal_files_beside_the_store(
    open_reader: OpenReader, store_path: str, filled: Writer, closed: bool
) -> None:
    if closed:
        filled.close()
        assert not os.path.exists(store_path + "-wal")
    assert len(open_reader().organization("personal").select(named("a"), *FOREVER)) == 1


def test_a_reader_opened_on_a_closed_store_sees_the_next_writer(
    open_writer: OpenWriter, open_reader: OpenReader, filled: Writer, layout: MakeLayout, batch: MakeBatch
) -> None:
    filled.close()
    reader = open_reader()
    open_writer().append([batch(1_500_000, layout("fresh"), [1])])
    reader.refresh()
    assert len(reader.organization("personal").select(named("fresh"), *FOREVER)) == 1


def test_a_store_on_a_read_only_medium_can_be_read(
    open_reader: OpenReader, store_path: str, filled: Writer, tmp_path: Path
) -> None:
    filled.close()
    os.chmod(store_path, 0o444)
    tmp_path.chmod(0o555)
    try:
        assert len(open_reader().organization("personal").select(named("a"), *FOREVER)) == 1
    finally:
        tmp_path.chmod(0o755)


def test_a_reader_cannot_write(open_reader: OpenReader, filled: Writer) -> None:
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        open_reader()._connection.execute("DELETE FROM log")


def test_readers_refresh_while_the_writer_appends(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    one = layout("a")
    writer.append([batch(0, one, [0])])
    reader = open_reader()
    view = reader.organization("personal")

    def write() -> None:
        for beat in range(1, 200):
            writer.append([batch(beat, one, [beat])])

    writing = threading.Thread(target=write)
    writing.start()
    seen = 0
    while writing.is_alive() or seen < 200:
        reader.refresh()
        (frame,) = view.select((), *FOREVER)
        values = frame.values[0].tolist()
        assert values == list(range(len(values)))
        assert len(values) >= seen
        seen = len(values)
    writing.join()


def test_label_sets_in_several_frames_come_in_several_frames(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    writer.append([batch(0, layout("a"), [1], target="x"), batch(5, layout("a"), [2], target="y")])
    frames: Sequence[Frame] = open_reader().organization("personal").select(named("a"), *FOREVER)
    assert [frame.labels for frame in frames] == [[labels_from({"__name__": "a"})]] * 2


def test_heads_stay_within_their_bytes_and_answers_stay_right(
    open_writer: OpenWriter, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    writer = open_writer()
    wide = layout(*(f"s{place}" for place in range(50)))
    for beat in range(200):
        writer.append([batch(beat * 1000, wide, np.arange(50.0) + beat, target=f"t{place}") for place in range(4)])
    for head_bytes in (0, 20_000, 100_000, 200_000, 10**7):
        reader = open_reader(head_bytes)
        view = reader.organization("personal")
        for start_ms in (190_000, 100_000, 0, 150_000, 199_000):
            frames = view.select(named("s7"), start_ms, 10**9)
            assert len(frames) == 4
            for frame in frames:
                assert frame.values[0].tolist() == [7.0 + beat for beat in range(start_ms // 1000, 200)]
            assert reader.statistics()["head_bytes"] <= head_bytes
        kept = reader.statistics()["heads"]
        assert kept == (4 if head_bytes >= 20_000 else 0)
