"""Sealed samples are read by the block: those that are wanted, once, within the reader's bytes."""

from collections.abc import Callable

import numpy as np
import pytest

from flyproxy.series.frame import is_absent
from flyproxy.series.labels import labels_from
from flyproxy.series.matchers import Matcher, MatchOp
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.db import Reader, Writer

OpenReader = Callable[..., Reader]
MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]
SERIES, BEATS = 500, 200


def named(*names: str) -> list[Matcher]:
    return [Matcher("__name__", MatchOp.MATCH, "|".join(names))]


@pytest.fixture
def sealed(
    open_writer: Callable[..., Writer], layout: MakeLayout, batch: MakeBatch, seal_all: Callable[..., int]
) -> Writer:
    """500 series, 200 beats a millisecond apart: five chunks of 32 columns, and 40 rows in the log."""
    writer = open_writer()
    wide = layout(*(f"s{place:03}" for place in range(SERIES)))
    writer.append([batch(beat, wide, np.arange(float(SERIES)) * beat) for beat in range(BEATS)])
    assert seal_all(writer, 172, 32) == 160
    return writer


def test_only_the_blocks_that_hold_what_is_asked_for_are_decoded_and_only_once(
    sealed: Writer, open_reader: OpenReader
) -> None:
    reader = open_reader()
    view = reader.organization("personal")
    for _ in range(2):
        (frame,) = view.select(named("s007"), 40, 100)
        assert frame.timestamps_ms.tolist() == list(range(40, 101))
        assert frame.values.tolist() == [[7.0 * time for time in range(40, 101)]]
        assert reader.statistics()["blocks_decoded"] == 3
    assert reader.statistics()["rows_decoded"] == 0
    assert reader.statistics()["heads"] == 0
    view.select((), 0, 31)
    assert reader.statistics()["blocks_decoded"] == 3 + 8


def test_sealed_and_unsealed_columns_come_as_one_frame_in_the_order_asked_for(
    sealed: Writer, open_reader: OpenReader
) -> None:
    (frame,) = open_reader().organization("personal").select(named("s499", "s000", "s123"), 150, 199)
    assert [dict(labels)["__name__"] for labels in frame.labels] == ["s000", "s123", "s499"]
    assert frame.timestamps_ms.tolist() == list(range(150, 200))
    assert frame.values.tolist() == [[place * time for time in range(150, 200)] for place in (0.0, 123.0, 499.0)]


def test_series_that_came_after_a_chunk_have_no_samples_in_it(
    sealed: Writer, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch
) -> None:
    wider = layout("late", *(f"s{place:03}" for place in range(SERIES)))
    sealed.append([batch(BEATS, wider, np.arange(-1.0, SERIES), interval_ms=1)])
    (frame,) = open_reader().organization("personal").select(named("late", "s499"), 0, BEATS)
    late = frame.labels.index(labels_from({"__name__": "late"}))
    assert is_absent(frame.values[late]).tolist() == [True] * 199 + [False] * 2
    assert frame.values[1 - late].tolist() == [499.0 * beat for beat in range(BEATS)] + [499.0]


@pytest.mark.parametrize("head_bytes", [0, 50_000, 300_000, 10**7])
def test_heads_and_blocks_together_stay_within_their_bytes(
    sealed: Writer, open_reader: OpenReader, head_bytes: int
) -> None:
    reader = open_reader(head_bytes)
    view = reader.organization("personal")
    for start_ms, end_ms in ((0, 199), (150, 199), (0, 40), (190, 199), (70, 170), (0, 199)):
        (frame,) = view.select((), start_ms, end_ms)
        assert frame.values.tolist() == np.outer(np.arange(500), np.arange(start_ms, end_ms + 1)).tolist()
        counted = reader.statistics()
        assert counted["head_bytes"] + counted["block_bytes"] <= head_bytes
    assert (counted["block_bytes"] > 0) == (head_bytes > 0)


def test_a_reader_whose_rows_are_sealed_unseen_reads_them_from_the_chunk(
    sealed: Writer, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch, seal_all: Callable[..., int]
) -> None:
    """At no moment is a sample missing or there twice, whether the reader was told to refresh or not."""
    reader = open_reader()
    view = reader.organization("personal")
    wide = layout(*(f"s{place:03}" for place in range(SERIES)))

    def times(start_ms: int) -> list[int]:
        return [time for frame in view.select(named("s007"), start_ms, 10**6) for time in frame.timestamps_ms.tolist()]

    assert times(180) == list(range(180, 200))  # a head
    sealed.append([batch(beat, wide, np.arange(float(SERIES)) * beat) for beat in range(200, 300)])
    seal_all(sealed, 400, 32)
    assert times(0) == list(range(200))  # as it was at the last refresh
    reader.refresh()
    assert times(0) == list(range(300))
    assert times(250) == list(range(250, 300))
    sealed.append([batch(300, wide, np.arange(float(SERIES)))])
    reader.refresh()
    assert times(290) == list(range(290, 301))


def test_a_frame_that_came_and_was_sealed_between_two_refreshes_is_not_lost(
    sealed: Writer, open_reader: OpenReader, layout: MakeLayout, batch: MakeBatch, seal_all: Callable[..., int]
) -> None:
    reader = open_reader()
    view = reader.organization("personal")
    sealed.append([batch(beat, layout("new"), [beat], target="other") for beat in range(40)])
    seal_all(sealed, 10**9, 1000)
    assert view.select(named("new"), 0, 10**6) == []
    view.select((), 0, 10**6)
    reader.refresh()
    (frame,) = view.select(named("new"), 0, 10**6)
    assert frame.timestamps_ms.tolist() == list(range(40))
