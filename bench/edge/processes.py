"""Processes that are measured: started on one CPU, their CPU time and memory with all their children, ended for sure.

CPU time comes from each process' CPU clock (clock_getcpuclockid(3)): nanoseconds, threads that ended included. How much
of it was the kernel's is in /proc/<pid>/stat, in ticks of 10 ms, which the kernel scales to the same sum.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STOP_S = 5.0
"""How long a process may take to end before it is killed."""
START_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).parent.parent.parent
_SCHEDULER_CLOCK = 2


@dataclass(frozen=True, slots=True)
class Cpu:
    """Seconds of CPU a process tree has used."""

    total_s: float
    user_s: float
    system_s: float

    def since(self, before: "Cpu") -> "Cpu":
        """What was used since then; the kernel's share taken from the ticks."""
        total = self.total_s - before.total_s
        user, system = self.user_s - before.user_s, self.system_s - before.system_s
        share = system / (user + system) if user + system > 0 else 0.0
        return Cpu(total, total * (1 - share), total * share)


def tree(pid: int) -> list[int]:
    """A process and all its descendants that run now."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            for child in (task / "children").read_text().split():
                with contextlib.suppress(FileNotFoundError):
                    found += tree(int(child))
    return found


def cpu(pids: Sequence[int]) -> Cpu:
    """What these processes have used so far."""
    nanoseconds, user, system = 0, 0, 0
    for pid in pids:
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            nanoseconds += time.clock_gettime_ns((~pid << 3) | _SCHEDULER_CLOCK)
            user, system = user + int(fields[11]), system + int(fields[12])
    return Cpu(nanoseconds / 1e9, user / TICKS, system / TICKS)


def memory_bytes(pids: Sequence[int]) -> int:
    """Their proportional set size: shared pages are counted once."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def cpu_busy_s(number: int) -> float:
    """Seconds one CPU has not been idle, whoever used it, another guest of the machine included."""
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith(f"cpu{number} "):
            user, nice, system, _, _, irq, softirq, steal = (int(field) for field in line.split()[1:9])
            return (user + nice + system + irq + softirq + steal) / TICKS
    raise SystemExit(f"there is no CPU {number}")


def free_ports(count: int) -> list[int]:
    """Ports of this machine nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    for sock in sockets:
        sock.bind(("127.0.0.1", 0))
    ports = [int(sock.getsockname()[1]) for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


class Processes:
    """Everything that was started and has to end; a context manager."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(*self._running)

    def start(
        self, on_cpu: int, command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        """Run it on one CPU, in a session of its own; what it says on standard error goes to `log`."""
        with log.open("wb") as errors:
            process = subprocess.Popen(
                ["taskset", "-c", str(on_cpu), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                start_new_session=True,
            )
        self._running.append(process)
        return process

    def stop(self, *processes: "subprocess.Popen[bytes]") -> None:
        """End these and their children, and return when they have ended: asked first, killed after STOP_S."""
        with contextlib.ExitStack() as files:
            ends = [end for process in processes for pid in _living(process) for end in _ends(pid, files)]
            for process in processes:
                _signal(process, signal.SIGTERM)
            deadline = time.monotonic() + STOP_S
            for process in processes:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what is left of its session
                process.wait()
            for end in ends:
                end.poll(STOP_S * 1000)
        self._running = [process for process in self._running if process not in processes]


def _living(process: "subprocess.Popen[bytes]") -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return tree(process.pid) if process.poll() is None else []
    return []


def _ends(pid: int, files: contextlib.ExitStack) -> list[select.poll]:
    """Something that polls readable when the process has ended, whoever waits for it; nothing if it has already."""
    with contextlib.suppress(ProcessLookupError):
        file = os.pidfd_open(pid)
        files.callback(os.close, file)
        poll = select.poll()
        poll.register(file, select.POLLIN)
        return [poll]
    return []


def _signal(process: "subprocess.Popen[bytes]", number: int) -> None:
    if process.poll() is None:
        process.send_signal(number)


def wait_for(port: int, process: "subprocess.Popen[bytes]", log: Path, host: str = "localhost") -> None:
    """Until it answers a GET for that host with a 200; SystemExit with its last words when it does not."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            if _answers(port, host):
                return
        time.sleep(0.05)
    words = log.read_text(errors="replace").strip()[-2000:]
    raise SystemExit(f"{process.args!r}: nothing answers on port {port}\n{words}")


def _answers(port: int, host: str) -> bool:
    with socket.create_connection(("127.0.0.1", port), 1) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        return sock.recv(64).startswith(b"HTTP/1.1 200 ")
