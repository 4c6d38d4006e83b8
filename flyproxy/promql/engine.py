"""The one door to PromQL: an expression, something to select from and a time or a range in; a Result out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flyproxy.promql.build import last_value
from flyproxy.promql.errors import BadQueryRange, QueryError
from flyproxy.promql.evaluate import Evaluator, RangeRow
from flyproxy.promql.functions import RANGE_RANKINGS
from flyproxy.promql.matrix import Budget, Matrix, Steps, Stream, collect
from flyproxy.promql.nodes import Aggregation, Call, Node, Parenthesis, RangeSelector, Subquery, ValueType
from flyproxy.promql.options import Options
from flyproxy.promql.parse import parse
from flyproxy.promql.plan import Plan
from flyproxy.series.frame import Bools, Floats, Storage, Times
from flyproxy.series.labels import EMPTY, Labels

__all__ = ["Engine", "Options", "QueryError", "Result"]

_ORDERED_CALLS = frozenset({"sort", "sort_desc", "sort_by_label", "sort_by_label_desc"})
_ORDERED_AGGREGATIONS = frozenset({"topk", "bottomk", *RANGE_RANKINGS})
_ORDERED_OVER_RANGE = frozenset({"sort_by_label", "sort_by_label_desc"})
"""MetricsQL keeps this order over a range too, for the legend of a graph."""


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """An answer. Instant vectors and scalars, at one time or at every step, are `labels`, `values` and `present`;
    a range vector is `rows`; a string is `text`. A scalar over a range is an instant vector with no labels."""

    kind: ValueType
    timestamps_ms: Times
    """[steps]"""
    labels: Sequence[Labels] = ()
    """[series], sorted, but in the order asked for after sort() or topk at an instant, sort_by_label() of MetricsQL."""
    values: Floats = field(default_factory=lambda: np.empty((0, 0)))
    """[series, steps]"""
    present: Bools = field(default_factory=lambda: np.empty((0, 0), dtype=np.bool_))
    """[series, steps]"""
    text: str = ""
    rows: Sequence[RangeRow] = ()
    warnings: Sequence[str] = ()
    infos: Sequence[str] = ()
    points_peak: int = 0
    """Most points held at once while the answer was made."""


class Engine:
    """Stateless between queries; options may be changed per query."""

    def __init__(self, options: Options | None = None) -> None:
        self.options = options or Options()

    def query(
        self,
        expression: str,
        storage: Storage,
        time_ms: int,
        checkpoint: Callable[[], None] = lambda: None,
        *,
        metricsql: bool | None = None,
    ) -> Result:
        """The answer at one time. Raises ParseError, QueryError, and whatever the checkpoint raises."""
        options = self._options(metricsql)
        node = parse(expression, metricsql=options.metricsql)
        steps = Steps(np.array([time_ms], dtype=np.int64), 0, time_ms, time_ms)
        return evaluated(node, steps, storage, options, checkpoint)

    def query_range(
        self,
        expression: str,
        storage: Storage,
        start_ms: int,
        end_ms: int,
        step_ms: int,
        checkpoint: Callable[[], None] = lambda: None,
        *,
        metricsql: bool | None = None,
    ) -> Result:
        """The answer at start, start + step, ... up to end. Raises as `query`, and BadQueryRange."""
        options = self._options(metricsql)
        if step_ms <= 0:
            raise BadQueryRange(
                "zero or negative query resolution step widths are not accepted. Try a positive integer"
            )
        if end_ms < start_ms:
            raise BadQueryRange("end timestamp must not be before start time")
        if (end_ms - start_ms) // step_ms > options.points_max:
            raise BadQueryRange(
                f"exceeded maximum resolution of {options.points_max:,} points per timeseries. "
                "Try decreasing the query resolution (?step=XX)"
            )
        node = parse(expression, metricsql=options.metricsql)
        times = np.arange(start_ms, end_ms + 1, step_ms, dtype=np.int64)
        return evaluated(node, Steps(times, step_ms, start_ms, end_ms), storage, options, checkpoint, over_range=True)

    def _options(self, metricsql: bool | None) -> Options:
        return self.options if metricsql is None else replace(self.options, metricsql=metricsql)


def evaluated(
    node: Node,
    steps: Steps,
    storage: Storage,
    options: Options,
    checkpoint: Callable[[], None] = lambda: None,
    *,
    over_range: bool = False,
) -> Result:
    """A parsed expression's answer at these steps."""
    plan = Plan(storage, options, checkpoint)
    budget = Budget(options.samples_max)
    evaluator = Evaluator(options, plan, budget, checkpoint)
    top = _unwrapped(node)
    if over_range and options.metricsql and isinstance(top, RangeSelector | Subquery):
        node = top = last_value(top)
    with np.errstate(all="ignore"):
        plan.need(node, steps)
        if isinstance(top, RangeSelector | Subquery) and not over_range:
            rows = sorted(evaluator.range_rows(top, steps), key=lambda row: row[0])
            return Result(ValueType.RANGE, steps.times, rows=rows, points_peak=budget.peak)
        if isinstance(top, RangeSelector | Subquery):
            raise _wrong_type("range vector")
        value = evaluator.evaluate(node, steps)
        if isinstance(value, str):
            if over_range:
                raise _wrong_type("string")
            return Result(ValueType.STRING, steps.times, text=value)
        if isinstance(value, Stream):
            keep = _has_order(top, over_range=over_range, metricsql=options.metricsql)
            matrix = _ordered(collect(value, steps.count, budget), keep=keep)
            kind = ValueType.INSTANT
        else:
            row = np.broadcast_to(value, (1, steps.count))
            matrix = Matrix([EMPTY], row, np.ones((1, steps.count), dtype=np.bool_))
            kind = ValueType.INSTANT if over_range else ValueType.SCALAR
    return Result(kind, steps.times, matrix.labels, matrix.values, matrix.present, points_peak=budget.peak)


def _wrong_type(name: str) -> BadQueryRange:
    return BadQueryRange(f'invalid expression type "{name}" for range query, must be Scalar or instant Vector')


def _unwrapped(node: Node) -> Node:
    while isinstance(node, Parenthesis):
        node = node.expression
    return node


def _has_order(node: Node, *, over_range: bool, metricsql: bool) -> bool:
    if over_range:
        return metricsql and isinstance(node, Call) and node.function in _ORDERED_OVER_RANGE
    if isinstance(node, Call):
        return node.function in _ORDERED_CALLS
    return isinstance(node, Aggregation) and node.operator in _ORDERED_AGGREGATIONS


def _ordered(matrix: Matrix, *, keep: bool) -> Matrix:
    """Rows that are present at least once; sorted by labels unless their order was asked for."""
    rows = [int(row) for row in np.flatnonzero(matrix.present.any(axis=1))]
    if not keep:
        rows.sort(key=lambda row: matrix.labels[row])
    if rows == list(range(len(matrix.labels))):
        return matrix
    return matrix.pick(rows)
