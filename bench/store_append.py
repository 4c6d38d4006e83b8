"""What storing costs: CPU per sample appended and sealed, bytes per sample on the disk in the log and in chunks, and
what reading it back costs.

    python bench/store_append.py [FLEET_DIRECTORY] [--beats N] [--json FILE]

Without a directory: synthetic counters, gauges and sums of a front door, seeded. With one: matrices `*.npz` (`ts` int64
milliseconds [times], `vals` float64 [series, times], NaN where absent) beside `*.json` (a list of label dictionaries).
The beats run through the real Writer, commits synced; figures are of this machine, to be compared within one run.
"""

import argparse
import json
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flyproxy.series.frame import ABSENT
from flyproxy.series.labels import labels_from
from flyproxy.series.matchers import Matcher, MatchOp
from flyproxy.series.samples import Batch, Floats, Layout
from flyproxy.tsdb.db import Reader, Writer

INTERVAL_MS = 15_000
TARGETS = 4
APPS = 100
BUCKETS = 13


def synthetic(beats: int) -> list[tuple[Layout, list[int], Floats]]:
    """[targets] of (layout, times, [series, beats]): per app a histogram, its sum, a status counter and a gauge."""
    random = np.random.default_rng(1)
    made = []
    for target in range(TARGETS):
        rows: list[Floats] = []
        names: list[dict[str, str]] = []
        for app in range(APPS):
            requests = random.poisson(np.exp(random.normal(0, 2)) * 5, beats)
            split = random.multinomial(requests, np.full(BUCKETS, 1 / BUCKETS)).T
            rows += [*np.cumsum(np.cumsum(split, axis=0), axis=1).astype(np.float64)]
            names += [{"__name__": "seconds_bucket", "le": str(place)} for place in range(BUCKETS)]
            rows += [np.cumsum(requests * random.random(beats)), np.cumsum(requests).astype(np.float64)]
            rows += [random.poisson(3, beats).astype(np.float64)]
            names += [{"__name__": name} for name in ("seconds_sum", "responses_count", "concurrency")]
            for labels in names[-BUCKETS - 3 :]:
                labels |= {"app": f"app-{app}", "host": f"{target:04x}", "region": "ord"}
        series = tuple(labels_from(labels) for labels in names)
        times = [beat * INTERVAL_MS for beat in range(beats)]
        made.append((Layout(series, np.ones(len(series), np.bool_)), times, np.array(rows)))
    return made


def fleet(directory: Path, beats: int) -> list[tuple[Layout, list[int], Floats]]:
    """The last `beats` of every target found there."""
    made = []
    for file in sorted(directory.glob("*.npz")):
        with np.load(file) as held:
            times, values = held["ts"][-beats:], held["vals"][:, -beats:].copy()
        values[np.isnan(values)] = ABSENT[0]
        series = tuple(labels_from(labels) for labels in json.loads(file.with_suffix(".json").read_text()))
        made.append((Layout(series, np.ones(len(series), np.bool_)), times.tolist(), values))
    return made


def in_beats(targets: list[tuple[Layout, list[int], Floats]]) -> Iterator[list[Batch]]:
    """One list of batches a beat, rows ready as a producer would hand them over."""
    for beat in range(max(len(times) for _, times, _ in targets)):
        yield [
            Batch("personal", f"t{place}", times[beat], layout, np.ascontiguousarray(values[:, beat]), INTERVAL_MS)
            for place, (layout, times, values) in enumerate(targets)
            if beat < len(times)
        ]


def run(targets: list[tuple[Layout, list[int], Floats]], path: str) -> dict[str, float]:
    beats = list(in_beats(targets))
    writer = Writer.open(path)
    wall, cpu = time.perf_counter(), time.process_time()
    for beat in beats:
        writer.append(beat)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    counted = writer.statistics()
    writer.close()
    samples = counted["samples"]
    opening = time.perf_counter()
    reader = Reader.open(path)
    view = reader.organization("personal")
    opened = time.perf_counter()
    view.select([Matcher("app", MatchOp.EQUAL, "app-7")], 0, 2**60)
    first = time.perf_counter()
    selected = sum(frame.values.size for frame in view.select((), 0, 2**60))
    warm = time.perf_counter()
    view.select([Matcher("app", MatchOp.EQUAL, "app-7")], 0, 2**60)
    done = time.perf_counter()
    reader.close()
    return {
        "series": float(sum(len(layout.series) for layout, _, _ in targets)),
        "beats": float(len(beats)),
        "samples": float(samples),
        "append_cpu_us_per_sample": cpu / samples * 1e6,
        "append_wall_ms_per_beat": wall / len(beats) * 1e3,
        "row_bytes_per_sample": counted["row_bytes"] / samples,
        "file_bytes_per_sample": Path(path).stat().st_size / samples,
        "open_ms": (opened - opening) * 1e3,
        "first_select_ms": (first - opened) * 1e3,
        "decode_samples_per_us": samples / (first - opened) / 1e6,
        "select_all_ms": (warm - first) * 1e3,
        "select_one_app_ms": (done - warm) * 1e3,
        "selected_samples": float(selected),
        **sealing(path, samples),
    }


def sealing(path: str, samples: int) -> dict[str, float]:
    """All of the log as chunks, as it would be long after the last beat."""
    writer = Writer.open(path)
    cpu, longest, more = time.process_time(), 0.0, True
    while more:
        begun = time.perf_counter()
        more = writer.seal(2**60).more
        longest = max(longest, time.perf_counter() - begun)
    cpu = time.process_time() - cpu
    counted = writer.statistics()
    writer.close()
    view = Reader.open(path).organization("personal")
    begun = time.perf_counter()
    view.select([Matcher("app", MatchOp.EQUAL, "app-7")], 0, 2**60)
    one = time.perf_counter()
    view.select((), 0, 2**60)
    done = time.perf_counter()
    return {
        "seal_cpu_us_per_sample": cpu / samples * 1e6,
        "seal_longest_step_ms": longest * 1e3,
        "chunk_bytes_per_sample": counted["chunk_bytes"] / samples,
        "sealed_file_bytes_per_sample": (counted["file_bytes"] - counted["free_bytes"]) / samples,
        "sealed_select_one_app_ms": (one - begun) * 1e3,
        "sealed_select_all_ms": (done - one) * 1e3,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fleet", nargs="?", type=Path, help="a directory of .npz and .json files")
    parser.add_argument("--beats", type=int, default=240)
    parser.add_argument("--json", type=Path, help="write the figures there")
    asked = parser.parse_args()
    targets = fleet(asked.fleet, asked.beats) if asked.fleet else synthetic(asked.beats)
    with tempfile.TemporaryDirectory() as directory:
        figures = run(targets, str(Path(directory) / "metrics.db"))
    for name, figure in figures.items():
        print(f"{name:28} {figure:14,.3f}")
    if asked.json:
        versions = {"python": platform.python_version(), "numpy": np.__version__, "sqlite": sqlite3.sqlite_version}
        asked.json.write_text(
            json.dumps({"figures": figures, "versions": versions, "arguments": sys.argv[1:]}, indent=1)
        )


if __name__ == "__main__":
    main()
