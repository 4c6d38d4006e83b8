"""histogram_quantile over classic histograms: all groups and steps at once, along the axis of bucket bounds.

Prometheus' bucketQuantile: buckets by bound, equal bounds added together, counts made monotonic, then linear within
the bucket the rank falls into. A bucket that is missing at a step takes no part at that step. 3.x also smooths
differences too small to mean anything (1e-12) before it looks at the rank; 2.x does not.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from flyproxy.promql.matrix import BLOCK_POINTS, SAME_LABELSET, Matrix, merge_equal, without_name
from flyproxy.series.frame import Bools, Floats
from flyproxy.series.labels import Labels, label_value

Places = npt.NDArray[np.int64]

BUCKET_LABEL = "le"
_SMALL_DELTA = 1e-12
_NUMBER = re.compile(r"[+-]?(?:inf|infinity|nan|(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)", re.IGNORECASE)


def histogram_quantile(
    q: Floats, buckets: Matrix, *, ignore_small_deltas: bool, checkpoint: Callable[[], None]
) -> Matrix:
    """The q-quantile (q [steps]) of every histogram; a histogram is the series that differ in `le` alone.

    Raises QueryError where two histograms differ in their metric name alone."""
    bounds, rows, groups = _histograms(buckets.labels)
    steps = q.size
    if not groups:
        return Matrix([], np.empty((0, steps)), np.empty((0, steps), dtype=np.bool_))
    values, present = [], []
    for first, stop in _chunks([len(members) for members in rows], steps):
        checkpoint()
        counts, here, edges = _aligned(bounds[first:stop], rows[first:stop], buckets)
        values.append(_quantiles(q, counts, here, edges, ignore_small_deltas))
        present.append(here.any(axis=1))
    answer = Matrix([without_name(labels) for labels in groups], np.concatenate(values), np.concatenate(present))
    return merge_equal(answer, SAME_LABELSET)


def bucket_bound(text: str) -> float | None:
    """The bound a `le` label says; None for no number."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _histograms(series: Sequence[Labels]) -> tuple[list[list[float]], list[list[int]], list[Labels]]:
    """Per histogram: its bounds and the rows they stand in, sorted by bound; and its labels, metric name and all."""
    found: dict[Labels, list[tuple[float, int]]] = {}
    bound_of: dict[str, float | None] = {}
    for row, labels in enumerate(series):
        text = label_value(labels, BUCKET_LABEL)
        bound = bound_of.setdefault(text, bucket_bound(text))
        if bound is not None:
            group = tuple([pair for pair in labels if pair[0] != BUCKET_LABEL])
            found.setdefault(group, []).append((bound, row))
    members = [sorted(each) for each in found.values()]
    return (
        [[bound for bound, _ in each] for each in members],
        [[row for _, row in each] for each in members],
        list(found),
    )


def _chunks(sizes: list[int], steps: int) -> list[tuple[int, int]]:
    """Histograms [first, stop) that are worked on together: as many numbers as a block has."""
    at_once = max(1, BLOCK_POINTS // (max(sizes) * steps))
    return [(first, min(first + at_once, len(sizes))) for first in range(0, len(sizes), at_once)]


def _aligned(bounds: list[list[float]], rows: list[list[int]], buckets: Matrix) -> tuple[Floats, Bools, Floats]:
    """counts and presence [groups, bounds, steps], edges [groups, bounds]; equal bounds of a group added together.

    Short histograms are filled up at the end with +Inf bounds that are never present.
    """
    depth, steps = max(map(len, rows)), buckets.values.shape[1]
    counts = np.zeros((len(rows), depth, steps))
    present = np.zeros((len(rows), depth, steps), dtype=np.bool_)
    edges = np.full((len(rows), depth), np.inf)
    for group, members in enumerate(rows):
        edges[group, : len(members)] = bounds[group]
        present[group, : len(members)] = buckets.present[members]
        counts[group, : len(members)] = buckets.values[members]
        for place in range(1, len(members)):
            if bounds[group][place] == bounds[group][place - 1]:
                both = present[group, place] & present[group, place - 1]
                counts[group, place] += np.where(both, counts[group, place - 1], 0.0)
                only = present[group, place - 1] & ~present[group, place]
                counts[group, place] = np.where(only, counts[group, place - 1], counts[group, place])
                present[group, place] |= only
                present[group, place - 1] = False
    return counts, present, edges


def _quantiles(q: Floats, counts: Floats, present: Bools, edges: Floats, ignore_small_deltas: bool) -> Floats:
    """[groups, steps]"""
    depth = counts.shape[1]
    monotonic = _monotonic(counts, present, ignore_small_deltas)
    place = np.arange(depth)[np.newaxis, :, np.newaxis]
    last = depth - 1 - np.argmax(present[:, ::-1], axis=1)
    observations = _pick(monotonic, last)
    rank = q * observations
    reached = present & (monotonic >= rank[:, np.newaxis, :]) & (place < last[:, np.newaxis, :])
    chosen = np.where(reached.any(axis=1), np.argmax(reached, axis=1), last)
    before = _present_before(present, chosen)
    edge = np.broadcast_to(edges[:, :, np.newaxis], counts.shape)
    upper = _pick(edge, chosen)
    is_first = before < 0
    below = np.maximum(before, 0)
    lower = np.where(is_first, 0.0, _pick(edge, below))
    under = np.where(is_first, 0.0, _pick(monotonic, below))
    inside = _pick(monotonic, chosen) - under
    answer = lower + (upper - lower) * ((rank - under) / inside)
    answer = np.where(is_first & (upper <= 0), upper, answer)
    answer = np.where(chosen == last, _pick(edge, below), answer)
    usable = np.isposinf(_pick(edge, last)) & (present.sum(axis=1) >= 2) & (observations != 0)
    answer = np.where(usable, answer, np.nan)
    return np.where(np.isnan(q), np.nan, np.where(q < 0, -np.inf, np.where(q > 1, np.inf, answer)))


def _monotonic(counts: Floats, present: Bools, ignore_small_deltas: bool) -> Floats:
    """The counts, never less than the bucket before."""
    fixed = counts.copy()
    known = np.zeros(counts[:, 0].shape, dtype=np.bool_)
    highest = np.zeros(counts[:, 0].shape)
    for place in range(counts.shape[1]):
        here, count = present[:, place], counts[:, place]
        held = count < highest
        if ignore_small_deltas:
            size = np.abs(highest) + np.abs(count)
            held |= np.abs(highest - count) / np.minimum(size, np.finfo(np.float64).max) < _SMALL_DELTA
        held &= known & here
        fixed[:, place] = np.where(held, highest, count)
        risen = here & ~held & ((count > highest) | ~known)
        highest = np.where(risen, count, highest)
        known |= here
    return fixed


def _present_before(present: Bools, chosen: Places) -> Places:
    """[groups, steps], the place of the last present bucket before the chosen one, -1 for none."""
    place = np.arange(present.shape[1])[np.newaxis, :, np.newaxis]
    earlier = present & (place < chosen[:, np.newaxis, :])
    before: Places = np.where(earlier, place, -1).max(axis=1)
    return before


def _pick(values: Floats, place: Places) -> Floats:
    """[groups, steps] of values [groups, bounds, steps] at place [groups, steps]."""
    return np.take_along_axis(values, place[:, np.newaxis, :], axis=1)[:, 0, :]
