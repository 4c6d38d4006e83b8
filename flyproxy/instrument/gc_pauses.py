"""How long the garbage collector stops this process, by generation: plain ints, taken over into cells by somebody else.

The collector calls us in the middle of anything, also of code that holds the cells' lock: so the callback takes no
lock and writes to nothing shared. It costs two clock readings and one bisect a collection, and a request nothing.

An edge worker imports this file: no numpy here.
"""

import gc
import time
from bisect import bisect_left

from flyproxy.instrument.catalog import FAMILIES

FAMILY = "flyproxy_gc_pause_seconds"
GENERATIONS = 3


class GcPauses:
    """One a process: the collector is the process', whatever thread it runs on."""

    def __init__(self) -> None:
        self._bounds_ns = tuple(round(bound * 1e9) for bound in FAMILIES[FAMILY].buckets or ())
        self._begun_ns = 0
        self._cells = self._zeros()

    def start(self) -> None:
        gc.callbacks.append(self._collecting)

    def stop(self) -> None:
        gc.callbacks.remove(self._collecting)

    def take(self) -> list[list[int]]:
        """What came since the last time: by generation, the cells of one histogram (buckets, +Inf, the sum in ns)."""
        taken, self._cells = self._cells, self._zeros()
        return taken

    def _collecting(self, phase: str, details: dict[str, int]) -> None:
        if phase == "start":
            self._begun_ns = time.perf_counter_ns()
            return
        pause_ns = time.perf_counter_ns() - self._begun_ns
        cells = self._cells[details["generation"]]
        cells[bisect_left(self._bounds_ns, pause_ns)] += 1
        cells[-1] += pause_ns

    def _zeros(self) -> list[list[int]]:
        return [[0] * (len(self._bounds_ns) + 2) for _ in range(GENERATIONS)]
