"""What counting costs on the request's way: the verbs, and the fold that follows them.

    python bench/instrument_record.py [--json FILE]

Prints nanoseconds per call, the best of several rounds (the noise of a machine only ever adds).
"""

import argparse
import json
import platform
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

from flyproxy.instrument.cells import Segment
from flyproxy.instrument.recorder import EdgeRecorder, InstanceRecorder, Recorder

CALLS = 100_000
ROUNDS = 7


def empty() -> None:
    """What a call costs by itself: taken off the verbs' figures."""


def measure(directory: Path) -> dict[str, list[float]]:
    """Nanoseconds per call and round, by what was called."""
    recorder = Recorder(Segment.create(str(directory / "bench.cells"), 0), proxy_id="blue")
    edge = recorder.edge("hello", "personal", "ord", "2bc3")
    instance = recorder.instance("hello", "personal", "ord", "2bc3", "3d8d9e27b24e89")
    works: dict[str, Callable[[], None]] = {
        "empty call": empty,
        "edge.response + instance.response": lambda: responses(edge, instance),
        "a whole request (started, both responses, transferred, finished)": lambda: request(edge, instance),
        "both responses + fold": lambda: folded(recorder, edge, instance),
    }
    return {name: rounds(work) for name, work in works.items()}


def responses(edge: EdgeRecorder, instance: InstanceRecorder) -> None:
    edge.response(200, 12_345_678, 623, 1300)
    instance.response(200, 12_000_000)


def request(edge: EdgeRecorder, instance: InstanceRecorder) -> None:
    instance.started()
    instance.response(200, 12_000_000)
    instance.transferred(700, 1250)
    instance.finished()
    edge.response(200, 12_345_678, 623, 1300)


def folded(recorder: Recorder, edge: EdgeRecorder, instance: InstanceRecorder) -> None:
    responses(edge, instance)
    recorder.fold()


def rounds(work: Callable[[], None]) -> list[float]:
    return [seconds / CALLS * 1e9 for seconds in timeit.repeat(work, number=CALLS, repeat=ROUNDS)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the raw rounds there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory))
    for name, nanoseconds in found.items():
        print(f"{min(nanoseconds):8.0f} ns  {name}")
    if arguments.json:
        written = {"python": platform.python_version(), "ns_per_call": found}
        arguments.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
