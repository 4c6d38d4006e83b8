"""What a query needs from the storage, worked out before anything is evaluated.

The same walk that evaluation takes finds the times every selector will be asked for. Equal selectors whose times
overlap share one selection; the same label set found in several frames is merged, so that whoever reads a window sees
all its samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from flyproxy.promql.errors import TooManySamples
from flyproxy.promql.matrix import Steps
from flyproxy.promql.nodes import (
    Aggregation,
    AtBound,
    Binary,
    Call,
    Node,
    Number,
    Parenthesis,
    RangeSelector,
    Selector,
    String,
    Subquery,
    Unary,
)
from flyproxy.promql.options import Options
from flyproxy.promql.range_functions import NEED_TWO
from flyproxy.promql.windows import WindowTimes
from flyproxy.series.frame import ABSENT, Frame, Storage, Times, is_absent
from flyproxy.series.labels import Labels
from flyproxy.series.matchers import Matcher

_NUMBERS_A_STEP = 10
"""What one step of a subquery takes in memory: its time, value and presence, and what is made of them."""
_VARY_BY_STEP = frozenset({"time", "timestamp", "predict_linear", "start", "end", "range", "step"})
"""Functions whose answer depends on the time of evaluation even where their arguments do not."""
_CALENDAR = frozenset(
    ["day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"]
)


@dataclass(slots=True)
class _Selection:
    """One selection from the storage, made when it is first asked for."""

    start_ms: int
    end_ms: int
    frames: list[Frame] | None = None


@dataclass(slots=True)
class Plan:
    """The selections of one query."""

    storage: Storage
    options: Options
    checkpoint: Callable[[], None]
    _selections: dict[tuple[Matcher, ...], list[_Selection]] = field(default_factory=dict)

    def frames(self, selector: Selector, start_ms: int, end_ms: int) -> list[Frame]:
        """The selector's samples, at least those from start to end; every label set in one frame only."""
        for selection in self._selections[selector.matchers]:
            if selection.start_ms <= start_ms and end_ms <= selection.end_ms:
                if selection.frames is None:
                    self.checkpoint()
                    selected = self.storage.select(selector.matchers, selection.start_ms, selection.end_ms)
                    selection.frames = merged_by_identity(selected)
                return selection.frames
        raise AssertionError("a selector was evaluated that the plan did not see")

    def need(self, node: Node, steps: Steps, reach_back_ms: int = 0) -> None:
        """Walks the expression as it will be evaluated and notes what it will select."""
        match node:
            case Number() | String():
                pass
            case Selector():
                self._note(node, selector_times(node, steps, self.options))
            case RangeSelector():
                times = range_times(node, steps, self.options, reach_back_ms)
                slack = self.options.lookback_ms if node.range_ms is None else 0
                self._note(node.selector, times, slack)
            case Subquery():
                self.need(node.expression, subquery_steps(node, steps, self.options, reach_back_ms)[1])
            case Unary() | Parenthesis():
                self.need(node.expression, steps, reach_back_ms)
            case Call():
                reach = reach_back(node.function, self.options)
                for argument in node.arguments:
                    self.need(argument, steps, reach)
            case Aggregation():
                for expression in (node.expression, *node.others):
                    self.need(expression, steps)
                if node.parameter is not None:
                    self.need(node.parameter, steps)
            case Binary():
                self.need(node.left, steps)
                self.need(node.right, steps)

    def _note(self, selector: Selector, times: WindowTimes, slack_ms: int = 0) -> None:
        start_ms = int(times.end_ms.min()) - times.range_ms - times.reach_back_ms - slack_ms
        end_ms = int(times.end_ms.max())
        others = []
        for known in self._selections.get(selector.matchers, []):
            if known.start_ms <= end_ms and start_ms <= known.end_ms:
                start_ms, end_ms = min(start_ms, known.start_ms), max(end_ms, known.end_ms)
            else:
                others.append(known)
        self._selections[selector.matchers] = [*others, _Selection(start_ms, end_ms)]


def reach_back(function: str, options: Options) -> int:
    """How far this function may look past its window for a second sample; 0 in strict Prometheus."""
    return options.lookback_ms if options.metricsql and function in NEED_TWO else 0


def selector_times(node: Selector, steps: Steps, options: Options) -> WindowTimes:
    """The windows in which an instant selector finds its newest sample."""
    return WindowTimes(steps.times, _moved(node, steps), options.lookback_ms, options.left_open)


