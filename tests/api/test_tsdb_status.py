"""status/tsdb's tables, made by hand."""

from collections.abc import Sequence

import pytest

from flyproxy.api.tsdb_status import tsdb_status
from flyproxy.promql.errors import QueryTimeout
from flyproxy.series.labels import Labels, labels_from


def series(count: int) -> Sequence[Labels]:
    made = [labels_from({"__name__": "requests", "status": str(200 + number)}) for number in range(count)]
    return [*made, labels_from({"__name__": "up", "app": "hellö"})]


def test_every_table_is_largest_first_and_within_the_limit() -> None:
    found = tsdb_status(series(3), 1_000, 2_000, 2, lambda: None)
    assert found["headStats"] == {
        "numSeries": 4,
        "numLabelPairs": 6,
        "chunkCount": 0,
        "minTime": 1_000,
        "maxTime": 2_000,
    }
    assert found["seriesCountByMetricName"] == [{"name": "requests", "value": 3}, {"name": "up", "value": 1}]
    assert found["labelValueCountByLabelName"] == [{"name": "status", "value": 3}, {"name": "__name__", "value": 2}]
    assert found["memoryInBytesByLabelName"] == [{"name": "__name__", "value": 26}, {"name": "status", "value": 9}]
    assert found["seriesCountByLabelValuePair"] == [
        {"name": "__name__=requests", "value": 3},
        {"name": "__name__=up", "value": 1},
    ]


def test_nothing_stored_is_empty_tables() -> None:
    found = tsdb_status([], 0, 1, 10, lambda: None)
    assert found["seriesCountByMetricName"] == found["memoryInBytesByLabelName"] == []


def test_the_deadline_is_looked_at_between_series() -> None:
    looks = 0

    def checkpoint() -> None:
        nonlocal looks
        looks += 1
        if looks > 2:
            raise QueryTimeout

    with pytest.raises(QueryTimeout):
        tsdb_status(series(20_000), 0, 1, 10, checkpoint)
