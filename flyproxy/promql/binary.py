"""Operators between scalars and vectors, and between vectors whose series are matched by labels.

Matching is label work, done once per query: every series gets the code of its match group. Whether a match is
allowed is a question of every step (two series of a group may follow one another in time), answered with arrays.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flyproxy.promql.errors import QueryError
from flyproxy.promql.matrix import SAME_LABELSET, Budget, Matrix, label_text, merge_equal, with_label, without_name
from flyproxy.promql.nodes import Binary, Card, Matching
from flyproxy.promql.operators import COMPARISONS
from flyproxy.series.frame import Bools, Floats
from flyproxy.series.labels import Labels, label_value

_ARITHMETIC: dict[str, Callable[[Floats, Floats], Floats]] = {
    "+": np.add,
    "-": np.subtract,
    "*": np.multiply,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "atan2": np.arctan2,
}
_COMPARISONS: dict[str, Callable[[Floats, Floats], Bools]] = {
    "==": np.equal,
    "!=": np.not_equal,
    ">": np.greater,
    "<": np.less,
    ">=": np.greater_equal,
    "<=": np.less_equal,
}
_TOO_MANY = "many-to-many matching not allowed: matching labels must be unique on one side"
_IMPLICIT_MANY = "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
_AMBIGUOUS = "multiple matches for labels: grouping labels must ensure unique matches"
_ALL_PAIRS = Matching(Card.ONE_TO_ONE, on=False, labels=())


def scalar_operation(operator: str, left: Floats, right: Floats) -> Floats:
    """[steps]; comparisons between scalars are always `bool`."""
    if operator in COMPARISONS:
        return _COMPARISONS[operator](left, right).astype(np.float64)
    return _ARITHMETIC[operator](left, right)


def drops_name(operator: str, return_bool: bool, *, legacy: bool) -> bool:
    """True where the result is another quantity than the left side's metric. (2.x forgot atan2.)"""
    return (operator in _ARITHMETIC and not (legacy and operator == "atan2")) or return_bool


def elements(
    operator: str, left: Floats, right: Floats, kept: Floats, present: Bools, return_bool: bool
) -> tuple[Floats, Bools]:
    """One operator on arrays: arithmetic, `bool` comparison, or a filter that leaves `kept` where it holds."""
    if operator in _ARITHMETIC:
        return _ARITHMETIC[operator](left, right), present
    holds = _COMPARISONS[operator](left, right)
    if return_bool:
        return holds.astype(np.float64), present
    return kept, present & holds


def set_operation(operator: str, left: Matrix, right: Matrix, matching: Matching | None) -> Matrix:
    """and, or, unless: decided at every step by whether the other side has anything in the match group."""
    codes_left, codes_right, groups = _match_codes(left.labels, right.labels, matching or _ALL_PAIRS)
    if operator == "or":
        taken = _any_present(left, codes_left, groups)[codes_right]
        values = np.concatenate([left.values, right.values])
        present = np.concatenate([left.present, right.present & ~taken])
        return merge_equal(Matrix([*left.labels, *right.labels], values, present), SAME_LABELSET)
    found = _any_present(right, codes_right, groups)[codes_left]
    return Matrix(left.labels, left.values, left.present & (found if operator == "and" else ~found))


def vector_operation(node: Binary, left: Matrix, right: Matrix, *, drop_name: bool, budget: Budget) -> Matrix:
    """Arithmetic or comparison between two vectors, one-to-one, group_left or group_right."""
    matching = node.matching or _ALL_PAIRS
    swapped = matching.card is Card.ONE_TO_MANY
    many, one = (right, left) if swapped else (left, right)
    codes_many, codes_one, groups = _match_codes(many.labels, one.labels, matching)
    _check_one_side(one, codes_one, many, matching, "left" if swapped else "right")
    pairs = _pairs(codes_many, codes_one, many.values.shape[1], budget)
    values_many, values_one = many.values[pairs.many], one.values[pairs.one]
    present = many.present[pairs.many] & one.present[pairs.one]
    first, second = (values_one, values_many) if swapped else (values_many, values_one)
    values, present = elements(node.operator, first, second, first, present, node.return_bool)
    if matching.card is Card.ONE_TO_ONE and _overlaps(present, codes_many[pairs.many], groups):
        raise QueryError(_IMPLICIT_MANY)
    labels = [
        _result_labels(many.labels[row], one.labels[partner], matching, drop_name)
        for row, partner in zip(pairs.many.tolist(), pairs.one.tolist(), strict=True)
    ]
    message = SAME_LABELSET if matching.card is Card.ONE_TO_ONE else _AMBIGUOUS
    merged = merge_equal(Matrix(labels, values, present), message)
    budget.release(pairs.many.size * many.values.shape[1] - merged.points)
    return merged


