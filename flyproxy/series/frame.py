"""What is stored and selected: a matrix of samples with one timestamp vector.

Three kinds of NaN live in a matrix and are told apart by their bits, never by arithmetic (which may quiet them):
a real NaN sample (any other payload), STALE (the series ended here, Prometheus' marker) and ABSENT (no sample).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from flyproxy.series.labels import Labels
from flyproxy.series.matchers import Matcher

Times = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

STALE_BITS = 0x7FF0000000000002
ABSENT_BITS = 0x7FF0000000000003
NAN_BITS = 0x7FF8000000000001
STALE = np.array([STALE_BITS], dtype=np.uint64).view(np.float64)
"""[1] Prometheus' stale marker; assign it from this array, a Python float could lose the payload."""
ABSENT = np.array([ABSENT_BITS], dtype=np.uint64).view(np.float64)
"""[1] No sample at this time."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """Samples of several series that share their timestamps."""

    labels: Sequence[Labels]
    """[series]"""
    timestamps_ms: Times
    """[times], strictly increasing."""
    values: Floats
    """[series, times], C order (a row is contiguous); NaN bits as above."""


class Storage(Protocol):
    """What a query engine reads from: one organization's samples, and nothing else."""

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[Frame]:
        """All samples with start_ms <= t <= end_ms of the series that match. The same label set may be in
        several frames; their samples then do not share a timestamp."""
        ...


def is_absent(values: Floats) -> Bools:
    """[...] True where there is no sample."""
    absent: Bools = values.view(np.uint64) == np.uint64(ABSENT_BITS)
    return absent


def is_stale(values: Floats) -> Bools:
    """[...] True where a series ended."""
    stale: Bools = values.view(np.uint64) == np.uint64(STALE_BITS)
    return stale
