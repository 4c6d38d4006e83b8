"""Every benchmark, one after the other: the table each one prints, and its raw rounds as JSON under bench/results/.

    python -m bench.run_all [NAME ...]

`edge` is by far the longest; `make bench-edge` runs it alone. Each JSON says which commit and which machine it came
from; with uncommitted changes it says so too. Figures of different runs are not to be compared: each benchmark
measures its peers in the same run.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from bench.commit import ROOT, commit

BENCHMARKS: dict[str, tuple[str, tuple[str, ...]]] = {
    "edge": ("-m bench.edge --allow-dirty", ("haproxy", "nginx", "wrk", "taskset")),
    "http1": ("bench/http1_parse.py", ()),
    "instrument": ("bench/instrument_record.py", ()),
    "store": ("bench/store_append.py", ()),
    "density": ("bench/store_density.py", ()),
    "recovery": ("bench/recovery.py", ()),
}
"""Name: what Python runs, and the outside programs it needs."""


def run(name: str, results: Path) -> bool:
    """Whether it ran to its end."""
    program, needs = BENCHMARKS[name]
    missing = [need for need in needs if shutil.which(need) is None]
    print(f"\n== {name} ({program})", flush=True)
    if missing:
        print(f"left out: needs {', '.join(missing)}, which is not installed")
        return True
    raw = results / f"{name}.json"
    done = subprocess.run([sys.executable, *program.split(), "--json", str(raw)], cwd=ROOT, check=False)
    if done.returncode:
        return False
    found = json.loads(raw.read_text())
    if "commit" in found:
        return True  # it says all of that itself
    about = {
        "commit": commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    raw.write_text(json.dumps({**about, "figures": found}, indent=1))
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS))
    names = parser.parse_args().names or list(BENCHMARKS)
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    failed = [name for name in names if not run(name, results)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
