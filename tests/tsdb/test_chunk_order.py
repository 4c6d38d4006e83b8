"""Which series of a chunk stand together."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.series.labels import Labels, labels_from
from flyproxy.tsdb.chunk_order import histogram_groups, rows_in_order, share_out
from flyproxy.tsdb.layout import Column, decode_layout, encode_layout


def columns_of(series: list[Labels]) -> list[Column]:
    return decode_layout(1, 0, len(series), encode_layout(1, 0, series))


def named(name: str, **labels: str) -> Labels:
    return labels_from({"__name__": name, **labels})


def test_buckets_of_one_histogram_and_its_count_share_a_group() -> None:
    series = [
        named("up"),
        named("s_bucket", app="a", le="0.5"),
        named("s_bucket", app="b", le="0.5"),
        named("s_bucket", app="a", le="+Inf"),
        named("s_count", app="a"),
        named("s_sum", app="a"),
        named("s_count", app="c"),
        named("s_bucket", app="a", le="0.1"),
    ]
    groups, bounds = histogram_groups(columns_of(series), len(series))
    assert groups.tolist() == [0, 1, 2, 1, 1, 3, 4, 1]
    order = rows_in_order(groups, bounds, np.zeros(8, np.bool_))
    assert order.tolist() == [0, 7, 1, 3, 4, 2, 5, 6]


def test_a_le_that_is_no_number_is_a_series_of_its_own() -> None:
    series = [named("s_bucket", le="0.5"), named("s_bucket", le="fast"), named("s_bucket"), named("t_bucket", le="1")]
    assert histogram_groups(columns_of(series), 4)[0].tolist() == [0, 1, 2, 3]


def test_a_count_with_le_or_without_buckets_joins_nothing() -> None:
    series = [named("s_bucket", le="1"), named("s_count", le="1"), named("t_count")]
    assert histogram_groups(columns_of(series), 3)[0].tolist() == [0, 1, 2]


def test_series_without_any_labels_are_apart() -> None:
    groups, bounds = histogram_groups([], 3)
    assert groups.tolist() == [0, 1, 2]
    assert np.isnan(bounds).all()


def test_labels_may_end_before_the_last_series() -> None:
    columns = columns_of([named("s_bucket", le="1"), named("s_bucket", le="2")])
    groups, _ = histogram_groups(columns, 4)
    assert groups.tolist() == [0, 0, 1, 2]


def test_idle_groups_come_last_and_keep_their_order() -> None:
    groups = np.array([0, 0, 1, 2, 3], np.int32)
    idle = np.array([True, False, True, False, True])
    assert rows_in_order(groups, np.full(5, np.nan), idle).tolist() == [0, 1, 3, 2, 4]


@given(st.lists(st.integers(1, 150), min_size=1, max_size=60))
def test_blocks_are_within_bounds_and_groups_stay_whole(sizes: list[int]) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes).astype(np.int32)
    block_of = share_out(groups, 64)
    assert block_of.size == groups.size
    assert np.bincount(block_of).max() <= 64
    assert np.bincount(block_of).min() >= 1
    for group, size in enumerate(sizes):
        blocks = set(block_of[groups == group].tolist())
        assert len(blocks) == (size + 63) // 64
    assert len(np.bincount(block_of)) <= 2 * groups.size / 64 + len(sizes) / 64 + 4 + sum(size > 32 for size in sizes)