def is_scalar_like(matrix: Matrix) -> bool:
    """MetricsQL: a single series without any label meets every series of the other side, as a scalar would."""
    return len(matrix.labels) == 1 and not matrix.labels[0]


def scalar_like_operation(node: Binary, left: Matrix, right: Matrix, *, drop_name: bool) -> Matrix:
    """One side is scalar-like; a comparison keeps the left side's values, under the labels of the other."""
    vector, single = (right, left) if is_scalar_like(left) else (left, right)
    present = vector.present & single.present
    values, present = elements(node.operator, left.values, right.values, left.values, present, node.return_bool)
    labels = [without_name(each) for each in vector.labels] if drop_name else vector.labels
    shaped = Matrix(labels, np.broadcast_to(values, present.shape), present)
    return merge_equal(shaped, SAME_LABELSET)


Rows = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Row numbers of the two sides, one pair each."""

    many: Rows
    one: Rows


def _match_codes(left: Sequence[Labels], right: Sequence[Labels], matching: Matching) -> tuple[Rows, Rows, int]:
    """The match group of every series of both sides, and how many groups there are."""
    names = frozenset(matching.labels)
    seen: dict[Labels, int] = {}

    def code(labels: Labels) -> int:
        if matching.on:
            return seen.setdefault(tuple([pair for pair in labels if pair[0] in names]), len(seen))
        if not names:
            return seen.setdefault(without_name(labels), len(seen))
        return seen.setdefault(tuple([pair for pair in without_name(labels) if pair[0] not in names]), len(seen))

    codes_left = np.array([code(labels) for labels in left], dtype=np.int64)
    codes_right = np.array([code(labels) for labels in right], dtype=np.int64)
    return codes_left, codes_right, len(seen)


def _any_present(matrix: Matrix, codes: Rows, groups: int) -> Bools:
    """[groups, steps]"""
    found = np.zeros((groups, matrix.values.shape[1]), dtype=np.bool_)
    np.logical_or.at(found, codes, matrix.present)
    return found


def _overlaps(present: Bools, codes: Rows, groups: int) -> bool:
    """True when two rows of one group are present at one step."""
    if np.unique(codes).size == codes.size:
        return False
    count = np.zeros((groups, present.shape[1]), dtype=np.int64)
    np.add.at(count, codes, present)
    return bool((count > 1).any())


def _check_one_side(one: Matrix, codes: Rows, many: Matrix, matching: Matching, side: str) -> None:
    """QueryError where two series of a group meet at a step at which the other side has anything at all."""
    if np.unique(codes).size == codes.size:
        return
    asked = many.present.any(axis=0)
    order = np.argsort(codes, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        together = (one.present[members].sum(axis=0) > 1) & asked
        if together.any():
            step = int(np.argmax(together))
            first, second = [int(row) for row in members if one.present[row, step]][:2]
            raise QueryError(_duplicate_message(one.labels[first], one.labels[second], matching, side))


def _duplicate_message(first: Labels, second: Labels, matching: Matching, side: str) -> str:
    names = frozenset(matching.labels)
    if matching.on:
        group = [pair for pair in first if pair[0] in names]
    else:
        group = [pair for pair in without_name(first) if pair[0] not in names]
    return (
        f"found duplicate series for the match group {label_text(group)} on the {side} hand-side of the operation: "
        f"[{label_text(second)}, {label_text(first)}];{_TOO_MANY}"
    )


def _pairs(codes_many: Rows, codes_one: Rows, steps: int, budget: Budget) -> _Pairs:
    """Every row of the many side with every row of the one side in its group; their points are held."""
    order = np.argsort(codes_one, kind="stable")
    begin = np.searchsorted(codes_one[order], codes_many, side="left")
    stop = np.searchsorted(codes_one[order], codes_many, side="right")
    counts = stop - begin
    budget.hold(int(counts.sum()) * steps)
    many = np.repeat(np.arange(codes_many.size), counts)
    within = np.arange(many.size) - np.repeat(np.cumsum(counts) - counts, counts)
    return _Pairs(many, order[np.repeat(begin, counts) + within])


def _result_labels(many: Labels, one: Labels, matching: Matching, drop_name: bool) -> Labels:
    """Prometheus' resultMetric."""
    labels = without_name(many) if drop_name else many
    if matching.card is Card.ONE_TO_ONE:
        names = frozenset(matching.labels)
        if matching.on:
            labels = tuple([pair for pair in labels if pair[0] in names])
        elif names:
            labels = tuple([pair for pair in labels if pair[0] not in names])
    for name in matching.include:
        labels = with_label(labels, name, label_value(one, name))
    return labels
