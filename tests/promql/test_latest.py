"""What /federate hands out: every series' newest sample, once, at its own time."""

from collections.abc import Callable, Sequence

import numpy as np

from flyproxy.promql.latest import Sample, latest
from flyproxy.promql.parse import parse_selector
from flyproxy.series.frame import ABSENT, STALE, Frame, Storage
from flyproxy.series.labels import Labels, labels_from

StorageOf = Callable[[Sequence[Frame]], Storage]
ALL = [parse_selector('{__name__=~".+"}')]


def series(name: str, **labels: str) -> Labels:
    return labels_from({"__name__": name, **labels})


def frame(times_ms: Sequence[int], rows: dict[Labels, Sequence[float | str | None]]) -> Frame:
    """None: no sample; "stale": the end."""
    values = np.empty((len(rows), len(times_ms)))
    for row, cells in enumerate(rows.values()):
        for column, cell in enumerate(cells):
            here = values[row, column : column + 1]
            here[:] = ABSENT if cell is None else STALE if cell == "stale" else cell
    return Frame(list(rows), np.array(times_ms, dtype=np.int64), values)


def test_the_newest_sample_comes_at_its_own_time(storage_of: StorageOf) -> None:
    storage = storage_of([frame([1000, 2000, 3000], {series("b"): [1, 2, 3], series("a"): [4, 5, None]})])
    assert latest(storage, ALL, 9000, 60_000) == [Sample(series("a"), 2000, 5), Sample(series("b"), 3000, 3)]


def test_what_is_too_old_or_later_is_not_there(storage_of: StorageOf) -> None:
    storage = storage_of([frame([1000, 2000, 3000], {series("a"): [1, None, 3], series("b"): [4, 5, 6]})])
    assert latest(storage, ALL, 2500, 500) == [Sample(series("b"), 2000, 5)]
    assert latest(storage, ALL, 2500, 499) == []


def test_a_series_that_ended_is_not_there_and_one_that_came_back_is(storage_of: StorageOf) -> None:
    storage = storage_of([frame([1000, 2000, 3000], {series("a"): [1, "stale", None], series("b"): [4, "stale", 6]})])
    assert latest(storage, ALL, 9000, 60_000) == [Sample(series("b"), 3000, 6)]


def test_a_series_in_several_frames_comes_once_with_what_is_newest(storage_of: StorageOf) -> None:
    early = frame([1000, 2000], {series("moved"): [1, "stale"], series("gone"): [1, 2]})
    late = frame([1500, 3000], {series("gone"): [1, "stale"], series("moved"): [7, 8]})
    assert latest(storage_of([early, late]), ALL, 9000, 60_000) == [Sample(series("moved"), 3000, 8)]
    assert latest(storage_of([late, early]), ALL, 9000, 60_000) == [Sample(series("moved"), 3000, 8)]


def test_sets_are_joined_and_no_set_takes_nothing(storage_of: StorageOf) -> None:
    storage = storage_of([frame([1000], {series("a", x="1"): [1], series("b", x="1"): [2], series("c"): [3]})])
    sets = [parse_selector("b"), parse_selector('{x="1"}')]
    assert [each.labels for each in latest(storage, sets, 1000, 0)] == [series("a", x="1"), series("b", x="1")]
    assert latest(storage, [], 1000, 0) == []


def test_a_real_nan_is_a_sample(storage_of: StorageOf) -> None:
    ((labels, at_ms, value),) = latest(storage_of([frame([1000], {series("a"): [float("nan")]})]), ALL, 1000, 0)
    assert (labels, at_ms, value != value) == (series("a"), 1000, True)


def test_metric_names_come_before_other_labels(storage_of: StorageOf) -> None:
    rows: dict[Labels, Sequence[float | str | None]] = {series("b", A="1"): [1], series("a", B="1"): [2]}
    found = latest(storage_of([frame([1000], rows)]), ALL, 1000, 0)
    assert [dict(each.labels)["__name__"] for each in found] == ["a", "b"]


def test_it_looks_at_the_clock_between_frames(storage_of: StorageOf) -> None:
    looks: list[None] = []
    frames = [frame([1000], {series("a", n=str(number)): [1]}) for number in range(3)]
    latest(storage_of(frames), ALL, 1000, 0, lambda: looks.append(None))
    assert len(looks) == 3
