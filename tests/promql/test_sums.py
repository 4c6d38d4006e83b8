"""Sums lose nothing that a float could keep."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyproxy.promql.sums import compensated, group_sums, window_means, window_sums
from flyproxy.promql.windows import Flat
from flyproxy.series.frame import Floats

numbers = st.floats(min_value=-1e12, max_value=1e12, allow_nan=False)


def windows(values: Floats, edges: list[tuple[int, int]]) -> Flat:
    lo, hi = (np.array([[edge[side] for edge in edges]], dtype=np.int64) for side in (0, 1))
    return Flat(values, np.arange(values.size, dtype=np.int64), lo, hi)


@settings(max_examples=200, deadline=None)
@given(st.lists(numbers, min_size=1, max_size=40), st.data())
def test_every_window_is_summed_as_if_exactly(values: list[float], data: st.DataObject) -> None:
    lo = data.draw(st.integers(0, len(values)))
    hi = data.draw(st.integers(lo, len(values)))
    (total,) = window_sums(windows(np.array(values), [(lo, hi)]))[0]
    assert total == pytest.approx(math.fsum(values[lo:hi]), rel=1e-15, abs=1e-15)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), numbers), min_size=1, max_size=40))
def test_every_group_is_summed_as_if_exactly(members: list[tuple[int, float]]) -> None:
    members.sort(key=lambda member: member[0])
    groups = sorted({group for group, _ in members})
    starts = np.array([[group for group, _ in members].index(group) for group in groups], dtype=np.intp)
    total = compensated(*group_sums(np.array([[value] for _, value in members]), starts))
    for place, group in enumerate(groups):
        exact = math.fsum(value for member, value in members if member == group)
        assert total[place, 0] == pytest.approx(exact, rel=1e-15, abs=1e-15)


def test_small_terms_survive_large_ones_that_cancel() -> None:
    values = np.array([1.0, 1e100, 1.0, -1e100])
    assert window_sums(windows(values, [(0, 4), (0, 1), (2, 3)])).tolist() == [[2.0, 1.0, 1.0]]


def test_infinities_and_nan_stay_in_their_own_windows() -> None:
    values = np.array([0.5, math.inf, 0.25, math.nan, 0.125])
    with np.errstate(all="ignore"):
        sums = window_sums(windows(values, [(0, 1), (0, 3), (2, 3), (2, 4), (4, 5), (1, 1)]))[0]
    assert sums.tolist()[:3] == [0.5, math.inf, 0.25]
    assert math.isnan(sums[3])
    assert sums.tolist()[4:] == [0.125, 0.0]


def test_a_mean_of_the_largest_floats_is_no_infinity() -> None:
    values = np.full(4, 1.5e308)
    with np.errstate(all="ignore"):
        assert window_means(windows(values, [(0, 4)])).tolist() == [[1.5e308]]
