"""One organization's series, and how their values follow from summed cells: all arrays, no loop over series.

A plain family is one row. A histogram is a run of rows: cumulative buckets, +Inf, `_sum`, `_count`, and last the
counter derived from it, where it has one.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from flyproxy.instrument.catalog import DERIVED, FAMILIES, Family, le_text
from flyproxy.series.exposition_writer import ExposedFamily, ExposedSample
from flyproxy.series.labels import METRIC_NAME, Labels, labels_from
from flyproxy.series.samples import Layout

Cells = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

NANOSECONDS = 1e9


class Row(NamedTuple):
    """One series."""

    family: Family
    name: str
    labels: Labels
    """Without `__name__`."""


class _Runs(NamedTuple):
    """Histograms with the same number of buckets: where their cells and rows begin."""

    slots: Indices
    rows: Indices
    derived: Indices
    """Rows of the counters derived from them; -1 where there is none."""


class Rows:
    """Series in the order they came; only ever appended to."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._plain: list[tuple[int, int, bool]] = []
        """(row, slot, in nanoseconds)"""
        self._runs: dict[int, list[tuple[int, int, int]]] = {}
        """By number of buckets, +Inf included: (slot, first row, row derived from it or -1)"""
        self._layout: Layout | None = None
        self._plain_arrays: tuple[Indices, Indices, Indices, Indices] | None = None
        self._run_arrays: dict[int, _Runs] = {}

    def add(self, family: Family, labels: Labels, slot: int) -> None:
        """The series of one label set, whose cells begin at `slot` of the sums."""
        self._layout = self._plain_arrays = None
        if family.buckets is None:
            self._plain.append((len(self.rows), slot, family.in_nanoseconds))
            self.rows.append(Row(family, family.name, labels))
        else:
            self._add_histogram(family, family.buckets, labels, slot)

    def _add_histogram(self, family: Family, buckets: tuple[float, ...], labels: Labels, slot: int) -> None:
        first = len(self.rows)
        for bound in (*[le_text(bound) for bound in buckets], "+Inf"):
            self.rows.append(Row(family, f"{family.name}_bucket", labels_from((*labels, ("le", bound)))))
        self.rows.append(Row(family, f"{family.name}_sum", labels))
        self.rows.append(Row(family, f"{family.name}_count", labels))
        counter = DERIVED.get(family.name)
        derived = -1
        if counter is not None:
            derived = len(self.rows)
            self.rows.append(Row(counter, counter.name, labels))
        self._runs.setdefault(len(buckets) + 1, []).append((slot, first, derived))

    def layout(self) -> Layout:
        """The same object until a series is added."""
        if self._layout is None:
            series = tuple(labels_from((*row.labels, (METRIC_NAME, row.name))) for row in self.rows)
            counters = np.array([row.family.type != "gauge" for row in self.rows], dtype=np.bool_)
            self._layout = Layout(series, counters)
        return self._layout

    def values(self, sums: Cells) -> Floats:
        """[series] from the summed cells."""
        self._arrange()
        assert self._plain_arrays is not None
        values = np.empty(len(self.rows), dtype=np.float64)
        rows, slots, rows_ns, slots_ns = self._plain_arrays
        values[rows] = sums[slots]
        values[rows_ns] = sums[slots_ns] / NANOSECONDS
        for buckets, runs in self._run_arrays.items():
            cells = sums[runs.slots[:, None] + np.arange(buckets + 1)]
            cumulative = np.cumsum(cells[:, :buckets], axis=1)
            values[runs.rows[:, None] + np.arange(buckets)] = cumulative
            values[runs.rows + buckets] = cells[:, buckets] / NANOSECONDS
            values[runs.rows + buckets + 1] = cumulative[:, -1]
            has_counter = runs.derived >= 0
            values[runs.derived[has_counter]] = cumulative[has_counter, -1]
        return values

    def _arrange(self) -> None:
        if self._plain_arrays is not None:
            return
        whole = [(row, slot) for row, slot, in_ns in self._plain if not in_ns]
        in_ns = [(row, slot) for row, slot, in_ns in self._plain if in_ns]
        self._plain_arrays = (*_columns(whole), *_columns(in_ns))
        for buckets, runs in self._runs.items():
            slots, rows, derived = np.array(runs, dtype=np.intp).reshape(-1, 3).T
            self._run_arrays[buckets] = _Runs(slots, rows, derived)


def _columns(pairs: list[tuple[int, int]]) -> tuple[Indices, Indices]:
    array = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return array[:, 0], array[:, 1]


def exposed(parts: list[tuple[Rows, Floats]]) -> list[ExposedFamily]:
    """Every family that has a series, in the catalog's order, over all organizations."""
    samples: dict[str, list[ExposedSample]] = {}
    for rows, values in parts:
        for row, value in zip(rows.rows, values.tolist(), strict=True):
            samples.setdefault(row.family.name, []).append(ExposedSample(row.name, row.labels, value))
    return [
        ExposedFamily(name, family.type, family.help, family.unit, samples[name])
        for name, family in FAMILIES.items()
        if name in samples
    ]
