"""The engine against the slowest evaluator there can be: one series, one step, one sample at a time.

Random series with gaps, NaN, infinities, resets and stale markers; cut into frames at random, read in small blocks.
Times are whole seconds and so are steps and windows: samples lie on the edges of windows all the time.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flyproxy.promql import cubes, matrix
from flyproxy.promql.engine import Engine, Options, Result
from flyproxy.promql.options import Mode
from flyproxy.series.frame import ABSENT, STALE, Frame, Storage
from flyproxy.series.labels import Labels, labels_from

StorageOf = Callable[[Sequence[Frame]], Storage]
Sample = tuple[int, float]
LOOKBACK_MS = 300_000
STALE_HERE = "stale"
MORE = int(os.environ.get("REFERENCE_EXAMPLES", "1"))
"""For a long hunt: so many times the examples, new ones in every run."""


def bounded(examples: int) -> settings:
    """The same examples in every run."""
    unshared = [HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples * MORE, deadline=None, derandomize=MORE == 1, suppress_health_check=unshared)


@dataclass(frozen=True)
class Case:
    """Series [rows][times] of float, None for a gap, STALE_HERE; and how they are asked for."""

    times_s: list[int]
    rows: list[list[float | str | None]]
    cuts: list[int]
    """Columns at which a new frame begins."""
    alone: bool
    """Every series in frames of its own."""
    start_s: int
    step_s: int
    steps: int
    range_s: int
    mode: Mode
    block_rows: int


@st.composite
def cases(draw: st.DrawFn, *, whole: bool = False) -> Case:
    """`whole`: numbers only, so that sums are exact and all different, so that ranks are."""
    beats = draw(st.sampled_from([[10], [15], [1, 5, 10, 10, 10, 15, 30, 200, 301]]))
    times = np.cumsum(draw(st.lists(st.sampled_from(beats), min_size=1, max_size=14))).tolist()
    number = st.integers(0, 40).map(float)
    odd = st.sampled_from([math.nan, math.inf, -math.inf, -3.0])
    cell = st.one_of(number, st.none()) if whole else st.one_of(number, number, odd, st.none(), st.just(STALE_HERE))
    row = st.lists(cell, min_size=len(times), max_size=len(times))
    rising = st.lists(st.integers(0, 9), min_size=len(times), max_size=len(times)).map(
        lambda growth: [float(value) for value in np.cumsum(growth)]
    )
    rows: list[list[Any]] = draw(st.lists(row if whole else st.one_of(row, rising), min_size=1, max_size=5))
    if whole:
        rows = [[None if v is None else v * 8 + place for v in row] for place, row in enumerate(rows)]
    return Case(
        times,
        rows,
        sorted(draw(st.sets(st.integers(1, len(times)), max_size=3))),
        draw(st.booleans()),
        draw(st.integers(0, times[-1] + 20)),
        draw(st.sampled_from([1, 5, 7, 10, 15, 60])),
        draw(st.integers(1, 8)),
        draw(st.sampled_from([1, 5, 10, 15, 20, 30, 60, 300])),
        draw(st.sampled_from(["prometheus3", "prometheus2"])),
        draw(st.integers(1, 4)),
    )


def name_of(row: int) -> Labels:
    return labels_from({"__name__": "m", "row": str(row), "group": str(row % 2)})


def frames_of(case: Case) -> list[Frame]:
    values = np.empty((len(case.rows), len(case.times_s)))
    for row, cells in enumerate(case.rows):
        for column, cell in enumerate(cells):
            here = values[row, column : column + 1]
            here[:] = ABSENT if cell is None else STALE if cell == STALE_HERE else float(cell)
    times = np.array(case.times_s, dtype=np.int64) * 1000
    groups = [[row] for row in range(len(case.rows))] if case.alone else [list(range(len(case.rows)))]
    return [
        Frame([name_of(row) for row in rows], times[begin:stop], np.ascontiguousarray(values[rows, begin:stop]))
        for rows in groups
        for begin, stop in zip([0, *case.cuts], [*case.cuts, len(case.times_s)], strict=True)
        if stop > begin
    ]


def answered(case: Case, expression: str, storage_of: StorageOf, *, metricsql: bool = False) -> Result:
    with pytest.MonkeyPatch.context() as small:
        small.setattr(matrix, "BLOCK_ROWS", case.block_rows)
        small.setattr(cubes, "_CUBE_POINTS", 8 * case.block_rows)
        engine = Engine(Options(mode=case.mode, metricsql=metricsql))
        start_ms, step_ms = case.start_s * 1000, case.step_s * 1000
        return engine.query_range(
            expression, storage_of(frames_of(case)), start_ms, start_ms + step_ms * (case.steps - 1), step_ms
        )


def as_rows(result: Result) -> dict[Labels, list[float | None]]:
    return {
        labels: [float(value) if here else None for value, here in zip(values, present, strict=True)]
        for labels, values, present in zip(result.labels, result.values, result.present, strict=True)
    }


# ---- the reference -----------------------------------------------------------------------------------------------


def samples_in(case: Case, row: int, end_ms: int, range_ms: int) -> list[tuple[int, float | str]]:
    """The samples of a window, stale markers with them."""
    first = end_ms - range_ms + (1 if case.mode == "prometheus3" else 0)
    found = zip(case.times_s, case.rows[row], strict=True)
    return [(at * 1000, cell) for at, cell in found if cell is not None and first <= at * 1000 <= end_ms]


def newest(case: Case, row: int, at_ms: int) -> Sample | None:
    found = samples_in(case, row, at_ms, LOOKBACK_MS)
    if not found or isinstance(found[-1][1], str):
        return None
    return found[-1][0], found[-1][1]


def extrapolated(case: Case, window: list[Sample], end_ms: int, *, counter: bool, per_second: bool) -> float | None:
    """What Prometheus' documentation and its extrapolatedRate say, step by step."""
    if len(window) < 2:
        return None
    range_ms = case.range_s * 1000
    (first_ms, first), (last_ms, last) = window[0], window[-1]
    change = last - first
    if counter:
        for (_, before), (_, after) in pairwise(window):
            if after < before:
                change += before
    to_start, to_end = (first_ms - (end_ms - range_ms)) / 1000, (end_ms - last_ms) / 1000
    sampled = (last_ms - first_ms) / 1000
    average = sampled / (len(window) - 1)
    if case.mode == "prometheus3" and to_start >= average * 1.1:
        to_start = average / 2
    if counter and change > 0 and first >= 0:
        to_start = min(to_start, sampled * divided(first, change))
    if case.mode == "prometheus2" and to_start >= average * 1.1:
        to_start = average / 2
    if to_end >= average * 1.1:
        to_end = average / 2
    answer = change * (sampled + to_start + to_end) / sampled
    return answer / case.range_s if per_second else answer


