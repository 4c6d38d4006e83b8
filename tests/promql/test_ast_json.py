"""/api/v1/parse_query: Prometheus 3's shape of an expression."""

import json
from pathlib import Path
from typing import Any

import pytest

from flyproxy.promql.ast_json import ast_json
from flyproxy.promql.parse import parse

GOOD = Path(__file__).parent / "expressions" / "good.txt"


def shape(text: str, *, metricsql: bool = False) -> Any:
    return ast_json(parse(text, metricsql=metricsql))


def matcher(name: str, value: str, type_: str = "=") -> dict[str, str]:
    return {"name": name, "value": value, "type": type_}


def test_a_selector_names_its_metric_and_all_its_matchers() -> None:
    assert shape('x{a!~"b"} offset 5m @ 1.5') == {
        "type": "vectorSelector",
        "name": "x",
        "offset": 300_000,
        "matchers": [matcher("a", "b", "!~"), matcher("__name__", "x")],
        "timestamp": 1500,
        "startOrEnd": None,
    }


def test_a_range_is_in_milliseconds_and_knows_start_and_end() -> None:
    assert shape("x[90s] @ end()") == {
        "type": "matrixSelector",
        "name": "x",
        "range": 90_000,
        "offset": 0,
        "matchers": [matcher("__name__", "x")],
        "timestamp": None,
        "startOrEnd": "end",
    }


def test_a_subquery_without_a_step_has_step_0() -> None:
    found = shape("x[1h:] offset -1m")
    assert found.pop("expr")["type"] == "vectorSelector"
    assert found == {
        "type": "subquery",
        "range": 3_600_000,
        "step": 0,
        "offset": -60_000,
        "timestamp": None,
        "startOrEnd": None,
    }


def test_an_operator_between_vectors_has_its_matching() -> None:
    found = shape("a >= bool on (i) group_left (j) b")
    assert (found.pop("lhs")["name"], found.pop("rhs")["name"]) == ("a", "b")
    assert found == {
        "type": "binaryExpr",
        "op": ">=",
        "bool": True,
        "matching": {"card": "many-to-one", "labels": ["i"], "on": True, "include": ["j"]},
    }
    assert shape("a and b")["matching"] == {"card": "many-to-many", "labels": [], "on": False, "include": []}
    assert shape("a + 1")["matching"] is None


def test_an_aggregation_has_its_grouping_and_parameter() -> None:
    found = shape("topk without (a, b) (2, x)")
    assert found.pop("expr")["type"] == "vectorSelector"
    assert found == {
        "type": "aggregation",
        "op": "topk",
        "param": {"type": "numberLiteral", "val": "2"},
        "grouping": ["a", "b"],
        "without": True,
    }


def test_a_call_has_its_signature() -> None:
    found = shape("histogram_quantile(0.9, x)")
    assert [argument["type"] for argument in found.pop("args")] == ["numberLiteral", "vectorSelector"]
    assert found == {
        "type": "call",
        "func": {
            "name": "histogram_quantile",
            "argTypes": ["scalar", "vector"],
            "variadic": 0,
            "returnType": "vector",
        },
    }
    assert shape("rate(x[5m])")["func"]["argTypes"] == ["matrix"]
    assert shape("time()")["func"] == {"name": "time", "argTypes": [], "variadic": 0, "returnType": "scalar"}


@pytest.mark.parametrize(
    ("text", "value"),
    [("0x10", "16"), ("1e3", "1000"), ("Inf", "+Inf"), ("-Inf", "-Inf"), ("NaN", "NaN"), (".5", "0.5")],
)
def test_a_number_is_a_text(text: str, value: str) -> None:
    assert shape(text) == {"type": "numberLiteral", "val": value}


def test_signs_parentheses_and_strings() -> None:
    assert shape("-(x)")["op"] == "-"
    assert shape("-(x)")["expr"]["type"] == "parenExpr"
    assert shape("'a'") == {"type": "stringLiteral", "val": "a"}


def test_what_metricsql_adds_has_keys_of_its_own() -> None:
    assert shape("rate(x)", metricsql=True)["args"][0]["range"] is None
    assert [each["type"] for each in shape("max(0, x)", metricsql=True)["others"]] == ["vectorSelector"]
    assert shape('topk_avg(1, x, "a=b")', metricsql=True)["restLabel"] == "a=b"
    signature = shape('histogram_quantiles("p", 0.5, 0.9, x)', metricsql=True)["func"]
    assert (signature["argTypes"], signature["variadic"]) == (["string", "scalar", "vector"], -1)


@pytest.mark.parametrize("text", [line for line in GOOD.read_text().split("\n") if line and not line.startswith("# ")])
def test_every_good_expression_is_json(text: str) -> None:
    assert json.dumps(shape(text), allow_nan=False)
