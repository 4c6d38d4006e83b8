"""Aggregations that must see the series of a group side by side: topk, bottomk, quantile, mode, count_values."""

from collections.abc import Callable
from decimal import Decimal
from itertools import chain

import numpy as np
import numpy.typing as npt

from flyproxy.promql.aggregate import Codes
from flyproxy.promql.cubes import sorted_quantile
from flyproxy.promql.matrix import BLOCK_POINTS, Budget, Matrix, Stream, block_rows, with_label
from flyproxy.series.frame import Bools, Floats
from flyproxy.series.labels import Labels

Rows = npt.NDArray[np.int64]

_VALUES_AT_ONCE = 1 << 12
"""count_values: numbers sorted between two looks at the clock."""


def first_k(
    stream: Stream, codes: Codes, k: Floats, *, largest: bool, budget: Budget, checkpoint: Callable[[], None]
) -> Matrix:
    """topk (largest) or bottomk: at every step the k [steps] first series of every group, kept with their labels.

    Rows that are no longer among the first at any step are let go whenever as many new ones have come, so the work
    stays in proportion to the rows. At a single step they come in Prometheus' order: group by group, the first first.
    """
    rows: Rows = np.empty(0, dtype=np.int64)
    values, present = np.empty((0, k.size)), np.empty((0, k.size), dtype=np.bool_)
    waiting: list[tuple[Rows, Floats, Bools]] = []
    height = block_rows(k.size)
    for block in chain(stream.blocks, [None]):
        if block is not None:
            here = np.flatnonzero(block.present.any(axis=1))
            budget.hold(here.size * k.size)
            waiting.append((block.first_row + here, block.values[here], block.present[here]))
        waits = sum(len(each) for each, _, _ in waiting)
        if waits and (block is None or waits >= max(rows.size, height)):
            rows = np.concatenate([rows, *(each for each, _, _ in waiting)])
            values = np.concatenate([values, *(each for _, each, _ in waiting)])
            present = np.concatenate([present, *(each for _, _, each in waiting)])
            waiting.clear()
            _keep_first(values, present, codes[rows], k, largest=largest, checkpoint=checkpoint)
            kept = np.flatnonzero(present.any(axis=1))
            budget.release((rows.size - kept.size) * k.size)
            if kept.size < rows.size:
                rows, values, present = rows[kept], values[kept], present[kept]
    labels = stream.final_labels()
    first = Matrix([labels[row] for row in rows.tolist()], values, present)
    if k.size > 1 or not rows.size:
        return first
    ranks = _ranks(values, present, codes[rows], largest=largest)[:, 0]
    return first.pick([int(row) for row in np.lexsort((ranks, codes[rows]))])


