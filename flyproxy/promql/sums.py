"""Sums that keep what rounding would lose, as Prometheus 3 has them (Kahan and Neumaier there, one sample at a time).

Here the error of every addition is found by Knuth's TwoSum, which needs no branch, and additions are arranged as a
tree so that each is one operation over an array: log2(n) operations instead of n. Windows overlap, so their tree is
a table of the sums of 2^k neighbours; a window takes the few entries its length is made of. Whole numbers whose sum
stays below 2^53 are exact anyway and take the plain running sum (nearly all counters).
"""

import numpy as np
import numpy.typing as npt

from flyproxy.promql.windows import Flat, Index
from flyproxy.series.frame import Floats

_EXACT_MAX = float(1 << 53)


def two_sum(left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """left + right and what the rounding lost of it (Knuth). NaN or infinite sums have no meaningful second part."""
    total = left + right
    moved = total - left
    lost = total - moved
    np.subtract(left, lost, out=lost)
    np.subtract(right, moved, out=moved)
    lost += moved
    return total, lost


def compensated(total: Floats, lost: Floats) -> Floats:
    """The sum with its compensation, infinities and NaN left as they are."""
    return np.where(np.isfinite(total), total + lost, total)


def group_sums(values: Floats, starts: npt.NDArray[np.intp]) -> tuple[Floats, Floats]:
    """[groups, steps] sum and compensation of rows [starts[g], starts[g + 1]) of values [rows, steps]."""
    sizes = np.diff(starts, append=len(values))
    total, lost = values, np.zeros((1, 1))
    while int(sizes.max()) > 1:
        rank = np.arange(len(total)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        odd = np.flatnonzero(rank & 1)
        even = np.flatnonzero((rank & 1) == 0)
        merged = np.searchsorted(even, odd - 1)
        both, error = two_sum(total[odd - 1], total[odd])
        carried = lost.shape == total.shape
        if carried:
            error += lost[odd - 1]
            error += lost[odd]
        if even.size == odd.size:
            total, lost = both, error
        else:
            lone, kept = total[even], lost[even] if carried else np.zeros((even.size, total.shape[1]))
            lone[merged], kept[merged] = both, error
            total, lost = lone, kept
        sizes = (sizes + 1) // 2
    return total, np.broadcast_to(lost, total.shape)


def window_sums(flat: Flat) -> Floats:
    """[rows, steps], the sum of every window; 0 for an empty one."""
    if _sums_exactly(flat.values):
        running = np.zeros(flat.values.size + 1)
        np.cumsum(flat.values, out=running[1:])
        return running[flat.hi] - running[flat.lo]
    return _window_sums_by_doubling(flat.values, flat.lo, flat.hi)


def window_means(flat: Flat) -> Floats:
    """[rows, steps], the mean of every window; a sum too large for a float is taken again at a smaller scale."""
    count = flat.hi - flat.lo
    means = window_sums(flat) / count
    if np.isinf(means).any():
        scaled = Flat(flat.values * 2.0**-64, flat.times, flat.lo, flat.hi)
        means = np.where(np.isinf(means), window_sums(scaled) / count * 2.0**64, means)
    return means


def _sums_exactly(values: Floats) -> bool:
    """True when every partial sum of these values is a whole number a float holds exactly."""
    if not values.size:
        return True
    size = float(np.abs(values).max()) * values.size
    return size < _EXACT_MAX and bool((np.floor(values) == values).all())


def _window_sums_by_doubling(values: Floats, lo: Index, hi: Index) -> Floats:
    length = hi - lo
    longest = int(length.max(initial=0))
    total, lost = np.zeros(length.shape), np.zeros(length.shape)
    position = lo.copy()
    sums, errors = values, np.zeros(values.size)
    span = 1
    while span <= longest:
        here = (length & span) != 0
        index = position[here]
        both, error = two_sum(total[here], sums[index])
        total[here] = both
        lost[here] += error + errors[index]
        position[here] += span
        if 2 * span <= longest:
            sums, error = two_sum(sums[:-span], sums[span:])
            errors = errors[:-span] + errors[span:] + error
        span *= 2
    return compensated(total, lost)
