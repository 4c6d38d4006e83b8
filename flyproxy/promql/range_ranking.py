"""MetricsQL's topk_avg and its kin: whole series ranked by one number over the range, so a graph keeps its lines.

VictoriaMetrics' getRangeTopKTimeseries: the k first series of every group stay at every step; what the others had can
be summed up in one more series. A value that is NaN counts as none.
"""

from collections.abc import Callable, Sequence

import numpy as np

from flyproxy.promql.aggregate import Codes
from flyproxy.promql.matrix import SAME_LABELSET, Budget, Matrix, block_rows, merge_equal, with_label
from flyproxy.series.frame import Bools, Floats
from flyproxy.series.labels import Labels


def first_k_over_range(
    matrix: Matrix,
    codes: Codes,
    groups: Sequence[Labels],
    k: Floats,
    measure: str,
    *,
    largest: bool,
    rest_label: str | None,
    budget: Budget,
    checkpoint: Callable[[], None],
) -> Matrix:
    """The k [steps] first series of every group (codes [series]), and the sum of its others as `name=value` of the rest
    label (`name` alone is its own value). Group by group, the first first and the rest last. Raises QueryError where
    the rest has the labels of a series that stays."""
    scores = _scores(matrix, measure, checkpoint)
    order = np.lexsort((-scores if largest else scores, np.isnan(scores), codes))
    ranks = np.empty(codes.size)
    ranks[order] = np.arange(codes.size) - np.searchsorted(codes[order], codes[order])
    stays = ranks[:, np.newaxis] < k
    present = matrix.present & stays
    kept = [int(row) for row in order if present[row].any()]
    first = Matrix(matrix.labels, matrix.values, present).pick(kept)
    if rest_label is None or not codes.size:
        return first
    budget.hold(len(groups) * k.size)
    rest = _rest(matrix, codes, groups, stays, rest_label)
    both = Matrix(
        [*first.labels, *rest.labels],
        np.concatenate([first.values, rest.values]),
        np.concatenate([first.present, rest.present]),
    )
    place = np.concatenate([codes[kept], np.arange(len(groups))]).astype(np.int64)
    is_rest = np.arange(place.size) >= len(kept)
    budget.release(len(groups) * k.size)  # whoever takes the answer holds it
    return merge_equal(both.pick([int(row) for row in np.lexsort((is_rest, place))]), SAME_LABELSET)


def _rest(matrix: Matrix, codes: Codes, groups: Sequence[Labels], stays: Bools, rest_label: str) -> Matrix:
    """[groups, steps], the sums of what does not stay."""
    name, equals, value = rest_label.partition("=")
    left_out = matrix.present & ~stays & ~np.isnan(matrix.values)
    values = np.zeros((len(groups), stays.shape[1]))
    np.add.at(values, codes, np.where(left_out, matrix.values, 0.0))
    present = np.zeros(values.shape, dtype=np.bool_)
    np.logical_or.at(present, codes, left_out)
    return Matrix([with_label(labels, name, value if equals else name) for labels in groups], values, present)


def _scores(matrix: Matrix, measure: str, checkpoint: Callable[[], None]) -> Floats:
    """[series], the number of every series; NaN for one without values."""
    rows, steps = matrix.values.shape
    scores = np.full(rows, np.nan)
    height = block_rows(steps)
    for begin in range(0, rows, height):
        checkpoint()
        values = matrix.values[begin : begin + height]
        there = matrix.present[begin : begin + height] & ~np.isnan(values)
        some = there.any(axis=1)
        found = _MEASURES[measure](values[some], there[some])
        scores[begin : begin + height][some] = found
    return scores


def _average(values: Floats, there: Bools) -> Floats:
    average: Floats = np.where(there, values, 0.0).sum(axis=1) / there.sum(axis=1)
    return average


def _largest(values: Floats, there: Bools) -> Floats:
    largest: Floats = np.where(there, values, -np.inf).max(axis=1)
    return largest


def _smallest(values: Floats, there: Bools) -> Floats:
    smallest: Floats = np.where(there, values, np.inf).min(axis=1)
    return smallest


def _last(values: Floats, there: Bools) -> Floats:
    last = there.shape[1] - 1 - np.argmax(there[:, ::-1], axis=1)
    found: Floats = values[np.arange(len(values)), last]
    return found


def _median(values: Floats, there: Bools) -> Floats:
    ordered = np.sort(np.where(there, values, np.nan), axis=1)  # NaN last
    count = there.sum(axis=1)
    rows = np.arange(len(values))
    median: Floats = (ordered[rows, (count - 1) // 2] + ordered[rows, count // 2]) / 2
    return median


_MEASURES: dict[str, Callable[[Floats, Bools], Floats]] = {
    "avg": _average,
    "last": _last,
    "max": _largest,
    "median": _median,
    "min": _smallest,
}
