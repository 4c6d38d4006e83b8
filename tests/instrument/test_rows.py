"""Series and their values follow from the summed cells."""

import numpy as np

from flyproxy.instrument.catalog import FAMILIES
from flyproxy.instrument.rows import Rows, exposed
from flyproxy.series.labels import METRIC_NAME, Labels, labels_from

LABELS: Labels = (("app", "hello"), ("status", "200"))


def values_of(rows: Rows, sums: list[int]) -> dict[tuple[str, str], float]:
    """{(name, le): value}"""
    values = rows.values(np.array(sums, dtype=np.int64))
    found = {}
    for labels, value in zip(rows.layout().series, values.tolist(), strict=True):
        words = dict(labels)
        found[words[METRIC_NAME], words.get("le", "")] = value
    return found


def test_a_histogram_is_cumulative_and_its_counts_are_sums_of_its_buckets() -> None:
    rows = Rows()
    rows.add(FAMILIES["fly_edge_http_response_time_seconds"], LABELS, 1)
    values = values_of(rows, [99, 1, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 4, 2_500_000_000])
    name = "fly_edge_http_response_time_seconds"
    expected = {"0.005": 1, "0.025": 3, "0.05": 3, "0.1": 3, "0.2": 3, "0.5": 3, "1": 6}
    expected |= {"5": 6, "15": 6, "30": 6, "60": 6, "120": 6, "+Inf": 10}
    assert {le: value for (series, le), value in values.items() if series == f"{name}_bucket"} == expected
    assert values[f"{name}_sum", ""] == 2.5
    assert values[f"{name}_count", ""] == 10
    assert values["fly_edge_http_responses_count", ""] == 10
    assert len(values) == 16


def test_histograms_of_other_shapes_and_plain_families_stand_beside_each_other() -> None:
    rows = Rows()
    rows.add(FAMILIES["fly_app_connect_time_seconds"], LABELS, 0)
    rows.add(FAMILIES["fly_edge_data_in"], LABELS, 14)
    rows.add(FAMILIES["flyproxy_event_loop_lag_seconds"], (), 15)
    rows.add(FAMILIES["flyproxy_config_last_reload_success_timestamp_seconds"], (), 29)
    values = values_of(rows, [*[1] * 13, 13, 77, *[2] * 13, 26, 1_500_000_000])
    assert values["fly_app_connect_time_seconds_count", ""] == 13
    assert values["fly_app_connect_time_seconds_bucket", "+Inf"] == 13
    assert values["fly_edge_data_in", ""] == 77
    assert values["flyproxy_event_loop_lag_seconds_bucket", "0.001"] == 4
    assert values["flyproxy_event_loop_lag_seconds_count", ""] == 26
    assert values["flyproxy_event_loop_lag_seconds_sum", ""] == 26e-9
    assert values["flyproxy_config_last_reload_success_timestamp_seconds", ""] == 1.5


def test_a_sum_in_seconds_is_the_float_nearest_to_the_whole_nanoseconds() -> None:
    rows = Rows()
    rows.add(FAMILIES["fly_app_connect_time_seconds"], LABELS, 0)
    assert values_of(rows, [0] * 13 + [12_345_678])["fly_app_connect_time_seconds_sum", ""] == 0.012345678


def test_the_layout_is_one_object_until_a_series_is_added_and_says_what_only_grows() -> None:
    rows = Rows()
    rows.add(FAMILIES["fly_app_concurrency"], LABELS, 0)
    layout = rows.layout()
    assert rows.layout() is layout
    rows.add(FAMILIES["fly_app_http_response_time_seconds"], LABELS, 1)
    longer = rows.layout()
    assert longer is not layout
    assert longer.series[:1] == layout.series
    assert longer.counters.tolist() == [False, *[True] * 16]
    assert longer.series[0] == labels_from({METRIC_NAME: "fly_app_concurrency", **dict(LABELS)})


def test_no_series_no_values() -> None:
    assert Rows().values(np.array([1], dtype=np.int64)).tolist() == []
    assert Rows().layout().series == ()


def test_exposed_families_are_in_the_catalogs_order_and_over_all_organizations() -> None:
    one, other = Rows(), Rows()
    one.add(FAMILIES["fly_edge_data_in"], (("app", "one"),), 0)
    one.add(FAMILIES["fly_edge_http_response_time_seconds"], (("app", "one"),), 1)
    other.add(FAMILIES["fly_edge_data_in"], (("app", "other"),), 15)
    sums = np.arange(16, dtype=np.int64)
    families = exposed([(one, one.values(sums)), (other, other.values(sums))])
    assert [family.name for family in families] == [
        "fly_edge_http_responses_count",
        "fly_edge_http_response_time_seconds",
        "fly_edge_data_in",
    ]
    assert [(sample.labels, sample.value) for sample in families[2].samples] == [
        ((("app", "one"),), 0.0),
        ((("app", "other"),), 15.0),
    ]
