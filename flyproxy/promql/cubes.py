"""Window functions that need all samples of a window side by side: sorting, regression, two passes.

The windows of a block become a cube [windows, samples], the short ones filled up, in pieces of bounded size.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flyproxy.promql.sums import two_sum
from flyproxy.promql.windows import Windows
from flyproxy.series.frame import Bools, Floats, Times

_CUBE_POINTS = 1 << 20
"""Numbers in one piece: 8 MB an array."""


@dataclass(frozen=True, slots=True, eq=False)
class Cube:
    """Some windows, each a row; samples stand at the front."""

    values: Floats
    """[windows, samples], 0 where there is none."""
    inside: Bools
    """[windows, samples]"""
    times: Times
    """[windows, samples], meaningless where there is no sample."""
    count: Floats
    """[windows], at least 1."""
    evaluated_ms: Times
    """[windows]"""


CubeKernel = Callable[[Cube, tuple[Floats, ...]], Floats]
"""Answers [windows]; the parameters are [windows] each."""


def apply(kernel: CubeKernel, windows: Windows, parameters: tuple[Floats, ...]) -> Floats:
    """[rows, steps], the kernel's answer for every window; NaN for empty ones."""
    flat, evaluated_ms = windows.flat(), windows.at_times.evaluated_ms
    rows, steps = flat.lo.shape
    answers = np.full(rows * steps, np.nan)
    lo, hi = flat.lo.ravel(), flat.hi.ravel()
    longest = int((hi - lo).max(initial=0))
    if not longest:
        return answers.reshape(rows, steps)
    at_once = max(1, _CUBE_POINTS // longest)
    filled = np.flatnonzero(hi > lo)
    offsets = np.arange(longest)
    for first in range(0, filled.size, at_once):
        windows.checkpoint()
        chosen = filled[first : first + at_once]
        step = chosen % steps
        index = lo[chosen, np.newaxis] + offsets
        inside = index < hi[chosen, np.newaxis]
        values = np.where(inside, flat.values.take(index, mode="clip"), 0.0)
        count = (hi[chosen] - lo[chosen]).astype(np.float64)
        cube = Cube(values, inside, flat.times.take(index, mode="clip"), count, evaluated_ms[step])
        answers[chosen] = kernel(cube, tuple(parameter[step] for parameter in parameters))
    return answers.reshape(rows, steps)


def variance(cube: Cube, _: tuple[Floats, ...]) -> Floats:
    """stdvar_over_time: the population's, by Welford's method, compensated (Prometheus' own order of operations)."""
    size = len(cube.values)
    mean, squares = (np.zeros(size), np.zeros(size)), (np.zeros(size), np.zeros(size))
    for place in range(cube.values.shape[1]):
        value, here = cube.values[:, place], cube.inside[:, place]
        off = value - (mean[0] + mean[1])
        mean = _added(mean, off / (place + 1), here)
        squares = _added(squares, off * (value - (mean[0] + mean[1])), here)
    return (squares[0] + squares[1]) / cube.count


def _added(running: tuple[Floats, Floats], term: Floats, here: Bools) -> tuple[Floats, Floats]:
    """A compensated sum and one term more, where there is one."""
    total, error = two_sum(running[0], term)
    return np.where(here, total, running[0]), np.where(here, running[1] + error, running[1])


def standard_deviation(cube: Cube, _: tuple[Floats, ...]) -> Floats:
    return np.sqrt(variance(cube, ()))


def quantile(cube: Cube, parameters: tuple[Floats, ...]) -> Floats:
    """quantile_over_time(q, ...): Prometheus' quantile."""
    return sorted_quantile(np.where(cube.inside, cube.values, np.inf), cube.inside, parameters[0])


def median_deviation(cube: Cube, _: tuple[Floats, ...]) -> Floats:
    """mad_over_time: the median of the distances from the median."""
    half = np.full(len(cube.values), 0.5)
    median = sorted_quantile(np.where(cube.inside, cube.values, np.inf), cube.inside, half)
    off = np.where(cube.inside, np.abs(cube.values - median[:, np.newaxis]), np.inf)
    return sorted_quantile(off, cube.inside, half)


def sorted_quantile(values: Floats, inside: Bools, q: Floats) -> Floats:
    """[n], the q-quantile [n] of every row of values [n, m], linear between the two nearest; NaN sorts first.

    What is not inside must be +Inf. An empty row, or q NaN: NaN; q below 0: -Inf; above 1: +Inf. (Prometheus)
    """
    count = inside.sum(axis=1)
    unordered = np.isnan(values) & inside
    nans = unordered.sum(axis=1)
    ordered = np.sort(np.where(unordered, -np.inf, values), axis=1)
    rank = np.where(np.isnan(q), 0.0, np.clip(q, 0.0, 1.0)) * (np.maximum(count, 1) - 1)
    low = np.floor(rank).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    rows = np.arange(len(values))
    at_low = np.where(low < nans, np.nan, ordered[rows, low])
    at_high = np.where(high < nans, np.nan, ordered[rows, high])
    weight = rank - low
    answer = at_low * (1 - weight) + at_high * weight
    answer = np.where(q < 0, -np.inf, np.where(q > 1, np.inf, answer))
    return np.where((count == 0) | np.isnan(q), np.nan, answer)


def slope(cube: Cube, _: tuple[Floats, ...]) -> Floats:
    """deriv: least squares, per second."""
    return _regression(cube, cube.times[:, 0])[0]


def predicted(cube: Cube, parameters: tuple[Floats, ...]) -> Floats:
    """predict_linear(..., seconds from the time of evaluation)."""
    per_second, now = _regression(cube, cube.evaluated_ms)
    return per_second * parameters[0] + now


def _regression(cube: Cube, origin_ms: Times) -> tuple[Floats, Floats]:
    """Slope, and value at the origin, of the least-squares line. (Prometheus' linearRegression.)"""
    n, size = cube.count, len(cube.values)
    sums = [(np.zeros(size), np.zeros(size)) for _ in range(4)]
    for place in range(cube.values.shape[1]):
        x, y, here = (cube.times[:, place] - origin_ms) / 1000, cube.values[:, place], cube.inside[:, place]
        sums = [_added(running, term, here) for running, term in zip(sums, (x, y, x * y, x * x), strict=True)]
    sum_x, sum_y, sum_xy, sum_xx = (total + lost for total, lost in sums)
    per_second = (sum_xy - sum_x * sum_y / n) / (sum_xx - sum_x * sum_x / n)
    at_origin = sum_y / n - per_second * sum_x / n
    level = cube.values[:, 0]
    constant = ((cube.values == level[:, np.newaxis]) | ~cube.inside).all(axis=1)
    flat = np.where(np.isinf(level), np.nan, level)
    return np.where(constant, flat * 0.0, per_second), np.where(constant, flat, at_origin)


def smoothed(cube: Cube, parameters: tuple[Floats, ...]) -> Floats:
    """double_exponential_smoothing(..., smoothing factor, trend factor), sample after sample over all windows."""
    level_factor, trend_factor = parameters
    before = cube.values[:, 0]
    level, trend = before, (cube.values[:, 1] if cube.values.shape[1] > 1 else before) - before
    for place in range(1, cube.values.shape[1]):
        here = cube.inside[:, place]
        next_trend = trend if place == 1 else trend_factor * (level - before) + (1 - trend_factor) * trend
        next_level = level_factor * cube.values[:, place] + (1 - level_factor) * (level + next_trend)
        before = np.where(here, level, before)
        level, trend = np.where(here, next_level, level), np.where(here, next_trend, trend)
    return level
