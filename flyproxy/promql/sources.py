"""Where windows come from: the storage's frames, or the steps of a subquery. Both are read in blocks of rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flyproxy.promql.matrix import Block, Steps, Stream, block_rows, broadcast
from flyproxy.promql.nodes import Node, RangeSelector, Selector, Subquery
from flyproxy.promql.plan import Plan, range_times, selector_times, subquery_steps
from flyproxy.promql.range_functions import Answer, Kernel, last_over_time
from flyproxy.promql.windows import Index, Windows, WindowTimes, edges, sample_interval_ms, split, trimmed
from flyproxy.series.frame import ABSENT, STALE_BITS, Floats, Frame, Times
from flyproxy.series.labels import METRIC_NAME, Labels
from flyproxy.series.matchers import Matcher, MatchOp


@dataclass(slots=True, eq=False)
class Piece:
    """Some rows with shared timestamps, and the edges of their windows."""

    first_row: int
    timestamps_ms: Times
    values: Floats
    """[rows, times]"""
    lo: Index
    hi: Index
    times: WindowTimes
    interval_ms: int
    checkpoint: Callable[[], None]

    def answer(self, kernel: Kernel, parameters: tuple[Floats, ...], *, keep_stale: bool = False) -> Answer:
        """The kernel's answer for every row, [rows, steps] both."""
        rows = len(self.values)
        values = present = None
        for chosen, windows in self._split(keep_stale):
            some_values, some_present = kernel(windows, parameters)
            some_present = broadcast(some_present, windows.rows)
            if isinstance(chosen, slice):
                return some_values, some_present
            if values is None or present is None:
                values = np.empty((rows, self.lo.size))
                present = np.zeros((rows, self.lo.size), dtype=np.bool_)
            values[chosen], present[chosen] = some_values, some_present
        assert values is not None
        assert present is not None
        return values, present

    def single_rows(self) -> Iterator[tuple[int, Windows]]:
        """Every row by itself, gaps removed: its number in the source, its windows (flat)."""
        for row in range(len(self.values)):
            alone = replace(self, values=self.values[row : row + 1])
            for _, windows in alone._split(keep_stale=False):
                flat = windows.flat()
                yield (
                    self.first_row + row,
                    replace(windows, values=flat.values, times=flat.times, lo=flat.lo[0], hi=flat.hi[0]),
                )

    def _split(self, keep_stale: bool) -> Iterator[tuple[slice | npt.NDArray[np.intp], Windows]]:
        return split(
            self.timestamps_ms,
            self.values,
            self.lo,
            self.hi,
            self.times,
            self.interval_ms,
            self.checkpoint,
            keep_stale=keep_stale,
        )


@dataclass(slots=True, eq=False)
class RangeSource:
    """A range vector at every step: labels known beforehand, windows piece by piece (readable once)."""

    labels: Sequence[Labels]
    pieces: Iterator[Piece]
    nameless: bool
    one_name: bool


def range_source(
    node: RangeSelector | Subquery,
    steps: Steps,
    plan: Plan,
    reach_back_ms: int,
    checkpoint: Callable[[], None],
    vector: Callable[[Node, Steps], Stream] | None,
    *,
    beats: int,
) -> RangeSource:
    """The windows of a range selector or of a subquery, whose expression `vector` evaluates.

    A selector's window that was left out is at least so many of the frame's beats long."""
    if isinstance(node, RangeSelector):
        times = range_times(node, steps, plan.options, reach_back_ms)
        slack_ms = plan.options.lookback_ms if node.range_ms is None else 0
        return _from_frames(node.selector, times, plan, checkpoint, slack_ms, beats=0 if node.range_ms else beats)
    assert vector is not None
    times, inner = subquery_steps(node, steps, plan.options, reach_back_ms)
    if not inner.count:
        return RangeSource([], iter(()), nameless=False, one_name=False)
    stream = vector(node.expression, inner)
    lo, hi = edges(inner.times, times)

    def pieces() -> Iterator[Piece]:
        for block in stream.blocks:
            checkpoint()
            filled = np.where(block.present, block.values, ABSENT)
            yield Piece(block.first_row, inner.times, filled, lo, hi, times, inner.step_ms, checkpoint)

    return RangeSource(stream.labels, pieces(), stream.nameless, stream.one_name)


def instant_stream(
    node: Selector, steps: Steps, plan: Plan, checkpoint: Callable[[], None], *, want_time: bool = False
) -> Stream:
    """An instant selector: the newest sample within the lookback unless it is a stale marker; or that sample's time."""
    source = _from_frames(node, selector_times(node, steps, plan.options), plan, checkpoint, 0, beats=0)
    kernel = _newest_time if want_time else _newest
    return windowed_stream(source, kernel, (), keep_stale=True)


def windowed_stream(
    source: RangeSource, kernel: Kernel, parameters: tuple[Floats, ...], *, keep_stale: bool = False
) -> Stream:
    """A range function over all windows."""

    def blocks() -> Iterator[Block]:
        for piece in source.pieces:
            values, present = piece.answer(kernel, parameters, keep_stale=keep_stale)
            yield Block(piece.first_row, values, present)

    return Stream(source.labels, blocks(), nameless=source.nameless, one_name=source.one_name)


def _from_frames(
    selector: Selector, times: WindowTimes, plan: Plan, checkpoint: Callable[[], None], slack_ms: int, *, beats: int
) -> RangeSource:
    start_ms = int(times.end_ms.min()) - times.range_ms - times.reach_back_ms - slack_ms
    frames = plan.frames(selector, start_ms, int(times.end_ms.max()))
    labels = frames[0].labels if len(frames) == 1 else [each for frame in frames for each in frame.labels]
    return RangeSource(labels, _pieces(frames, times, checkpoint, beats), False, _has_one_name(selector.matchers))


def _pieces(frames: list[Frame], times: WindowTimes, checkpoint: Callable[[], None], beats: int) -> Iterator[Piece]:
    first_row = 0
    for frame in frames:
        interval_ms = sample_interval_ms(frame.timestamps_ms)
        wide = replace(times, range_ms=max(times.range_ms, beats * interval_ms))
        seen = trimmed(frame, wide)
        if seen.timestamps_ms.size:
            lo, hi = edges(seen.timestamps_ms, wide)
            height = block_rows(max(seen.timestamps_ms.size, lo.size))
            for row in range(0, len(frame.labels), height):
                checkpoint()
                rows = seen.values[row : row + height]
                yield Piece(first_row + row, seen.timestamps_ms, rows, lo, hi, wide, interval_ms, checkpoint)
        first_row += len(frame.labels)


def _has_one_name(matchers: Sequence[Matcher]) -> bool:
    return any(each.name == METRIC_NAME and each.op is MatchOp.EQUAL for each in matchers)


def _newest(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    values, present = last_over_time(windows, _)
    if windows.dense:
        return values, present
    return values, present & (values.view(np.uint64) != np.uint64(STALE_BITS))


def _newest_time(windows: Windows, _: tuple[Floats, ...]) -> Answer:
    present = _newest(windows, _)[1]
    seconds = windows.time_at(windows.hi - 1) / 1000
    return np.broadcast_to(seconds, (windows.rows, seconds.shape[-1])), present
