"""The newest sample of every series, at the sample's own time: what `/federate` hands out."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from flyproxy.series.frame import ABSENT_BITS, STALE_BITS, Frame, Storage
from flyproxy.series.labels import METRIC_NAME, Labels, label_value
from flyproxy.series.matchers import Matcher


class Sample(NamedTuple):
    """One sample of one series."""

    labels: Labels
    timestamp_ms: int
    value: float


def latest(
    storage: Storage,
    matcher_sets: Sequence[Sequence[Matcher]],
    time_ms: int,
    lookback_ms: int,
    checkpoint: Callable[[], None] = lambda: None,
) -> list[Sample]:
    """The newest sample with time_ms - lookback_ms <= t <= time_ms of every series that any of the sets takes, unless
    it is a stale marker; sorted by metric name, then by labels. (Prometheus' web/federate.go: a closed window.)

    A series in several frames, or taken by several sets, comes once. No set: no series. Raises what `select` raises."""
    newest: dict[Labels, tuple[int, float]] = {}
    ended: dict[Labels, int] = {}
    for matchers in matcher_sets:
        for frame in storage.select(matchers, time_ms - lookback_ms, time_ms):
            checkpoint()
            _take(frame, newest, ended)
    alive = [
        Sample(labels, at_ms, value)
        for labels, (at_ms, value) in newest.items()
        if not ended or ended.get(labels, at_ms - 1) < at_ms
    ]
    return sorted(alive, key=lambda sample: (label_value(sample.labels, METRIC_NAME), sample.labels))


def _take(frame: Frame, newest: dict[Labels, tuple[int, float]], ended: dict[Labels, int]) -> None:
    """Every row's last sample or stale marker, into the table it belongs to; of equal times the first one stays."""
    width = frame.timestamps_ms.size
    if not width or not len(frame.labels):
        return
    values = np.ascontiguousarray(frame.values)
    bits = values.view(np.uint64)
    there = bits != np.uint64(ABSENT_BITS)
    column = width - 1 - np.argmax(there[:, ::-1], axis=1)
    rows = np.flatnonzero(there.any(axis=1))
    column = column[rows]
    stale = bits[rows, column] == np.uint64(STALE_BITS)
    found = zip(
        rows.tolist(),
        frame.timestamps_ms[column].tolist(),
        values[rows, column].tolist(),
        stale.tolist(),
        strict=True,
    )
    for row, at_ms, value, is_end in found:
        labels = frame.labels[row]
        if is_end:
            ended[labels] = max(at_ms, ended.get(labels, at_ms))
        elif labels not in newest or newest[labels][0] < at_ms:
            newest[labels] = (at_ms, value)
