"""Questions answered over a store that is a list of frames: results, and a status and sentence for every fault."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from flyproxy.api import query_service
from flyproxy.api.ports import QueryRequest
from flyproxy.api.query_service import MatcherSets, answer
from flyproxy.promql.engine import Engine
from flyproxy.promql.errors import QueryCanceled, QueryTimeout
from flyproxy.promql.options import Options
from flyproxy.series.frame import Frame
from flyproxy.series.labels import Labels, label_value
from flyproxy.series.matchers import Matcher

HELLO: Labels = (("__name__", "up"), ("app", "hello"))
OTHER: Labels = (("__name__", "up"), ("app", "other"))


class View:
    """One organization: two series, a sample each second from 0 to 60 s."""

    series_known = (HELLO, OTHER)

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[Frame]:
        found = self.series([matchers], start_ms, end_ms)
        times = np.arange(0, 61_000, 1000, dtype=np.int64)
        times = times[(times >= start_ms) & (times <= end_ms)]
        return [Frame(found, times, np.ones((len(found), len(times))))] if found and len(times) else []

    def series(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[Labels]:
        return [
            labels
            for labels in self.series_known
            if matcher_sets is None
            or any(
                all(matcher.predicate()(label_value(labels, matcher.name)) for matcher in matchers)
                for matchers in matcher_sets
            )
        ]

    def label_names(self, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        return ["__name__", "app"]

    def label_values(self, name: str, matcher_sets: MatcherSets | None, start_ms: int, end_ms: int) -> list[str]:
        found = self.series_known if matcher_sets is None else self.series(matcher_sets, start_ms, end_ms)
        return sorted({label_value(labels, name) for labels in found})


def nothing() -> None:
    """A checkpoint that never ends a query."""


def asked(kind: Any, *, checkpoint: Callable[[], None] = nothing, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and JSON."""
    response = answer(QueryRequest(kind, "personal", **fields), Engine(), View(), checkpoint)
    return response.status, json.loads(response.body)


def test_an_instant_query() -> None:
    status, body = asked("query", expression='up{app="hello"}', time_ms=4000)
    assert status == 200
    assert body["data"]["result"] == [{"metric": {"__name__": "up", "app": "hello"}, "value": [4, "1"]}]


def test_a_range_query() -> None:
    status, body = asked("query_range", expression="sum(up)", start_ms=0, end_ms=2000, step_ms=1000)
    assert (status, body["data"]["resultType"]) == (200, "matrix")
    assert body["data"]["result"] == [{"metric": {}, "values": [[0, "2"], [1, "2"], [2, "2"]]}]


def test_a_scalar_over_a_range_is_a_matrix() -> None:
    _, body = asked("query_range", expression="1", start_ms=0, end_ms=1000, step_ms=1000)
    assert body["data"] == {"resultType": "matrix", "result": [{"metric": {}, "values": [[0, "1"], [1, "1"]]}]}


@pytest.mark.parametrize(("expression", "kind"), [("1", "scalar"), ('"a"', "string"), ("up[5s]", "matrix")])
def test_each_type_at_an_instant(expression: str, kind: str) -> None:
    status, body = asked("query", expression=expression, time_ms=4000, metricsql=False)
    assert (status, body["data"]["resultType"]) == (200, kind)


def test_metadata() -> None:
    assert asked("series", matches=("up",))[1]["data"] == [dict(HELLO), dict(OTHER)]
    assert asked("series", matches=('{app="other"}', "nothing"))[1]["data"] == [dict(OTHER)]
    assert asked("labels")[1]["data"] == ["__name__", "app"]
    assert asked("label_values", label="app")[1]["data"] == ["hello", "other"]
    assert asked("label_values", label="app", matches=('{app=~".*"}',))[1]["data"] == ["hello", "other"]


@pytest.mark.parametrize(
    ("kind", "fields"), [("series", {"matches": ("up",)}), ("labels", {}), ("label_values", {"label": "app"})]
)
def test_a_limit_cuts_metadata_and_says_so(kind: str, fields: dict[str, Any]) -> None:
    _, body = asked(kind, limit=1, **fields)
    assert (len(body["data"]), body["warnings"]) == (1, ["results truncated due to limit"])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sum(", 'invalid parameter "query": 1:4: parse error: unclosed left parenthesis'),
        ('up{app=~"("}', 'invalid parameter "query": '),
        ("\n 1 +", 'invalid parameter "query": 2:5: parse error: '),
    ],
)
def test_a_bad_expression_is_400_with_its_place(expression: str, expected: str) -> None:
    status, body = asked("query", expression=expression)
    assert (status, body["errorType"]) == (400, "bad_data")
    assert body["error"].startswith(expected)


