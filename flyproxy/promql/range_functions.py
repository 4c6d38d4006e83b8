"""What becomes of the samples of a window. A kernel knows no labels and no storage: windows in, numbers out.

Two sorts. Those that need only the first and last samples of a window, and counts between them, work on dense rows
with edges shared by all ([steps]), a handful of array operations per block. Those that need every sample work on the
flat form, by running sums, reduceat, or (sorting, regression) on a cube [windows, samples] of bounded size.
Sources: Prometheus promql/functions.go, 2.42 and 3.x; where they differ, `left_open` windows mean 3.x.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flyproxy.promql import cubes
from flyproxy.promql.sums import window_means, window_sums
from flyproxy.promql.windows import Flat, Index, Windows
from flyproxy.series.frame import Bools, Floats

Answer = tuple[Floats, Bools]
"""values [rows, steps]; present [rows, steps], or [steps] where all rows are alike."""
Kernel = Callable[[Windows, tuple[Floats, ...]], Answer]
"""The parameters are the call's scalar arguments, each [steps]."""

_INTERVALS_OVERDUE = 1.1
"""A series whose last sample is older than this many intervals is not reached back to."""
_INTERVALS_MISSED = 1.25
"""Two samples this many intervals apart have missed a beat."""
_INTERVALS_JITTER = 1.1
"""A window this much longer or shorter than a beat counts as one beat: no scaling, so increases add up exactly."""


