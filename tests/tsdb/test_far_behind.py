"""A reader that nobody asked for a long time, or that ran out of memory in the middle: right, and soon."""

from collections.abc import Callable

import numpy as np
import pytest

from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb import reader
from flyproxy.tsdb.db import Reader, Writer
from flyproxy.tsdb.head import Head

MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]


def test_a_reader_that_is_far_behind_does_not_follow_row_by_row_and_still_knows_everything(
    open_writer: Callable[..., Writer],
    open_reader: Callable[..., Reader],
    layout: MakeLayout,
    batch: MakeBatch,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader, "ROWS_FOLLOWED_MAX", 10)
    writer = open_writer()
    ab = layout("a", "b")

    def beats(first: int, last: int) -> None:
        for beat in range(first, last):
            writer.append([batch(beat * 1000, ab, [beat, 2 * beat])])

    beats(0, 20)
    late = open_reader()
    view = late.organization("personal")
    assert view.select([], 0, 10**6)[0].values.shape == (2, 20)
    decoded = late.statistics()["rows_decoded"]
    beats(20, 30)
    late.refresh()
    assert late.statistics()["heads"] == 1  # followed
    beats(30, 100)
    writer.append([batch(100_000, layout("a", "b", "c"), [100, 200, 3])])
    late.refresh()
    assert late.statistics()["heads"] == 0
    assert late.statistics()["rows_decoded"] == decoded
    (frame,) = view.select([], 0, 10**6)
    assert frame.timestamps_ms.tolist() == [beat * 1000 for beat in range(101)]
    assert frame.values[1].tolist() == [2.0 * beat for beat in range(101)]
    beats(101, 103)
    late.refresh()
    assert view.select([], 0, 10**6)[0].values.shape == (3, 103)


def filled(from_ms: int, columns: int) -> Head:
    made = Head(from_ms, 2, columns)
    for column in range(columns):
        made.append(from_ms + column, np.array([1.0, 2.0]).view(np.uint64))
    return made


def test_a_head_that_memory_had_no_room_to_lengthen_does_not_claim_to_reach_further_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    late, early = filled(100, 5), filled(50, 50)

    def refuse(*arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(np, "empty", refuse)
        with pytest.raises(MemoryError):
            late.prepend(early)
    assert late.from_ms == 100
    assert late.times(late.span(0, 1000)).tolist() == [100, 101, 102, 103, 104]
    assert late.values(slice(0, 2), late.span(0, 1000)).tolist() == [[1.0] * 5, [2.0] * 5]
    late.prepend(early)
    assert late.from_ms == 50
    assert late.columns == 55
