"""status/tsdb: which metrics and labels make up one organization's series. Never anybody else's."""

from collections import Counter
from collections.abc import Callable, Sequence

from flyproxy.series.labels import METRIC_NAME, Labels

LIMIT_DEFAULT = 10
"""Rows of each table, as in Prometheus."""
LIMIT_MAX = 10_000
HEAD_MS = 2 * 3_600_000
"""What counts as the head: the series of the last two hours."""
_SERIES_A_LOOK = 4096
"""Series between two looks at the deadline."""

Row = dict[str, str | int]


def tsdb_status(
    series: Sequence[Labels], min_ms: int, max_ms: int, limit: int, checkpoint: Callable[[], None]
) -> dict[str, object]:
    """Prometheus' tables over these series, which were there between the two times; at most `limit` rows each, the
    largest first. `memoryInBytesByLabelName` is the length of all values of a label, one for each series, as there.
    There is no chunk of one series here, so `chunkCount` is 0."""
    pairs: Counter[tuple[str, str]] = Counter()
    for first in range(0, len(series), _SERIES_A_LOOK):
        checkpoint()
        for labels in series[first : first + _SERIES_A_LOOK]:
            pairs.update(labels)
    by_name: Counter[str] = Counter()
    values: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for (name, value), count in pairs.items():
        values[name] += 1
        sizes[name] += len(value.encode("utf-8", "replace")) * count
        if name == METRIC_NAME:
            by_name[value] = count
    return {
        "headStats": {
            "numSeries": len(series),
            "numLabelPairs": len(pairs),
            "chunkCount": 0,
            "minTime": min_ms,
            "maxTime": max_ms,
        },
        "seriesCountByMetricName": _largest(by_name, limit),
        "labelValueCountByLabelName": _largest(values, limit),
        "memoryInBytesByLabelName": _largest(sizes, limit),
        "seriesCountByLabelValuePair": _largest(
            Counter({f"{name}={value}": count for (name, value), count in pairs.items()}), limit
        ),
    }


def _largest(counts: Counter[str], limit: int) -> list[Row]:
    """The largest, by name where they are equal."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "value": value} for name, value in ordered[:limit]]
