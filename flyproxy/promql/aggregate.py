"""Aggregations over series. The common ones fold: they take one block of rows after the other and hold only groups.

`codes` [rows] says which group a row belongs to. Rows of a block are brought into group order once, then every
group is reduced by one ufunc.reduceat over axis 0. What must see all rows of a group together (quantile,
count_values) is in `ranking`, with topk and bottomk, which keep only rows that are still among the first.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flyproxy.promql.sums import compensated, group_sums, two_sum
from flyproxy.series.frame import Bools, Floats
from flyproxy.series.labels import METRIC_NAME, Labels

Codes = npt.NDArray[np.int64]


class Fold(Protocol):
    """An aggregation that is fed block by block."""

    def add(self, codes: Codes, values: Floats, present: Bools) -> None:
        """Rows [rows, steps] of the groups [rows]."""
        ...

    def result(self) -> tuple[Floats, Bools]:
        """[groups, steps] values and presence."""
        ...


def group_labels(
    series: Sequence[Labels], names: Sequence[str], *, without: bool, nameless: bool
) -> tuple[Codes, list[Labels]]:
    """The group of every series, and the labels of every group, in order of first appearance."""
    wanted = frozenset(names) | {METRIC_NAME} if without else frozenset(names)
    if nameless and not without:
        wanted -= {METRIC_NAME}
    seen: dict[Labels, int] = {}
    if without:
        found = [seen.setdefault(tuple([p for p in labels if p[0] not in wanted]), len(seen)) for labels in series]
    elif wanted:
        found = [seen.setdefault(tuple([p for p in labels if p[0] in wanted]), len(seen)) for labels in series]
    else:
        seen, found = {(): 0} if len(series) else {}, [0] * len(series)
    return np.array(found, dtype=np.int64), list(seen)


class _Ordered:
    """A block's rows brought together by group."""

    def __init__(self, codes: Codes, values: Floats, present: Bools) -> None:
        uniform = present.strides[0] == 0
        self.present_row = present[0] if uniform and len(present) else None
        """[steps], where all rows share it."""
        if (codes[1:] < codes[:-1]).any():
            order = np.argsort(codes, kind="stable")
            codes, values = codes[order], values[order]
            present = present if uniform else present[order]
        self.values, self.present = values, present
        self.starts = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
        self.groups = codes[self.starts]

    def counts(self) -> Floats:
        """[groups, steps] or broadcastable: present rows of each group."""
        if self.present_row is not None:
            sizes = np.diff(self.starts, append=len(self.values)).astype(np.float64)
            uniform: Floats = sizes[:, np.newaxis] * self.present_row
            return uniform
        counts: Floats = np.add.reduceat(self.present, self.starts, axis=0, dtype=np.float64)
        return counts

    def filled(self, neutral: float) -> Floats:
        """The values, what is not present replaced by something that does not count."""
        if self.present_row is not None and self.present_row.all():
            return self.values
        return np.where(self.present, self.values, neutral)


class CountFold:
    """count and group."""

    def __init__(self, groups: int, steps: int, *, ones: bool = False) -> None:
        self.ones = ones
        self.count = np.zeros((groups, steps))

    def add(self, codes: Codes, values: Floats, present: Bools) -> None:
        ordered = _Ordered(codes, values, present)
        self.count[ordered.groups] += ordered.counts()

    def result(self) -> tuple[Floats, Bools]:
        present = self.count > 0
        return (np.ones_like(self.count) if self.ones else self.count), present


_SCALE = 2.0**-64