def divided(left: float, right: float) -> float:
    """inf / inf is NaN, which is no limit."""
    return math.inf if math.isinf(left) and math.isinf(right) else left / right


def last_two(window: list[Sample], *, per_second: bool) -> float | None:
    if len(window) < 2:
        return None
    (before_ms, before), (after_ms, after) = window[-2:]
    change = after if per_second and after < before else after - before
    return change / ((after_ms - before_ms) / 1000) if per_second else change


def extreme(values: list[float], best: Callable[[list[float]], float]) -> float:
    ordered = [value for value in values if not math.isnan(value)]
    return best(ordered) if ordered else math.nan


def differing(values: list[float]) -> float:
    pairs = pairwise(values)
    return float(sum(a != b and not (math.isnan(a) and math.isnan(b)) for a, b in pairs))


def variance(values: list[float]) -> float:
    if not all(map(math.isfinite, values)):
        return math.nan
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values) / len(values)


def third(values: list[float]) -> float:
    """The 0.3-quantile; NaN is the smallest."""
    ordered = sorted(values, key=lambda value: -math.inf if math.isnan(value) else value)
    ordered.sort(key=lambda value: not math.isnan(value))
    rank = 0.3 * (len(ordered) - 1)
    low = math.floor(rank)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] * (1 - (rank - low)) + ordered[high] * (rank - low)


def slope(window: list[Sample]) -> float | None:
    if len(window) < 2:
        return None
    values = [value for _, value in window]
    if all(value == values[0] for value in values):
        return math.nan if math.isinf(values[0]) else 0.0
    if not all(map(math.isfinite, values)):
        return math.nan
    times = [(at - window[0][0]) / 1000 for at, _ in window]
    mean_x, mean_y = sum(times) / len(times), sum(values) / len(values)
    over = sum((x - mean_x) * (y - mean_y) for x, y in zip(times, values, strict=True))
    return over / sum((x - mean_x) ** 2 for x in times)


def of_values(kernel: Callable[[list[float]], float]) -> Callable[[Case, list[Sample], int], float | None]:
    return lambda case, window, end_ms: kernel([value for _, value in window]) if window else None


REFERENCE: dict[str, Callable[[Case, list[Sample], int], float | None]] = {
    "rate": lambda case, window, end_ms: extrapolated(case, window, end_ms, counter=True, per_second=True),
    "increase": lambda case, window, end_ms: extrapolated(case, window, end_ms, counter=True, per_second=False),
    "delta": lambda case, window, end_ms: extrapolated(case, window, end_ms, counter=False, per_second=False),
    "irate": lambda case, window, end_ms: last_two(window, per_second=True),
    "idelta": lambda case, window, end_ms: last_two(window, per_second=False),
    "deriv": lambda case, window, end_ms: slope(window),
    "changes": of_values(differing),
    "resets": of_values(lambda values: float(sum(b < a for a, b in pairwise(values)))),
    "sum_over_time": of_values(sum),
    "avg_over_time": of_values(lambda values: sum(values) / len(values)),
    "min_over_time": of_values(lambda values: extreme(values, min)),
    "max_over_time": of_values(lambda values: extreme(values, max)),
    "count_over_time": of_values(lambda values: float(len(values))),
    "present_over_time": of_values(lambda values: 1.0),
    "last_over_time": of_values(lambda values: values[-1]),
    "stdvar_over_time": of_values(variance),
    "quantile_over_time": of_values(third),
}
EXTRAPOLATED = ["rate", "increase", "delta"]