def rate(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _extrapolated(windows, counter=True, per_second=True)


def increase(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _extrapolated(windows, counter=True, per_second=False)


def delta(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _extrapolated(windows, counter=False, per_second=False)


def irate(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _last_two(windows, per_second=True)


def idelta(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _last_two(windows, per_second=False)


def _extrapolated(windows: Windows, *, counter: bool, per_second: bool) -> Answer:
    """Prometheus' extrapolatedRate."""
    times = windows.at_times
    last = windows.hi - 1
    first_value = windows.at(windows.lo)
    change = windows.at(last)
    change -= first_value
    if counter:
        _add_lost_to_resets(windows, change)
    first_ms, last_ms = windows.time_at(windows.lo), windows.time_at(last)
    count = windows.count
    present = count >= 2
    sampled = (last_ms - first_ms) / 1000
    average = sampled / np.maximum(count - 1, 1)
    to_start = (first_ms - times.start_ms) / 1000
    to_end = (times.end_ms - last_ms) / 1000
    threshold = average * 1.1
    to_end = np.where(to_end < threshold, to_end, average / 2)
    limited_late = times.left_open  # 3.x looks at its threshold before the counter's zero, 2.x after
    if limited_late:
        to_start = np.where(to_start < threshold, to_start, average / 2)
    if counter:
        to_zero = np.full(change.shape, np.inf)
        np.divide(first_value, change, out=to_zero, where=(change > 0) & (first_value >= 0))
        to_zero *= sampled
        to_start = np.fmin(to_start, to_zero, out=to_zero)
    if not limited_late:
        to_start = np.where(to_start < threshold, to_start, average / 2)
    factor = sampled + to_start  # the order of Prometheus' own operations, to the last bit
    factor += to_end
    factor /= sampled
    if per_second:
        factor /= times.range_ms / 1000
    change *= factor
    return _reached_back(windows, change, present, counter=counter, per_second=per_second)


def _add_lost_to_resets(windows: Windows, change: Floats) -> None:
    """Adds to every window's change what its counter resets took away: the value before each drop."""
    values = windows.values
    falls = values[..., 1:] < values[..., :-1]
    if not falls.any():
        return
    if not windows.dense:
        change += _lost(windows.flat(), falls)
        return
    rows = np.flatnonzero(falls.any(axis=1))
    falling = replace(windows, values=values[rows])
    beside = np.zeros((rows.size, 1), dtype=np.bool_)
    change[rows] += _lost(falling.flat(), np.concatenate([falls[rows], beside], axis=1).ravel()[:-1])


def _lost(flat: Flat, falls: Bools) -> Floats:
    lost = np.zeros(flat.values.size)
    lost[1:] = np.where(falls, flat.values[:-1], 0.0)
    inner = np.minimum(flat.lo + 1, flat.hi)  # the first sample of a window has none before it
    return window_sums(Flat(lost, flat.times, inner, flat.hi))


def _last_two(windows: Windows, *, per_second: bool) -> Answer:
    """Prometheus' instantValue: the last two samples of the window."""
    last = windows.hi - 1
    end, before = windows.at(last), windows.at(np.maximum(last - 1, 0))
    change = end - before
    if per_second:
        change = np.where(end < before, end, change)
    elapsed_ms = windows.time_at(last) - windows.time_at(np.maximum(last - 1, 0))
    present = windows.count >= 2
    if per_second:
        change /= elapsed_ms / 1000
    return _reached_back(windows, change, present, counter=per_second, per_second=per_second, whole=True)


def _reached_back(
    windows: Windows, values: Floats, present: Bools, *, counter: bool, per_second: bool, whole: bool = False
) -> Answer:
    """MetricsQL: a window too short to hold two samples takes the last two before its end instead.

    Neighbouring windows shall add up to what was counted: their change counts whole where the window is about one
    beat long, else in proportion; whole again where beats were missed, for the windows between had nothing to say.
    Not across a stale marker, not when the series is overdue.
    """
    times = windows.at_times
    if not times.reach_back_ms or present.all():
        return values, present
    last = windows.hi - 1
    before = np.maximum(last - 1, 0)
    last_ms, before_ms = windows.time_at(last), windows.time_at(before)
    elapsed_ms = np.maximum(last_ms - before_ms, 1)
    alive = (windows.count > 0) | (times.end_ms - last_ms <= windows.interval_ms * _INTERVALS_OVERDUE)
    reached = ~present & alive & (last - 1 >= windows.row_begin) & (elapsed_ms <= times.reach_back_ms)
    if windows.ended is not None and windows.ended_by_step is not None and windows.ended.size:
        reached &= windows.ended.take(before, mode="clip") == windows.ended_by_step
    if not reached.any():
        return values, present
    end, begin = windows.at(last), windows.at(before)
    change = np.where(end < begin, end, end - begin) if counter else end - begin
    if per_second:
        change = change / (elapsed_ms / 1000)
    elif not whole:
        change = change * _share(times.range_ms, elapsed_ms, windows.interval_ms)
    return np.where(reached, change, values), present | reached


def _share(range_ms: int, elapsed_ms: Index, interval_ms: int) -> Floats:
    """How much of the change between two samples belongs to a window that holds the second one at most."""
    missed = elapsed_ms > interval_ms * _INTERVALS_MISSED
    beat_ms = np.where(missed, interval_ms, np.maximum(elapsed_ms, interval_ms / _INTERVALS_MISSED))
    beats = range_ms / np.maximum(beat_ms, 1)
    about_one = (beats <= _INTERVALS_JITTER) & (beats * _INTERVALS_JITTER >= 1)
    return np.where(about_one | (beats >= 2) | (missed & (beats > 1)), 1.0, beats)


def last_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return windows.at(windows.hi - 1), windows.count > 0


def first_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return windows.at(windows.lo), windows.count > 0


def count_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    count = windows.count
    return np.broadcast_to(count.astype(np.float64), (windows.rows, count.shape[-1])), count > 0


def present_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    count = windows.count
    return np.ones((windows.rows, count.shape[-1])), count > 0


def changes(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    before, after = windows.values[..., :-1], windows.values[..., 1:]
    return _steps_between(windows, (before != after) & ~(np.isnan(before) & np.isnan(after)))


def resets(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _steps_between(windows, windows.values[..., 1:] < windows.values[..., :-1])


def _steps_between(windows: Windows, marks: Bools) -> Answer:
    """How many marks [..., n - 1] stand between two samples of one window."""
    running = np.zeros(windows.values.shape, dtype=np.int64)
    np.cumsum(marks, axis=-1, out=running[..., 1:])
    upto = running.take(np.maximum(windows.hi - 1, 0), axis=-1, mode="clip")
    since = running.take(windows.lo, axis=-1, mode="clip")
    return (upto - since).astype(np.float64), windows.count > 0


def sum_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return window_sums(windows.flat()), windows.count > 0


def avg_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return window_means(windows.flat()), windows.count > 0


def max_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _reduced(windows.flat(), np.fmax), windows.count > 0


def min_over_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    return _reduced(windows.flat(), np.fmin), windows.count > 0


def _reduced(flat: Flat, operation: np.ufunc) -> Floats:
    """[rows, steps], one reduceat over interleaved edges; meaningless for empty windows."""
    pairs: Index = np.stack([flat.lo, flat.hi], axis=-1).ravel()
    reduced: Floats = operation.reduceat(np.append(flat.values, 0.0), pairs)[::2]
    return reduced.reshape(flat.lo.shape)


def _by_cube(kernel: cubes.CubeKernel, samples_min: int = 1) -> Kernel:
    """A kernel that sees every sample of a window at once."""

    def over_windows(windows: Windows, parameters: tuple[Floats, ...]) -> Answer:
        return cubes.apply(kernel, windows, parameters), windows.count >= samples_min

    return over_windows


RANGE_FUNCTIONS: dict[str, Kernel] = {
    "rate": rate,
    "increase": increase,
    "delta": delta,
    "irate": irate,
    "idelta": idelta,
    "last_over_time": last_over_time,
    "first_over_time": first_over_time,
    "count_over_time": count_over_time,
    "present_over_time": present_over_time,
    "changes": changes,
    "resets": resets,
    "sum_over_time": sum_over_time,
    "avg_over_time": avg_over_time,
    "max_over_time": max_over_time,
    "min_over_time": min_over_time,
    "stddev_over_time": _by_cube(cubes.standard_deviation),
    "stdvar_over_time": _by_cube(cubes.variance),
    "quantile_over_time": _by_cube(cubes.quantile),
    "mad_over_time": _by_cube(cubes.median_deviation),
    "deriv": _by_cube(cubes.slope, 2),
    "predict_linear": _by_cube(cubes.predicted, 2),
    "double_exponential_smoothing": _by_cube(cubes.smoothed, 2),
    "holt_winters": _by_cube(cubes.smoothed, 2),
}
"""Every function of a window but absent_over_time, which looks at all series together."""

NEED_TWO = frozenset({"rate", "increase", "delta", "irate", "idelta"})
"""What MetricsQL lets reach back when the window is too short for two samples."""

TWO_BEATS = frozenset({"deriv", "predict_linear", "double_exponential_smoothing", "holt_winters"})
"""What a window MetricsQL chooses must be two beats long for; these fit a line and do not reach back."""

KEEP_NAME = frozenset({"last_over_time", "first_over_time"})