class SumFold:
    """sum and avg, compensated as Prometheus 3 has them; Prometheus 2 adds plainly, row after row.

    The mean of numbers whose sum no float can hold is taken from a second sum of a smaller scale, begun when needed.
    """

    def __init__(self, groups: int, steps: int, *, mean: bool, compensate: bool) -> None:
        self.scaled: Floats | None = None
        self.mean, self.compensate = mean, compensate
        self.total = np.zeros((groups, steps))
        self.lost = np.zeros((groups, steps))
        self.count = np.zeros((groups, steps))

    def add(self, codes: Codes, values: Floats, present: Bools) -> None:
        ordered = _Ordered(codes, values, present)
        self.count[ordered.groups] += ordered.counts()
        terms, before = ordered.filled(0.0), self.total[ordered.groups]
        if self.compensate:
            total, lost = group_sums(terms, ordered.starts)
            self.total[ordered.groups], error = two_sum(before, total)
            self.lost[ordered.groups] += error + lost
        else:
            self.total[ordered.groups] += np.add.reduceat(terms, ordered.starts, axis=0)
        if self.mean and (self.scaled is not None or np.isinf(self.total[ordered.groups]).any()):
            if self.scaled is None:
                self.scaled = self.total * _SCALE
                self.scaled[ordered.groups] = before * _SCALE
            self.scaled[ordered.groups] += np.add.reduceat(terms * _SCALE, ordered.starts, axis=0)

    def result(self) -> tuple[Floats, Bools]:
        total = compensated(self.total, self.lost)
        if not self.mean:
            return total, self.count > 0
        mean = total / self.count
        if self.scaled is not None:
            mean = np.where(np.isinf(total), self.scaled / self.count / _SCALE, mean)
        return mean, self.count > 0


class ExtremeFold:
    """min and max; NaN counts only where there is nothing else."""

    def __init__(self, groups: int, steps: int, *, largest: bool) -> None:
        self.operation = np.fmax if largest else np.fmin
        self.value = np.full((groups, steps), np.nan)
        self.count = np.zeros((groups, steps))

    def add(self, codes: Codes, values: Floats, present: Bools) -> None:
        ordered = _Ordered(codes, values, present)
        self.count[ordered.groups] += ordered.counts()
        found = self.operation.reduceat(ordered.filled(np.nan), ordered.starts, axis=0)
        self.value[ordered.groups] = self.operation(self.value[ordered.groups], found)

    def result(self) -> tuple[Floats, Bools]:
        return self.value, self.count > 0


class VarianceFold:
    """stdvar and stddev of the population; blocks are joined by Chan's formula."""

    def __init__(self, groups: int, steps: int, *, root: bool, lone_is_zero: bool) -> None:
        self.root, self.lone_is_zero = root, lone_is_zero
        self.count = np.zeros((groups, steps))
        self.mean = np.zeros((groups, steps))
        self.squares = np.zeros((groups, steps))

    def add(self, codes: Codes, values: Floats, present: Bools) -> None:
        ordered = _Ordered(codes, values, present)
        here, starts = ordered.groups, ordered.starts
        count = np.broadcast_to(ordered.counts(), (here.size, values.shape[1]))
        some = np.maximum(count, 1)
        mean = compensated(*group_sums(ordered.filled(0.0), starts)) / some
        sizes = np.diff(starts, append=len(ordered.values))
        off = np.where(ordered.present, ordered.values - np.repeat(mean, sizes, axis=0), 0.0)
        squares = np.add.reduceat(off * off, starts, axis=0)
        before, both = self.count[here], np.maximum(self.count[here] + count, 1)
        apart = np.where((before > 0) & (count > 0), mean - self.mean[here], 0.0)
        self.squares[here] += squares + apart * apart * (before * count / both)
        self.mean[here] = np.where(before > 0, self.mean[here] + apart * (count / both), mean)
        self.count[here] += count

    def result(self) -> tuple[Floats, Bools]:
        variance = self.squares / np.maximum(self.count, 1)
        if self.lone_is_zero:  # 2.x, where 3.x has NaN for a lone NaN or infinity
            variance = np.where(self.count == 1, 0.0, variance)
        return (np.sqrt(variance) if self.root else variance), self.count > 0


def fold_for(operator: str, groups: int, steps: int, *, compensate: bool) -> Fold | None:
    """The fold of an aggregation; None for those that rank."""
    match operator:
        case "sum" | "avg":
            return SumFold(groups, steps, mean=operator == "avg", compensate=compensate)
        case "count" | "group":
            return CountFold(groups, steps, ones=operator == "group")
        case "min" | "max":
            return ExtremeFold(groups, steps, largest=operator == "max")
        case "stddev" | "stdvar":
            return VarianceFold(groups, steps, root=operator == "stddev", lone_is_zero=not compensate)
        case _:
            return None