def range_times(node: RangeSelector, steps: Steps, options: Options, reach_back_ms: int) -> WindowTimes:
    """The windows of a range selector. A missing range is the step here; a frame's interval may widen it."""
    range_ms = node.range_ms if node.range_ms is not None else steps.step_ms or options.lookback_ms
    return WindowTimes(steps.times, _moved(node.selector, steps), range_ms, options.left_open, reach_back_ms)


def subquery_steps(node: Subquery, steps: Steps, options: Options, reach_back_ms: int) -> tuple[WindowTimes, Steps]:
    """The windows over a subquery's results, and the steps (multiples of its own step) that produce them."""
    missing = steps.step_ms or options.lookback_ms
    range_ms = node.range_ms if node.range_ms is not None else missing
    step_ms = node.step_ms or (steps.step_ms if node.at_query_step else 0) or options.default_subquery_step_ms
    times = WindowTimes(steps.times, _moved(node, steps), range_ms, options.left_open, reach_back_ms)
    oldest = int(times.end_ms.min()) - range_ms - (2 * step_ms if reach_back_ms else 0)
    first = -(-oldest // step_ms) * step_ms
    if options.left_open and first == oldest:
        first += step_ms
    stop = int(times.end_ms.max())
    if (stop - first) // step_ms > options.samples_max // _NUMBERS_A_STEP:
        raise TooManySamples("query processing would load too many samples into memory in query execution")
    inner = np.arange(first, stop + 1, step_ms, dtype=np.int64)
    return times, Steps(inner, step_ms, steps.query_start_ms, steps.query_end_ms)


def _moved(node: Selector | Subquery, steps: Steps) -> Times:
    """[steps], the evaluation times moved by @ and offset."""
    match node.at_ms:
        case None:
            return steps.times - node.offset_ms
        case AtBound.START:
            at_ms = steps.query_start_ms
        case AtBound.END:
            at_ms = steps.query_end_ms
        case int():
            at_ms = node.at_ms
    return np.full(steps.count, at_ms - node.offset_ms, dtype=np.int64)


def is_step_invariant(node: Node) -> bool:
    """True where every step has the same answer, because every selector in it is fixed by @."""
    match node:
        case Number() | String():
            return True
        case Selector() | Subquery():
            return node.at_ms is not None
        case RangeSelector():
            return node.selector.at_ms is not None
        case Unary() | Parenthesis():
            return is_step_invariant(node.expression)
        case Call():
            if node.function in _VARY_BY_STEP or (node.function in _CALENDAR and not node.arguments):
                return False
            return all(is_step_invariant(argument) for argument in node.arguments)
        case Aggregation():
            others = node.others if node.parameter is None else (*node.others, node.parameter)
            return is_step_invariant(node.expression) and all(is_step_invariant(each) for each in others)
        case Binary():
            return is_step_invariant(node.left) and is_step_invariant(node.right)


def merged_by_identity(frames: Sequence[Frame]) -> list[Frame]:
    """The same samples, every label set in one frame only. Rows that share the same frames become one new frame."""
    frames = [frame for frame in frames if len(frame.labels) and frame.timestamps_ms.size]
    everyone: set[Labels] = set()
    if len(frames) > 1:
        for frame in frames:
            everyone.update(frame.labels)
    if len(frames) < 2 or len(everyone) == sum(len(frame.labels) for frame in frames):
        return frames
    places: dict[Labels, list[tuple[int, int]]] = {}
    for number, frame in enumerate(frames):
        for row, labels in enumerate(frame.labels):
            places.setdefault(labels, []).append((number, row))
    families: dict[tuple[int, ...], list[Labels]] = {}
    for labels, where in places.items():
        families.setdefault(tuple(number for number, _ in where), []).append(labels)
    return [_joined([frames[number] for number in family], rows, places) for family, rows in families.items()]


def _joined(frames: list[Frame], series: list[Labels], places: dict[Labels, list[tuple[int, int]]]) -> Frame:
    """One frame of these series, each of which is in all of these frames."""
    first = frames[0]
    if len(frames) == 1 and len(series) == len(first.labels):
        return first
    if len(frames) == 1:
        return Frame(series, first.timestamps_ms, first.values[[places[labels][0][1] for labels in series]])
    timestamps = np.unique(np.concatenate([frame.timestamps_ms for frame in frames]))
    values = np.full((len(series), timestamps.size), 0.0)
    values[:] = ABSENT
    for place, frame in enumerate(frames):
        columns = np.searchsorted(timestamps, frame.timestamps_ms)
        rows = frame.values[[places[labels][place][1] for labels in series]]
        free = is_absent(values[:, columns])
        values[:, columns] = np.where(free, rows, values[:, columns])
    return Frame(series, timestamps, values)
