"""Limits, times and shapes of whole queries."""

import subprocess
import sys
from collections.abc import Callable, Sequence

import numpy as np
import pytest

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
