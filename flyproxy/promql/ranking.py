"""Aggregations that must see the series of a group side by side: topk, bottomk, quantile, count_values."""

from collections.abc import Iterable
from decimal import Decimal

import numpy as np

from flyproxy.promql.aggregate import Codes
from flyproxy.promql.cubes import sorted_quantile
from flyproxy.promql.matrix import Block, Budget, Matrix, Stream, with_label
from flyproxy.series.frame import Bools, Floats
from flyproxy.series.labels import Labels


def first_k(stream: Stream, codes: Codes, k: Floats, *, largest: bool, budget: Budget) -> Matrix:
    """topk (largest) or bottomk: at every step the k [steps] first series of every group, kept with their labels.

    Rows that are no longer among the first at any step are let go after every block. At a single step the rows come
    in Prometheus' order: group by group, the first first.
    """
    rows: list[int] = []
    values, present = np.empty((0, k.size)), np.empty((0, k.size), dtype=np.bool_)
    for block in stream.blocks:
        rows += range(block.first_row, block.first_row + len(block.values))
        values = np.concatenate([values, block.values])
        present = np.concatenate([present, block.present])
        present &= _ranks(values, present, codes[rows], largest=largest) < k
        kept = np.flatnonzero(present.any(axis=1))
        before = len(rows) - len(block.values)
        rows, values, present = [rows[row] for row in kept], values[kept], present[kept]
        budget.hold((len(rows) - before) * k.size)
    order: Iterable[int] = range(len(rows))
    if k.size == 1 and rows:
        ranks = _ranks(values, present, codes[rows], largest=largest)[:, 0]
        order = [int(row) for row in np.lexsort((ranks, codes[rows]))]
    labels = stream.final_labels()
    return Matrix([labels[row] for row in rows], values, present).pick(list(order))


def _ranks(values: Floats, present: Bools, codes: Codes, *, largest: bool) -> Floats:
    """[rows, steps], the place within its group; NaN come last, what is absent has none (infinite)."""
    key = np.where(np.isnan(values), np.inf, -values if largest else values)
    key = np.where(present, key, np.nan)
    ranks = np.full(values.shape, np.inf)
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if members.size:
            sorted_rows = np.argsort(key[members], axis=0, kind="stable")
            places = np.empty_like(sorted_rows)
            np.put_along_axis(places, sorted_rows, np.arange(members.size)[:, np.newaxis], axis=0)
            ranks[members] = places
    return np.where(present, ranks, np.inf)


def quantiles(matrix: Matrix, codes: Codes, groups: list[Labels], q: Floats) -> Matrix:
    """quantile(q [steps], ...) of every group."""
    values = np.full((len(groups), q.size), np.nan)
    present = np.zeros((len(groups), q.size), dtype=np.bool_)
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if members.size:
            inside = matrix.present[members].T
            group = codes[members[0]]
            values[group] = sorted_quantile(np.where(inside, matrix.values[members].T, np.inf), inside, q)
            present[group] = inside.any(axis=1)
    return Matrix(groups, values, present)


def counted_values(
    stream: Stream, codes: Codes, groups: list[Labels], label: str, steps: int, budget: Budget
) -> Matrix:
    """count_values("label", ...): how many series of a group have each value, one series per value."""
    rows: dict[tuple[int, bytes], int] = {}
    labels: list[Labels] = []
    counts = np.zeros((0, steps))
    for block in stream.blocks:
        counts = _count_block(block, codes, groups, label, rows, labels, counts, budget)
    return _joined(Matrix(labels, counts, counts > 0))


def _count_block(
    block: Block,
    codes: Codes,
    groups: list[Labels],
    label: str,
    rows: dict[tuple[int, bytes], int],
    labels: list[Labels],
    counts: Floats,
    budget: Budget,
) -> Floats:
    row, step = np.nonzero(block.present)
    bits = np.where(np.isnan(block.values), np.nan, block.values)[row, step].view(np.uint64)
    pairs = np.stack([codes[block.first_row + row].astype(np.uint64), bits], axis=1)
    distinct, code = np.unique(pairs, axis=0, return_inverse=True)
    target = np.empty(len(distinct), dtype=np.int64)
    for place, (group, value) in enumerate(distinct):
        key = (int(group), value.tobytes())
        if key not in rows:
            rows[key] = len(labels)
            labels.append(with_label(groups[int(group)], label, value_text(float(value.view(np.float64)))))
        target[place] = rows[key]
    if len(labels) > len(counts):
        budget.hold((len(labels) - len(counts)) * counts.shape[1])
        counts = np.concatenate([counts, np.zeros((len(labels) - len(counts), counts.shape[1]))])
    np.add.at(counts, (target[code.ravel()], step), 1.0)
    return counts


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
