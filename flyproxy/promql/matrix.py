"""The value of an instant vector at every step, and the way it travels: in blocks of rows.

A Stream knows all its labels beforehand and yields its numbers block by block, so an aggregation above it never
holds more than one block and its own groups. What must be held whole is collected into a Matrix, within a budget.
Values where `present` is False are unspecified. `present` may be a broadcast view (dense rows share one mask).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flyproxy.promql.errors import QueryError, TooManySamples
from flyproxy.series.frame import Bools, Floats, Times
from flyproxy.series.labels import METRIC_NAME, Labels

BLOCK_ROWS = 512
BLOCK_POINTS = 1 << 18
"""Rows, and numbers per array, of one block: 2 MB, so the arrays of one block stay in a core's cache."""

SAME_LABELSET = "vector cannot contain metrics with the same labelset"


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """The times at which an expression is evaluated. `@ start()` and `@ end()` mean the whole query's."""

    times: Times
    """[steps], at least one, ascending."""
    step_ms: int
    """0 at an instant."""
    query_start_ms: int
    query_end_ms: int

    @property
    def count(self) -> int:
        return int(self.times.size)

    def only_first(self) -> "Steps":
        """One step, for what has the same value at every step."""
        return replace(self, times=self.times[:1])


class Budget:
    """Counts the points a query holds at once; raises TooManySamples above `samples_max`."""

    def __init__(self, samples_max: int) -> None:
        self.samples_max = samples_max
        self.held = 0
        self.peak = 0

    def hold(self, points: int) -> None:
        self.held += points
        self.peak = max(self.peak, self.held)
        if self.held > self.samples_max:
            raise TooManySamples("query processing would load too many samples into memory in query execution")

    def release(self, points: int) -> None:
        self.held -= points


@dataclass(slots=True, eq=False)
class Block:
    """Some rows of a stream, in the stream's order."""

    first_row: int
    values: Floats
    """[rows, steps]"""
    present: Bools
    """[rows, steps]"""


@dataclass(slots=True, eq=False)
class Stream:
    """An instant vector at every step. The blocks can be read once."""

    labels: Sequence[Labels]
    """[series], as selected; without duplicates once `nameless` is applied."""
    blocks: Iterator[Block]
    nameless: bool = False
    """True when the metric name is dropped from every row of `labels`: left undone while nobody reads it."""
    one_name: bool = False
    """True when all rows have the same metric name, so dropping it cannot make two rows equal."""
    held: "Matrix | None" = None
    """The matrix this is read from, when the numbers are held already."""

    def final_labels(self) -> Sequence[Labels]:
        return [without_name(labels) for labels in self.labels] if self.nameless else self.labels

    def map(self, change: Callable[[Floats, Bools], tuple[Floats, Bools]]) -> "Stream":
        """The same rows with other numbers."""

        def blocks() -> Iterator[Block]:
            for block in self.blocks:
                values, present = change(block.values, block.present)
                yield Block(block.first_row, values, present)

        return replace(self, blocks=blocks(), held=None)


@dataclass(slots=True, eq=False)
class Matrix:
    """An instant vector at every step, held whole."""

    labels: Sequence[Labels]
    values: Floats
    """[series, steps]"""
    present: Bools
    """[series, steps]"""

    @property
    def points(self) -> int:
        return int(self.values.size)

    def stream(self) -> Stream:
        def blocks() -> Iterator[Block]:
            height = block_rows(self.values.shape[1])
            for first in range(0, len(self.labels), height):
                yield Block(first, self.values[first : first + height], self.present[first : first + height])

        return Stream(self.labels, blocks(), held=self)

    def pick(self, rows: Sequence[int]) -> "Matrix":
        """These rows, in this order."""
        index = np.asarray(rows, dtype=np.intp)
        return Matrix([self.labels[row] for row in rows], self.values[index], self.present[index])


