"""Results as JSON: the same bytes of numbers Prometheus writes."""

import json
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyproxy.api.render import (
    data_json,
    metric_json,
    result_json,
    scalar_text,
    series_json,
    time_text,
    value_text,
)
from flyproxy.promql.engine import Result
from flyproxy.promql.nodes import ValueType
from flyproxy.series.labels import Labels

UP: Labels = (("__name__", "up"), ("app", 'h"ö'))
DOWN: Labels = (("__name__", "down"),)


def matrix(
    values: list[list[float]], present: list[list[bool]] | None = None, kind: ValueType = ValueType.INSTANT
) -> Result:
    numbers = np.array(values, dtype=np.float64)
    shown = np.ones(numbers.shape, np.bool_) if present is None else np.array(present)
    times = np.array([1000 + 500 * step for step in range(numbers.shape[1])], dtype=np.int64)
    return Result(kind=kind, labels=[UP, DOWN][: len(values)], timestamps_ms=times, values=numbers, present=shown)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, b"1"),
        (-0.0, b"-0"),
        (0.1, b"0.1"),
        (1e15, b"1000000000000000"),
        (1e16, b"10000000000000000"),
        (123456789012345680000.0, b"123456789012345680000"),
        (1e21, b"1e+21"),
        (-1.5e300, b"-1.5e+300"),
        (1e-4, b"0.0001"),
        (1e-5, b"0.00001"),
        (1.5e-6, b"0.0000015"),
        (1e-6, b"0.000001"),
        (9.9e-7, b"9.9e-07"),
        (5e-324, b"5e-324"),
        (float("nan"), b"NaN"),
        (float("inf"), b"+Inf"),
        (float("-inf"), b"-Inf"),
    ],
)
def test_a_value_is_written_as_prometheus_writes_it(value: float, text: bytes) -> None:
    assert value_text(value) == text


@pytest.mark.parametrize(("value", "text"), [(1e21, b"1000000000000000000000"), (1e-7, b"0.0000001"), (2.0, b"2")])
def test_a_scalar_is_never_written_with_an_exponent(value: float, text: bytes) -> None:
    assert scalar_text(value) == text


@pytest.mark.parametrize(
    ("timestamp_ms", "text"),
    [(0, b"0"), (4000, b"4"), (1500, b"1.5"), (1435781451781, b"1435781451.781"), (1050, b"1.05"), (-1, b"-0.001")],
)
def test_a_time_has_the_digits_it_needs(timestamp_ms: int, text: bytes) -> None:
    assert time_text(timestamp_ms) == text


@given(st.lists(st.floats(width=64), min_size=1, max_size=30), st.data())
def test_a_row_is_its_values_one_by_one(values: list[float], data: st.DataObject) -> None:
    present = data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    answer = json.loads(result_json(matrix([values], [present]), ranged=True))
    expected = [
        [1 + step / 2, value_text(value).decode()]
        for step, (value, here) in enumerate(zip(values, present, strict=True))
        if here
    ]
    assert [series["values"] for series in answer["data"]["result"]] == ([expected] if expected else [])


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
def test_a_value_reads_back_as_itself(value: float) -> None:
    assert float(value_text(value)) == value
    assert float(Decimal(scalar_text(value).decode())) == value


def test_a_matrix_has_its_type_first_and_no_empty_series() -> None:
    result = matrix([[1.0, 2.0], [3.0, 4.0]], [[True, False], [False, False]])
    assert (
        result_json(result, ranged=True)
        == (
            '{"status":"success","data":{"resultType":"matrix","result":'
            '[{"metric":{"__name__":"up","app":"h\\"ö"},"values":[[1,"1"]]}]}}'
        ).encode()
    )


def test_a_vector_shows_what_is_there_now() -> None:
    result = matrix([[1.0], [float("nan")]], [[False], [True]])
    assert result_json(result, ranged=False) == (
        b'{"status":"success","data":{"resultType":"vector","result":[{"metric":{"__name__":"down"},"value":[1,"NaN"]}]}}'
    )
    nothing = matrix([[1.0]], [[False]])
    assert result_json(nothing, ranged=False) == b'{"status":"success","data":{"resultType":"vector","result":[]}}'


def test_a_scalar_and_a_string() -> None:
    scalar = Result(
        kind=ValueType.SCALAR,
        labels=[()],
        timestamps_ms=np.array([4000]),
        values=np.array([[2.0]]),
        present=np.array([[True]]),
    )
    assert result_json(scalar, ranged=False) == b'{"status":"success","data":{"resultType":"scalar","result":[4,"2"]}}'
    text = Result(kind=ValueType.STRING, timestamps_ms=np.array([4000]), text='a"b')
    assert (
        result_json(text, ranged=False) == b'{"status":"success","data":{"resultType":"string","result":[4,"a\\"b"]}}'
    )


def test_a_range_vector_at_an_instant_is_a_matrix() -> None:
    times, later = np.array([1000, 2500]), np.array([3000])
    rows = [(UP, times, np.array([1.0, 2.0])), (DOWN, later, np.array([3.0])), (DOWN, times[:0], np.array([]))]
    result = Result(kind=ValueType.RANGE, timestamps_ms=np.array([4000]), rows=rows)
    answer = json.loads(result_json(result, ranged=False))["data"]
    assert answer["resultType"] == "matrix"
    assert [series["values"] for series in answer["result"]] == [[[1, "1"], [2.5, "2"]], [[3, "3"]]]


def test_a_limit_cuts_and_says_so() -> None:
    answer = json.loads(result_json(matrix([[1.0], [2.0]]), ranged=False, limit=1))
    assert (len(answer["data"]["result"]), answer["warnings"]) == (1, ["results truncated due to limit"])
    assert "warnings" not in json.loads(result_json(matrix([[1.0], [2.0]]), ranged=False, limit=2))


def test_warnings_and_infos_come_last() -> None:
    result = Result(kind=ValueType.STRING, timestamps_ms=np.array([0]), text="", warnings=["w"], infos=["i"])
    assert result_json(result, ranged=False).endswith(b'},"warnings":["w"],"infos":["i"]}')
    assert data_json(["a"], ["w"]) == b'{"status":"success","data":["a"],"warnings":["w"]}'


def test_label_sets_are_objects() -> None:
    assert metric_json(DOWN) == b'{"__name__":"down"}'
    assert series_json([DOWN, ()]) == b'{"status":"success","data":[{"__name__":"down"},{}]}'