def referred(case: Case, function: str) -> dict[Labels, list[float | None]]:
    """The reference's answer, series that have none left out."""
    rows = {}
    for row in range(len(case.rows)):
        answers = []
        for step in range(case.steps):
            end_ms = (case.start_s + step * case.step_s) * 1000
            found = samples_in(case, row, end_ms, case.range_s * 1000)
            window = [(at, value) for at, value in found if not isinstance(value, str)]
            answers.append(REFERENCE[function](case, window, end_ms))
        labels = name_of(row)
        rows[labels if function == "last_over_time" else labels[1:]] = answers
    return {labels: answers for labels, answers in rows.items() if any(each is not None for each in answers)}


def are_alike(got: float | None, wanted: float | None) -> bool:
    if got is None or wanted is None:
        return got is wanted
    return (math.isnan(got) and math.isnan(wanted)) or math.isclose(got, wanted, rel_tol=1e-9, abs_tol=1e-9)


def assert_alike(got: dict[Labels, list[float | None]], wanted: dict[Labels, list[float | None]]) -> None:
    assert got.keys() == wanted.keys()
    for labels, values in wanted.items():
        assert all(map(are_alike, got[labels], values)), (labels, got[labels], values)


# ---- what is promised --------------------------------------------------------------------------------------------


@bounded(400)
@given(case=cases(), function=st.sampled_from([*REFERENCE, *EXTRAPOLATED * 4]))
def test_a_window_function_answers_as_the_reference(case: Case, function: str, storage_of: StorageOf) -> None:
    arguments = f"0.3, m[{case.range_s}s]" if function == "quantile_over_time" else f"m[{case.range_s}s]"
    assert_alike(as_rows(answered(case, f"{function}({arguments})", storage_of)), referred(case, function))


@bounded(80)
@given(case=cases(), offset_s=st.sampled_from([0, 5, 10, 300, -10]))
def test_a_selector_finds_the_newest_sample(case: Case, offset_s: int, storage_of: StorageOf) -> None:
    ends = [(case.start_s + step * case.step_s - offset_s) * 1000 for step in range(case.steps)]
    found = {name_of(row): [newest(case, row, end_ms) for end_ms in ends] for row in range(len(case.rows))}
    found = {labels: samples for labels, samples in found.items() if any(samples)}
    values = as_rows(answered(case, f"m offset {offset_s}s", storage_of))
    assert_alike(values, {labels: [each and each[1] for each in samples] for labels, samples in found.items()})
    times = as_rows(answered(case, f"timestamp(m offset {offset_s}s)", storage_of))
    seconds = {labels[1:]: [each and each[0] / 1000 for each in samples] for labels, samples in found.items()}
    assert_alike(times, seconds)


@bounded(80)
@given(
    case=cases(), function=st.sampled_from(["rate", "increase", "delta", "irate", "idelta", "deriv", "sum_over_time"])
)
def test_metricsql_never_changes_what_prometheus_answers(case: Case, function: str, storage_of: StorageOf) -> None:
    expression = f"{function}(m[{case.range_s}s])"
    strict = as_rows(answered(case, expression, storage_of))
    extended = as_rows(answered(case, expression, storage_of, metricsql=True))
    for labels, values in strict.items():
        pairs = zip(values, extended[labels], strict=True)
        assert all(value is None or are_alike(value, other) for value, other in pairs)


LAYOUT_FREE = [
    *[f"{operator} by (group) (m)" for operator in ("sum", "avg", "min", "max", "count", "stddev", "group")],
    *["topk(2, m)", "bottomk by (group) (1, m)", "quantile(0.4, m)", 'count_values by (group) ("v", m)'],
    *["sum(rate(m[60s]))", "max_over_time(sum(m)[1m:7s])", "m + on(row, group) m", 'm and m{group="1"}', "absent(m)"],
    *['m unless m{row="0"}', "-m", "sum by (group) (m) / on() group_left sum(m)", 'm{row="0"} or m', "scalar(sum(m))"],
]


@bounded(200)
@given(case=cases(whole=True), expression=st.sampled_from(LAYOUT_FREE))
def test_frames_and_blocks_do_not_show_in_an_answer(case: Case, expression: str, storage_of: StorageOf) -> None:
    plain = replace(case, cuts=[], alone=False, block_rows=512)
    assert_alike(as_rows(answered(case, expression, storage_of)), as_rows(answered(plain, expression, storage_of)))