def test_strict_mode_tells_the_mend() -> None:
    status, body = asked("query", expression="rate(up)", metricsql=False)
    assert (status, body["errorType"]) == (400, "bad_data")
    assert "1:6: parse error: rate() needs a range, e.g. rate(up[5m])" in body["error"]


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("{", 'invalid parameter "match[]": 1:2: parse error: '),
        ("sum(up)", 'invalid parameter "match[]": 1:4: parse error: '),
        ("up[5m]", 'invalid parameter "match[]": 1:3: parse error: '),
        ("{}", 'invalid parameter "match[]": match[] must contain at least one non-empty matcher'),
        ('{a=~"("}', 'invalid parameter "match[]": '),
    ],
)
def test_a_bad_selector_is_400(selector: str, expected: str) -> None:
    status, body = asked("series", matches=(selector,))
    assert (status, body["errorType"]) == (400, "bad_data")
    assert body["error"].startswith(expected)


def test_what_cannot_be_answered_on_this_data_is_422() -> None:
    status, body = asked("query", expression="up * on(nothing) up", time_ms=4000)
    assert (status, body["errorType"]) == (422, "execution")


def test_a_range_vector_over_a_range_is_refused() -> None:
    status, body = asked("query_range", expression='"a"', start_ms=0, end_ms=1000, step_ms=1000, metricsql=False)
    assert (status, body["errorType"]) == (400, "bad_data")


@pytest.mark.parametrize(("fault", "error_type"), [(QueryTimeout, "timeout"), (QueryCanceled, "canceled")])
def test_the_checkpoint_ends_a_query_with_503(fault: type[Exception], error_type: str) -> None:
    def checkpoint() -> None:
        raise fault("it is time")

    status, body = asked("query", expression="sum(up)", time_ms=4000, checkpoint=checkpoint)
    assert (status, body["errorType"], body["error"]) == (503, error_type, "it is time")


def test_nobodys_depth_breaks_the_worker() -> None:
    status, body = asked("query", expression="(" * 20_000 + "1")
    assert status in (400, 422)
    assert body["status"] == "error"


def page(**fields: Any) -> tuple[int, str, str]:
    """Status, content type and text of /federate."""
    response = answer(QueryRequest("federate", "personal", **fields), Engine(), View(), nothing)
    return response.status, response.content_type, response.body.decode()


def test_federate_gives_each_series_its_newest_sample_at_its_own_time() -> None:
    assert page(matches=("up", '{app="hello"}'), time_ms=70_000, types=(("up", "gauge"),)) == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
        '# TYPE up gauge\nup{app="hello"} 1 60000\nup{app="other"} 1 60000\n',
    )
    assert page(matches=("up",), time_ms=60_000 + 300_001)[2] == ""
    assert page(matches=("up",), time_ms=70_000, utf8_names=True)[1].endswith("escaping=allow-utf-8")


def test_federate_refuses_what_is_too_much_and_what_is_no_selector() -> None:
    status, content_type, text = page(matches=("sum(up)",), time_ms=1)
    assert (status, content_type) == (400, "application/json")
    assert json.loads(text)["errorType"] == "bad_data"
    engine = Engine(Options(samples_max=100))
    response = answer(QueryRequest("federate", "personal", matches=("up",), time_ms=70_000), engine, View(), nothing)
    assert (response.status, json.loads(response.body)["errorType"], response.limit) == (
        422,
        "execution",
        "query_samples",
    )


def test_an_answer_larger_than_anybody_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_service, "ANSWER_BYTES_MAX", 1000)
    request = QueryRequest("query_range", "personal", expression="up", start_ms=0, end_ms=60_000, step_ms=1000)
    response = answer(request, Engine(), View(), nothing)
    assert (response.status, response.limit) == (422, "api_answer_bytes")
    assert "at most 1,000 are sent; ask for fewer series or steps" in json.loads(response.body)["error"]
    assert answer(request, Engine(Options(samples_max=10)), View(), nothing).limit == "query_samples"


def test_the_stores_tables_are_of_this_organization() -> None:
    status, body = asked("status_tsdb", time_ms=70_000, limit=10)
    assert status == 200
    assert body["data"]["headStats"]["numSeries"] == 2
    assert body["data"]["seriesCountByMetricName"] == [{"name": "up", "value": 2}]


def test_what_only_parses() -> None:
    assert asked("format_query", expression="sum( up)by(app)")[1]["data"] == "sum by (app) (up)"
    tree = asked("parse_query", expression='up{app="x"}')[1]["data"]
    assert (tree["type"], tree["name"]) == ("vectorSelector", "up")
    assert asked("query_exemplars", expression="up") == (200, {"status": "success", "data": []})
    assert asked("check_matches", matches=("up", '{a="b"}')) == (200, {"status": "success", "data": []})


@pytest.mark.parametrize("kind", ["format_query", "parse_query", "query_exemplars"])
def test_what_does_not_parse_is_bad_data(kind: Any) -> None:
    status, body = asked(kind, expression="sum(")
    assert (status, body["errorType"]) == (400, "bad_data")
    assert "unclosed left parenthesis" in body["error"]
    assert asked(kind, expression="rate(up)", metricsql=False)[0] == 400


def test_a_match_that_is_none_is_bad_data() -> None:
    status, body = asked("check_matches", matches=("up", "sum(up)"))
    assert (status, body["errorType"]) == (400, "bad_data")
    assert body["error"].startswith('invalid parameter "match[]"')
