"""Connections that end at random points, thousands of them: does the worker live, does every descriptor return, does a
byte of one connection ever reach another?

    python -m bench.churn [--connections 100000] [--loop uvloop | asyncio] [--seed N]

Clients send, half-close, close and reset at random points of requests, uploads, answers, tunnels and raw connections,
with bodies below and above what is spliced; instances do the same with their answers. At the end the same worker must
be there, hold as many descriptors as before, owe nobody anything, and the front door must leave with 0. Says what does
not hold and exits with 1. Needs nothing but flyproxy.

Why: uvloop 0.22 and 0.23 abort the process when a transport's `write_eof()` meets connection churn, within a few
hundred half-closed connections; and a pipe that is handed on with bytes in it would hand them on too.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench.churn_peers import Instances, Visitors
from bench.churn_plan import draw
from bench.edge.processes import free_ports
from bench.soak_stage import SAMPLE
from flyproxy.edge.pipes import PIPES_IDLE_MAX

AT_ONCE = 200
WAIT_S = 30.0
PIPE_ENDS_MAX = 2 * PIPES_IDLE_MAX + 4
"""The edge's, and those of its loop."""
SAID_MAX = 10
"""Faults that are printed."""


class FrontDoor:
    """A `flyproxy run` with one worker, an HTTP door and a raw one, over one instance."""

    def __init__(self, folder: Path, loop: str, app_port: int) -> None:
        self.http, self.raw, telemetry = free_ports(3)
        self._base = f"http://127.0.0.1:{telemetry}"
        self.log = folder / "log.txt"
        bind = "127.0.0.1:%d"
        config = {
            "edge": {"workers": 1, "region": "ord", "loop": loop, "access_log": "off"},
            "listeners": [{"bind": bind % self.http}, {"bind": bind % self.raw, "handlers": [], "app": "churn"}],
            "apps": [{"name": "churn", "hostnames": ["churn.test"], "instances": [{"address": bind % app_port}]}],
            "timeouts": {"idle": "2s", "head": "5s", "body": "5s", "write": "5s", "drain": "2s"},
            "telemetry": {"bind": bind % telemetry, "data_dir": str(folder / "data")},
        }
        file = folder / "flyproxy.yaml"
        file.write_text(json.dumps(config))  # YAML reads JSON
        with self.log.open("wb") as output:
            command = [sys.executable, "-m", "flyproxy", "run", "-c", str(file)]
            self.process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)

    def worker(self) -> int:
        """Its only worker's pid. The kernel's list of children may miss some while others come and go."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            for pid in listed.read_text().split():
                with contextlib.suppress(OSError):
                    if b"edge_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        return int(pid)
            time.sleep(0.05)
        return 0

    def ready(self) -> bool:
        with urllib.request.urlopen(f"{self._base}/-/ready", timeout=WAIT_S) as answer:
            return bool(answer.status == 200)

    def sums(self, *names: str) -> list[float]:
        """Sums of these families on /metrics."""
        totals = dict.fromkeys(names, 0.0)
        with urllib.request.urlopen(f"{self._base}/metrics", timeout=WAIT_S) as answer:
            for line in answer.read().decode().splitlines():
                found = SAMPLE.fullmatch(line)
                if found is not None and found[1] in totals:
                    totals[found[1]] += float(found[3])
        return list(totals.values())

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


async def until(check: Callable[[], bool], what: str, wrong: list[str]) -> None:
    """Wait for it, or note that it did not come."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        try:
            if await asyncio.to_thread(check):
                return
        except (OSError, ValueError):
            pass
        await asyncio.sleep(0.05)
    wrong.append(f"not within {WAIT_S:.0f} s: {what}")


async def churn(folder: Path, loop: str, connections: int, seed: int) -> list[str]:
    """One run; what does not hold."""
    instances = Instances()
    serving = asyncio.create_task(instances.serve())
    door = FrontDoor(folder, loop, instances.port)
    wrong: list[str] = []
    try:
        await until(door.ready, "the front door is ready", wrong)
        worker = door.worker()
        visitors = Visitors(door.http, door.raw)
        await knock(door.http, door.raw)
        await until(lambda: door.sums("fly_edge_tcp_disconnects_count") == [2], "both doors are open", wrong)
        before, _ = descriptors(worker)
        begun = time.monotonic()
        await visit_all(visitors, connections, random.Random(seed))
        print(f"{loop}: {connections} connections in {time.monotonic() - begun:.1f} s: {dict(visitors.counted)}")
        wrong += visitors.wrong + instances.wrong
        if door.worker() != worker:
            return [*wrong, "the worker died"]
        await until(lambda: is_as_before(worker, before), f"{before} descriptors as before, and a few pipes", wrong)
        await until(
            lambda: is_settled(door), "as many connections have ended as have begun, nothing is in flight", wrong
        )
        after = Visitors(door.http, door.raw)
        await visit_all(after, 50, random.Random(seed), tame=True)
        wrong += after.wrong
        if after.counted["whole"] != 50:
            wrong.append(f"afterwards: {dict(after.counted)}")
        if door.worker() != worker:
            wrong.append("the worker died afterwards")
    finally:
        code = await asyncio.to_thread(door.stop)
        serving.cancel()
        await instances.close()
    if code:
        wrong.append(f"the front door left with {code}")
    if "Traceback" in (said := door.log.read_text()):
        wrong.append(said)
    return wrong


def descriptors(pid: int) -> tuple[int, int]:
    """How many a process has open; of those, ends of pipes are counted apart."""
    folder = f"/proc/{pid}/fd"
    targets = [os.readlink(f"{folder}/{name}") for name in os.listdir(folder)]
    pipes = sum(target.startswith("pipe:") for target in targets)
    return len(targets) - pipes, pipes


def is_as_before(pid: int, before: int) -> bool:
    """Empty pipes may be kept for the next who needs one, so many and no more."""
    others, pipes = descriptors(pid)
    return others <= before and pipes <= PIPE_ENDS_MAX


async def knock(*ports: int) -> None:
    """Connect, and leave."""
    for port in ports:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()


def is_settled(door: FrontDoor) -> bool:
    """Nobody is owed anything."""
    connects, disconnects, in_flight = door.sums(
        "fly_edge_tcp_connects_count", "fly_edge_tcp_disconnects_count", "fly_app_concurrency"
    )
    dialled, hung_up = door.sums("fly_app_tcp_connects_count", "fly_app_tcp_disconnects_count")
    return connects == disconnects and in_flight == 0 and dialled == hung_up


async def visit_all(visitors: Visitors, connections: int, dice: random.Random, *, tame: bool = False) -> None:
    """Live through so many plans, AT_ONCE at a time; `tame`: only such as must succeed."""
    number = 0

    async def visit_on() -> None:
        nonlocal number
        while number < connections:
            plan = draw(number, dice)
            if tame and not plan.tame:
                continue
            number += 1
            await visitors.visit(plan)

    await asyncio.gather(*(visit_on() for _ in range(min(AT_ONCE, connections))))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--loop", choices=("uvloop", "asyncio"), default="uvloop", help="the front door's")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}")
    with tempfile.TemporaryDirectory() as folder, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        wrong = runner.run(churn(Path(folder), arguments.loop, arguments.connections, arguments.seed))
    for fault in wrong[:SAID_MAX]:
        print(fault)
    print(f"{len(wrong)} faults" if wrong else "everything holds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
