"""The machine: what it is, whether it can play, and how it is held awake."""

import contextlib
import os
import platform
import resource
from collections.abc import Iterator
from pathlib import Path

from bench.edge.peers import FILES, find, said
from bench.edge.stage import LOAD_CPU, PROXY_CPU

NEEDED = ("haproxy", "nginx", "wrk", "taskset")
LATENCY = Path("/dev/cpu_dma_latency")
IDLE = Path("/sys/devices/system/cpu/cpuidle")


def check() -> None:
    """SystemExit with what is missing."""
    missing = [program for program in NEEDED if find(program) is None]
    if missing:
        raise SystemExit(f"needs {', '.join(missing)} (Debian: haproxy, nginx, wrk, util-linux)")
    if not {PROXY_CPU, LOAD_CPU} <= os.sched_getaffinity(0):
        raise SystemExit(f"needs CPUs {PROXY_CPU} and {LOAD_CPU}: one for the proxies, one for load and upstream")


def raise_file_limit() -> None:
    """Let this process and its children have FILES descriptors, or as many as we may."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    for wanted in (FILES, hard):
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, max(wanted, hard)))
            return


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """No CPU sleeps while this lasts (the kernel's PM QoS interface; it ends with the descriptor)."""
    with LATENCY.open("wb", buffering=0) as latency:
        latency.write(bytes(4))
        yield


def facts() -> dict[str, object]:
    """What a reader of the figures wants to know of where they were taken."""
    cpus = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(":")[2].strip() for line in cpus if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cpus": os.cpu_count(),
        "virtual": any("hypervisor" in line for line in cpus if line.startswith("flags")),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "system": platform.freedesktop_os_release().get("PRETTY_NAME", ""),
        "idle_driver": _read(IDLE / "current_driver"),
        "idle_governor": _read(IDLE / "current_governor"),
        "load_average": os.getloadavg()[0],
    }


def tool_versions() -> dict[str, str]:
    """Of what is no proxy."""
    first = said("wrk", "-v").partition("[")[0].strip()
    return {"wrk": first, "python": platform.python_version(), "libc": " ".join(platform.libc_ver())}


def _read(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return ""
