"""Nodes to values, bottom-up. This file holds the branching; the arithmetic is in the files it calls.

A scalar is an array [steps], a string a string, an instant vector a Stream that yields blocks of rows. Range
functions turn windows of samples into such blocks, functions of one vector change blocks on their way, aggregations
fold them; only binary operations between vectors, histograms and rankings hold whole matrices.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from flyproxy.promql import label_functions
from flyproxy.promql.binary import (
    drops_name,
    elements,
    is_scalar_like,
    scalar_like_operation,
    scalar_operation,
    set_operation,
    vector_operation,
)
from flyproxy.promql.errors import QueryError
from flyproxy.promql.evaluate_aggregation import aggregated
from flyproxy.promql.histogram import histogram_quantile
from flyproxy.promql.instant_functions import CALENDAR_FUNCTIONS, INSTANT_FUNCTIONS
from flyproxy.promql.matrix import (
    SAME_LABELSET,
    Budget,
    Matrix,
    Steps,
    Stream,
    collect,
    joined,
    merge_equal,
    nameless,
    with_label,
)
from flyproxy.promql.nodes import (
    Aggregation,
    Binary,
    Call,
    Card,
    Matching,
    Node,
    Number,
    Parenthesis,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
)
from flyproxy.promql.operators import SET_OPERATORS
from flyproxy.promql.options import Options
from flyproxy.promql.plan import Plan, is_step_invariant, reach_back
from flyproxy.promql.range_functions import KEEP_NAME, RANGE_FUNCTIONS, TWO_BEATS, last_over_time
from flyproxy.promql.sources import RangeSource, instant_stream, range_source, windowed_stream
from flyproxy.series.frame import Bools, Floats, Times
from flyproxy.series.labels import EMPTY, Labels, label_value

Value = Floats | str | Stream
_PLAIN = Matching(Card.ONE_TO_ONE, on=False, labels=())
RangeRow = tuple[Labels, Times, Floats]


class Evaluator:
    """Evaluates the nodes of one query."""

    def __init__(self, options: Options, plan: Plan, budget: Budget, checkpoint: Callable[[], None]) -> None:
        self.options, self.plan, self.budget, self.checkpoint = options, plan, budget, checkpoint

    def evaluate(self, node: Node, steps: Steps) -> Value:
        """The node's value at every step. Raises QueryError."""
        if steps.count > 1 and not isinstance(node, Number | String) and is_step_invariant(node):
            return self._spread(self._evaluate(node, steps.only_first()), steps)
        return self._evaluate(node, steps)

    def vector(self, node: Node, steps: Steps) -> Stream:
        value = self.evaluate(node, steps)
        if not isinstance(value, Stream):
            raise QueryError("expected an instant vector")
        return value

    def matrix(self, node: Node, steps: Steps) -> Matrix:
        return collect(self.vector(node, steps), steps.count, self.budget)

    def scalar(self, node: Node, steps: Steps) -> Floats:
        value = self.evaluate(node, steps)
        if isinstance(value, str | Stream):
            raise QueryError("expected a scalar")
        return value

    def string(self, node: Node, steps: Steps) -> str:
        value = self.evaluate(node, steps)
        if not isinstance(value, str):
            raise QueryError("expected a string")
        return value

    def range_rows(self, node: Node, steps: Steps) -> Iterator[RangeRow]:
        """The samples of a range vector at an instant."""
        source = self.source(node, steps, "")
        for piece in source.pieces:
            for row, windows in piece.single_rows():
                lo, hi = int(windows.lo[0]), int(windows.hi[0])
                if hi > lo:
                    self.budget.hold(hi - lo)
                    yield source.labels[row], windows.times[lo:hi], windows.values[lo:hi]

    def source(self, node: Node, steps: Steps, function: str) -> RangeSource:
        """The windows of a range vector argument."""
        node = _bare(node)
        reach = reach_back(function, self.options)
        if not isinstance(node, RangeSelector | Subquery):
            raise QueryError(f"{function}() needs a range, e.g. {function}(x[5m])")
        inner = None
        if isinstance(node, Subquery):
            inner = self.vector
        beats = 2 if function in TWO_BEATS else 1
        return range_source(node, steps, self.plan, reach, self.checkpoint, inner, beats=beats)

    def _spread(self, value: Value, steps: Steps) -> Value:
        """A value of one step at every step."""
        if isinstance(value, str):
            return value
        if not isinstance(value, Stream):
            return np.broadcast_to(value, (steps.count,))
        matrix = collect(value, 1, self.budget)
        shape = (len(matrix.labels), steps.count)
        spread = Matrix(matrix.labels, np.broadcast_to(matrix.values, shape), np.broadcast_to(matrix.present, shape))
        return replace(spread.stream(), held=None)

    def _evaluate(self, node: Node, steps: Steps) -> Value:
        match node:
            case Number():
                return np.full(steps.count, node.value)
            case String():
                return node.value
            case Parenthesis():
                return self.evaluate(node.expression, steps)
            case Selector():
                return instant_stream(node, steps, self.plan, self.checkpoint)
            case RangeSelector() | Subquery():
                raise QueryError("expected an instant vector, got a range vector")
            case Unary():
                return self._unary(node, steps)
            case Call():
                return self._call(node, steps)
            case Aggregation():
                return aggregated(node, steps, self)
            case Binary():
                return self._binary(node, steps)

    def _unary(self, node: Unary, steps: Steps) -> Value:
        value = self.evaluate(node.expression, steps)
        if not node.negative or isinstance(value, str):
            return value
        if not isinstance(value, Stream):
            return -value
        negated = value.map(lambda values, present: (-values, present))
        return self._nameless(negated, steps, whole_range=True)

    def _nameless(self, stream: Stream, steps: Steps, *, whole_range: bool = False) -> Stream:
        return nameless(stream, steps.count, self.budget, whole_range=whole_range)

    # Calls

    def _call(self, node: Call, steps: Steps) -> Value:
        name, arguments = node.function, node.arguments
        if name in RANGE_FUNCTIONS:
            return self._range_call(node, steps)
        if name in CALENDAR_FUNCTIONS and not arguments:
            kernel = CALENDAR_FUNCTIONS[name]
            return self.single(kernel(self._seconds(steps), np.ones(1, dtype=np.bool_), ())[0], steps)
        if name in INSTANT_FUNCTIONS:
            kernel = INSTANT_FUNCTIONS[name]
            parameters = tuple(self.scalar(argument, steps) for argument in arguments[1:])
            stream = self.vector(arguments[0], steps)
            return self._nameless(stream.map(lambda v, p: kernel(v, p, parameters)), steps)
        special: dict[str, Callable[[Call, Steps], Value]] = {
            "time": lambda _, steps: self._seconds(steps),
            "pi": lambda _, steps: np.full(steps.count, np.pi),
            "vector": lambda node, steps: self.single(self.scalar(node.arguments[0], steps), steps),
            "scalar": self._scalar_of,
            "timestamp": self._timestamp,
            "absent": self._absent,
            "absent_over_time": self._absent,
            "histogram_quantile": self._histogram_quantile,
            "label_replace": self._relabelled,
            "label_join": self._relabelled,
            "histogram_quantiles": self._histogram_quantiles,
            "label_uppercase": self._relabelled,
            "label_lowercase": self._relabelled,
            "label_set": self._relabelled,
            "label_del": self._relabelled,
            "label_keep": self._relabelled,
            "drop_common_labels": self._without_common_labels,
            "sort": self._sorted,
            "sort_desc": self._sorted,
            "sort_by_label": self._sorted_by_label,
            "sort_by_label_desc": self._sorted_by_label,
        }
        if name not in special:
            raise QueryError(f"{name}() is not built yet")
        return special[name](node, steps)

    def _range_call(self, node: Call, steps: Steps) -> Stream:
        at = 1 if node.function == "quantile_over_time" else 0
        others = [argument for place, argument in enumerate(node.arguments) if place != at]
        parameters = tuple(self.scalar(argument, steps) for argument in others)
        if node.function in ("holt_winters", "double_exponential_smoothing"):
            _check_factors(parameters)
        source = self.source(node.arguments[at], steps, node.function)
        stream = windowed_stream(source, RANGE_FUNCTIONS[node.function], parameters)
        return stream if node.function in KEEP_NAME else self._nameless(stream, steps, whole_range=True)

    def _seconds(self, steps: Steps) -> Floats:
        return steps.times / 1000

    def single(self, values: Floats, steps: Steps) -> Stream:
        """A vector of one series without labels."""
        row = np.broadcast_to(values, (1, steps.count))
        return Matrix([EMPTY], row, np.ones((1, steps.count), dtype=np.bool_)).stream()

    def _scalar_of(self, node: Call, steps: Steps) -> Floats:
        count = np.zeros(steps.count, dtype=np.int64)
        total = np.zeros(steps.count)
        for block in self.vector(node.arguments[0], steps).blocks:
            count += block.present.sum(axis=0)
            total += np.where(block.present, block.values, 0.0).sum(axis=0)
        return np.where(count == 1, total, np.nan)

    def _timestamp(self, node: Call, steps: Steps) -> Stream:
        """Of a selector the samples' own times, of anything else the time of evaluation."""
        argument = _bare(node.arguments[0])
        if isinstance(argument, Selector):
            return self._nameless(instant_stream(argument, steps, self.plan, self.checkpoint, want_time=True), steps)
        now = self._seconds(steps)
        stream = self.vector(argument, steps)
        return self._nameless(stream.map(lambda v, p: (np.broadcast_to(now, v.shape), p)), steps)

    def _absent(self, node: Call, steps: Steps) -> Stream:
        argument = _bare(node.arguments[0])
        if node.function == "absent":
            stream = self.vector(argument, steps)
        else:
            stream = windowed_stream(self.source(argument, steps, node.function), last_over_time, ())
        found = np.zeros(steps.count, dtype=np.bool_)
        for block in stream.blocks:
            found |= block.present.any(axis=0)
        selector = argument.selector if isinstance(argument, RangeSelector) else argument
        labels = label_functions.labels_of_absence(selector.matchers) if isinstance(selector, Selector) else EMPTY
        return Matrix([labels], np.ones((1, steps.count)), ~found[np.newaxis]).stream()

    def _histogram_quantile(self, node: Call, steps: Steps) -> Stream:
        q = self.scalar(node.arguments[0], steps)
        buckets = self.matrix(node.arguments[1], steps)
        modern = self.options.left_open
        answer = histogram_quantile(q, buckets, ignore_small_deltas=modern, checkpoint=self.checkpoint)
        return self.swapped(answer, buckets)

    def _histogram_quantiles(self, node: Call, steps: Steps) -> Stream:
        """MetricsQL's: the label first, a series for every quantile."""
        if not isinstance(node.arguments[0], String):
            raise QueryError("histogram_quantiles() is experimental in Prometheus and not built yet")
        label = self.string(node.arguments[0], steps)
        quantiles = [self.scalar(argument, steps) for argument in node.arguments[1:-1]]
        buckets = self.matrix(node.arguments[-1], steps)
        labels: list[Labels] = []
        found: list[Matrix] = []
        for q in quantiles:
            modern = self.options.left_open
            found.append(histogram_quantile(q, buckets, ignore_small_deltas=modern, checkpoint=self.checkpoint))
            self.budget.hold(found[-1].points)
            labels += [with_label(each, label, _quantile_text(q[0])) for each in found[-1].labels]
        self.budget.release(buckets.points)
        values = np.concatenate([each.values for each in found])
        present = np.concatenate([each.present for each in found])
        return merge_equal(Matrix(labels, values, present), SAME_LABELSET).stream()

    def swapped(self, result: Matrix, *inputs: Matrix) -> Stream:
        """The result is held instead of its inputs."""
        self.budget.hold(result.points)
        for matrix in inputs:
            self.budget.release(matrix.points)
        return result.stream()

    def _relabelled(self, node: Call, steps: Steps) -> Stream:
        texts = [self.string(argument, steps) for argument in node.arguments[1:]]
        legacy = not self.options.left_open
        match node.function:
            case "label_replace":
                relabel = label_functions.label_replace(texts, legacy_names=legacy)
            case "label_join":
                relabel = label_functions.label_join(texts, legacy_names=legacy)
            case "label_set":
                relabel = label_functions.label_set(texts, legacy_names=legacy)
            case "label_del" | "label_keep":
                relabel = label_functions.only_labels(texts, keep=node.function == "label_keep")
            case _:
                relabel = label_functions.changed_case(texts, upper=node.function == "label_uppercase")
        stream = self.vector(node.arguments[0], steps)
        labels = label_functions.relabelled(stream.final_labels(), relabel, self.budget, self.checkpoint)
        return self._distinct(replace(stream, labels=labels, nameless=False, one_name=False, held=None), steps)

    def _without_common_labels(self, node: Call, steps: Steps) -> Stream:
        """Of the series that are there at some step, of all arguments together."""
        matrix = collect(joined([self.vector(each, steps) for each in node.arguments]), steps.count, self.budget)
        matrix = matrix.pick([int(row) for row in np.flatnonzero(matrix.present.any(axis=1))])
        labels = label_functions.without_common(matrix.labels)
        return self._distinct(Matrix(labels, matrix.values, matrix.present).stream(), steps)

    def _distinct(self, stream: Stream, steps: Steps) -> Stream:
        """Series whose labels became equal are one, if they are never there at once; else QueryError."""
        if len(set(stream.labels)) == len(stream.labels):
            return stream
        return merge_equal(collect(stream, steps.count, self.budget), SAME_LABELSET).stream()

    def _sorted(self, node: Call, steps: Steps) -> Stream:
        """NaN stand last in both directions. Over a range there is no order to keep."""
        matrix = self.matrix(node.arguments[0], steps)
        if steps.count > 1:
            return matrix.stream()
        values = matrix.values[:, 0]
        key = np.where(np.isnan(values), np.inf, -values if node.function == "sort_desc" else values)
        return matrix.pick([int(row) for row in np.lexsort((np.isnan(values), key))]).stream()

    def _sorted_by_label(self, node: Call, steps: Steps) -> Stream:
        names = [self.string(argument, steps) for argument in node.arguments[1:]]
        matrix = self.matrix(node.arguments[0], steps)

        def key(row: int) -> tuple[object, ...]:
            labels = matrix.labels[row]
            return (*(label_functions.natural_key(label_value(labels, name)) for name in names), labels)

        rows = sorted(range(len(matrix.labels)), key=key, reverse=node.function.endswith("desc"))
        return matrix.pick(rows).stream()

    # Operators

    def _binary(self, node: Binary, steps: Steps) -> Value:
        left, right = self.evaluate(node.left, steps), self.evaluate(node.right, steps)
        if isinstance(left, str) or isinstance(right, str):
            raise QueryError("binary operations are not defined on strings")
        if isinstance(left, Stream) and isinstance(right, Stream):
            return self._between_vectors(node, left, right, steps)
        if isinstance(left, Stream):
            return self._with_scalar(node, left, right, steps, scalar_is_left=False)
        if isinstance(right, Stream):
            return self._with_scalar(node, right, left, steps, scalar_is_left=True)
        return scalar_operation(node.operator, left, right)

    def _with_scalar(
        self, node: Binary, stream: Stream, scalar: Value, steps: Steps, *, scalar_is_left: bool
    ) -> Stream:
        assert isinstance(scalar, np.ndarray)

        def change(values: Floats, present: Bools) -> tuple[Floats, Bools]:
            left, right = (scalar, values) if scalar_is_left else (values, scalar)
            return elements(node.operator, left, right, values, present, node.return_bool)

        changed = stream.map(change)
        drop = drops_name(node.operator, node.return_bool, legacy=not self.options.left_open)
        return self._nameless(changed, steps) if drop else changed

    def _between_vectors(self, node: Binary, left: Stream, right: Stream, steps: Steps) -> Stream:
        first = collect(left, steps.count, self.budget)
        second = collect(right, steps.count, self.budget)
        self.checkpoint()
        if node.operator in SET_OPERATORS:
            return self.swapped(set_operation(node.operator, first, second, node.matching), first, second)
        drop = drops_name(node.operator, node.return_bool, legacy=not self.options.left_open)
        unmatched = self.options.metricsql and node.matching in (None, _PLAIN)
        if unmatched and (is_scalar_like(first) or is_scalar_like(second)):
            return self.swapped(scalar_like_operation(node, first, second, drop_name=drop), first, second)
        answer = vector_operation(node, first, second, drop_name=drop, budget=self.budget)
        self.budget.release(first.points + second.points)
        return answer.stream()


def _bare(node: Node) -> Node:
    """Without the parentheses around it."""
    while isinstance(node, Parenthesis):
        node = node.expression
    return node


def _quantile_text(q: float) -> str:
    """0.5, 1, 1e-07: the shortest digits, as Go's %g."""
    return repr(float(q)).removesuffix(".0")


def _check_factors(parameters: Sequence[Floats]) -> None:
    for factor, name in zip(parameters, ("smoothing", "trend"), strict=True):
        wrong = (factor <= 0) | (factor >= 1)
        if wrong.any():
            raise QueryError(f"invalid {name} factor. Expected: 0 < {name[0]}f < 1, got: {factor[wrong][0]:f}")
