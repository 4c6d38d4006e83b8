"""Aggregations of one query: which of the ways there are, and what each is handed."""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import numpy as np

from flyproxy.promql.aggregate import Codes, fold_for, group_labels
from flyproxy.promql.errors import QueryError
from flyproxy.promql.functions import RANGE_RANKINGS
from flyproxy.promql.label_functions import is_label_name
from flyproxy.promql.matrix import Budget, Matrix, Steps, Stream, collect, joined
from flyproxy.promql.nodes import Aggregation, Node
from flyproxy.promql.options import Options
from flyproxy.promql.range_ranking import first_k_over_range
from flyproxy.promql.ranking import counted_values, first_k, modes, quantiles
from flyproxy.series.frame import Floats
from flyproxy.series.labels import Labels


class Evaluation(Protocol):
    """The evaluation of the query around the aggregation."""

    options: Options
    budget: Budget
    checkpoint: Callable[[], None]

    def evaluate(self, node: Node, steps: Steps) -> Floats | str | Stream: ...

    def vector(self, node: Node, steps: Steps) -> Stream: ...

    def scalar(self, node: Node, steps: Steps) -> Floats: ...

    def string(self, node: Node, steps: Steps) -> str: ...

    def single(self, values: Floats, steps: Steps) -> Stream:
        """One series without labels."""
        ...

    def swapped(self, result: Matrix, *inputs: Matrix) -> Stream:
        """The result is held instead of its inputs."""
        ...


def aggregated(node: Aggregation, steps: Steps, evaluation: Evaluation) -> Stream:
    """The groups, or the series that stay, at every step. Raises QueryError."""
    if node.operator == "count_values":
        return _count_values(node, steps, evaluation)
    budget, checkpoint = evaluation.budget, evaluation.checkpoint
    parameter = None if node.parameter is None else evaluation.scalar(node.parameter, steps)
    stream = _all_series(node, steps, evaluation)
    codes, groups = group_labels(stream.labels, node.labels, without=node.without, nameless=stream.nameless)
    fold = fold_for(node.operator, len(groups), steps.count, compensate=evaluation.options.left_open)
    if fold is not None:
        budget.hold(len(groups) * steps.count)
        for block in stream.blocks:
            fold.add(codes[block.first_row : block.first_row + len(block.values)], block.values, block.present)
        return Matrix(groups, *fold.result()).stream()
    if node.operator == "mode":
        matrix, _, kept = _side_by_side(stream, codes, steps, budget)
        return evaluation.swapped(modes(matrix, kept, groups, checkpoint), matrix)
    if parameter is None:
        raise QueryError(f"{node.operator} is not built yet")
    if node.operator in RANGE_RANKINGS:
        return _ranked_over_range(node, parameter, stream, codes, groups, steps, evaluation)
    if node.operator in ("topk", "bottomk"):
        k, largest = _whole_numbers(parameter), node.operator == "topk"
        return first_k(stream, codes, k, largest=largest, budget=budget, checkpoint=checkpoint).stream()
    if node.operator == "quantile":
        matrix, _, kept = _side_by_side(stream, codes, steps, budget)
        return evaluation.swapped(quantiles(matrix, kept, groups, parameter, checkpoint), matrix)
    raise QueryError(f"{node.operator} is not built yet")


def _all_series(node: Aggregation, steps: Steps, evaluation: Evaluation) -> Stream:
    """What is aggregated. MetricsQL: a scalar among several expressions is a series without labels."""
    if not node.others:
        return evaluation.vector(node.expression, steps)
    streams = []
    for expression in (node.expression, *node.others):
        value = evaluation.evaluate(expression, steps)
        if isinstance(value, str):
            raise QueryError("expected an instant vector")
        streams.append(value if isinstance(value, Stream) else evaluation.single(value, steps))
    return joined(streams)


def _side_by_side(stream: Stream, codes: Codes, steps: Steps, budget: Budget) -> tuple[Matrix, list[int], Codes]:
    """The rows that are there at some step without their labels, their numbers in the stream, and their groups."""
    numbered: list[Labels] = [(("row", str(row)),) for row in range(len(codes))]
    matrix = collect(replace(stream, labels=numbered, nameless=False), steps.count, budget)
    rows = [int(labels[0][1]) for labels in matrix.labels]
    return matrix, rows, codes[np.asarray(rows, dtype=np.intp)]


def _ranked_over_range(
    node: Aggregation,
    k: Floats,
    stream: Stream,
    codes: Codes,
    groups: list[Labels],
    steps: Steps,
    evaluation: Evaluation,
) -> Stream:
    labels = stream.final_labels()
    matrix, rows, kept = _side_by_side(stream, codes, steps, evaluation.budget)
    largest, measure = RANGE_RANKINGS[node.operator]
    first = first_k_over_range(
        replace(matrix, labels=[labels[row] for row in rows]),
        kept,
        groups,
        _whole_numbers(k),
        measure,
        largest=largest,
        rest_label=node.rest_label,
        budget=evaluation.budget,
        checkpoint=evaluation.checkpoint,
    )
    return evaluation.swapped(first, matrix)


def _count_values(node: Aggregation, steps: Steps, evaluation: Evaluation) -> Stream:
    assert node.parameter is not None
    label = evaluation.string(node.parameter, steps)
    if not is_label_name(label, legacy=not evaluation.options.left_open):
        raise QueryError(f'invalid label name "{label}"')
    stream = evaluation.vector(node.expression, steps)
    codes, groups = group_labels(stream.labels, node.labels, without=node.without, nameless=stream.nameless)
    budget, checkpoint = evaluation.budget, evaluation.checkpoint
    return counted_values(stream, codes, groups, label, steps.count, budget, checkpoint).stream()


def _whole_numbers(parameter: Floats) -> Floats:
    """topk's k at every step."""
    if np.isnan(parameter).any():
        raise QueryError("Scalar value NaN overflows int64")
    too_large = np.abs(parameter) >= 2.0**63
    if too_large.any():
        raise QueryError(f"Scalar value {parameter[too_large][0]} overflows int64")
    return np.trunc(parameter)