def _keep_first(
    values: Floats, present: Bools, codes: Codes, k: Floats, *, largest: bool, checkpoint: Callable[[], None]
) -> None:
    """Takes the presence from what is not among the first k of its group, a few steps at a time."""
    if np.bincount(codes).max() <= k.min():
        return
    width = max(1, BLOCK_POINTS // len(values))
    for first in range(0, k.size, width):
        checkpoint()
        here = slice(first, first + width)
        present[:, here] &= _ranks(values[:, here], present[:, here], codes, largest=largest) < k[here]


def _ranks(values: Floats, present: Bools, codes: Codes, *, largest: bool) -> Floats:
    """[rows, steps], the place within its group; NaN come last, what is absent has none (infinite)."""
    order = np.argsort(np.where(present, -values if largest else values, np.nan), axis=0, kind="stable")
    unordered = np.isnan(values) & present
    if unordered.any():  # NaN and what is absent stand last, mixed
        late = np.where(present, unordered, 2).astype(np.int8)
        late = np.take_along_axis(late, order, axis=0)
        order = np.take_along_axis(order, np.argsort(late, axis=0, kind="stable"), axis=0)
    grouped = np.sort(codes)
    if grouped[0] != grouped[-1]:
        order = np.take_along_axis(order, np.argsort(codes[order], axis=0, kind="stable"), axis=0)
    place = np.arange(codes.size) - np.searchsorted(grouped, grouped)
    ranks = np.empty(values.shape)
    np.put_along_axis(ranks, order, np.broadcast_to(place[:, np.newaxis], order.shape), axis=0)
    return np.where(present, ranks, np.inf)


def quantiles(matrix: Matrix, codes: Codes, groups: list[Labels], q: Floats, checkpoint: Callable[[], None]) -> Matrix:
    """quantile(q [steps], ...) of every group."""
    values = np.full((len(groups), q.size), np.nan)
    present = np.zeros((len(groups), q.size), dtype=np.bool_)
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        for first in range(0, q.size if members.size else 0, max(1, BLOCK_POINTS // max(members.size, 1))):
            checkpoint()
            here = slice(first, first + max(1, BLOCK_POINTS // members.size))
            inside = matrix.present[members, here].T
            found = np.where(inside, matrix.values[members, here].T, np.inf)
            group = codes[members[0]]
            values[group, here] = sorted_quantile(found, inside, q[here])
            present[group, here] = inside.any(axis=1)
    return Matrix(groups, values, present)


def modes(matrix: Matrix, codes: Codes, groups: list[Labels], checkpoint: Callable[[], None]) -> Matrix:
    """MetricsQL's mode(): the commonest value of every group at every step, of several the smallest. NaN where there is
    nothing else."""
    steps = matrix.values.shape[1]
    values = np.full((len(groups), steps), np.nan)
    present = np.zeros((len(groups), steps), dtype=np.bool_)
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        for first in range(0, steps if members.size else 0, max(1, BLOCK_POINTS // max(members.size, 1))):
            checkpoint()
            here = slice(first, first + max(1, BLOCK_POINTS // members.size))
            inside = matrix.present[members, here]
            group = codes[members[0]]
            values[group, here] = _commonest(np.where(inside, matrix.values[members, here], np.nan))
            present[group, here] = inside.any(axis=0)
    return Matrix(groups, values, present)


def _commonest(values: Floats) -> Floats:
    """[steps], of values [rows, steps]; NaN does not count."""
    ordered = np.sort(values, axis=0)  # NaN last
    place = np.broadcast_to(np.arange(len(ordered))[:, np.newaxis], ordered.shape)
    begins = np.ones(ordered.shape, dtype=np.bool_)
    begins[1:] = ordered[1:] != ordered[:-1]
    run = place - np.maximum.accumulate(np.where(begins, place, 0), axis=0)
    longest = np.argmax(np.where(np.isnan(ordered), -1, run), axis=0)
    found: Floats = ordered[longest, np.arange(ordered.shape[1])]
    return found


def counted_values(
    stream: Stream,
    codes: Codes,
    groups: list[Labels],
    label: str,
    steps: int,
    budget: Budget,
    checkpoint: Callable[[], None],
) -> Matrix:
    """count_values("label", ...): how many series of a group have each value, one series per value."""
    found = _ValueCounts(groups, label, steps, budget)
    for block in stream.blocks:
        row, step = np.nonzero(block.present)
        values = np.where(np.isnan(block.values), np.nan, block.values)[row, step]
        for first in range(0, row.size, _VALUES_AT_ONCE):
            checkpoint()
            here = slice(first, first + _VALUES_AT_ONCE)
            found.add(codes[block.first_row + row[here]], step[here], values[here])
    return _joined(found.result())


class _ValueCounts:
    """The rows of count_values, made as values are met."""

    def __init__(self, groups: list[Labels], label: str, steps: int, budget: Budget) -> None:
        self.groups, self.label, self.budget = groups, label, budget
        self.rows: dict[tuple[int, bytes], int] = {}
        self.labels: list[Labels] = []
        self.counts = np.zeros((0, steps))
        """[rows or more, steps]"""

    def add(self, groups: Codes, steps: Rows, values: Floats) -> None:
        """One value of a series of this group at this step, [n] each."""
        pairs = np.stack([groups.astype(np.uint64), values.view(np.uint64)], axis=1)
        distinct, code = np.unique(pairs, axis=0, return_inverse=True)
        before = len(self.labels)
        target = np.array([self._row(int(group), value) for group, value in distinct], dtype=np.int64)
        self.budget.hold((len(self.labels) - before) * self.counts.shape[1])
        if len(self.labels) > len(self.counts):
            room = np.zeros((max(len(self.labels), before * 5 // 4) - len(self.counts), self.counts.shape[1]))
            self.counts = np.concatenate([self.counts, room])
        np.add.at(self.counts, (target[code.ravel()], steps), 1.0)

    def _row(self, group: int, value: np.uint64) -> int:
        key = (group, value.tobytes())
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = len(self.labels)
            text = value_text(float(value.view(np.float64)))
            self.labels.append(with_label(self.groups[group], self.label, text))
        return row

    def result(self) -> Matrix:
        counts = self.counts[: len(self.labels)]
        return Matrix(self.labels, counts, counts > 0)


def _joined(matrix: Matrix) -> Matrix:
    """Rows with the same labels (the label was one of the grouping's) are one series: counts add up."""
    first: dict[Labels, int] = {}
    code = np.array([first.setdefault(labels, len(first)) for labels in matrix.labels], dtype=np.int64)
    if len(first) == len(matrix.labels):
        return matrix
    counts = np.zeros((len(first), matrix.values.shape[1]))
    np.add.at(counts, code, matrix.values)
    return Matrix(list(first), counts, counts > 0)


def value_text(value: float) -> str:
    """A float as Prometheus writes it into a label: shortest digits, never an exponent."""
    if value != value:
        return "NaN"
    if value in (np.inf, -np.inf):
        return "+Inf" if value > 0 else "-Inf"
    text = format(Decimal(repr(value)), "f")
    return text[:-2] if text.endswith(".0") else text
