"""The load generator (load.c) compiled and run, and what its histograms say."""

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.edge.load import Ask, head
from bench.edge.processes import Processes

UPLOAD_BYTES = 64 * 1024
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
GRACE_S = 30.0
"""Beyond the seconds it was told, for what is still in flight."""
Histogram = Sequence[tuple[int, int]]
"""(lower bound of a bucket in nanoseconds, how many)"""


@dataclass(frozen=True, slots=True)
class Run:
    """What the generator saw in one measurement."""

    seconds: float
    done: int
    failed: int
    retried: int
    """Sent once more because a kept connection was closed before the first byte of an answer."""
    dialled: int
    late_max_us: int
    """How late the generator itself was at worst."""
    histograms: Mapping[str, Histogram]
    slowest: Sequence[tuple[float, int, str]]
    """(second it was due at, microseconds, kind)"""

    @property
    def per_second(self) -> float:
        return self.done / self.seconds

    def latency_us(self, name: str) -> float:
        """ "p50", "p99" or "p99.9" of all kinds."""
        return quantile_ns(self.histograms.values(), QUANTILES[name]) / 1000


def quantile_ns(histograms: Iterable[Histogram], share: float) -> int:
    """The lower bound of the bucket that holds the value below which `share` of all lie; 0 of nothing."""
    merged: dict[int, int] = {}
    for histogram in histograms:
        for low, count in histogram:
            merged[low] = merged.get(low, 0) + count
    wanted, seen = share * sum(merged.values()), 0
    for low in sorted(merged):
        seen += merged[low]
        if seen >= wanted:
            return low
    return 0


def parse(text: str) -> Run:
    """Its JSON."""
    found: dict[str, Any] = json.loads(text)
    return Run(**found)


def requests() -> bytes:
    """The three requests, each behind its length."""
    small = head(Ask()).encode()
    large = head(Ask(path="/file")).encode()
    upload = head(Ask(path="/upload", upload_bytes=UPLOAD_BYTES)).encode() + b"u" * UPLOAD_BYTES
    return b"".join(b"%d\n%b" % (len(one), one) for one in (small, large, upload))


class Generator:
    """Compiled once a run."""

    def __init__(self, processes: Processes, folder: Path, on_cpu: int, first: Sequence[str]) -> None:
        """`first`: what stands before every command, as a nice value. SystemExit without a compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise SystemExit(
                "the load generator is compiled at the start: needs a C compiler, cc (Debian: gcc, libc6-dev)"
            )
        self._processes, self._folder, self._on_cpu, self._first = processes, folder, on_cpu, first
        self._program = folder / "load"
        source = Path(__file__).with_name("load.c")
        done = subprocess.run(
            [compiler, "-O2", "-o", str(self._program), str(source)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(f"{source} does not compile:\n{done.stderr}")
        (folder / "requests").write_bytes(requests())

    def run(self, port: int, rate: float, seconds: int, connections: int, seed: int) -> Run:
        """Rate 0: closed loop."""
        asked, told = self._folder / "requests", self._folder / "told"
        words = (str(port), f"{rate:.3f}", str(seconds), str(connections), str(seed))
        script = 'asked="$1"; told="$2"; shift 2; exec "$@" < "$asked" > "$told"'
        log = self._folder / "load.log"
        process = self._processes.start(
            self._on_cpu,
            ["sh", "-c", script, "load", str(asked), str(told), *self._first, str(self._program), *words],
            log,
        )
        try:
            code = process.wait(seconds + GRACE_S)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            self._processes.stop(process)
        if code:
            raise SystemExit(f"the load generator ended with {code}: {log.read_text()[-500:]}")
        return parse(told.read_text())
