"""Both text formats, read back by the parsers of prometheus_client."""

import math

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flyproxy.series.exposition_writer import (
    OPENMETRICS_TYPE,
    TEXT_TYPE,
    ExposedFamily,
    ExposedSample,
    chosen_by,
    number_text,
    openmetrics,
    text,
)


def parse_openmetrics(words: str) -> list[Metric]:
    return list(text_string_to_metric_families(words))  # type: ignore[no-untyped-call]  # the client has no types here


LABELS = (("app", "hello"), ("region", "ord"))


def family(name: str, kind: str, *samples: ExposedSample, unit: str = "") -> ExposedFamily:
    return ExposedFamily(name, kind, f"What {name} is.", unit, samples)


FLYS = family("fly_edge_http_responses_count", "counter", ExposedSample("fly_edge_http_responses_count", LABELS, 5))
OURS = family("flyproxy_rows_total", "counter", ExposedSample("flyproxy_rows_total", (), 7))
GAUGE = family("fly_app_concurrency", "gauge", ExposedSample("fly_app_concurrency", LABELS, 0))
UNKNOWN = family("strange", "unknown", ExposedSample("strange", (), 1.5))
INFO = family("flyproxy_build_info", "gauge", ExposedSample("flyproxy_build_info", (("version", "1"),), 1))
HISTOGRAM = family(
    "fly_app_connect_time_seconds",
    "histogram",
    *[
        ExposedSample("fly_app_connect_time_seconds_bucket", (("app", "hello"), ("le", le)), count)
        for le, count in (("0.005", 1), ("0.5", 1), ("1", 3), ("120", 3), ("+Inf", 4))
    ],
    ExposedSample("fly_app_connect_time_seconds_sum", (("app", "hello"),), 150.25),
    ExposedSample("fly_app_connect_time_seconds_count", (("app", "hello"),), 4),
    unit="seconds",
)
ALL = [FLYS, OURS, GAUGE, UNKNOWN, INFO, HISTOGRAM]


def lines(rendered: bytes) -> list[str]:
    return rendered.decode().splitlines()


def test_the_text_format_to_the_letter() -> None:
    assert text([FLYS, HISTOGRAM]).decode() == (
        "# HELP fly_edge_http_responses_count What fly_edge_http_responses_count is.\n"
        "# TYPE fly_edge_http_responses_count counter\n"
        'fly_edge_http_responses_count{app="hello",region="ord"} 5\n'
        "# HELP fly_app_connect_time_seconds What fly_app_connect_time_seconds is.\n"
        "# TYPE fly_app_connect_time_seconds histogram\n"
        'fly_app_connect_time_seconds_bucket{app="hello",le="0.005"} 1\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="0.5"} 1\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="1"} 3\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="120"} 3\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="+Inf"} 4\n'
        'fly_app_connect_time_seconds_sum{app="hello"} 150.25\n'
        'fly_app_connect_time_seconds_count{app="hello"} 4\n'
    )


def test_openmetrics_to_the_letter() -> None:
    assert openmetrics([FLYS, OURS, HISTOGRAM]).decode() == (
        "# TYPE fly_edge_http_responses_count unknown\n"
        "# HELP fly_edge_http_responses_count What fly_edge_http_responses_count is.\n"
        'fly_edge_http_responses_count{app="hello",region="ord"} 5\n'
        "# TYPE flyproxy_rows counter\n"
        "# HELP flyproxy_rows What flyproxy_rows_total is.\n"
        "flyproxy_rows_total 7\n"
        "# TYPE fly_app_connect_time_seconds histogram\n"
        "# UNIT fly_app_connect_time_seconds seconds\n"
        "# HELP fly_app_connect_time_seconds What fly_app_connect_time_seconds is.\n"
        'fly_app_connect_time_seconds_bucket{app="hello",le="0.005"} 1\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="0.5"} 1\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="1"} 3\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="120"} 3\n'
        'fly_app_connect_time_seconds_bucket{app="hello",le="+Inf"} 4\n'
        'fly_app_connect_time_seconds_sum{app="hello"} 150.25\n'
        'fly_app_connect_time_seconds_count{app="hello"} 4\n'
        "# EOF\n"
    )


def samples_of(metrics: list[Metric]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for metric in metrics
        for sample in metric.samples
    }


def test_the_text_format_reads_back() -> None:
    metrics = list(parse_text(text(ALL).decode()))
    expected = {(sample.name, sample.labels): sample.value for family in ALL for sample in family.samples}
    # The client's parser adds `_total` to every counter it reads.
    expected["fly_edge_http_responses_count_total", LABELS] = expected.pop(("fly_edge_http_responses_count", LABELS))
    assert samples_of(metrics) == expected
    types = [line.split(" ", 2)[2] for line in lines(text(ALL)) if line.startswith("# TYPE")]
    assert types == [
        "fly_edge_http_responses_count counter",
        "flyproxy_rows_total counter",
        "fly_app_concurrency gauge",
        "strange untyped",
        "flyproxy_build_info gauge",
        "fly_app_connect_time_seconds histogram",
    ]


