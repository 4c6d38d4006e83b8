"""Descriptors run out: who comes is refused without the worker spinning, and served again as soon as one is free."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

DESCRIPTORS = 200
CALLERS = 300
LOOKS = 10
"""Of the worker's watch at its own lag, ten a second."""
GET = b"GET /s/200/0 HTTP/1.1\r\nHost: hello.localhost\r\n\r\n"
PATIENCE_S = 20.0


def configuration(toolbox: dict[str, Any], loop: str, port: int) -> dict[str, Any]:
    return {
        "edge": {"workers": 1, "region": "ord", "loop": loop},
        "listeners": [
            {"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "ord"},
            {"bind": f"127.0.0.1:{toolbox['free_port']()}", "region": "fra", "handlers": [], "app": "hello"},
        ],
        "apps": [{"name": "hello", "hostnames": ["hello.localhost"], "instances": [{"address": f"127.0.0.1:{port}"}]}],
    }


@contextlib.contextmanager
def callers(port: int, number: int) -> Iterator[list[socket.socket]]:
    """Connections that say nothing."""
    with contextlib.ExitStack() as held:
        yield [held.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_S)) for _ in range(number)]


def is_served(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_S) as sock:
        sock.sendall(GET)
        return sock.recv(4096).startswith(b"HTTP/1.1 200 ")
    return False


def cpu_s(pid: int) -> float:
    """CPU time a process has had."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def looks(door: Any) -> float:
    return float(sum(door.exposed_sum("flyproxy_event_loop_lag_seconds_count", process="edge").values()))


def refused(door: Any) -> float:
    return float(sum(door.exposed_sum("flyproxy_limit_reached_total", limit="descriptors", process="edge").values()))


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("kind", ["ord", "fra"], ids=["http", "raw"])
async def test_without_descriptors_callers_are_refused_and_nothing_spins(
    kind: str, loop: str, toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    def hoard() -> None:
        assert is_served(port)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with callers(port, CALLERS) as held:
            eventually(lambda: refused(door) > 0)
            used_s, before = cpu_s(pid), looks(door)
            eventually(lambda: looks(door) >= before + LOOKS)
            assert cpu_s(pid) - used_s < 0.5, "a second without a descriptor must not be a second of work"
            for one in held:
                one.settimeout(0)
            gone = sum(is_gone(one) for one in held)
            assert gone >= CALLERS - DESCRIPTORS, "nobody is left waiting in the queue"
        eventually(lambda: is_served(port))
        answers = [is_served(port) for _ in range(20)]
        assert all(answers)

    door = await asyncio.to_thread(start_front_door, configuration(toolbox, loop, scripted_app.port))
    eventually, port = toolbox["eventually"], door.doors[kind]
    (pid,) = door.children("edge_worker")
    await asyncio.to_thread(hoard)
    assert door.children("edge_worker") == [pid]
    assert len(door.log.read_text().splitlines()) < CALLERS + 30, "at most a line for each"


def is_gone(sock: socket.socket) -> bool:
    """Closed by the other side."""
    try:
        return sock.recv(4096) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


async def test_every_process_may_open_as_many_files_as_the_machine_allows(
    toolbox: dict[str, Any], start_front_door: Any, scripted_app: Any
) -> None:
    """A shell's usual bound is a soft one: it is raised to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    try:
        door = await asyncio.to_thread(start_front_door, configuration(toolbox, "uvloop", scripted_app.port))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    for pid in (door.process.pid, *door.children("edge_worker"), *door.children("telemetry")):
        assert resource.prlimit(pid, resource.RLIMIT_NOFILE) == (hard, hard)
