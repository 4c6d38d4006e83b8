"""Limits, times and shapes of whole queries."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from flyproxy.errors import FlyproxyError
from flyproxy.promql.engine import Engine, Options
from flyproxy.promql.errors import BadQueryRange, QueryError, QueryTimeout, TooManySamples
from flyproxy.promql.nodes import ValueType
from flyproxy.series.frame import ABSENT, STALE, Frame, Storage
from flyproxy.series.labels import labels_from

StorageOf = Callable[[Sequence[Frame]], Storage]


def a_frame(series: int = 3, samples: int = 21, name: str = "c") -> Frame:
    labels = [labels_from({"__name__": name, "n": str(row)}) for row in range(series)]
    times = np.arange(samples, dtype=np.int64) * 15_000
    return Frame(labels, times, np.arange(samples) * np.arange(1.0, series + 1)[:, np.newaxis])


def test_a_range_may_have_eleven_thousand_and_one_points(storage_of: StorageOf) -> None:
    result = Engine().query_range("1", storage_of([]), 0, 11_000_000, 1000)
    assert result.values.shape == (1, 11_001)
    with pytest.raises(BadQueryRange, match=r"exceeded maximum resolution of 11,000 points per timeseries\. Try dec"):
        Engine().query_range("1", storage_of([]), 0, 11_001_000, 1000)


@pytest.mark.parametrize(
    ("start_ms", "end_ms", "step_ms", "words"),
    [(10, 0, 1, "end timestamp must not be before start time"), (0, 10, 0, "zero or negative query resolution")],
)
def test_a_range_must_go_forward(storage_of: StorageOf, start_ms: int, end_ms: int, step_ms: int, words: str) -> None:
    with pytest.raises(BadQueryRange, match=words):
        Engine().query_range("1", storage_of([]), start_ms, end_ms, step_ms)


def test_only_vectors_and_scalars_have_a_range(storage_of: StorageOf) -> None:
    engine = Engine(Options(metricsql=False))
    with pytest.raises(BadQueryRange, match='invalid expression type "range vector" for range query'):
        engine.query_range("c[5m]", storage_of([a_frame()]), 0, 1000, 1000)
    with pytest.raises(BadQueryRange, match='invalid expression type "string" for range query'):
        engine.query_range('"text"', storage_of([]), 0, 1000, 1000)


def test_more_points_than_allowed_are_refused_before_they_are_made(storage_of: StorageOf) -> None:
    engine = Engine(Options(samples_max=100))
    with pytest.raises(TooManySamples):
        engine.query_range("c", storage_of([a_frame()]), 0, 100_000, 1000)
    with pytest.raises(TooManySamples):
        engine.query("max_over_time(c[30d:1ms])", storage_of([a_frame()]), 300_000)
    assert engine.query_range("sum(c)", storage_of([a_frame()]), 0, 50_000, 1000).values.shape == (1, 51)


def test_the_checkpoint_can_stop_a_query(storage_of: StorageOf) -> None:
    def time_is_up() -> None:
        raise QueryTimeout("query timed out in query execution")

    with pytest.raises(QueryTimeout):
        Engine().query("sum(c)", storage_of([a_frame()]), 0, time_is_up)


def test_scalars_strings_and_range_vectors_are_answered_at_an_instant(storage_of: StorageOf) -> None:
    storage = storage_of([a_frame(2)])
    scalar = Engine().query("1 + 1", storage, 4000)
    assert (scalar.kind, scalar.values.tolist(), scalar.timestamps_ms.tolist()) == (ValueType.SCALAR, [[2.0]], [4000])
    assert Engine().query('"text"', storage, 0).text == "text"
    rows = Engine().query("c[20s]", storage, 60_000).rows
    assert [(labels[1], times.tolist(), values.tolist()) for labels, times, values in rows] == [
        (("n", "0"), [45_000, 60_000], [3.0, 4.0]),
        (("n", "1"), [45_000, 60_000], [6.0, 8.0]),
    ]


def test_a_range_vector_has_neither_gaps_nor_markers(storage_of: StorageOf) -> None:
    frame = a_frame(1, 5)
    frame.values[0, 1:2], frame.values[0, 2:3] = ABSENT, STALE
    (row,) = Engine().query("c[5m]", storage_of([frame]), 60_000).rows
    assert row[1].tolist() == [0, 45_000, 60_000]


def test_equal_selectors_select_once(storage_of: StorageOf) -> None:
    storage = storage_of([a_frame()])
    Engine().query("sum(rate(c[1m])) / count(c) + max(c offset 1m)", storage, 300_000)
    assert storage.selections == 1  # type: ignore[attr-defined]


def test_rows_come_sorted_by_labels(storage_of: StorageOf) -> None:
    frames = [a_frame(2, name="z"), a_frame(2, name="a")]
    result = Engine().query_range('{__name__=~"a|z"}', storage_of(frames), 0, 0, 1000)
    assert list(result.labels) == sorted(result.labels)


def test_what_is_not_built_is_named(storage_of: StorageOf) -> None:
    with pytest.raises(QueryError, match=r"histogram_avg\(\) is not built yet"):
        Engine().query("histogram_avg(c)", storage_of([]), 0)


def nested(depth: int, before: str, after: str) -> str:
    return before * depth + "c" + after * depth


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        (nested(60, "label_replace(", ',"n","$1$1","n","(.*)")'), "longer than 65,536 characters"),
        (nested(60, "label_join(", ',"n",",","n","n")'), "longer than 65,536 characters"),
        ('label_replace(c,"x","' + "$1" * 30_000 + '","__name__","(.*)")', None),
        ('label_replace(c,"x","${' + "9" * 5_000 + '}","n","(.*)")', None),
        (nested(40, "sum_over_time(", "[5m:1s])"), None),
        (nested(60, "sum(", "[5m])"), None),
        (nested(8, "max_over_time(", "[1h:1m])"), None),
        ("max_over_time(c[1y:1ms])", "too many samples"),
        ('c{n=~"((x{1000}){1000}){1000}"}', "error parsing regexp"),
        ('c{n=~"' + "(.*)" * 2_000 + 'z"}', None),
        ("topk(1e9, c)", None),
        ("topk(Inf, c)", "overflows int64"),
        ("c offset 290y", None),
        ("rate(c[290y])", None),
        ("c @ 9e15", None),
        ('sort_by_label(label_replace(c, "n", "' + "7" * 5_000 + '", "", ""), "n")', "vector cannot contain"),
        ('sort_by_label(label_replace(c, "m", "\u00b2' + "7" * 5_000 + '", "", ""), "m")', None),
        ("year(c * 1e300) + month(c * 1e14) + round(c, 0) + predict_linear(c[5m], Inf)", None),
    ],
)
def test_a_hostile_query_ends_with_an_answer_or_a_sentence(
    storage_of: StorageOf, expression: str, words: str | None
) -> None:
    """Work that doubles with every level would not end at all."""
    if words is None:
        Engine().query(expression, storage_of([a_frame()]), 300_000)
        return
    with pytest.raises(FlyproxyError, match=words):
        Engine().query(expression, storage_of([a_frame()]), 300_000)


@pytest.mark.parametrize(
    "expression",
    [
        "quantile_over_time(0.5, c[1h])",
        "stddev_over_time(c[1h])",
        "deriv(c[1h])",
        "histogram_quantile(0.5, c)",
        "topk(1000, c)",
        "quantile(0.5, c)",
        'count_values("v", c)',
        'label_replace(c, "a", "$1", "n", "(.*)")',
        "sum(rate(c[5m]))",
        "c * on(n) c",
    ],
)
def test_long_work_looks_at_the_clock(storage_of: StorageOf, expression: str) -> None:
    """Between two looks lie at most a few hundred thousand of these 1.5 million numbers."""
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    frame = a_frame(6_144, 241)
    labels = [(("__name__", "c"), ("le", "+Inf"), pair[1]) for pair in frame.labels]
    Engine().query_range(
        expression, storage_of([Frame(labels, frame.timestamps_ms, frame.values)]), 3_000_000, 3_600_000, 60_000, look
    )
    assert looks >= 12


def test_topk_of_everything_takes_no_more_than_it_answers(storage_of: StorageOf) -> None:
    result = Engine().query_range("topk(1e9, c)", storage_of([a_frame(3000)]), 0, 300_000, 15_000)
    assert result.values.shape == (3000, 21)
    assert result.points_peak == 3000 * 21


MEASURED = """
import resource, sys
import numpy as np
from flyproxy.promql.engine import Engine
from flyproxy.series.frame import Frame
from flyproxy.series.labels import labels_from

labels = [labels_from({"__name__": "c", "n": str(row), "g": str(row % 7)}) for row in range(int(sys.argv[2]))]
times = np.arange(12, dtype=np.int64) * 60_000
frame = Frame(labels, times, np.random.default_rng(1).random((len(labels), 12)).cumsum(axis=1))

class Store:
    def select(self, matchers, start_ms, end_ms):
        return [frame]

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = Engine().query_range(sys.argv[1], Store(), 0, 660_000, 60)
print(result.values.shape[0], result.values.shape[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize(("expression", "series"), [("sum by (g) (rate(c[2m]))", "10000"), ("topk(2, c)", "1000")])
def test_memory_is_bounded_by_blocks_not_by_the_selection(expression: str, series: str) -> None:
    """10,000 series at 11,000 steps are 990 MB as whole arrays, 1,000 are 99 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, expression, series], capture_output=True, text=True, check=True
    )
    _rows, steps, grown_kib = map(int, done.stdout.split())
    assert steps == 11_001
    assert grown_kib < 80 * 1024