def block_rows(width: int) -> int:
    """How many rows of this many numbers make a block."""
    return max(1, min(BLOCK_ROWS, BLOCK_POINTS // max(width, 1)))


def collect(stream: Stream, steps: int, budget: Budget) -> Matrix:
    """The whole stream, rows that are never present left out. The points are held until the caller releases them."""
    if stream.held is not None:
        return Matrix(stream.final_labels(), stream.held.values, stream.held.present)
    rows_max = min(len(stream.labels), budget.samples_max // steps + 1)
    values = np.empty((rows_max, steps), dtype=np.float64)
    present = np.empty((rows_max, steps), dtype=np.bool_)
    labels: list[Labels] = []
    for block in stream.blocks:
        kept = np.flatnonzero(block.present.any(axis=1))
        budget.hold(kept.size * steps)
        if not kept.size:
            continue
        first, stop = len(labels), len(labels) + kept.size
        values[first:stop] = block.values if kept.size == len(block.values) else block.values[kept]
        present[first:stop] = block.present if kept.size == len(block.values) else block.present[kept]
        labels.extend(stream.labels[block.first_row + int(row)] for row in kept)
    if stream.nameless:
        labels = [without_name(each) for each in labels]
    return Matrix(labels, values[: len(labels)], present[: len(labels)])


def joined(streams: Sequence[Stream]) -> Stream:
    """The rows of all streams one after the other; a series may then be there twice."""
    if len(streams) == 1:
        return streams[0]

    def blocks() -> Iterator[Block]:
        first_row = 0
        for stream in streams:
            for block in stream.blocks:
                yield Block(first_row + block.first_row, block.values, block.present)
            first_row += len(stream.labels)

    return Stream([labels for stream in streams for labels in stream.final_labels()], blocks())


def nameless(stream: Stream, steps: int, budget: Budget, *, whole_range: bool = False) -> Stream:
    """The stream without metric names; raises QueryError where that makes two series equal at one step.

    `whole_range`: equal at any two steps is an error too, as Prometheus has it for range functions.
    """
    if stream.nameless:
        return stream
    if stream.one_name or not _names_collide(stream.labels):
        return replace(stream, nameless=True)
    matrix = collect(replace(stream, nameless=True), steps, budget)
    if whole_range and len(set(matrix.labels)) < len(matrix.labels):
        raise QueryError(SAME_LABELSET)
    merged = merge_equal(matrix, SAME_LABELSET)
    budget.release(matrix.points - merged.points)
    return merged.stream()


def _names_collide(labels: Sequence[Labels]) -> bool:
    """True when dropping the name makes two rows equal."""
    return len({without_name(each) for each in labels}) < len(labels)


def merge_equal(matrix: Matrix, message: str) -> Matrix:
    """Rows with equal labels become one; QueryError(message) where two of them are present at one step."""
    first_row: dict[Labels, int] = {}
    code = np.empty(len(matrix.labels), dtype=np.intp)
    for row, labels in enumerate(matrix.labels):
        code[row] = first_row.setdefault(labels, len(first_row))
    if len(first_row) == len(matrix.labels):
        return matrix
    values = np.zeros((len(first_row), matrix.values.shape[1]))
    present = np.zeros(values.shape, dtype=np.bool_)
    for row, target in enumerate(code):
        here = matrix.present[row]
        if (present[target] & here).any():
            raise QueryError(message)
        present[target] |= here
        values[target, here] = matrix.values[row, here]
    return Matrix(list(first_row), values, present)


def without_name(labels: Labels) -> Labels:
    """The labels without the metric name."""
    if labels and labels[0][0] == METRIC_NAME:
        return labels[1:]
    return tuple(pair for pair in labels if pair[0] != METRIC_NAME)


def with_label(labels: Labels, name: str, value: str) -> Labels:
    """The labels with one of them set, or left out when the value is empty."""
    rest = [pair for pair in labels if pair[0] != name]
    return tuple(sorted([*rest, (name, value)])) if value else tuple(rest)


def label_text(labels: Iterable[tuple[str, str]]) -> str:
    """`{a="b", c="d"}`, as Prometheus writes labels in its errors."""
    return "{" + ", ".join(f"{name}={quoted(value)}" for name, value in labels) + "}"


def quoted(text: str) -> str:
    """A string as PromQL would write it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def broadcast(mask: Bools, rows: int) -> Bools:
    """[steps] or [1, steps] seen as [rows, steps]."""
    return np.broadcast_to(mask, (rows, mask.shape[-1]))
