"""How a batch becomes a row."""

from collections.abc import Callable

import numpy as np
import pytest

from flyproxy.series.frame import ABSENT, STALE, is_absent, is_stale
from flyproxy.series.samples import Batch, Layout
from flyproxy.tsdb.target import DEAD_SERIES_MAX, RefusedError, Row, Target

MakeLayout = Callable[..., Layout]
MakeBatch = Callable[..., Batch]


def give(target: Target, batch: Batch, first_zero: bool = True) -> Row:
    if batch.layout is not target.layout:
        target.adopt(batch.layout)
    row = target.row(batch, first_zero)
    target.wrote(row, batch.timestamp_ms)
    return row


@pytest.fixture
def target() -> Target:
    return Target("personal", "own", frame=1)


def test_series_keep_their_rows_when_the_layout_is_shuffled(
    target: Target, layout: MakeLayout, batch: MakeBatch
) -> None:
    give(target, batch(1, layout("a", "b", "c"), [1, 2, 3]))
    assert give(target, batch(2, layout("c", "new", "a", "b"), [30, 40, 10, 20])).values.tolist() == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("before", "after"),
    [("abcdef", "abXcdef"), ("abcdef", "abef"), ("abcdef", "Xabcdef"), ("abcdef", "abcdefX"), ("ab", ""), ("", "ab"),
     ("aab"[1:], "ba"), ("abc", "abc")],
)  # fmt: skip
def test_a_changed_layout_is_mapped_wherever_it_changed(
    target: Target, layout: MakeLayout, before: str, after: str
) -> None:
    target.adopt(layout(*before))
    added = target.adopt(layout(*after))
    assert [dict(labels)["__name__"] for labels in added] == [name for name in after if name not in before]
    names = {row: dict(labels)["__name__"] for labels, row in target.index.items()}
    assert "".join(names[row] for row in target.rows.tolist()) == after


def test_a_series_that_vanished_is_stale_once_and_then_absent(
    target: Target, layout: MakeLayout, batch: MakeBatch
) -> None:
    give(target, batch(1, layout("a", "b"), [1, 2]))
    smaller = layout("a")
    assert is_stale(give(target, batch(2, smaller, [1])).values).tolist() == [False, True]
    assert is_absent(give(target, batch(3, smaller, [1])).values).tolist() == [False, True]
    assert give(target, batch(4, layout("b", "a"), [7, 1])).values.tolist() == [1, 7]


def test_a_series_that_comes_back_is_not_newborn(target: Target, layout: MakeLayout, batch: MakeBatch) -> None:
    give(target, batch(0, layout("a", "b"), [1, 2]))
    give(target, batch(15_000, layout("a"), [1]))
    assert give(target, batch(30_000, layout("a", "b"), [1, 9])).births is None


@pytest.mark.parametrize(
    ("gap_ms", "zero_ms"), [(15_000, 0), (22_500, 0), (22_501, 7_501), (1_000, 0), (600_000, 585_000)]
)
def test_a_newborn_counters_zero_stands_one_interval_before_it(
    target: Target, layout: MakeLayout, batch: MakeBatch, gap_ms: int, zero_ms: int
) -> None:
    give(target, batch(0, layout("a"), [1]))
    births = give(target, batch(gap_ms, layout("a", "b", gauges=["g"]), [1, 5, 6])).births
    assert births is not None
    assert (births.at_ms, births.rows.tolist()) == (zero_ms, [1])


def test_the_first_row_of_a_target_bears_no_zero(target: Target, layout: MakeLayout, batch: MakeBatch) -> None:
    assert give(target, batch(0, layout("a"), [5])).births is None


def test_a_counter_is_born_with_its_first_sample_not_with_its_place(
    target: Target, layout: MakeLayout, batch: MakeBatch
) -> None:
    both = layout("a", "b")
    assert give(target, batch(0, both, [1, ABSENT[0]])).births is None
    assert give(target, batch(15_000, both, np.concatenate(([1.0], ABSENT)))).births is None
    births = give(target, batch(30_000, both, [1, 4])).births
    assert births is not None
    assert births.rows.tolist() == [1]


def test_first_zero_can_be_switched_off(target: Target, layout: MakeLayout, batch: MakeBatch) -> None:
    give(target, batch(0, layout("a"), [1]), first_zero=False)
    assert give(target, batch(15_000, layout("a", "b"), [1, 5]), first_zero=False).births is None


def test_the_end_of_a_target_ends_what_lives(target: Target, layout: MakeLayout, batch: MakeBatch) -> None:
    give(target, batch(0, layout("a", "b", "c"), [1, 2, 3]))
    give(target, batch(15_000, layout("a", "b"), np.concatenate(([1.0], STALE))))
    row = target.end(20_000)
    assert row is not None
    assert is_stale(row.values).tolist() == [True, False, False]
    assert is_absent(row.values).tolist() == [False, True, True]
    assert target.end(21_000) is None


def test_a_series_twice_is_refused_by_name(target: Target, layout: MakeLayout) -> None:
    with pytest.raises(RefusedError, match=r"'a'.* is in the layout twice"):
        target.adopt(layout("b", "a", "c", "a"))


def test_the_same_layout_is_not_looked_at_again(target: Target, layout: MakeLayout, batch: MakeBatch) -> None:
    same = layout("a", "b")
    give(target, batch(0, same, [1, 2]))
    give(target, batch(1, same, [1, 3]))
    target.index.clear()
    target.index.update({(): 0, (("x", "y"),): 1})
    assert give(target, batch(2, same, [4, 5])).values.tolist() == [4, 5]


def test_a_frame_of_mostly_dead_series_hands_over(target: Target, layout: MakeLayout, batch: MakeBatch) -> None:
    give(target, batch(0, layout(*(f"s{place}" for place in range(DEAD_SERIES_MAX + 3))), range(DEAD_SERIES_MAX + 3)))
    assert not target.mostly_gone()
    give(target, batch(15_000, layout("s0", "s1"), [5, 6]))
    assert target.mostly_gone()
    after = Target("personal", "own", frame=2, last_ms=target.last_ms)
    last = batch(30_000, layout("s1", "new"), [7, 8])
    after.adopt(last.layout)
    closing = target.hand_over(after, 30_000)
    assert np.flatnonzero(is_stale(closing.values)).tolist() == [0]
    row = after.row(last, True)
    assert row.values.tolist() == [7, 8]
    assert row.births is not None
    assert (row.births.at_ms, row.births.rows.tolist()) == (15_000, [1])
