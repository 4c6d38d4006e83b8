"""Reads this machine: /proc, and how full its filesystems are.

What it must do: never wait for long, whatever the machine has mounted. Files of /proc answer at once; statvfs may not
answer at all, even of a local filesystem when the path to it leads over a dead one. So only that has a thread of its
own, a daemon that a process can leave behind; whoever reads waits DEADLINE_S for it, and while it is stuck does not
wait again: fly_instance_filesystem_* pauses until it is back, everything else goes on.
"""

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from flyproxy.instrument import procfs
from flyproxy.instrument.procfs import Mount, Reading
from flyproxy.series.labels import Labels

CPUS_MAX = 64
DISKS_MAX = 32
INTERFACES_MAX = 32
MOUNTS_MAX = 32
DEADLINE_S = 0.5

Measure = Callable[[str], os.statvfs_result | None]
"""How full the filesystem at a path is; None: it is no directory."""


@dataclass(slots=True)
class _Question:
    """One look at the filesystems."""

    mounts: list[Mount]
    answered: threading.Event = field(default_factory=threading.Event)
    readings: list[Reading] = field(default_factory=list)


class HostReader:
    """`read` is for one thread at a time, and not the one of an event loop."""

    def __init__(
        self,
        limit_reached: Callable[[str], None],
        *,
        proc: str = "/proc",
        measure: Measure | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        self._limit_reached = limit_reached
        self._proc = proc
        self._measure = measure or statvfs_of_directory
        self._deadline_s = deadline_s
        self._ticks = os.sysconf("SC_CLK_TCK")
        self._cpu: dict[Labels, float] = {}
        self._asked: _Question | None = None
        """Not answered in time."""

    def read(self) -> list[Reading]:
        """Everything the machine says now; what it does not say is left out."""
        processors = procfs.held(procfs.cpu(self._text("stat"), self._ticks), self._cpu)
        self._cpu = procfs.by_labels(processors)
        disks, interfaces = procfs.disks(self._text("diskstats")), procfs.interfaces(self._text("net/dev"))
        return [
            *procfs.memory(self._text("meminfo")),
            *procfs.memory_pressure(self._text("pressure/memory")),
            *procfs.load_average(self._text("loadavg")),
            *self._bounded(processors, "cpu_id", CPUS_MAX, "host_cpus"),
            *self._bounded(disks, "device", DISKS_MAX, "host_disks"),
            *self._bounded(interfaces, "device", INTERFACES_MAX, "host_interfaces"),
            *procfs.open_files(self._text("sys/fs/file-nr")),
            *self._bounded(self._filesystems(), "mount", MOUNTS_MAX, "host_mounts"),
            *procfs.uptime(self._text("uptime")),
        ]

    def _text(self, name: str) -> str:
        """A file of /proc; "" where there is none, or the kernel was told not to offer it."""
        try:
            with open(os.path.join(self._proc, name), encoding="utf-8", errors="surrogateescape") as file:
                return file.read()
        except OSError:
            return ""

    def _bounded(self, readings: list[Reading], label: str, most: int, limit: str) -> list[Reading]:
        kept = procfs.first_few(readings, label, most)
        if kept is not readings:
            self._limit_reached(limit)
        return kept

    def _filesystems(self) -> list[Reading]:
        question = self._asked
        if question is not None and not question.answered.is_set():
            self._limit_reached("host_filesystem_time")
            return []
        question = self._asked = _Question(procfs.local_mounts(self._text("self/mounts")))
        threading.Thread(target=self._answer, args=(question,), name="filesystems", daemon=True).start()
        if not question.answered.wait(self._deadline_s):
            self._limit_reached("host_filesystem_time")
            return []
        return question.readings

    def _answer(self, question: _Question) -> None:
        seen: set[str] = set()
        try:
            for mount in question.mounts:
                if mount.device not in seen and len(seen) <= MOUNTS_MAX:
                    question.readings += self._measured(mount, seen)
        finally:
            question.answered.set()

    def _measured(self, mount: Mount, seen: set[str]) -> list[Reading]:
        with contextlib.suppress(OSError):
            found = self._measure(mount.path)
            if found is not None and found.f_blocks:
                seen.add(mount.device)
                return procfs.filesystem(mount.path, found.f_blocks, found.f_frsize, found.f_bfree, found.f_bavail)
        return []


def statvfs_of_directory(path: str) -> os.statvfs_result | None:
    """None for a file: containers have single files of the machine's disk bound into them."""
    return os.statvfs(path) if os.path.isdir(path) else None
