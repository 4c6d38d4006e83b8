"""Gives the cells of one segment to label sets, each at most once, and says when there are none left.

An edge worker imports this file: no numpy here.
"""

from collections.abc import Sequence

from flyproxy.instrument.catalog import FAMILIES, OPERATOR, Family
from flyproxy.instrument.cells import Segment

UNPLACED = -1
"""Has no cells in this segment yet."""
REFUSED = -2
"""The segment is full: counted in flyproxy_limit_reached_total{limit="cells"}, and not asked for again."""


class Allotment:
    """Places in one segment. Its own three families come first, so that a full segment can still say so."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        worker = "" if segment.worker is None else str(segment.worker)
        self.process_labels = {"process": segment.process, "worker": worker}
        self._placed: dict[tuple[str, str, tuple[tuple[str, str], ...]], int] = {}
        self._refused = self._used = self._capacity = UNPLACED
        self._refused = self._own("flyproxy_limit_reached_total", limit="cells")
        self._capacity = self._own("flyproxy_cells_capacity")
        self._used = self._own("flyproxy_cells_used")
        self._say(segment.capacity, segment.used)

    def _own(self, name: str, **labels: str) -> int:
        return self.place((FAMILIES[name],), OPERATOR, {**labels, **self.process_labels})

    def place(self, families: Sequence[Family], organization: str, labels: dict[str, str]) -> int:
        """The first of the cells of these families under these labels (in the families' order), or REFUSED."""
        key = (families[0].name, organization, tuple(sorted(labels.items())))
        first = self._placed.get(key)
        if first is None:
            first = self._placed[key] = self._append(families, organization, labels)
        return first

    def _append(self, families: Sequence[Family], organization: str, labels: dict[str, str]) -> int:
        segment = self.segment
        first = segment.append(families, organization, labels)
        if first is None:
            if self._refused >= 0:
                segment.cells[self._refused] += 1
            return REFUSED
        if self._used >= 0:
            segment.cells[self._used] = segment.used
        return first

    def rest(self) -> None:
        """The process goes on in another segment: this one's gauges no longer speak for it."""
        self._say(0, 0)

    def _say(self, capacity: int, used: int) -> None:
        if self._capacity >= 0 and self._used >= 0:
            self.segment.cells[self._capacity] = capacity
            self.segment.cells[self._used] = used
