"""What comes in: all series of one target at one moment."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyproxy.series.labels import Labels

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """The series of a target, by row. Layouts are compared by identity: a producer whose series did not change
    hands over the same object again, and nothing is looked up."""

    series: tuple[Labels, ...]
    counters: Bools
    """[series] True where the series only ever grows (its birth is worth a zero)."""


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One row: every series of a target at one timestamp."""

    organization: str
    target: str
    """Stable name of where the samples come from, as "own" or "scrape/hello/3d8d9e27b24e89"."""
    timestamp_ms: int
    layout: Layout
    values: Floats
    """[series]; `frame.STALE` ends a series, `frame.ABSENT` says nothing about it."""
    interval_ms: int
    """The beat this target is sampled on: a newborn counter's zero is written that long before its first value."""


Batches = Sequence[Batch]
