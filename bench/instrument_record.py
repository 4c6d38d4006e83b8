"""What counting costs on the request's way: the verbs, and the fold that follows them.

    python bench/instrument_record.py [--turn 20] [--json FILE]

A turn of the event loop serves several requests and folds once: `--turn` says how many (bench/edge measures it), and
the cost of a request is what it calls and its share of that fold. Prints nanoseconds of CPU per call, the best of
several rounds (noise only ever adds).
"""

import argparse
import importlib
import json
import platform
import tempfile
import time
import timeit
from collections.abc import Callable
from pathlib import Path

from flyproxy import extension
from flyproxy.instrument.cells import Segment
from flyproxy.instrument.recorder import EdgeRecorder, InstanceRecorder, Recorder

CALLS = 100_000
ROUNDS = 7
TURN = 20
STATUS, TIME_NS, INSTANCE_NS = 200, 2_345_678, 2_000_000
IN_BYTES, OUT_BYTES, TO_INSTANCE_BYTES, FROM_INSTANCE_BYTES = 623, 1300, 900, 1250


def empty() -> None:
    """What a call costs by itself: taken off the verbs' figures."""


def measure(directory: Path, turn: int) -> dict[str, list[float]]:
    """Nanoseconds per call and round, by what was called."""
    recorder = Recorder(Segment.create(str(directory / "bench.cells"), 0), proxy_id="blue")
    edge = recorder.edge("hello", "personal", "ord", "2bc3")
    instance = recorder.instance("hello", "personal", "ord", "2bc3", "3d8d9e27b24e89")
    works: dict[str, Callable[[], None]] = {
        "empty call": empty,
        "edge.response + instance.response": lambda: responses(edge, instance),
        "a request in one call (exchanged)": lambda: request(edge, instance),
        "a request in one call + fold": lambda: folded(recorder, edge, instance),
    }
    found = {name: rounds(work) for name, work in works.items()}
    found[f"a request of a turn of {turn}, with its share of the fold"] = per_request(recorder, edge, instance, turn)
    return found


def responses(edge: EdgeRecorder, instance: InstanceRecorder) -> None:
    edge.response(STATUS, TIME_NS, IN_BYTES, OUT_BYTES)
    instance.response(STATUS, INSTANCE_NS)


def exchanged() -> Callable[..., object]:
    """As the path in use counts a request."""
    if extension.is_used():
        return importlib.import_module("flyproxy.instrument.typed").exchanged  # type: ignore[no-any-return]
    return EdgeRecorder.exchanged


EXCHANGED = exchanged()


def request(edge: EdgeRecorder, instance: InstanceRecorder) -> None:
    """What the edge calls of an ordinary request (edge/lane.py)."""
    instance.in_flight += 1
    if not instance.dirty:
        instance.mark()
    EXCHANGED(edge, instance, STATUS, TIME_NS, INSTANCE_NS, IN_BYTES, OUT_BYTES, TO_INSTANCE_BYTES, FROM_INSTANCE_BYTES)


def folded(recorder: Recorder, edge: EdgeRecorder, instance: InstanceRecorder) -> None:
    request(edge, instance)
    recorder.fold()


def per_request(recorder: Recorder, edge: EdgeRecorder, instance: InstanceRecorder, turn: int) -> list[float]:
    """Nanoseconds of counting per request, when so many are counted and then folded; calling `request` taken off."""

    def counted() -> None:
        for _ in range(turn):
            request(edge, instance)
        recorder.fold()

    def idle() -> None:
        for _ in range(turn):
            nothing(edge, instance)
        empty()

    turns = CALLS // turn
    taken, spent = (
        timeit.repeat(work, timer=time.process_time, number=turns, repeat=ROUNDS) for work in (counted, idle)
    )
    return [(one - other) / (turns * turn) * 1e9 for one, other in zip(taken, spent, strict=True)]


def nothing(edge: EdgeRecorder, instance: InstanceRecorder) -> None:
    """A call like `request` that counts nothing."""


def rounds(work: Callable[[], None]) -> list[float]:
    return [
        seconds / CALLS * 1e9 for seconds in timeit.repeat(work, timer=time.process_time, number=CALLS, repeat=ROUNDS)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turn", type=int, default=TURN, help="requests that one fold serves")
    parser.add_argument("--json", type=Path, help="write the raw rounds there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        found = measure(Path(directory), max(1, arguments.turn))
    for name, nanoseconds in found.items():
        print(f"{min(nanoseconds):8.0f} ns  {name}")
    if arguments.json:
        written = {"python": platform.python_version(), "turn": arguments.turn, "ns_per_call": found}
        arguments.json.write_text(json.dumps(written, indent=1))


if __name__ == "__main__":
    main()
