"""What a process counts about itself: any family of the catalog by name, written straight into its cells.

For what happens a few times a second at most; the request's way has its own verbs (recorder.py). Because the cells
are a segment like any other, these counters too survive their process: its successor goes on from the sum.

An edge worker imports this file: no numpy here.
"""

import gc
import threading
from bisect import bisect_left
from collections.abc import Sequence

from flyproxy.instrument.allotment import Allotment
from flyproxy.instrument.catalog import FAMILIES, OPERATOR, Family
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.gc_pauses import FAMILY as GC_PAUSES
from flyproxy.instrument.gc_pauses import GcPauses


class OwnMetrics:
    """Counters, gauges and histograms of one process in organization `_operator`. Families with the labels
    `process` and `worker` get them filled in. May be called from any thread of the process."""

    def __init__(self, home: Segment | Allotment) -> None:
        self._allotment = home if isinstance(home, Allotment) else Allotment(home)
        self._cells = self._allotment.segment.cells
        self._lock = threading.Lock()
        self._places: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}
        self._bounds_ns: dict[str, tuple[int, ...]] = {}

    @property
    def segment(self) -> Segment:
        """Where it counts into now."""
        return self._allotment.segment

    def count(self, name: str, amount: int = 1, **labels: str) -> None:
        """A counter grows by `amount` (whole units; nanoseconds where the unit is seconds)."""
        with self._lock:
            place = self._place(name, labels)
            if place >= 0:
                self._cells[place] += amount

    def set(self, name: str, value: int, **labels: str) -> None:
        """A gauge is `value` now; or a counter kept elsewhere has grown to it (nanoseconds for seconds)."""
        with self._lock:
            place = self._place(name, labels)
            if place >= 0:
                self._cells[place] = value

    def set_seconds(self, name: str, seconds: float, **labels: str) -> None:
        """A gauge in seconds, to the microsecond (a float has no more to say about Unix time)."""
        self.set(name, round(seconds * 1e6) * 1000, **labels)

    def observe(self, name: str, duration_ns: int, **labels: str) -> None:
        """One duration into a histogram, nanoseconds."""
        with self._lock:
            place = self._place(name, labels)
            if place < 0:
                return
            bounds = self._bounds_ns[name]
            self._cells[place + bisect_left(bounds, duration_ns)] += 1
            self._cells[place + len(bounds) + 1] += duration_ns

    def add(self, name: str, cells: Sequence[int], **labels: str) -> None:
        """What somebody else counted of a histogram: its buckets, +Inf, and the sum in nanoseconds."""
        with self._lock:
            place = self._place(name, labels)
            for cell, amount in enumerate(cells if place >= 0 else (), place):
                self._cells[cell] += amount

    def _place(self, name: str, labels: dict[str, str]) -> int:
        key = (name, tuple(labels.items()))
        place = self._places.get(key)
        if place is None:
            family = FAMILIES[name]
            place = self._places[key] = self._allotment.place((family,), OPERATOR, self._labels(family, labels))
            self._bounds_ns[name] = bounds_ns(family)
        return place

    def _labels(self, family: Family, labels: dict[str, str]) -> dict[str, str]:
        full = {name: value for name, value in self._allotment.process_labels.items() if name in family.labels}
        full.update(labels)
        assert set(full) <= set(family.labels), f"{family.name} has the labels {family.labels}, got {tuple(labels)}"
        return full

    def move(self, allotment: Allotment) -> None:
        """Go on in another segment: counters from 0 there, gauges as they stand (the old segment is summed once
        more and then retired)."""
        with self._lock:
            old, self._cells = self._cells, allotment.segment.cells
            self._allotment, places = allotment, self._places
            self._places = {}
            for (name, labels), place in places.items():
                if FAMILIES[name].type == "gauge" and place >= 0:
                    new = self._place(name, dict(labels))
                    if new >= 0:
                        self._cells[new] = old[place]
                        old[place] = 0


_GC_COUNTERS = {
    "python_gc_objects_collected_total": "collected",
    "python_gc_objects_uncollectable_total": "uncollectable",
    "python_gc_collections_total": "collections",
}


class ProcessRecorder(OwnMetrics):
    """The verbs every process of the front door shares."""

    def __init__(self, home: Segment | Allotment) -> None:
        super().__init__(home)
        self._gc_seen: dict[tuple[str, int], int] = {}

    def limit_reached(self, limit: str, times: int = 1) -> None:
        """A bound was reached; `limit` is a key of catalog.LIMITS."""
        self.count("flyproxy_limit_reached_total", times, limit=limit)

    def loop_lag(self, duration_ns: int) -> None:
        """How late the event loop ran a timer."""
        self.observe("flyproxy_event_loop_lag_seconds", duration_ns)

    def connections(self, open_now: int) -> None:
        """Client connections open now."""
        self.set("flyproxy_edge_connections", open_now)

    def access_log_dropped(self, lines: int = 1) -> None:
        """Lines that were not written."""
        self.count("flyproxy_access_log_dropped_total", lines)

    def sample_gc(self, pauses: GcPauses) -> None:
        """Take over what the garbage collector did since the last time (on the loop lag's beat)."""
        for generation, statistics in enumerate(gc.get_stats()):
            for name, key in _GC_COUNTERS.items():
                # What came since, and not the collector's own total: the segment before this one may hold the rest.
                seen = self._gc_seen.get((key, generation), 0)
                self.count(name, statistics[key] - seen, generation=str(generation))
                self._gc_seen[key, generation] = statistics[key]
        for generation, cells in enumerate(pauses.take()):
            self.add(GC_PAUSES, cells, generation=str(generation))


def bounds_ns(family: Family) -> tuple[int, ...]:
    """A histogram's upper bounds in whole nanoseconds, without +Inf."""
    return tuple(round(bound * 1e9) for bound in family.buckets or ())
