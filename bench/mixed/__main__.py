"""The tail under mixed load, beside HAProxy with a Prometheus: a table, and JSON with raw histograms.

    python -m bench.mixed [--quick] [--rounds 7] [--seconds 15] [--json FILE] [--allow-dirty]

90 % GETs of 623 bytes answered by 1 KiB, 5 % answers of 1 MiB, 3 % uploads of 64 KiB, 2 % GETs on a new connection, at
a constant rate (open loop, load.c), every time counted from when the request was due. The rate is half of what the
slower of the two takes of this mix on one core, measured first, in a closed loop; the faster one is measured at half of
its own as well. In each measurement six panels refresh every 5 s, the configuration is reloaded after a fifth of the
time, and, on flyproxy's side, a target of some 450,000 samples is sealed (preload.py). Prometheus has nothing to seal:
its blocks are cut every two hours, and it has no past to answer from either; both are harder on us. Who runs where:
sides.py.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

from bench.commit import ROOT, changes, commit
from bench.edge import machine
from bench.edge.origin import Origin
from bench.edge.peers import files_max, find
from bench.edge.processes import Processes
from bench.mixed.generator import Generator
from bench.mixed.preload import TARGETS_MAX
from bench.mixed.rounds import Play, Played, capacity, compared, play, table
from bench.mixed.sides import FlyproxySide, HaproxySide, versions

RESULTS = ROOT / "bench" / "results" / "mixed.json"
PROXY_CPU, LOAD_CPU = 0, 1
NEEDED = ("haproxy", "prometheus", "nginx", "cc", "taskset", "nice")
EXIT_INTERRUPTED = 130
NICE = -15


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.mixed", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, help="default 7")
    parser.add_argument("--seconds", type=int, help="of one measurement; default 15, enough for a seal")
    parser.add_argument("--quick", action="store_true", help="to see that it works: 1 round of 12 seconds")
    parser.add_argument("--json", type=Path, default=RESULTS, help="default bench/results/mixed.json")
    parser.add_argument("--allow-dirty", action="store_true", help="measure files that are not committed, and say so")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (1 if asked.quick else 7)
    asked.seconds = asked.seconds or (12 if asked.quick else 15)
    return asked


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure, print, and return what is kept."""
    first = ["nice", "-n", str(NICE)] if os.geteuid() == 0 else []
    os.sched_setaffinity(0, {LOAD_CPU})
    with tempfile.TemporaryDirectory(prefix="flyproxy-mixed-") as name, Processes() as processes:
        folder, cpus = Path(name), (PROXY_CPU, LOAD_CPU)
        generator = Generator(processes, folder, LOAD_CPU, first)
        origin = Origin(processes, folder, LOAD_CPU, files_max())
        if first:
            os.setpriority(os.PRIO_PROCESS, origin.process.pid, NICE)
            children = Path(f"/proc/{origin.process.pid}/task/{origin.process.pid}/children").read_text().split()
            for worker in children:
                os.setpriority(os.PRIO_PROCESS, int(worker), NICE)
        haproxy = HaproxySide(processes, folder / "haproxy", origin.ports, cpus)
        flyproxy = FlyproxySide(processes, folder / "flyproxy", origin.ports, cpus, min(TARGETS_MAX, asked.rounds * 2))
        capacities = {side.name: capacity(generator, side, 3 if asked.quick else 4) for side in (haproxy, flyproxy)}
        rate = min(capacities.values()) / 2
        plays = [Play("haproxy", haproxy, rate), Play("flyproxy", flyproxy, rate)]
        faster = max(plays, key=lambda one: capacities[one.side.name])
        own = capacities[faster.side.name] / 2
        plays.append(Play(f"{faster.name} at half of its own", faster.side, own))
        rounds: dict[str, list[Played]] = {one.name: [] for one in plays}
        reloads = 0
        for number in range(asked.rounds):
            turn = number % len(plays)
            for one in [*plays[turn:], *plays[:turn]]:
                rounds[one.name].append(play(generator, one, asked.seconds, number + 1, reloads))
                reloads += one.side is flyproxy
        print(table(plays, rounds, capacities), flush=True)
        return {
            "commit": commit(),
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "settings": {"rounds": asked.rounds, "seconds": asked.seconds, "nice_of_load": NICE if first else 0},
            "machine": machine.facts(),
            "versions": {**versions(), **machine.tool_versions()},
            "capacities": capacities,
            "rates": {one.name: one.rate for one in plays},
            "compared": [asdict(one) for one in compared(rounds)],
            "rounds": {name: [asdict(one) for one in some] for name, some in rounds.items()},
        }


def main() -> None:
    asked = arguments()
    missing = [program for program in NEEDED if find(program) is None]
    if missing:
        sys.exit(
            f"needs {', '.join(missing)} (Debian: haproxy, prometheus, nginx, gcc and libc6-dev for cc, util-linux)"
        )
    if not {PROXY_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        sys.exit(f"needs CPUs {PROXY_CPU} and {LOAD_CPU}: one for the proxies, one for load and upstream")
    if changes() and not asked.allow_dirty:
        sys.exit("files are not as committed (--allow-dirty measures them all the same):\n" + "\n".join(changes()))
    machine.raise_file_limit()
    signal.signal(signal.SIGTERM, _leave)
    try:
        found = run(asked)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(found, separators=(",", ":")) + "\n")
    print(f"raw histograms: {asked.json}")


def _leave(number: int, frame: FrameType | None) -> None:
    """End as ^C does: with everything that was started."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
