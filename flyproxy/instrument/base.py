"""The counts of workers that are gone.

What it must do: a dead worker's counters go on counting, exactly once, whatever instant telemetry itself is killed
at. The plan: the base is one file, replaced as a whole by a rename; it holds the sums *and* the identities of the
segments that are in them. Whoever finds a segment whose identity is in the base knows that it was counted and
removes it. So a kill before the rename means the segment still counts by itself, a kill after it means the base
counts it, and no instant lies between. `docs/formats/cells.md` draws the file.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flyproxy.instrument.catalog import FAMILIES
from flyproxy.instrument.cells import CellsError, Record, SegmentReader
from flyproxy.series.labels import Labels

NAME = "base.json"
VERSION = 1
FOLDED_MAX = 1000
"""Identities of folded segments the base remembers. A folded segment's file is gone a moment later, or at the next
start of telemetry: one would do."""

Key = tuple[str, str, Labels]
"""(family, organization, labels)"""


@dataclass(frozen=True, slots=True)
class Base:
    """Sums of the cells of segments that are gone; a value, replaced and never changed."""

    folded: tuple[str, ...]
    cells: dict[Key, tuple[int, ...]]

    def plus(self, identity: str, records: list[Record], values: list[int], wanted: Callable[[Key], bool]) -> "Base":
        """With one more segment's records and cells. Gauges are dropped, or rest at 0 where their family says so;
        what is not wanted any more is left out."""
        cells = {key: value for key, value in self.cells.items() if wanted(key)}
        for record in records:
            at = record.first
            for name, count in record.families:
                counted = _counted(name, tuple(values[at : at + count]))
                at += count
                key = (name, record.organization, record.labels)
                if counted is not None and wanted(key):
                    cells[key] = _sum(cells.get(key), counted)
        return Base((*self.folded, identity)[-FOLDED_MAX:], cells)

    def records(self) -> tuple[list[Record], "np.ndarray[tuple[int], np.dtype[np.int64]]"]:
        """The base as a segment would have it: records, and the cells they point into."""
        records: list[Record] = []
        flat: list[int] = []
        for (name, organization, labels), cells in self.cells.items():
            records.append(Record(((name, len(cells)),), organization, labels, len(flat), len(cells)))
            flat.extend(cells)
        return records, np.array(flat, dtype=np.int64)


def _counted(name: str, cells: tuple[int, ...]) -> tuple[int, ...] | None:
    family = FAMILIES.get(name)
    if family is None or family.cell_count != len(cells):
        return None
    if family.type == "gauge":
        return (0,) if family.rests_at_zero else None
    return None if family.told else cells


def _sum(one: tuple[int, ...] | None, other: tuple[int, ...]) -> tuple[int, ...]:
    if one is None or len(one) != len(other):
        return other
    return tuple(left + right for left, right in zip(one, other, strict=True))


def load(run_dir: str) -> Base:
    """The base of this directory, empty when there is none; raises CellsError when it cannot be read."""
    path = os.path.join(run_dir, NAME)
    try:
        with open(path, "rb") as file:
            words = json.load(file)
        if words["version"] != VERSION:
            raise CellsError(f"{path} is of version {words['version']}, this flyproxy reads {VERSION}")
        cells = {
            (entry["f"], entry["o"], tuple(sorted(entry["l"].items()))): tuple(map(int, entry["c"]))
            for entry in words["series"]
        }
        return Base(tuple(words["folded"]), cells)
    except FileNotFoundError:
        return Base((), {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as fault:
        raise CellsError(f"cannot read {path} ({fault}); move it away and the counters begin again") from None


def save(run_dir: str, base: Base) -> None:
    """Replace the base, whole or not at all; raises CellsError and leaves the old one when there is no room."""
    path = os.path.join(run_dir, NAME)
    words = {
        "version": VERSION,
        "folded": base.folded,
        "series": [
            {"f": name, "o": organization, "l": dict(labels), "c": cells}
            for (name, organization, labels), cells in base.cells.items()
        ],
    }
    try:
        with open(f"{path}.new", "wb") as file:
            file.write(json.dumps(words, ensure_ascii=False, separators=(",", ":")).encode())
        os.replace(f"{path}.new", path)
    except OSError as fault:
        raise CellsError(f"cannot write {path}: {fault.strerror}") from None


def segment_cells(reader: SegmentReader) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """[used] A copy of the cells as they are now."""
    view = np.frombuffer(reader.buffer, dtype="<i8", count=reader.used, offset=reader.cells_offset)
    return view.astype(np.int64, copy=True)