def test_openmetrics_reads_back() -> None:
    metrics = list(parse_openmetrics(openmetrics(ALL).decode()))
    assert [(metric.name, metric.type) for metric in metrics] == [
        ("fly_edge_http_responses_count", "unknown"),
        ("flyproxy_rows", "counter"),
        ("fly_app_concurrency", "gauge"),
        ("strange", "unknown"),
        ("flyproxy_build_info", "gauge"),
        ("fly_app_connect_time_seconds", "histogram"),
    ]
    assert metrics[-1].unit == "seconds"
    assert sorted(samples_of(metrics).values()) == sorted(sample.value for family in ALL for sample in family.samples)


HOSTILE = ['say "hi"', "back\\slash", "new\nline", "\\n", 'a\\"b\n', "ørd ☃ \U0001f680", "{}=,# ", " ", "\r\t"]


@pytest.mark.parametrize("value", HOSTILE)
def test_any_label_value_and_help_comes_back_as_it_was(value: str) -> None:
    hostile = ExposedFamily("a", "gauge", value, "", [ExposedSample("a", (("label", value),), 1)])
    (in_openmetrics,) = parse_openmetrics(openmetrics([hostile]).decode())
    assert in_openmetrics.samples[0].labels == {"label": value}
    assert in_openmetrics.documentation.strip() == value.strip()
    if "\r" not in value:
        (in_text,) = parse_text(text([hostile]).decode())
        assert in_text.samples[0].labels == {"label": value}
        assert in_text.documentation.strip() == value.strip()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0.0, "0"), (5.0, "5"), (-3.0, "-3"), (0.1, "0.1"), (1e-9, "1e-09"), (2.0**53, "9007199254740992.0"),
        (1e22, "1e+22"), (123456789.25, "123456789.25"), (math.inf, "+Inf"), (-math.inf, "-Inf"), (math.nan, "NaN"),
    ],
)  # fmt: skip
def test_a_number_is_the_shortest_text_that_reads_back(value: float, written: str) -> None:
    assert number_text(value) == written
    assert math.isnan(value) or float(written) == value


def test_timestamps_are_milliseconds_in_one_and_seconds_in_the_other() -> None:
    dated = family("a", "gauge", ExposedSample("a", (), 1, 1_700_000_000_250))
    assert lines(text([dated]))[-1] == "a 1 1700000000250"
    assert lines(openmetrics([dated]))[-2] == "a 1 1700000000.250"
    (metric,) = parse_openmetrics(openmetrics([dated]).decode())
    assert str(metric.samples[0].timestamp) == "1700000000.250000000"


def test_a_unit_the_name_does_not_end_in_is_not_said_to_openmetrics() -> None:
    rendered = openmetrics(
        [family("fly_edge_data_in", "counter", ExposedSample("fly_edge_data_in", (), 1), unit="bytes")]
    )
    assert b"# UNIT" not in rendered
    assert list(parse_openmetrics(rendered.decode()))


def test_nothing_to_say_is_a_valid_answer() -> None:
    assert text([]) == b""
    assert openmetrics([]) == b"# EOF\n"
    assert list(parse_openmetrics(openmetrics([]).decode())) == []


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT_TYPE),
        ("*/*", TEXT_TYPE),
        ("text/plain", TEXT_TYPE),
        ("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8", TEXT_TYPE),
        ("application/openmetrics-text", OPENMETRICS_TYPE),
        ("application/openmetrics-text; version=1.0.0; charset=utf-8", OPENMETRICS_TYPE),
        (
            'application/openmetrics-text;version="1.0.0";q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1',
            OPENMETRICS_TYPE,
        ),
        ("application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5", OPENMETRICS_TYPE),
        ("application/openmetrics-text;q=0.3,text/plain;q=0.7", TEXT_TYPE),
        ("application/openmetrics-text;q=0", TEXT_TYPE),
        ("application/openmetrics-text;q=much", TEXT_TYPE),
        ("application/openmetrics-text;version=2.0.0", TEXT_TYPE),
    ],
)
def test_openmetrics_goes_to_who_asks_for_it(accept: str, content_type: str) -> None:
    chosen, render = chosen_by(accept)
    assert chosen == content_type
    assert render([GAUGE]).endswith(b"# EOF\n") == (content_type == OPENMETRICS_TYPE)
