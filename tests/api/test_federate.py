"""/federate: the newest samples as a page that Prometheus reads."""

from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flyproxy.api.federate import family_of, federated
from flyproxy.api.ports import QueryAnswer, QueryRequest
from flyproxy.clock import ManualClock
from flyproxy.series.labels import Labels, labels_from
from flyproxy.series.metadata import Metadata


class Sample(NamedTuple):
    labels: Labels
    timestamp_ms: int
    value: float


def sample(name: str, value: float = 1.0, timestamp_ms: int = 1_500, **labels: str) -> Sample:
    return Sample(labels_from({"__name__": name, **labels}), timestamp_ms, value)


def lines(*samples: Sample, utf8_names: bool = False, **types: str) -> list[str]:
    return federated(samples, types, utf8_names=utf8_names).decode().splitlines()


def test_a_line_has_its_samples_own_milliseconds() -> None:
    assert lines(sample("up", 1.0, 1_717_181_657_417, app="hello", region="ewr")) == [
        "# TYPE up untyped",
        'up{app="hello",region="ewr"} 1 1717181657417',
    ]


def test_a_histogram_is_one_family_whatever_stands_between_its_parts() -> None:
    samples = [
        sample("t_bucket", 3, le="0.5"),
        sample("t_bucket", 4, le="+Inf"),
        sample("t_count", 4),
        sample("t_other", 9),
        sample("t_sum", 2.5),
    ]
    assert lines(*samples, t="histogram", t_other="gauge") == [
        "# TYPE t histogram",
        't_bucket{le="0.5"} 3 1500',
        't_bucket{le="+Inf"} 4 1500',
        "t_count 4 1500",
        "t_sum 2.5 1500",
        "# TYPE t_other gauge",
        "t_other 9 1500",
    ]


@pytest.mark.parametrize(
    ("name", "types", "family"),
    [
        ("a_count", {"a_count": "counter", "a": "histogram"}, ("a_count", "counter")),
        ("a_count", {"a": "summary"}, ("a", "summary")),
        ("a_bucket", {"a": "summary"}, ("a_bucket", "untyped")),
        ("a_total", {"a": "counter"}, ("a_total", "counter")),
        ("a_total", {"a": "gauge"}, ("a_total", "untyped")),
        ("a", {"a": "info"}, ("a", "untyped")),
        ("a", {"a": "histogram"}, ("a", "untyped")),
        ("a", {}, ("a", "untyped")),
    ],
)
def test_a_family_is_found_by_the_name(name: str, types: dict[str, str], family: tuple[str, str]) -> None:
    assert family_of(name, types) == family


def test_a_name_that_means_two_things_is_untyped() -> None:
    page = lines(sample("t"), sample("t_sum"), t="histogram")
    assert [line for line in page if line.startswith("#")] == ["# TYPE t untyped"]


def test_odd_values_and_odd_texts_read_back() -> None:
    odd = 'a "quoted" \\ and\nbroken'
    page = federated(
        [sample("x", float("nan"), app=odd), sample("y", float("-inf")), sample("z", 1e21), sample("zz", 1e-7)], {}
    ).decode()
    found = {one.name: one for family in parse_text(page) for one in family.samples}
    assert found["x"].labels == {"app": odd}
    assert found["x"].value != found["x"].value
    assert (found["y"].value, found["z"].value, found["zz"].value) == (float("-inf"), 1e21, 1e-7)
    assert found["y"].timestamp == 1.5


def test_names_beyond_the_old_grammar_are_quoted_only_for_who_takes_them() -> None:
    odd = Sample((("__name__", "http.server"), ("1st", "a"), ("k8s.pod", "b")), 1_000, 2.0)
    assert lines(odd) == ["# TYPE http_server untyped", 'http_server{_1st="a",k8s_pod="b"} 2 1000']
    assert lines(odd, utf8_names=True) == [
        '# TYPE "http.server" untyped',
        '{"http.server","1st"="a","k8s.pod"="b"} 2 1000',
    ]


def test_a_series_without_a_name_has_no_place() -> None:
    assert federated([Sample((("app", "hello"),), 1, 1.0)], {}) == b""


async def test_the_route_asks_for_now_with_what_is_known_of_the_organization(api: Any) -> None:
    async def page(request: QueryRequest) -> QueryAnswer:
        return QueryAnswer(200, b"up 1 1500\n" * 200, "text/plain; version=0.0.4; charset=utf-8")

    api.runtime.answer = page
    api.runtime.metadata_now = {
        "personal": {"b": Metadata("gauge", "", "")},
        "shop": {"takings": Metadata("counter", "", "")},
    }
    url = f"{api.url}/prometheus/personal/federate?match[]=up&match[]=b"
    async with api.client.get(url, headers={**api.headers(), "Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert (await response.read()).startswith(b"up 1 1500\n")
    modern = {**api.headers(), "Accept": "text/plain; version=1.0.0; escaping=allow-utf-8;q=0.6,*/*;q=0.1"}
    assert (await api.client.get(url, headers=modern)).status == 200
    now_ms = ManualClock().now_ms()
    asked = [
        QueryRequest(
            "federate", "personal", matches=("up", "b"), time_ms=now_ms, types=(("b", "gauge"),), utf8_names=utf8
        )
        for utf8 in (False, True)
    ]
    assert api.runtime.asked == asked


async def test_the_route_wants_a_match_a_token_and_a_get(api: Any) -> None:
    url = f"{api.url}/prometheus/personal/federate"
    assert (await api.client.get(f"{url}?match[]=up")).status == 401
    assert (await api.client.get(f"{url}?match[]=up", headers=api.headers("shop"))).status == 403
    assert (await api.client.get(url, headers=api.headers())).status == 400
    assert (await api.client.post(url, headers=api.headers())).status == 405
