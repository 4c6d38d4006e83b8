from flyproxy.tsdb.openmetrics_families import NamedFamily, families_of

TYPES = {
    "fly_edge_http_responses_count": "counter",
    "fly_edge_http_response_time_seconds": "histogram",
    "fly_app_concurrency": "gauge",
    "flyproxy_limit_reached_total": "counter",
}


def test_what_is_known_has_its_type_and_flys_counters_are_unknown() -> None:
    names = [
        "fly_app_concurrency",
        "fly_edge_http_response_time_seconds_bucket",
        "fly_edge_http_response_time_seconds_count",
        "fly_edge_http_response_time_seconds_sum",
        "fly_edge_http_responses_count",
        "flyproxy_limit_reached_total",
    ]
    assert families_of(names, TYPES) == [
        NamedFamily("fly_app_concurrency", "gauge", (names[0],)),
        NamedFamily("fly_edge_http_response_time_seconds", "histogram", tuple(names[1:4])),
        NamedFamily("fly_edge_http_responses_count", "unknown", (names[4],)),
        NamedFamily("flyproxy_limit_reached", "counter", (names[5],)),
    ]


def test_of_other_names_the_ending_says_what_they_are() -> None:
    assert families_of(["b_total", "h_sum", "h_bucket", "x_count", "a", "up"], {}) == [
        NamedFamily("a", "unknown", ("a",)),
        NamedFamily("b", "counter", ("b_total",)),
        NamedFamily("h", "histogram", ("h_bucket", "h_sum")),
        NamedFamily("up", "unknown", ("up",)),
        NamedFamily("x_count", "unknown", ("x_count",)),
    ]


def test_a_family_does_not_take_the_name_of_another_metric() -> None:
    found = families_of(["a", "a_total", "h", "h_bucket", "h_count", "k_bucket", "k_total"], {"k": "counter"})
    assert [(each.name, each.type) for each in found] == [
        ("a", "unknown"),
        ("a_total", "unknown"),
        ("h", "unknown"),
        ("h_bucket", "unknown"),
        ("h_count", "unknown"),
        ("k_bucket", "unknown"),
        ("k_total", "unknown"),
    ]


def test_endings_alone_are_names() -> None:
    assert [each.name for each in families_of(["_total", "_bucket", "_sum"], {})] == ["_bucket", "_sum", "_total"]
