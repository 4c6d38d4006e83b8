"""The rows of a block as integers that repay compression, and back, bit for bit.

Almost every series counts something, and most of the rest are decimals somebody rounded. So a row of float64 is told
as int64, in one of these ways (its kind), and only what is neither keeps its bits:
    INTEGER      the values are whole numbers
    1 ... 15     the values are whole numbers divided by 10, 100 ... 10^15
    DIFFERENCE   whole numbers, told as what they add to the row before: a histogram's next bucket
    BITS         the float64s themselves
A way is taken only where the way back gives every bit again. "No sample" and "ended" are taken out into a pattern of
the row first, and the value before goes on in their place: a gap does not make a row of integers one of bits.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flyproxy.series.frame import ABSENT_BITS, STALE_BITS
from flyproxy.tsdb.log import Bits, Flags

Integers = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

INTEGER = 0
PLACES_MAX = 15
"""Kinds 1 ... 15 are so many decimal places."""
DIFFERENCE = 16
BITS = 17
NATIVE_HISTOGRAM = 18
"""Kept free for native histograms; a block of this codec has none."""
WHOLE_MAX = 1 << 53
"""Integers below it are float64s and back, and so are their sums."""

POWERS = 10.0 ** np.arange(PLACES_MAX + 1)
"""Powers of ten, each exact."""
_PROBES = 8


@dataclass(slots=True, eq=False)
class Rows:
    """Rows of a block in their kinds."""

    kinds: Bytes
    """[rows]"""
    numbers: Integers
    """[rows, columns] What each kind says; the bits themselves, as int64, for BITS."""
    patterns_of: Bytes
    """[rows] 0: a sample in every column; k: the k-th pattern."""
    patterns: Flags
    """[patterns, 2, columns] where there is no sample, and where the series ended."""

    @classmethod
    def of_bits(cls, bits: Bits) -> "Rows":
        """Rows told in no way but their own bits."""
        count, columns = bits.shape
        kinds = np.full(count, BITS, np.uint8)
        return cls(kinds, bits.view(np.int64), np.zeros(count, np.uint8), np.empty((0, 2, columns), np.bool_))


def read_rows(bits: Bits, chained: Flags) -> Rows:
    """`chained` [rows]: the row is the next bucket of the histogram the row before it belongs to."""
    filled, patterns_of, patterns = _without_markers(bits)
    kinds, numbers = _as_integers(filled)
    _as_differences(kinds, numbers, chained)
    return Rows(kinds, numbers, patterns_of, patterns)


def write_rows(kinds: Bytes, values: npt.NDArray[np.float64], patterns_of: Bytes, patterns: Flags) -> Bits:
    """[rows, columns] The bits that were read, in the place of `values`: each row's numbers as float64, and for BITS
    the float64s themselves."""
    rows = list(values)
    for row in np.flatnonzero(kinds == DIFFERENCE).tolist():
        np.add(rows[row], rows[row - 1], rows[row])
    decimals = np.flatnonzero((kinds > INTEGER) & (kinds <= PLACES_MAX))
    if decimals.size:
        values[decimals] /= POWERS[kinds[decimals], np.newaxis]
    bits = values.view(np.uint64)
    marked = np.flatnonzero(patterns_of)
    if marked.size:
        some = bits[marked]
        absent, ended = patterns[patterns_of[marked] - 1].transpose(1, 0, 2)
        some[absent] = ABSENT_BITS
        some[ended] = STALE_BITS
        bits[marked] = some
    return bits


def _without_markers(bits: Bits) -> tuple[Bits, Bytes, Flags]:
    """Rows in which the last sample goes on where there is none (before the first: the first), and what was there."""
    columns = bits.shape[1]
    marked = bits - np.uint64(STALE_BITS) <= ABSENT_BITS - STALE_BITS
    patterns_of = np.zeros(len(bits), np.uint8)
    rows = np.flatnonzero(marked.any(axis=1))
    if not rows.size:
        return bits, patterns_of, np.empty((0, 2, columns), np.bool_)
    some, gaps = bits[rows], marked[rows]
    pairs = np.stack((some == ABSENT_BITS, some == STALE_BITS), axis=1)
    packed = np.packbits(pairs, axis=-1).reshape(rows.size, -1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    patterns_of[rows] = which.reshape(-1) + 1
    source = np.where(gaps, 0, np.arange(columns))
    source = np.maximum.accumulate(source, axis=1)
    leading = np.minimum.accumulate(gaps, axis=1)
    source = np.where(leading, np.argmin(gaps, axis=1)[:, np.newaxis], source)
    some = np.take_along_axis(some, source, axis=1)
    some[gaps.all(axis=1)] = 0
    filled = bits.copy()
    filled[rows] = some
    return filled, patterns_of, pairs[first]


def _as_integers(filled: Bits) -> tuple[Bytes, Integers]:
    values = filled.view(np.float64)
    kinds = np.full(len(values), BITS, np.uint8)
    with np.errstate(invalid="ignore", over="ignore"):
        numbers = values.astype(np.int64)
        whole = _are_same(numbers, numbers.astype(np.float64), filled)
        kinds[whole] = INTEGER
        rest = np.flatnonzero(~whole)
        still = (filled[rest] == filled[rest, :1]).all(axis=1)
        places = _places(values[rest])
        places[still] = 0
        for power in range(1, PLACES_MAX + 1):
            rows = rest[(places > 0) & (places <= power) & (kinds[rest] == BITS)]
            scaled = np.rint(values[rows] * POWERS[power]).astype(np.int64)
            exact = _are_same(scaled, scaled / POWERS[power], filled[rows])
            numbers[rows[exact]] = scaled[exact]
            kinds[rows[exact]] = power
    numbers[kinds == BITS] = filled[kinds == BITS].view(np.int64)
    return kinds, numbers


def _places(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """[rows] The least number of decimal places that a few values of each row fit; 0: none."""
    probes = values[:, :: max(1, values.shape[1] // _PROBES)]
    places = np.zeros(len(values), np.int64)
    for power in range(PLACES_MAX, 0, -1):
        scaled = np.rint(probes * POWERS[power])
        places[((scaled / POWERS[power] == probes) & (np.abs(scaled) < WHOLE_MAX)).all(axis=1)] = power
    return places


def _are_same(numbers: Integers, back: npt.NDArray[np.float64], bits: Bits) -> Flags:
    """[rows] Whether the way back gives every bit of the row."""
    same: Flags = ((back.view(np.uint64) == bits) & _are_small(numbers)).all(axis=1)
    return same


def _are_small(numbers: Integers) -> Flags:
    """[...] np.abs would let the least int64 pass."""
    small: Flags = (numbers < WHOLE_MAX) & (numbers > -WHOLE_MAX)
    return small


def _as_differences(kinds: Bytes, numbers: Integers, chained: Flags) -> None:
    """What a bucket adds to the one below it, where that varies less than the bucket itself."""
    rows = np.flatnonzero(chained[1:]) + 1
    rows = rows[(kinds[rows] == INTEGER) & (kinds[rows - 1] == INTEGER)]
    steps = numbers[rows] - numbers[rows - 1]
    smaller = _activity(steps) <= _activity(numbers[rows])
    smaller &= _are_small(steps).all(axis=1)
    numbers[rows[smaller]] = steps[smaller]
    kinds[rows[smaller]] = DIFFERENCE


def _activity(numbers: Integers) -> npt.NDArray[np.float64]:
    """[rows] How much a row changes from column to column."""
    activity: npt.NDArray[np.float64] = np.abs(np.diff(numbers, axis=1)).sum(axis=1, dtype=np.float64)
    return activity
