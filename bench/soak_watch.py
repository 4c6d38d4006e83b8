"""What the soak looks at every few seconds, and what it calls flat."""

import os
import sqlite3
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

MIB = 1 << 20
KINDS = {"edge_worker": "edge", "telemetry": "telemetry", "query_worker": "query"}
"""What a child's command line says, and what it is called here."""


class Tolerance(NamedTuple):
    """How much a quantity's fitted line may grow over the judged part: the larger of the two."""

    share: float
    """Of the line's start."""
    amount: float


TOLERANCES = {
    "memory": Tolerance(0.05, 8 * MIB),
    "fds": Tolerance(0.0, 2),
    "threads": Tolerance(0.0, 1),
    "frames": Tolerance(0.10, 4),
    "log_rows": Tolerance(0.10, 500),
    "file_bytes": Tolerance(0.05, MIB),
    "segments": Tolerance(0.0, 1),
    "segment_bytes": Tolerance(0.05, MIB),
}
"""By the first word of a quantity's name. Frames come and go with the app that does: a tenth is their ripple."""


@dataclass
class History:
    """Samples of everything, by name."""

    at_s: list[float] = field(default_factory=list)
    """Since the soak began."""
    values: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """"memory telemetry": private bytes of all processes of a kind; "file_bytes": the store with its log; ..."""

    def add(self, at_s: float, sample: dict[str, float]) -> None:
        """One look. A quantity seen for the first time was 0 until now."""
        for name in sample.keys() | self.values.keys():
            self.values[name] += [0.0] * (len(self.at_s) - len(self.values[name])) + [sample.get(name, 0.0)]
        self.at_s.append(at_s)


class Verdict(NamedTuple):
    """One quantity, judged."""

    name: str
    begun: float
    """Where the fitted line starts."""
    ended: float
    allowed: float
    """Growth that still counts as flat."""

    @property
    def flat(self) -> bool:
        return self.ended - self.begun <= self.allowed


def verdicts(history: History, from_s: float) -> list[Verdict]:
    """Every quantity that has a tolerance, by a straight line through its samples since `from_s`."""
    at_s = np.array(history.at_s)
    judged = at_s >= from_s
    found = []
    for name, values in sorted(history.values.items()):
        tolerance = TOLERANCES.get(name.partition(" ")[0])
        if tolerance is None or np.count_nonzero(judged) < 3:
            continue
        slope, offset = np.polyfit(at_s[judged], np.array(values)[judged], 1)
        begun, ended = (float(slope * at + offset) for at in (at_s[judged][0], at_s[judged][-1]))
        found.append(Verdict(name, begun, ended, max(tolerance.share * begun, tolerance.amount)))
    return found


def processes(supervisor: int) -> dict[str, list[int]]:
    """Pids of the front door, by kind."""
    found: dict[str, list[int]] = {"supervisor": [supervisor]}
    with suppress(OSError):
        for pid in Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split():
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_text()
                kind = next((kind for word, kind in KINDS.items() if f"flyproxy.runtime.{word}" in words), None)
                if kind is not None:
                    found.setdefault(kind, []).append(int(pid))
    return found


def of_processes(supervisor: int) -> dict[str, float]:
    """Private memory and Pss (bytes), file descriptors and threads, summed over the processes of each kind."""
    sums: defaultdict[str, float] = defaultdict(float)
    for kind, pids in processes(supervisor).items():
        for pid in pids:
            with suppress(OSError):
                rollup = dict(
                    line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
                )
                kib = {name: int(text.split()[0]) for name, text in rollup.items()}
                sums[f"memory {kind}"] += (kib["Private_Clean"] + kib["Private_Dirty"]) * 1024
                sums[f"pss {kind}"] += kib["Pss"] * 1024
                sums[f"fds {kind}"] += len(os.listdir(f"/proc/{pid}/fd"))
                sums[f"threads {kind}"] += len(os.listdir(f"/proc/{pid}/task"))
    return dict(sums)


def of_store(database: Path) -> dict[str, float]:
    """Bytes on the disk with the write-ahead log, frames, rows of the log, and chunks."""
    found = {"file_bytes": 0.0}
    for suffix in ("", "-wal", "-shm"):
        with suppress(OSError):
            found["file_bytes"] += Path(f"{database}{suffix}").stat().st_size
    with suppress(OSError):
        found["wal_bytes"] = float(Path(f"{database}-wal").stat().st_size)
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        for name, table in (("frames", "frames"), ("log_rows", "log"), ("chunks", "chunks")):
            with suppress(sqlite3.Error):
                found[name] = float(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
    return found


def of_segments(supervisor: int) -> dict[str, float]:
    """The front door's shared memory: how many segments telemetry has mapped, and the bytes they take."""
    paths: set[str] = set()
    for pid in processes(supervisor).get("telemetry", []):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
            paths.update(line.split(maxsplit=5)[-1] for line in lines if line.endswith(".cells"))
    sizes = []
    for path in paths:
        with suppress(OSError):
            sizes.append(os.stat(path).st_blocks * 512)
    return {"segments": float(len(sizes)), "segment_bytes": float(sum(sizes))}
