"""Where it is played: the folder, the upstream, who runs on which CPU; and one measurement of one proxy."""

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.edge.load import Ask, Asked, wrk
from bench.edge.origin import Origin
from bench.edge.peers import Flyproxy, Peer, Place, Running, Scene, files_max
from bench.edge.processes import Cpu, Processes, cpu, cpu_busy_s, free_ports
from bench.edge.remembered import WATCHED

PROXY_CPU, LOAD_CPU = 0, 1


@dataclass(frozen=True, slots=True)
class Sample:
    """One proxy in one round. What a workload does not look at is 0."""

    requests: int = 0
    """Or connections."""
    bytes: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    """Of the proxy's whole process tree: user_s and system_s."""
    user_s: float = 0.0
    system_s: float = 0.0
    others_s: float = 0.0
    """What others used of the proxy's CPU meanwhile: a quiet machine has next to nothing here."""
    failed: int = 0
    p50_us: int = 0
    p99_us: int = 0
    memory_bytes: int = 0
    """By how much its memory grew."""


class Stage:
    """One run of the benchmark."""

    def __init__(self, processes: Processes, folder: Path, seconds: int) -> None:
        """`seconds`: of load in one measurement."""
        self._processes = processes
        self._folder = folder
        self._names = itertools.count()
        self._runs = itertools.count(1)
        self._requests_per_fold: dict[str, int] = {}
        self.seconds = seconds
        self._origin = Origin(processes, folder, LOAD_CPU, files_max())

    def start(self, peer: Peer, scene: Scene) -> Running:
        (port,) = free_ports(1)
        folder = self._folder / f"{next(self._names)}-{peer.program.rpartition('/')[2]}"
        return peer.start(self._processes, scene, Place(folder, port, self._origin.ports), PROXY_CPU)

    def stop(self, *running: Running) -> None:
        self._processes.stop(*(one.process for one in running if one.process is not None))

    def load(self, running: Running, ask: Ask, seconds: int | None = None) -> Asked:
        """Ask by wrk."""
        return wrk(self._folder, running.port, ask, seconds or self.seconds, next(self._runs), LOAD_CPU)

    def watched(self, peer: Flyproxy, scene: Scene, ask: Ask, what: str) -> dict[str, Any]:
        """What a worker like this leaves behind when it was looked at under this load: "lines" or "folds"."""
        running = self.start(peer.watching(what), scene)
        requests = self.load(running, ask).requests
        self.stop(running)
        return {"asked": requests, **json.loads((running.folder / WATCHED).read_text())}

    def requests_per_fold(self, running: Running) -> int:
        """How many requests one turn of the worker's loop serves under W1; looked at once for each kind of worker."""
        peer = running.peer
        assert isinstance(peer, Flyproxy)
        if peer.name not in self._requests_per_fold:
            found = self.watched(peer, Scene(), Ask(), "folds")
            self._requests_per_fold[peer.name] = max(1, round(found["asked"] / found["folds"]))
        return self._requests_per_fold[peer.name]

    def measured(self, running: Running, work: Callable[[], Asked]) -> Sample:
        """What the proxy used while `work` was done."""
        pids = running.pids()
        before, busy = cpu(pids), cpu_busy_s(PROXY_CPU)
        asked = work()
        used, busy = cpu(pids).since(before), cpu_busy_s(PROXY_CPU) - busy
        return sample(asked, used, busy)


def sample(asked: Asked, used: Cpu, busy_s: float) -> Sample:
    """What was asked, and what it took."""
    return Sample(
        requests=asked.requests,
        bytes=asked.bytes,
        seconds=asked.seconds,
        cpu_s=used.total_s,
        user_s=used.user_s,
        system_s=used.system_s,
        others_s=max(0.0, busy_s - used.total_s),
        failed=asked.failed,
        p50_us=asked.p50_us,
        p99_us=asked.p99_us,
    )
