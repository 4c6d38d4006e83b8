"""Rounds: every column once a round, in an order that turns by one from round to round; and what they come to."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.edge.peers import Flyproxy, Running
from bench.edge.ratios import Interval, interval, paired
from bench.edge.stage import Sample, Stage
from bench.edge.targets import TARGETS
from bench.edge.workloads import Column, Workload

QUIET_SHARE = 0.05
"""Of a measurement's time: what others may use of the proxy's CPU before it is said."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One column against another, or against a number alone."""

    of: str
    to: str | None
    rounds: list[float]
    found: Interval
    at_most: float | None
    """The target, where there is one."""

    @property
    def met(self) -> bool | None:
        """Whether the median reached it."""
        return None if self.at_most is None else self.found.median <= self.at_most


@dataclass(frozen=True, slots=True)
class Outcome:
    """One workload, measured."""

    workload: Workload
    samples: dict[str, list[Sample]]
    """By column, a round each."""
    figures: dict[str, list[float]]
    """Of the columns that have one."""
    compared: list[Compared]
    missing: dict[str, str]
    """Columns that were left out, and why."""
    watched: dict[str, Any]
    """By column: what its parsers remembered."""

    def others_share(self) -> float:
        """Of the proxies' CPU while they were measured: what somebody else used, the median of all samples."""
        shares = [one.others_s / one.seconds for column in self.samples.values() for one in column if one.seconds]
        return statistics.median(shares) if shares else 0.0


def order(columns: Sequence[Column], number: int) -> list[Column]:
    """The columns as they take turns in a round."""
    turn = number % len(columns)
    return [*columns[turn:], *columns[:turn]]


def play(stage: Stage, workload: Workload, rounds: int) -> Outcome:
    """Measure one workload."""
    lacking = {column.name: column.peer.missing(column.scene) for column in workload.columns}
    columns = [column for column in workload.columns if lacking[column.name] is None]
    columns = [
        column for column in columns if column.name not in workload.silent or _has_use(workload, column, columns)
    ]
    running: dict[str, Running] = {}
    samples: dict[str, list[Sample]] = {column.name: [] for column in columns}
    try:
        if not workload.fresh:
            for column in columns:
                say(f"{workload.name} {column.name} warms up")
                running[column.name] = stage.start(column.peer, column.scene)
                measure(stage, workload, column, running[column.name])
        for number in range(min(rounds, workload.rounds_max or rounds)):
            for column in order(columns, number):
                say(f"{workload.name} round {number + 1}, {column.name}")
                one = running.get(column.name) or stage.start(column.peer, column.scene)
                samples[column.name].append(measure(stage, workload, column, one))
                if workload.fresh:
                    stage.stop(one)
    finally:
        stage.stop(*running.values())
    say("")
    missing = {name: why for name, why in lacking.items() if why is not None}
    return outcome(workload, samples, missing, watch(stage, workload, columns))


def measure(stage: Stage, workload: Workload, column: Column, running: Running) -> Sample:
    """One measurement; what goes wrong says of whom."""
    try:
        return workload.measure(stage, running, column.ask)
    except SystemExit as fault:
        raise SystemExit(f"{workload.name}, {column.name}: {fault}") from None


def _has_use(workload: Workload, column: Column, columns: Sequence[Column]) -> bool:
    """A column without a figure is measured for one that has one."""
    return column.peer.name in {other.peer.name for other in columns if other.name not in workload.silent} or (
        column.peer.name == "direct"
    )


def watch(stage: Stage, workload: Workload, columns: Sequence[Column]) -> dict[str, Any]:
    """What the parsers remember under this workload, where it wants that known."""
    found: dict[str, Any] = {}
    for column in columns if workload.watched else ():
        if isinstance(column.peer, Flyproxy) and column.peer.pure:
            say(f"{workload.name} {column.name}, looked at")
            found[column.name] = stage.watched(column.peer, column.scene, column.ask, "lines")
    say("")
    return found


def outcome(
    workload: Workload, samples: dict[str, list[Sample]], missing: dict[str, str], watched: dict[str, Any]
) -> Outcome:
    """What the samples come to."""
    count = min((len(column) for column in samples.values()), default=0)
    turns = [{name: column[number] for name, column in samples.items()} for number in range(count)]
    figures = {name: [workload.figure(name, turn) for turn in turns] for name in samples if name not in workload.silent}
    pairs: dict[tuple[str, str | None], float | None] = {
        (name, workload.base): None for name in figures if workload.base in figures and name != workload.base
    }
    for target in TARGETS:
        if target.workload == workload.name and target.of in figures and (target.to is None or target.to in figures):
            pairs[target.of, target.to] = target.at_most
    return Outcome(workload, samples, figures, [compare(figures, *pair) for pair in pairs.items()], missing, watched)


def compare(figures: dict[str, list[float]], pair: tuple[str, str | None], at_most: float | None) -> Compared:
    """One pair of columns, round by round."""
    of, to = pair
    rounds = figures[of] if to is None else paired(figures[of], figures[to])
    return Compared(of, to, rounds, interval(rounds), at_most)


def as_json(found: Outcome) -> dict[str, Any]:
    """Raw rounds and what they come to, short enough to be kept."""
    columns = {
        name: {
            "figures": [_short(figure) for figure in found.figures.get(name, [])],
            "median": _short(statistics.median(found.figures[name])) if name in found.figures else None,
            "rounds": [{key: _short(value) for key, value in asdict(one).items() if value} for one in samples],
        }
        for name, samples in found.samples.items()
    }
    return {
        "title": found.workload.title,
        "unit": found.workload.unit,
        "columns": columns,
        "compared": [
            {
                "of": one.of,
                "to": one.to,
                "median": _short(one.found.median),
                "low": _short(one.found.low),
                "high": _short(one.found.high),
                "confidence": _short(one.found.confidence),
                "at_most": one.at_most,
                "met": one.met,
                "rounds": [_short(value) for value in one.rounds],
            }
            for one in found.compared
        ],
        "missing": found.missing,
        "watched": found.watched,
        "others_share": _short(found.others_share()),
    }


def _short(number: float) -> float:
    return number if isinstance(number, int) else float(f"{number:.5g}")


def say(text: str) -> None:
    """What goes on now, on one line of a terminal; nothing elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
