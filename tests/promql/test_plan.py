"""Every label set is read from one frame, whatever frames it came in."""

import numpy as np

from flyproxy.promql.plan import merged_by_identity
from flyproxy.series.frame import ABSENT, Frame, is_absent
from flyproxy.series.labels import Labels, labels_from


def series(*names: str) -> list[Labels]:
    return [labels_from({"__name__": name}) for name in names]


def frame(names: str, times: list[int], rows: list[list[float]]) -> Frame:
    return Frame(series(*names), np.array(times, dtype=np.int64), np.array(rows))


def test_frames_without_common_series_are_left_as_they_are() -> None:
    frames = [frame("a", [1], [[1.0]]), frame("b", [1], [[2.0]])]
    assert merged_by_identity(frames) == frames


def test_common_series_are_joined_and_the_others_stay() -> None:
    old = frame("ab", [10, 20], [[1.0, 2.0], [3.0, 4.0]])
    new = frame("bc", [30], [[5.0], [6.0]])
    found = {labels[0][1]: each for each in merged_by_identity([old, new]) for labels in each.labels}
    assert found["b"].timestamps_ms.tolist() == [10, 20, 30]
    assert found["b"].values.tolist() == [[3.0, 4.0, 5.0]]
    assert found["a"].timestamps_ms.tolist() == [10, 20]
    assert found["c"].values.tolist() == [[6.0]]


def test_interleaved_samples_are_sorted_and_gaps_stay_gaps() -> None:
    first = frame("ab", [10, 30], [[1.0, 3.0], [1.5, 3.5]])
    first.values[1, 1:2] = ABSENT
    second = frame("ba", [20, 30], [[2.0, 2.5], [9.0, 9.5]])
    (joined,) = merged_by_identity([first, second])
    assert joined.timestamps_ms.tolist() == [10, 20, 30]
    row = {labels[0][1]: values for labels, values in zip(joined.labels, joined.values, strict=True)}
    assert row["a"].tolist() == [1.0, 9.0, 3.0]
    assert row["b"].tolist() == [1.5, 2.0, 2.5]
    assert not is_absent(joined.values).any()
