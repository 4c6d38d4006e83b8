"""A head grows in both directions, and what it handed out stays as it was."""

import numpy as np
import pytest

from flyproxy.series.frame import is_absent
from flyproxy.tsdb.head import Head
from flyproxy.tsdb.log import Births, Bits

EVERYTHING = slice(0, None)


def bits(*values: float) -> Bits:
    return np.array(values, np.float64).view(np.uint64)


@pytest.fixture
def head() -> Head:
    """Series 0 and 1 at 10, 20, 30 ms; what was before 10 ms is not here."""
    made = Head(10, 2, 1)
    for time in (10, 20, 30):
        made.append(time, bits(time, -time))
    return made


def times_of(head: Head) -> list[int]:
    times: list[int] = head.times(head.span(-1000, 1000)).tolist()
    return times


def test_both_ends_of_a_span_belong_to_it(head: Head) -> None:
    assert head.times(head.span(10, 20)).tolist() == [10, 20]
    assert head.times(head.span(11, 19)).tolist() == []
    assert head.values(np.array([1]), head.span(20, 99)).tolist() == [[-20, -30]]


def test_a_series_that_comes_later_has_no_samples_before(head: Head) -> None:
    head.append(40, bits(40, -40, 7))
    row = head.values(np.array([2]), head.span(0, 99))
    assert is_absent(row).tolist() == [[True, True, True, False]]


def test_neighbouring_rows_are_views_and_others_copies(head: Head) -> None:
    head.append(40, bits(1, 2, 3))
    span = head.span(0, 99)
    whole = head.values(EVERYTHING, span)
    assert np.shares_memory(whole, head.values(np.array([1, 2]), span))
    assert not np.shares_memory(whole, head.values(np.array([0, 2]), span))
    assert all(row.flags.c_contiguous for row in head.values(np.array([0, 2]), span))


def test_a_view_stays_true_while_cells_move(head: Head) -> None:
    view = head.values(np.array([0, 1]), head.span(0, 99))
    before = view.tolist()
    for time in range(40, 400, 10):
        head.append(time, bits(*range(time)))
    head.keep_newest(3)
    head.append(400, bits(1))
    assert view.tolist() == before


def test_a_zero_stands_in_the_column_of_that_time_or_in_its_own(head: Head) -> None:
    head.give_birth(Births(30, np.array([2])))
    head.append(60, bits(60, -60, 5))
    head.give_birth(Births(80, np.array([3])))
    head.append(95, bits(95, -95, 6, 1))
    assert times_of(head) == [10, 20, 30, 60, 80, 95]
    assert head.values(np.array([2]), head.span(30, 60)).tolist() == [[0, 5]]
    assert head.values(np.array([3]), head.span(80, 99)).tolist() == [[0, 1]]
    assert is_absent(head.values(np.array([0]), head.span(80, 80))).all()


def test_a_zero_from_before_the_head_is_left_out(head: Head) -> None:
    head.give_birth(Births(9, np.array([2])))
    assert times_of(head) == [10, 20, 30]


def test_only_the_newest_columns_can_be_kept(head: Head) -> None:
    head.keep_newest(2)
    assert times_of(head) == [20, 30]
    assert head.from_ms == 20
    head.keep_newest(9)
    assert times_of(head) == [20, 30]


def test_earlier_columns_can_be_put_before(head: Head) -> None:
    earlier = Head(-5, 1, 4)
    earlier.append(-5, bits(1))
    earlier.append(5, bits(2))
    head.prepend(earlier)
    assert times_of(head) == [-5, 5, 10, 20, 30]
    assert head.from_ms == -5
    assert head.values(np.array([0]), head.span(-5, 99)).tolist() == [[1, 2, 10, 20, 30]]
    assert is_absent(head.values(np.array([1]), head.span(-5, 9))).all()
    head.append(40, bits(40, -40))
    assert times_of(head)[-1] == 40
