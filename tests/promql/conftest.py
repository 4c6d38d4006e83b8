"""Query scripts in plain text: a small reader of `load` and `eval`, and a storage made of what they load.

load 10s                                  one sample every 10 s, from time 0
  requests{path="/"} 0+10x5 _ stale 7     0 10 20 30 40 50, a gap, a stale marker, 7
clear
mode prometheus2                          only for this mode from here on (prometheus3, both)
dialect metricsql                         MetricsQL on from here on (promql)
eval instant at 50s rate(requests[1m])
  {path="/"} 1
eval_ordered ...                          as eval instant, and the order counts
eval range from 0 to 1m step 10s requests
  requests{path="/"} 0 10 20 30 40 50 50
eval_fail instant at 50s requests + ...
  expected_fail_message words of the error
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest

from flyproxy.errors import FlyproxyError
from flyproxy.promql.engine import Engine, Options, Result
from flyproxy.promql.options import Mode
from flyproxy.series.frame import ABSENT, STALE, Floats, Frame, is_absent
from flyproxy.series.labels import Labels, labels_from
from flyproxy.series.matchers import Matcher

CASES = Path(__file__).parent / "cases"
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PAIR = re.compile(r'\s*([\w.:]+)\s*=\s*"((?:[^"\\]|\\.)*)"\s*,?')
_RUN = re.compile(r"([^x]+?)(?:([+-][^x+-]+))?x(\d+)")
Layout = Literal["together", "alone", "cut"]


class FakeStorage:
    """Frames in a list; selects as the store does, columns cut to the times asked for."""

    def __init__(self, frames: Sequence[Frame]) -> None:
        self.frames = frames
        self.selections = 0

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[Frame]:
        self.selections += 1
        tests = [(matcher.name, matcher.predicate()) for matcher in matchers]
        found = []
        for frame in self.frames:
            rows = [
                row
                for row, labels in enumerate(frame.labels)
                if all(test(dict(labels).get(name, "")) for name, test in tests)
            ]
            first = int(np.searchsorted(frame.timestamps_ms, start_ms, side="left"))
            stop = int(np.searchsorted(frame.timestamps_ms, end_ms, side="right"))
            if rows and stop > first:
                labels = [frame.labels[row] for row in rows]
                found.append(Frame(labels, frame.timestamps_ms[first:stop], frame.values[rows][:, first:stop]))
        return found


@dataclass(frozen=True)
class Evaluation:
    """One eval of a script and what it must answer."""

    file: str
    line: int
    expression: str
    start_ms: int
    end_ms: int
    step_ms: int
    """0: an instant query."""
    mode: Mode
    metricsql: bool
    loaded: tuple[tuple[int, str, str], ...]
    """interval_ms, series, values: as in the script."""
    ordered: bool = False
    fails: bool = False
    message: str = ""
    expected: tuple[tuple[Labels, tuple[float | None, ...]], ...] = ()
    expected_text: tuple[str, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        return f"{self.file}:{self.line}:{self.mode}"


def read_script(path: Path) -> list[Evaluation]:
    """All evaluations of a script, one for each mode they hold in."""
    found: list[Evaluation] = []
    loaded: list[tuple[int, str, str]] = []
    modes: tuple[Mode, ...] = get_args(Mode)
    metricsql, interval_ms, current = False, 0, 0
    for number, raw in enumerate(path.read_text().splitlines(), start=1):
        line = raw.split(" # ")[0].rstrip()
        if not line.strip() or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        if raw[0].isspace():
            if current == 0:
                series, values = split_series(line.strip())
                loaded.append((interval_ms, series, values))
            else:
                found[-current:] = [_with_expectation(each, line.strip()) for each in found[-current:]]
            continue
        current = 0
        if word == "load":
            interval_ms = duration_ms(rest)
        elif word == "clear":
            loaded = []
        elif word == "mode":
            modes = get_args(Mode) if rest == "both" else tuple(mode for mode in get_args(Mode) if mode == rest)
        elif word == "dialect":
            metricsql = rest == "metricsql"
        else:
            evaluations = [_evaluation(path.stem, number, line, mode, metricsql, tuple(loaded)) for mode in modes]
            current = len(evaluations)
            found += evaluations
    return found


def _evaluation(
    file: str, number: int, line: str, mode: Mode, metricsql: bool, loaded: tuple[tuple[int, str, str], ...]
) -> Evaluation:
    verb, kind, rest = line.split(" ", 2)
    ordered, fails = verb == "eval_ordered", verb == "eval_fail"
    assert verb in ("eval", "eval_ordered", "eval_fail"), line
    if kind == "instant":
        _, at, expression = rest.split(" ", 2)
        start_ms = end_ms = duration_ms(at)
        step_ms = 0
    else:
        found = re.fullmatch(r"from (\S+) to (\S+) step (\S+) (.*)", rest)
        assert found is not None, line
        start_ms, end_ms, step_ms = (duration_ms(found.group(each)) for each in (1, 2, 3))
        expression = found.group(4)
    return Evaluation(
        file, number, expression, start_ms, end_ms, step_ms, mode, metricsql, loaded, ordered=ordered, fails=fails
    )


def _with_expectation(evaluation: Evaluation, line: str) -> Evaluation:
    if evaluation.fails:
        return replace(evaluation, message=line.removeprefix("expected_fail_message "))
    series, values = split_series(line)
    row = (labels_of(series), tuple(values_of(values)))
    return replace(
        evaluation, expected=(*evaluation.expected, row), expected_text=(*evaluation.expected_text, series or "{}")
    )


def split_series(line: str) -> tuple[str, str]:
    """`name{labels}` and the values after it; a line of values alone is a scalar."""
    if "}" in line:
        at = line.rindex("}") + 1
        return line[:at], line[at:].strip()
    name, _, values = line.partition(" ")
    return (name, values.strip()) if values and not _is_number(name) else ("", line)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def labels_of(text: str) -> Labels:
    name, _, inside = text.partition("{")
    pairs = {key: value.replace('\\"', '"') for key, value in _PAIR.findall(inside.rstrip("}"))}
    return labels_from({**pairs, "__name__": name.strip()} if name.strip() else pairs)


def duration_ms(text: str) -> int:
    if _is_number(text):
        return round(float(text) * 1000)
    return sum(round(float(number) * _UNITS_MS[unit]) for number, unit in re.findall(r"([\d.]+)(ms|[smhd])", text))


def values_of(text: str) -> list[float | None]:
    """Values as written; None for a gap, the stale marker as a float of its own kind (see `row_of`)."""
    values: list[float | None] = []
    for word in text.split():
        run = _RUN.fullmatch(word)
        if word == "_":
            values.append(None)
        elif word == "stale":
            values.append(_STALE)
        elif run is None:
            values.append(float(word))
        elif run.group(1) == "_":
            values += [None] * int(run.group(3))
        else:
            begin, by = float(run.group(1)), float(run.group(2) or 0)
            values += [begin + by * times for times in range(int(run.group(3)) + 1)]
    return values


_STALE = math.inf * 2  # told apart by identity: floats would lose the marker's bits


def row_of(values: Sequence[float | None], width: int) -> Floats:
    row = np.empty(width)
    row[:] = ABSENT
    for place, value in enumerate(values):
        if value is _STALE:
            row[place : place + 1] = STALE
        elif value is not None:
            row[place] = value
    return row


def frames_of(loaded: Sequence[tuple[int, str, str]], layout: Layout) -> list[Frame]:
    """The same samples as a frame per interval with gaps, as a frame per series without, or cut in three by time."""
    frames = []
    for interval_ms in {each[0]: None for each in loaded}:
        rows = [
            (labels_of(series), values_of(values)) for interval, series, values in loaded if interval == interval_ms
        ]
        width = max(len(values) for _, values in rows)
        times = np.arange(width, dtype=np.int64) * interval_ms
        frames.append(
            Frame([labels for labels, _ in rows], times, np.stack([row_of(values, width) for _, values in rows]))
        )
    if layout == "alone":
        return [_alone(frame, row) for frame in frames for row in range(len(frame.labels))]
    if layout == "cut":
        return [
            Frame(frame.labels, frame.timestamps_ms[part], frame.values[:, part])
            for frame in frames
            for part in np.array_split(np.arange(frame.timestamps_ms.size), 3)
        ]
    return frames


def _alone(frame: Frame, row: int) -> Frame:
    there = ~is_absent(frame.values[row])
    return Frame([frame.labels[row]], frame.timestamps_ms[there], frame.values[row : row + 1, there])


def run(evaluation: Evaluation, layout: Layout) -> Result:
    engine = Engine(Options(mode=evaluation.mode, metricsql=evaluation.metricsql))
    storage = FakeStorage(frames_of(evaluation.loaded, layout))
    if evaluation.step_ms:
        return engine.query_range(
            evaluation.expression, storage, evaluation.start_ms, evaluation.end_ms, evaluation.step_ms
        )
    return engine.query(evaluation.expression, storage, evaluation.start_ms)


def check(evaluation: Evaluation, layout: Layout) -> None:
    """Asserts that the engine answers as the script says."""
    if evaluation.fails:
        with pytest.raises(FlyproxyError) as fault:
            run(evaluation, layout)
        assert evaluation.message in str(fault.value)
        return
    result = run(evaluation, layout)
    got = [
        (labels, tuple(float(value) if here else None for value, here in zip(values, present, strict=True)))
        for labels, values, present in zip(result.labels, result.values, result.present, strict=True)
    ]
    wanted = list(evaluation.expected)
    if not evaluation.ordered:
        got, wanted = sorted(got, key=lambda row: row[0]), sorted(wanted, key=lambda row: row[0])
    assert [labels for labels, _ in got] == [labels for labels, _ in wanted], got
    for (labels, values), (_, expected) in zip(got, wanted, strict=True):
        assert len(values) == len(expected), labels
        assert all(map(is_close, values, expected)), (labels, values, expected)


def is_close(value: float | None, expected: float | None) -> bool:
    if value is None or expected is None:
        return value is expected
    return (
        value == expected or (value != value and expected != expected) or math.isclose(value, expected, rel_tol=1e-12)
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "evaluation" in metafunc.fixturenames:
        cases = [each for path in sorted(CASES.glob("*.test")) for each in read_script(path)]
        metafunc.parametrize("evaluation", cases, ids=[each.name for each in cases])
    if "oracle_file" in metafunc.fixturenames:
        paths = sorted(CASES.glob("*.test"))
        metafunc.parametrize("oracle_file", paths, ids=[path.stem for path in paths])


@pytest.fixture
def check_evaluation() -> Callable[[Evaluation, Layout], None]:
    return check


@pytest.fixture
def script() -> Callable[[Path], list[Evaluation]]:
    return read_script


@pytest.fixture
def is_the_same() -> Callable[[Evaluation, list[tuple[str, float]]], bool]:
    """Whether rows as promtool prints them are what an evaluation expects."""

    def compare(evaluation: Evaluation, rows: list[tuple[str, float]]) -> bool:
        wanted = {labels: values[0] for labels, values in evaluation.expected}
        got = {labels_of(series): value for series, value in rows}
        return wanted.keys() == got.keys() and all(is_close(got[labels], wanted[labels]) for labels in wanted)

    return compare


@pytest.fixture
def storage_of() -> Callable[[Sequence[Frame]], FakeStorage]:
    return FakeStorage
