"""CPU seconds of dashboard queries over a fleet of some 100,000 series.

    python bench/query_fleet.py FOLDER [--json FILE]

FOLDER holds one t*.npz (ts int64 ms [T], vals float64 [S, T], NaN = absent) and one t*.json (list of label dicts) per
target. Selecting is the store's cost and is not measured: every selection is made before the clock runs. One round
per query and mode is thrown away, the least of the next ones is the figure; all of them are in the JSON.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from flyproxy.promql.engine import Engine, Options
from flyproxy.promql.options import Mode
from flyproxy.series.frame import ABSENT, Frame
from flyproxy.series.labels import labels_from
from flyproxy.series.matchers import Matcher

ROUNDS = 4
HOUR_MS = 3_600_000
BUCKETS = "fly_edge_http_response_time_seconds_bucket"
QUERIES: dict[str, tuple[int, int]] = {
    f"sum by (le)(increase({BUCKETS}[1m]))": (HOUR_MS, 15_000),
    f"histogram_quantile(0.99, sum by (app,le)(rate({BUCKETS}[5m])))": (HOUR_MS, 15_000),
    f'sum by (le)(increase({BUCKETS}{{app="app-3"}}[1m]))': (5 * HOUR_MS, 60_000),
    "topk(10, sum by (app)(rate(fly_edge_http_responses_count[5m])))": (0, 1),
    "sum by (region)(avg_over_time(fly_app_concurrency[5m]))": (HOUR_MS, 15_000),
}
"""Expression to (range, step), milliseconds; all end with the data."""


class Fleet:
    """Remembers what it selected."""

    def __init__(self, folder: Path) -> None:
        self.frames = [self._frame(path) for path in sorted(folder.glob("t*.npz"))]
        self.selected: dict[tuple[tuple[Matcher, ...], int, int], list[Frame]] = {}

    def _frame(self, path: Path) -> Frame:
        stored = np.load(path)
        values = np.ascontiguousarray(stored["vals"])
        values.view(np.uint64)[np.isnan(values)] = ABSENT.view(np.uint64)[0]
        labels = [labels_from(each) for each in json.loads(path.with_suffix(".json").read_text())]
        return Frame(labels, stored["ts"], values)

    def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Sequence[Frame]:
        key = (tuple(matchers), start_ms, end_ms)
        if key not in self.selected:
            self.selected[key] = [self._part(frame, matchers, start_ms, end_ms) for frame in self.frames]
        return self.selected[key]

    def _part(self, frame: Frame, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> Frame:
        tests = [(matcher.name, matcher.predicate()) for matcher in matchers]
        names = [dict(labels) for labels in frame.labels]
        rows = [row for row, each in enumerate(names) if all(test(each.get(name, "")) for name, test in tests)]
        first, stop = np.searchsorted(frame.timestamps_ms, [start_ms, end_ms + 1])
        labels = [frame.labels[row] for row in rows]
        return Frame(labels, frame.timestamps_ms[first:stop], frame.values[rows][:, first:stop])


def measure(fleet: Fleet, mode: Mode, expression: str, range_ms: int, step_ms: int) -> list[float]:
    """CPU seconds of every round but the first."""
    engine = Engine(Options(mode=mode, metricsql=False))
    end_ms = max(int(frame.timestamps_ms[-1]) for frame in fleet.frames) - 60_000
    rounds = []
    for _ in range(ROUNDS + 1):
        begin = time.process_time()
        engine.query_range(expression, fleet, end_ms - range_ms, end_ms, step_ms)
        rounds.append(time.process_time() - begin)
    return rounds[1:]


def main() -> None:
    arguments = argparse.ArgumentParser(description="CPU seconds of dashboard queries over a fleet")
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--json", type=Path)
    asked = arguments.parse_args()
    fleet = Fleet(asked.folder)
    print(f"{sum(len(frame.labels) for frame in fleet.frames):,} series in {len(fleet.frames)} frames")
    found: list[dict[str, object]] = []
    modes: tuple[Mode, ...] = ("prometheus3", "prometheus2")
    for mode in modes:
        for expression, (range_ms, step_ms) in QUERIES.items():
            rounds = measure(fleet, mode, expression, range_ms, step_ms)
            print(f"{min(rounds):8.3f} s  {mode}  {expression}")
            found.append({"mode": mode, "expression": expression, "cpu_s": rounds})
    if asked.json:
        versions = {"python": platform.python_version(), "numpy": np.__version__}
        asked.json.write_text(json.dumps({"versions": versions, "queries": found}, indent=2))


if __name__ == "__main__":
    main()
